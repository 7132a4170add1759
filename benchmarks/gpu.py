"""Images a second of both objectives on a device, over the box: one command for a GPU.

Likelihood: an EM iteration over images of the phantom (`likelihood_profile.Prepared`: the whole
band, the true map as reference); adversarial: a training step with the default settings
(`cost_per_step.Case`). Each is made once to warm up. Seconds are wall time, once the device has
done all that it was told; memory is what PyTorch has reserved on a GPU, and that of the process on
a CPU. The table names the device. A case that runs out of memory is left out, with a line.

    python benchmarks/gpu.py -o benchmarks/results
    python benchmarks/gpu.py -o OUT --device cpu --boxes 16 --images 64 --batch-size 8
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from cost_per_step import Case
from cryogan.benchmark.machine import hardware
from cryogan.benchmark.rows import write_rows
from cryogan.errors import InputError
from cryogan.run.trials import peak_GB
from likelihood_profile import Prepared

Row = dict[str, str | int | float]
BOXES = (64, 128, 256)


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Wall seconds of the second time."""
    for _ in range(2):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    return time.perf_counter() - start


def likelihood(box_size: int, images: int, device: torch.device) -> float:
    """Seconds of an EM iteration of a half-set."""
    case = Prepared.of(box_size, 1.0, 0.0, images, device)
    return timed(lambda: case.solve(case.e_step(images)), device)


def adversarial(box_size: int, batch_size: int, device: torch.device) -> float:
    """Seconds of a step, a gradient penalty in every other one: the mean of two."""
    case = Case("template", box_size, max(512, 2 * batch_size), batch_size, str(device), 1)
    steps = case.steps()
    return timed(lambda: [next(steps) for _ in range(2)], device) / 2


def measure(boxes: Sequence[int], images: int, batch_size: int, device: torch.device) -> list[Row]:
    """A row for each box and objective."""
    on_gpu = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else str(hardware()["processor"])
    cases: list[tuple[str, int, Callable[[int, int, torch.device], float]]] = [
        ("likelihood", images, likelihood),
        ("adversarial", batch_size, adversarial),
    ]
    rows: list[Row] = []
    for box_size in boxes:
        for objective, count, work in cases:
            if on_gpu:
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats(device)
            try:
                seconds = work(box_size, count, device)
            except torch.OutOfMemoryError:
                print(f"{objective}, {box_size} px: left out, out of memory")
                continue
            row: Row = {
                "device": name,
                "objective": objective,
                "box_size": box_size,
                "images": count,
                "seconds": round(seconds, 4),
                "images_per_s": round(count / seconds, 1),
                "peak_GB": round(peak_GB(str(device)), 2),
            }
            print(row, flush=True)
            rows.append(row)
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every case and write `gpu.csv`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of gpu.csv")
    parser.add_argument("--device", default="cuda", help="cuda (default), cuda:1, cpu")
    parser.add_argument("--boxes", type=int, nargs="+", default=list(BOXES), metavar="D")
    parser.add_argument(
        "--images", type=int, default=2048, help="of an EM iteration (default: 2048)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=64, help="of a training step (default: 64)"
    )
    options = parser.parse_args(arguments)
    try:
        device = torch.device(options.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise InputError(f"There is no device {options.device} here; use --device cpu.")
        rows = measure(sorted(set(options.boxes)), options.images, options.batch_size, device)
        options.output.mkdir(parents=True, exist_ok=True)
        if rows:
            write_rows(options.output / "gpu.csv", rows)
    except (InputError, RuntimeError) as error:
        sys.exit(f"gpu: {error}")


if __name__ == "__main__":
    main()
