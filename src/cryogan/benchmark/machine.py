"""What a benchmark was run with: versions and hardware."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cryogan
from cryogan.run.threads import available_cores

_PACKAGES = ("torch", "numpy", "scipy", "healpix", "roma")


def versions() -> dict[str, str]:
    """Of cryogan, Python and the packages that compute."""
    found = {"cryogan": cryogan.__version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def hardware() -> dict[str, str | int | float]:
    """Processor, cores that may be used, memory and system."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "memory_GB": round(pages * page_bytes / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
