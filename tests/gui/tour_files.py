"""Three small slides in files, and predictions whose values tell of which slide and spot they are."""

import itertools
import time
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from shapely.geometry import box as rectangle
from tests.fakes import fake_provenance
from tests.slide_files import plain_image, pyramid_tiff, tissue_picture

from napari_flag import inputs, keys
from napari_flag.encoders import features
from napari_flag.model import checkpoint
from napari_flag.prediction_file import build_prediction
from napari_flag.progress import Step
from napari_flag.sampling import Preview
from napari_flag.slides.formats.geojson import Annotation, write_annotations
from napari_flag.slides.spots import inside

GENES = ("ERBB2", "ESR1", "CD3E", "VIM", "KRT8", "GAPDH")
ARRAY = {"technology": "ST", "pitch_um": 200.0, "diameter_um": 100.0}


@dataclass(frozen=True, slots=True)
class TourSlide:
    """A slide of the tour.

    Parameters
    ----------
    code
        Its number, which the values of its predictions carry.
    path, table, regions
        Its files; no table where its spots are laid as a grid.
    box
        (left, top, right, bottom) of the tissue in level-0 px.
    """

    code: int
    path: Path
    box: tuple[int, int, int, int]
    table: Path | None
    regions: Path

    @property
    def name(self) -> str:
        return self.path.stem


def write_slides(folder: Path) -> tuple[TourSlide, ...]:
    """Write the slides: two of one size with the same spot ids, and one that states no µm/px."""
    boxes = ((150, 150, 950, 1250), (1100, 100, 1950, 1100), (300, 1000, 1500, 1900))
    landscape = [tissue_picture(2100, 1500, box, seed) for seed, box in enumerate(boxes[:2])]
    alpha = pyramid_tiff(folder / "alpha.tif", landscape[0], mpp=1.25)
    beta = pyramid_tiff(folder / "beta.tif", landscape[1], mpp=1.0)
    gamma = plain_image(folder / "gamma.png", tissue_picture(1600, 2100, boxes[2], 2))
    pitches = (160, 200, None)
    return tuple(
        TourSlide(
            code,
            path,
            box,
            None if pitch is None else _table(path.with_suffix(".tsv"), box, pitch),
            _regions(path.with_suffix(".geojson"), box),
        )
        for code, (path, box, pitch) in enumerate(zip((alpha, beta, gamma), boxes, pitches, strict=True))
    )


def _table(path: Path, box: tuple[int, int, int, int], pitch: int) -> Path:
    """Write a legacy ST table of 4 × 3 spots; its ids are those of every such table."""
    rows, cols = (grid.ravel() for grid in np.mgrid[:4, :3])
    x, y = box[0] + 0.6 * pitch + pitch * cols, box[1] + 0.6 * pitch + pitch * rows
    columns = {"x": cols + 1, "y": rows + 1, "new_x": cols + 1.0, "new_y": rows + 1.0}
    columns |= {"pixel_x": x, "pixel_y": y, "selected": np.ones(12, int)}
    pd.DataFrame(columns).to_csv(path, sep="\t", index=False)
    return path


def _regions(path: Path, box: tuple[int, int, int, int]) -> Path:
    left, top, right, bottom = box
    area = rectangle(left + 20, top + 20, (left + right) / 2, (top + bottom) / 2)
    write_annotations([Annotation(f"from {path.stem}", (area,))], path)
    return path


def encoded(code: int, run: int, n_spots: int) -> np.ndarray:
    """(n, G) float32 between 3 · code + 0.1 and 3 · code + 0.9, other for every run, spot and gene."""
    spot, gene = np.mgrid[:n_spots, : len(GENES)]
    mixed = (7 * spot + 13 * gene + 29 * run + 3 * spot * gene) % 97
    return (3 * code + 0.1 + 0.8 * mixed / 97).astype(np.float32)


TAKES = signature(inputs.predict_inputs)
"""What the real prediction takes, and so the one of the tour."""


class TourWork:
    """A model that takes no time but what it is stated to take.

    Parameters
    ----------
    slides
        Of the tour.

    Attributes
    ----------
    pace
        Seconds for each spot.
    returned
        (code, run) of each prediction that was made to the end.
    """

    def __init__(self, slides):
        self.codes = {slide.name: slide.code for slide in slides}
        self.pace = 0.005
        self.runs = itertools.count(1)
        self.begun, self.returned = [], []

    def install(self, monkeypatch):
        monkeypatch.setattr(inputs, "predict_inputs", self.predict_inputs)
        monkeypatch.setattr(features, "list_devices", lambda: (("cpu", "CPU (2 threads)"),))
        monkeypatch.setattr(checkpoint, "list_weights", lambda: (("tour", Path("tour.safetensors")),))
        monkeypatch.setattr(checkpoint.Checkpoint, "load", lambda path: _weights())

    def predict_inputs(self, prepared, checkpoint, **options):
        TAKES.bind(prepared, checkpoint, **options)
        spots = prepared.spots
        if prepared.region is not None:
            spots = spots.take(inside(prepared.region, spots.xy))
        code, run, n = self.codes[prepared.slide.name], next(self.runs), len(spots)
        self.begun.append((code, run))
        values = encoded(code, run, n)
        shown = np.full(values.shape, np.nan, np.float32)
        for row in range(n):
            time.sleep(self.pace)
            shown[row] = values[row]
            part = Preview(np.array([row]), shown, GENES)
            yield Step("Predicting expression", row + 1, n, partial=part)
        self.returned.append((code, run))
        return make_prediction(prepared.slide, spots, code, run)


def make_prediction(slide, spots, code, run):
    """Return the prediction of a run; every second one knows measured counts, every third what is unlike."""
    n = len(spots)
    values = encoded(code, run, n)
    made = fake_provenance(*slide.size) | {
        keys.SLIDE_NAME: slide.name,
        keys.MPP: slide.mpp,
        keys.SPOT_DIAMETER_UM: spots.diameter_um,
        keys.SPOT_PITCH_UM: spots.pitch_um,
        keys.LATTICE: spots.lattice,
        keys.SEED: 1000 * code + run,
    }
    layers = {keys.SAMPLE: values + 0.05, keys.SPREAD: np.full_like(values, 0.2) + 0.01 * values}
    if run % 2 == 0:
        layers[keys.MEASURED] = values + 1.0
    adata = build_prediction(values, spots, GENES, made, layers=layers)
    if run % 3 == 0:
        adata.obs[keys.DISTANCE] = np.linspace(0.2, 1.8, n)
        adata.obs[keys.UNLIKE] = np.linspace(0.0, 1.0, n)
    return adata


def marker(adata) -> tuple[int, int]:
    """Return (code, run) of a prediction of the tour."""
    code, run = divmod(int(adata.uns[keys.PROVENANCE][keys.SEED]), 1000)
    return code, run


def _weights():
    card = {"tissue": "breast cancer", "sections": ["C2"], "array": ARRAY, "um_per_px": 1.0}
    card["licence"] = "CC BY 4.0"
    return SimpleNamespace(
        name="tour", sha256="0", genes=GENES, card=card, encoder="embedded", colours="scanned"
    )
