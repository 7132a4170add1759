"""The script of docs/slurm.md, run as it stands, with SLURM's commands replaced by local ones."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cryogan.phantom import phantom_map
from cryogan.simulation.in_memory import write_dataset
from simulated_sets import centred_particles

DOCUMENT = Path(__file__).parent.parent / "docs" / "slurm.md"


@pytest.mark.slow
def test_the_script_reconstructs(tmp_path: Path) -> None:
    volume = phantom_map(16, 12.0)
    generator = torch.Generator().manual_seed(7)
    write_dataset(tmp_path, centred_particles(volume, 12.0, 200, 3.0, generator), volume)
    found = re.search(r"```bash\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None
    script = found[1].replace("processes=4", "processes=2")
    short = "--max-shift 0 --likelihood.initialisations 1 --likelihood.initial_attempts 1 "
    short += "--likelihood.initial_rings [5,5] --likelihood.initial_batches 1 "
    short += "--likelihood.initial_batch_size 60 --likelihood.iterations 1"
    script = script.replace("--device cpu", f"--device cpu {short}")
    commands = tmp_path / "commands"
    commands.mkdir()
    torchrun = f"exec {sys.executable} -m torch.distributed.run"
    for name, line in (
        ("srun", 'test "$1 $2" = "--cpus-per-task 2" && shift 2 && exec "$@"'),
        ("scontrol", 'test "$1 $2 $3" = "show hostnames node" && echo localhost'),
        ("torchrun", f'{torchrun} "$@"'),
    ):
        (commands / name).write_text(f"#!/bin/sh\n{line}\n")
        (commands / name).chmod(0o755)
    activate = tmp_path / "cryogan-env" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.touch()
    environment = os.environ | {
        "HOME": str(tmp_path),
        "PATH": f"{commands}:{os.environ['PATH']}",
        "SLURM_JOB_NODELIST": "node",
        "SLURM_NNODES": "1",
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_CPUS_PER_TASK": "2",
    }
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "run" / "map.mrc").is_file()
