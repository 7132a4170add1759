"""`cryogan watch`: a page that shows runs as they go."""

import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cryogan.cli import exit_codes
from cryogan.cli.options import require_file, require_run
from cryogan.cli.parser import CommandParser
from cryogan.errors import InputError

if TYPE_CHECKING:
    from cryogan.watch.server import WatchServer
    from cryogan.watch.site import Site

_PORT = 8765
_MOST_RUNS = 12  # maps that a browser draws at a time
_MATTER = ("--poses", "--port", "--host", "--no-browser", "--every")


def make_parser() -> CommandParser:
    """The command's parser."""
    parser = CommandParser(
        "watch",
        "Show runs as they go, or finished ones, on a page in the browser: stage, time left, the "
        "map so far in 3D and in sections, resolution and log-likelihood over time, real beside "
        "simulated images, the verdict; curves of several runs in one figure. The page is served "
        "on this computer only, under an address with a secret word, and changes nothing. With "
        "--poses, particles are chosen with a lasso among their latents. Ctrl-C ends it; the runs "
        "go on.",
        "cryogan watch run other",
        _MATTER,
    )
    add = parser.add_argument
    add("runs", type=str, nargs="+", help="folders of reconstruct or refine")
    add(
        "--poses",
        type=str,
        metavar="FILE",
        help=".star file of cryogan assign, for a scatter plot in which a lasso chooses particles",
    )
    add(
        "--port",
        type=int,
        help=f"port to serve the page at; 0 for any (default: {_PORT}, or any if it is taken)",
    )
    add(
        "--host",
        type=str,
        help="address to serve it at (default: 127.0.0.1, which only this computer can reach; "
        "0.0.0.0 is the whole network, unencrypted)",
    )
    add(
        "--no-browser",
        action="store_true",
        help="serve no page; print a line with date and time a minute until all runs are finished "
        "or have stopped",
    )
    add("--every", type=float, metavar="SECONDS", help="with --no-browser: between lines (60)")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Run the command, until it is interrupted; with --no-browser until no run goes on."""
    options = make_parser().given(arguments)
    folders = [require_run(name) for name in options.runs]
    if len(folders) > _MOST_RUNS:
        raise InputError(f"{len(folders)} runs are too many for a page; give {_MOST_RUNS} at most.")
    port, every_s = options.get("port"), options.get("every")
    if port is not None and not 0 <= port < 65536:
        raise InputError(f"--port is {port}; give a number from 0 to 65535.")
    if every_s is not None and not options.get("no_browser"):
        raise InputError("--every goes with --no-browser; give both.")
    if every_s is not None and not 0.1 <= every_s <= 1e6:
        raise InputError(f"--every is {every_s:g}; give a number of seconds from 0.1 on.")
    if options.get("no_browser"):
        for name in ("poses", "port", "host"):
            if options.get(name) is not None:
                raise InputError(f"--no-browser serves no page; leave out --{name}.")
        return _lines(folders, 60.0 if every_s is None else every_s)
    poses = None if options.get("poses") is None else require_file(options.poses)
    return _serve(folders, poses, options.get("host") or "127.0.0.1", port)


def _lines(folders: Sequence[Path], every_s: float) -> int:
    from functools import partial

    from cryogan.watch.lines import follow

    stopped = follow(folders, partial(print, flush=True), every_s=every_s)
    if not stopped:
        return 0
    names = ", ".join(str(folder) for folder in stopped)
    print(
        f"No process works in {names} and the results are not complete; the same command as before "
        "resumes the run.",
        file=sys.stderr,
    )
    return exit_codes.FAILED


def _serve(folders: Sequence[Path], poses: Path | None, host: str, port: int | None) -> int:
    import torch

    from cryogan.watch.particles import Scatter
    from cryogan.watch.site import Site

    torch.set_num_threads(1)  # the runs need the others
    site = Site(folders, None if poses is None else Scatter.read(poses))
    with _server(site, host, port) as server:
        print(f"page: {server.url}\nCtrl-C ends this; the runs go on.", flush=True)
        if not server.is_local:
            print("Whoever has this address can look at the runs; it is not encrypted.", flush=True)
        elif "SSH_CONNECTION" in os.environ:
            forward = f"ssh -N -L {server.port}:127.0.0.1:{server.port} {platform.node()}"
            print(f"From another computer, forward the port first: {forward}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


def _server(site: "Site", host: str, port: int | None) -> "WatchServer":
    """At the port asked for; at the default port, or any if that is taken."""
    from cryogan.watch.server import WatchServer

    if port is not None:
        return WatchServer(site, host, port)
    try:
        return WatchServer(site, host, _PORT)
    except InputError:
        return WatchServer(site, host, 0)
