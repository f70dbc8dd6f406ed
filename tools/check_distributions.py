"""Build wheel and sdist, check what they hold, and run the wheel in an environment of its own.

``python tools/check_distributions.py [--into DIST]`` exits with 1 and one sentence when something is wrong.
The new environment borrows the dependencies of the one this runs in, never its napari-flag.
"""

import argparse
import os
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
NEEDED: Final = (
    "napari_flag/napari.yaml",
    "napari_flag/icon.svg",
    "napari_flag/py.typed",
    "napari_flag/report/page.css",
    "napari_flag/report/page.js",
    "napari_flag/data/demo_slide.tif",
    "napari_flag/data/demo_slide.h5ad",
    "napari_flag/data/gene_sets.gmt",
    "napari_flag/weights/SHA256SUMS",
    "flag_training/__init__.py",
    "flag_training/recipe.toml",
)
LIMIT_MB: Final = 40
PICTURES: Final = (".png", ".jpg", ".ipynb")
"""Endings of what an sdist leaves to the docs site."""

INSTALLED: Final = """
import pathlib, sys
import napari_flag
from npe2 import PluginManifest
manifest = PluginManifest.from_distribution("napari-flag")
print(pathlib.Path(napari_flag.__file__).is_relative_to(sys.prefix), manifest.name, manifest.package_version)
"""


def find_fault_of_wheel(names: set[str], weights: Sequence[str], size_mb: float) -> str | None:
    """Return what is wrong with a wheel that holds `names`, as a sentence, or None."""
    missing = sorted({*NEEDED, *(f"napari_flag/weights/{name}" for name in weights)} - names)
    if missing:
        return f"The wheel lacks {', '.join(missing)}."
    if others := sorted(name for name in names if _is_unlisted(name, weights)):
        return f"The wheel holds {', '.join(others)}, which SHA256SUMS does not list."
    return f"The wheel is {size_mb:.0f} MB, more than {LIMIT_MB} MB." if size_mb > LIMIT_MB else None


def _is_unlisted(name: str, weights: Sequence[str]) -> bool:
    return name.endswith(".safetensors") and name.removeprefix("napari_flag/weights/") not in weights


def find_fault_of_sdist(members: Sequence[tarfile.TarInfo]) -> str | None:
    """Return what is wrong with an sdist of `members`, as a sentence, or None."""
    links = [member.name for member in members if member.issym() or member.islnk()]
    if links:
        return f"The sdist holds links, which Windows cannot unpack: {', '.join(links)}."
    pictures = [member.name for member in members if member.name.endswith(PICTURES)]
    if pictures:
        return f"The sdist holds pictures, which belong to the docs site alone: {', '.join(pictures)}."
    size_mb = sum(member.size for member in members) / 1e6
    return f"The sdist is {size_mb:.0f} MB unpacked, more than {LIMIT_MB} MB." if size_mb > LIMIT_MB else None


def build(folder: Path) -> tuple[Path, Path]:
    """Build sdist and, from the sdist, the wheel into `folder`; return (wheel, sdist)."""
    command = [sys.executable, "-m", "build", "--no-isolation", "-o", str(folder), str(ROOT)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def run_installed(wheel: Path, folder: Path) -> None:
    """Install `wheel` into a new environment in `folder`, and find the manifest and the command there."""
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    python = str(scripts / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", str(wheel)], check=True)
    where = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    # comes after the new environment's own packages, and .pth files in it are not followed
    (Path(where.stdout.strip()) / "borrowed.pth").write_text(sysconfig.get_path("purelib"), "utf-8")
    unset = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for command in ([python, "-c", INSTALLED], [str(scripts / "napari-flag"), "--version"]):
        done = subprocess.run(command, cwd=folder, env=unset, capture_output=True, text=True)
        if done.returncode or done.stdout.startswith("False"):
            sys.exit(f"The installed wheel does not run:\n{done.stdout}{done.stderr}")


def main() -> None:
    """Build and check both."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--into", type=Path, help="keep wheel and sdist in this empty folder")
    kept = parser.parse_args().into
    listed = (ROOT / "src" / "napari_flag" / "weights" / "SHA256SUMS").read_text("utf-8")
    weights = listed.split()[1::2]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        wheel, sdist = build(kept or folder / "dist")
        with zipfile.ZipFile(wheel) as archive:
            size_mb = wheel.stat().st_size / 1e6
            fault = find_fault_of_wheel(set(archive.namelist()), weights, size_mb)
        with tarfile.open(sdist) as packed:
            fault = fault or find_fault_of_sdist(packed.getmembers())
        if fault:
            sys.exit(fault)
        subprocess.run(
            [sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist)], check=True
        )
        run_installed(wheel, folder / "venv")
        sys.stdout.write(
            f"wheel: {size_mb:.1f} MB, manifest, weights and demo slide inside, runs in a new environment\n"
            f"sdist: {sdist.stat().st_size / 1e6:.1f} MB, no links, no pictures\n"
        )


if __name__ == "__main__":
    main()
