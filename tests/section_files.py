"""Makers of small measured sections: a picture with its counts beside it, and a list of several."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from tests import slide_files, spot_files

from napari_flag.listing import COLUMNS
from napari_flag.simulation.simulator import MPP, write_slide

SIDE, PITCH_PX = 6, 290


def write_section(folder: Path, name: str, seed: int) -> None:
    """A picture of coloured patches, and counts of 20 genes that follow their colour, on a square array."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(90, 250, (16, 16, 3), dtype=np.uint8)
    write_slide(folder / f"{name}.tif", np.kron(patches, np.ones((130, 130, 1), np.uint8)), MPP)
    rows, columns = np.divmod(np.arange(SIDE * SIDE), SIDE)
    xy = np.stack([columns, rows], 1) * PITCH_PX + 300.0
    colour = patches[(xy[:, 1] // 130).astype(int), (xy[:, 0] // 130).astype(int)] / 255
    loading = np.random.default_rng(0).normal(0, 2, (3, 20))
    counts = rng.poisson(np.exp2(4 + colour @ loading)).astype(np.float32)
    obs = pd.DataFrame(
        {"array_row": rows, "array_col": columns},
        index=[f"{c}x{r}" for r, c in zip(rows, columns, strict=True)],
    )
    var = pd.DataFrame(index=[f"GENE{number}" for number in range(20)])
    AnnData(counts, obs, var, obsm={"spatial": xy}).write_h5ad(folder / f"{name}.h5ad")


def write_smaller_copy(outs: Path) -> Path:
    """A Space Ranger folder at .5 µm/px, its picture .8 of the full-resolution slide's px a side."""
    spot_files.space_ranger(outs)
    factors = outs / "spatial" / "scalefactors_json.json"
    factors.write_text(json.dumps(json.loads(factors.read_text()) | {"tissue_hires_scalef": 0.8}))
    return slide_files.plain_image(
        outs / "spatial" / "tissue_hires_image.png", slide_files.picture(960, 1600)
    )


def listing(folder: Path, *lines: str) -> Path:
    """Write a list of sections of `folder`, a line each."""
    path = folder / "list.csv"
    path.write_text(",".join(COLUMNS) + "\n" + "".join(f"{line}\n" for line in lines))
    return path
