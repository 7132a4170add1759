"""RELION's own programs, where they are installed."""

import shutil
import subprocess
from pathlib import Path

import pytest


def relion(*arguments: object, folder: Path) -> str:
    """What a RELION program prints, run in `folder`; skips where RELION is not installed."""
    program = str(arguments[0])
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not on the PATH; install RELION 3.1 to run this test")
    done = subprocess.run(
        [str(a) for a in arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
