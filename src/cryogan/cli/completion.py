"""`cryogan completion`: what a shell needs to complete commands and options."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import cryogan
from cryogan.cli import COMMANDS
from cryogan.cli.parser import CommandParser

_HELP = ("--help", "--help-all")

_BASH = """\
# Completion of cryogan {version} in bash; to be read in ~/.bashrc.
_cryogan() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if [[ $COMP_CWORD -eq 1 ]]; then
        words={commands}
    elif [[ $word == -* ]]; then
        case "${{COMP_WORDS[1]}}" in
{options}
        esac
    else
        case "${{COMP_WORDS[1]}} ${{COMP_WORDS[COMP_CWORD-1]}}" in
{choices}
        esac
    fi
    COMPREPLY=()
    if [[ -n $words ]]; then
        COMPREPLY=($(compgen -W "$words" -- "$word"))
    fi
}}
complete -o bashdefault -o default -F _cryogan cryogan
"""

_ZSH = """\
#compdef cryogan
# Completion of cryogan {version} in zsh; to be read in ~/.zshrc after compinit.
_cryogan() {{
    local -a described found
    if (( CURRENT == 2 )); then
        described=({commands})
        _describe command described
        return
    fi
    if [[ $words[CURRENT] == -* ]]; then
        case $words[2] in
{options}
        esac
    else
        case "$words[2] $words[CURRENT-1]" in
{choices}
        esac
    fi
    if (( $#found )); then
        compadd -a found
    else
        _files
    fi
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _cryogan "$@"
else
    compdef _cryogan cryogan
fi
"""


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "completion",
        "Print what a shell needs to complete commands, options and their values with the Tab key. "
        "Write it to a file once, and read that in ~/.bashrc: . ~/.cryogan-completion",
        "cryogan completion bash > ~/.cryogan-completion",
    )
    parser.add_argument("shell", choices=["bash", "zsh"], help="bash or zsh")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command."""
    options = make_parser().given(arguments)
    print(completion(options.shell), end="")
    return 0


def completion(shell: str) -> str:
    """The script of a shell: "bash" or "zsh"."""
    parsers = {name: import_module(f"cryogan.cli.{name}").make_parser() for name in COMMANDS}
    options = {name: _options(parser) for name, parser in parsers.items()}
    choices = {
        f"{name} {option}": values
        for name, parser in parsers.items()
        for option, values in _choices(parser).items()
    }
    if shell == "bash":
        return _BASH.format(
            version=cryogan.__version__,
            commands=shlex.quote(" ".join([*COMMANDS, *_HELP, "--version"])),
            options=_cases(options, lambda words: f"words={shlex.quote(' '.join(words))}"),
            choices=_cases(choices, lambda words: f"words={shlex.quote(' '.join(words))}"),
        )
    return _ZSH.format(
        version=cryogan.__version__,
        commands=" ".join(shlex.quote(f"{name}:{what}") for name, what in COMMANDS.items()),
        options=_cases(options, lambda words: f"found=({shlex.join(words)})"),
        choices=_cases(choices, lambda words: f"found=({shlex.join(words)})"),
    )


def _options(parser: Any) -> list[str]:
    """Of a command; a group of settings, such as --likelihood, is none by itself."""
    names = {name for action in parser._actions for name in action.option_strings}
    groups = {name.rpartition(".")[0] for name in names if "." in name}
    return sorted(names - groups | set(_HELP))


def _choices(parser: Any) -> dict[str, list[str]]:
    return {
        name: [str(value) for value in action.choices]
        for action in parser._actions
        for name in action.option_strings
        if isinstance(action.choices, list | tuple)
    }


def _cases(found: Mapping[str, Sequence[str]], say: Callable[[Sequence[str]], str]) -> str:
    return "\n".join(
        f"            {shlex.quote(name)}) {say(words)} ;;" for name, words in found.items()
    )
