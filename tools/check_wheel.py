"""Build the wheel, check that it holds what the program needs, then check the installation.

``python tools/check_wheel.py`` exits with 1 and one sentence when something is missing.
"""

import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

NEEDED = (
    "napari_flag/napari.yaml",
    "napari_flag/py.typed",
    "napari_flag/report/page.css",
    "napari_flag/report/page.js",
    "napari_flag/data/demo_slide.tif",
    "napari_flag/data/demo_slide.h5ad",
    "napari_flag/data/gene_sets.gmt",
    "flag_training/__init__.py",
)
LIMIT_MB = 40


def main() -> None:
    """Check the wheel, then the installed package."""
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, str(root)],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            inside = set(archive.namelist())
        size_mb = wheel.stat().st_size / 1e6
    source = {
        f"napari_flag/weights/{p.name}"
        for p in (root / "src" / "napari_flag" / "weights").glob("*.safetensors")
    }
    missing = sorted({*NEEDED, *source} - inside)
    if missing:
        sys.exit(f"The wheel lacks {', '.join(missing)}.")
    if size_mb > LIMIT_MB:
        sys.exit(f"The wheel is {size_mb:.0f} MB, more than {LIMIT_MB} MB.")
    found = [e.value for e in entry_points(group="napari.manifest") if e.name == "napari-flag"]
    if found != ["napari_flag:napari.yaml"]:
        sys.exit(f"The installed package offers napari these manifests: {found}.")
    if not files("napari_flag").joinpath("napari.yaml").is_file():
        sys.exit("napari.yaml is not found in the installed package.")
    sys.stdout.write(f"wheel: {size_mb:.1f} MB, manifest, weights and demo slide inside\n")


if __name__ == "__main__":
    main()
