"""The parser of a command: short help, the whole help, and errors in one sentence."""

import difflib
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from cryogan.errors import InputError
from cryogan.io.yaml_files import CHECKED_YAML

_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "tuple": "a list in brackets, in quotes, such as '[1, 2]'",
    "dict": "names and values in braces, in quotes, such as '{batch_size: 100}'",
    "Linker": "names and values in braces, in quotes",
    "Parts": "names and values in braces, in quotes, such as '{count: 2, states: [[1], [1, 2]]}'",
    "NoneType": "null",
}
OLD_GROUPS = {"training": "adversarial", "ascent": "likelihood"}
RENAMED = {
    "--invert": "--sign (yes: dark, no: bright)",
    "--shift-percent": "--max-shift (5% of the box, or a number in Å)",
    "--training.shift_percent": "--max-shift (5% of the box, or a number in Å)",
    "--ascent.shift_percent": "--max-shift (5% of the box, or a number in Å)",
    "--training.symmetry": "--sym",
    "--ascent.symmetry": "--sym",
    "--training.mask_radius": "--diameter (of the particle, in Å)",
    "--ascent.mask_radius": "--diameter (of the particle, in Å)",
    "--training.mask_edge": "--mask-edge",
    "--ascent.mask_edge": "--mask-edge",
    "--training.view_sigma": "--view-sigma",
    "--training.latent": "--latent",
    "--ascent.latent": "--latent",
    "--training.classes": "--classes",
    "--ascent.classes": "--classes",
    "--training.basis": "--basis-volumes",
    "--ascent.basis": "--basis-volumes",
    "--training.generator": "--model, or --adversarial.volume_model (subspace, unet)",
    "--ascent.generator": "--model",
    "--training.settled_fsc": "--adversarial.converged_fsc",
    "--training.basis_start": "--adversarial.basis_noise",
    "--ascent.subset": "--likelihood.subset_size",
    "--ascent.full_passes": "--likelihood.full_iterations",
    "--ascent.conformation_passes": "--likelihood.conformation_iterations",
    "--ascent.starts": "--likelihood.initialisations",
    "--ascent.climb_rings": "--likelihood.initial_rings",
    "--ascent.climb_steps": "--likelihood.initial_batches",
    "--ascent.climb_images": "--likelihood.initial_batch_size",
    "--ascent.climb_nats": "--likelihood.annealing",
    "--ascent.wake_steps": "--likelihood.conformation_batches",
    "--ascent.wake_images": "--likelihood.conformation_batch_size",
    "--ascent.nodes": "--likelihood.latent_grid_points",
    "--ascent.limit_A": "--likelihood.pose_resolution_A",
}
"""Old spellings and what they are now."""


class CommandParser(ArgumentParser):
    """A parser whose `--help` shows the options that matter, and `--help-all` all of them.

    Args:
        command: its name.
        description: what it does.
        example: a command line.
        matter: options that the short help shows, in order.
    """

    def __init__(
        self,
        command: str = "",
        description: str = "",
        example: str = "",
        matter: Sequence[str] = (),
        **options: Any,  # jsonargparse makes further parsers of this class, for nested settings
    ) -> None:
        options.setdefault("exit_on_error", False)
        options.setdefault("parser_mode", CHECKED_YAML)
        super().__init__(
            prog=f"cryogan {command}",
            description=description,
            add_help=False,
            allow_abbrev=False,
            **options,
        )
        self._example, self._matter = example, tuple(matter)

    def given(self, arguments: Sequence[str]) -> Namespace:
        """What the arguments say, and nothing that they do not.

        `--help` and `--help-all` print and leave. Positional arguments that are missing, unknown
        options and bad values are InputErrors of one sentence.
        """
        if any(word in ("-h", "--help", "--help-all") for word in arguments):
            print(self.help_text("--help-all" in arguments))
            sys.exit(0)
        for word in arguments:
            if word.startswith("--") and len(word) > 2:
                self._refuse_unknown(word.split("=")[0].removesuffix("+"))
        printed = any(word.split("=")[0] == "--print_config" for word in arguments)
        try:
            found = self.parse_args(list(arguments), defaults=printed)
        except (ArgumentError, OverflowError) as error:
            raise InputError(self._sentence(str(error))) from error
        return found

    def told_apart(self, arguments: Sequence[str]) -> tuple[list[str], list[str]]:
        """Arguments of this command, and all others, which it passes on to another one."""
        options = self._options()
        own: list[str] = []
        passed_on: list[str] = []
        words = iter(arguments)
        for word in words:
            name, given, _ = word.partition("=")
            if name in ("-h", "--help", "--help-all"):
                own.append(word)
            elif name in options:
                takes_value = not given and self._find(name).nargs != 0
                own += [word, *islice(words, 1 if takes_value else 0)]
            else:
                passed_on.append(word)
        return own, passed_on

    def help_text(self, everything: bool) -> str:
        """The short or the whole help."""
        if everything:
            text: str = self.format_help()
            return text.replace("%%", "%")  # a % as argparse wants it
        lines = [self.description or "", ""]
        words = [f"{n} ..." if self._find(n).nargs == "+" else n for n in self._positional()]
        lines.append(" ".join(("usage:", self.prog, *words, "[options]")))
        lines.append("")
        rows = []
        for name in (*self._positional(), *self._matter):
            action = self._find(name)
            value = "" if action.option_strings == [] else f" {_metavar(action)}"
            label = ", ".join(action.option_strings) or action.dest
            rows.append((label + value, " ".join((action.help or "").split()).replace("%%", "%")))
        width = min(30, max(len(label) for label, _ in rows) + 2)
        for label, text in rows:
            lines += _wrapped(label, text, width)
        lines += ["", f"All options: {self.prog} --help-all"]
        if self._example:
            lines.append(f"Example: {self._example}")
        return "\n".join(lines)

    def _positional(self) -> list[str]:
        return [action.dest for action in self._actions if not action.option_strings]

    def _find(self, name: str) -> Any:
        return next(
            action
            for action in self._actions
            if name in action.option_strings or (not action.option_strings and action.dest == name)
        )

    def _options(self) -> set[str]:
        return {name for action in self._actions for name in action.option_strings}

    def _refuse_unknown(self, name: str) -> None:
        """Refuse an option that there is not, such as an old one, whose new name is told."""
        known = self._options()
        inside = {option.rpartition(".")[0] for option in known if "." in option}
        groups = tuple(f"{option}." for option in known if option not in inside)
        if name in known or name.startswith(groups):
            return
        if name in RENAMED:
            raise InputError(f"The option {name} is now {RENAMED[name]}.")
        group, dot, rest = name.removeprefix("--").partition(".")
        if group in OLD_GROUPS:
            raise InputError(f"The option {name} is now --{OLD_GROUPS[group]}{dot}{rest}.")
        alike = known - inside if dot == "" else {option for option in known if "." in option}
        raise InputError(
            f"{self.prog} has no option {name}{nearest(name, sorted(alike))} ({self.prog} "
            "--help-all lists all)."
        )

    def _sentence(self, message: str) -> str:
        """The gist of a parser's message, in one line."""
        text = " ".join(message.split())
        unknown = re.match(r"(?:Group '([\w.]+)' does not accept o|O)ption '([\w.]+)'", text)
        if unknown:  # in a configuration file
            self._refuse_unknown("--" + ".".join(filter(None, unknown.groups())))
        return f"{self._as_declared(_gist(text)).rstrip('.')}; see {self.prog} --help."

    def _as_declared(self, gist: str) -> str:
        """With the option that it begins with as the help has it: not --new_apix for --new-apix."""
        name = re.match(r"--([\w.]+)", gist)
        if name is None:
            return gist
        alike = [o for o in self._options() if o[2:].replace("-", "_") == name[1]]
        return alike[0] + gist[name.end() :] if len(alike) == 1 else gist


def nearest(word: str, known: Iterable[str]) -> str:
    """ "; the nearest is X" for the nearest known word, or nothing."""
    close = difflib.get_close_matches(word, list(known), 1, cutoff=0.5)
    return f"; the nearest is {close[0]}" if close else ""


def plain(value: Any) -> Any:
    """Namespaces as dictionaries, lists as tuples."""
    if isinstance(value, Namespace):
        return {name: plain(item) for name, item in vars(value).items()}
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return value


def _metavar(action: Any) -> str:
    if action.nargs == 0:
        return ""
    if action.choices:
        return "{" + ",".join(map(str, action.choices)) + "}"
    return str(action.metavar or action.dest.upper())


def _wrapped(label: str, text: str, width: int) -> list[str]:
    lines, line = [], f"  {label:<{width}}"
    if len(label) >= width:
        lines.append(line.rstrip())
        line = " " * (width + 2)
    for word in text.split():
        if len(line) + len(word) > 98:
            lines.append(line.rstrip())
            line = " " * (width + 2)
        line += f"{word} "
    return [*lines, line.rstrip()]


def _gist(text: str) -> str:
    nested = re.match(r'Parser key "([\w.]+)": Problem with given class_path .*?: (.*)', text)
    if nested:
        inner = re.sub(r"Option '(\w+)' is not accepted", r"there is no '\1'", _gist(nested[2]))
        return f"--{nested[1]}: {inner.removeprefix('--')}"
    for pattern, gist in (
        (r'Parser key "([\w.]+)": Expected a (.+?)\. Got value: (.*)', _of_another_kind),
        (r'Parser key "([\w.]+)": .* Subtypes: \[(.+?)\] .* Given value: (.*)', _of_another_kind),
        (r"argument (\S+): invalid choice: '(.*?)' \(choose from (.*)\)", _no_choice),
        (r"argument (\S+): expected one argument", r"\1 needs a value"),
        (r"unrecognized arguments: (.*)", r"'\1' cannot be understood"),
        (r"the following arguments are required: (.*)", r"\1 is missing"),
        (r'Parser key "([\w.]+)": (.*)', r"--\1: \2"),
    ):
        if re.fullmatch(pattern, text):
            return re.sub(pattern, gist, text)
    return text


def _of_another_kind(found: re.Match[str]) -> str:
    """ "--seed is 'x'; give a whole number" from name, types and value."""
    name, types, value = found.groups()
    value = re.sub(r"Namespace\(class_path=.*?init_args=Namespace\((.*?)\).*", r"\1", value)
    choices = re.search(r"Literal\[(.*)\]", types)
    kinds = [_KINDS[kind] for kind in re.findall(r"\w+", types) if kind in _KINDS]
    wanted = f"one of {choices[1]}" if choices else " or ".join(kinds) or f"a {types}"
    return f"--{name} is '{value}'; give {wanted}"


def _no_choice(found: re.Match[str]) -> str:
    name, value, choices = found.groups()
    return f"{name} is '{value}'; give one of {choices}"
