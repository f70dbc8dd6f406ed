"""Tables that benchmarks write into their README, each between markers of its name."""

import os
import platform
from pathlib import Path
from typing import Final

README: Final = Path(__file__).with_name("README.md")


def write_between(name: str, text: str, readme: Path = README) -> None:
    """Replace what stands between the markers called `name` in `readme` by `text`.

    Raises
    ------
    ValueError
        When `readme` has no such markers, once each.
    """
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    page = readme.read_text("utf-8")
    if page.count(begin) != 1 or page.count(end) != 1:
        raise ValueError(f"{readme} has no markers {begin} … {end}")
    before, rest = page.split(begin)
    readme.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}", "utf-8")


def processor() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def machine(threads: int) -> str:
    """Return what was measured on: processor, cores, threads, how busy it was, and PyTorch's version."""
    import torch

    busy = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{processor()}, {os.cpu_count()} cores, {threads} threads, PyTorch {torch.__version__}{busy}"
