"""The real her2st sections C2–C5, read once; tests of them are skipped where the data is not."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

HER2ST = Path(__file__).resolve().parents[3] / "shared" / "data" / "her2st"


@dataclass(frozen=True)
class Section:
    """log2(count + 1) of the panel, pixel centres and array positions of one section."""

    y: np.ndarray
    xy: np.ndarray
    array: np.ndarray


def read_section(name: str) -> Section:
    counts = pd.read_csv(HER2ST / "counts" / f"{name}.tsv.gz", sep="\t", index_col=0)
    table = pd.read_csv(HER2ST / "spots" / f"{name}_selection.tsv", sep="\t")
    table.index = [f"{x}x{y}" for x, y in zip(table.x, table.y, strict=True)]
    table = table.loc[[spot for spot in counts.index if spot in table.index]]
    panel = (HER2ST / "panel_hmhvg200.txt").read_text().split()
    return Section(
        y=np.log2(counts.loc[table.index, panel].to_numpy(np.float64) + 1),
        xy=table[["pixel_x", "pixel_y"]].to_numpy(np.float64),
        array=table[["x", "y"]].to_numpy(np.int64),
    )


@pytest.fixture(scope="session")
def sections() -> dict[str, Section]:
    if not HER2ST.is_dir():
        pytest.skip(f"real data is not at {HER2ST}")
    return {name: read_section(name) for name in ("C2", "C3", "C4", "C5")}
