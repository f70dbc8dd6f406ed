"""The long work behind the steps of the main dock, each a generator of `Step`; no Qt.

Everything a task needs is an argument; nothing here knows of widgets or layers.  `Tasks` gathers
them, so that tests can hand the dock others that keep the same contract.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.model.checkpoint import Checkpoint
    from napari_flag.prediction import Quality
    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Lattice, Spots


@dataclass(frozen=True, slots=True)
class SpotChoice:
    """The spots a person chose, and what came with them.

    Parameters
    ----------
    spots
        The spots.
    technology
        "Visium", "legacy ST", "grid over tissue".
    notices
        What the person must know of them.
    measured
        Measured raw counts, rows named by spot id, or None.
    mpp, mpp_source
        µm/px of the slide as the table states it; None and "" when it does not.
    """

    spots: "Spots"
    technology: str
    notices: tuple[str, ...] = ()
    measured: "AnnData | None" = None
    mpp: float | None = None
    mpp_source: str = ""


@dataclass(frozen=True, slots=True)
class GridRequest:
    """A grid to lay: distances in µm, over polygons in level-0 px or (None) the detected tissue."""

    spacing_um: float
    diameter_um: float
    lattice: "Lattice"
    polygons: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """All that a prediction needs, taken from the dock before the work starts."""

    slide: "Slide"
    spots: "Spots"
    checkpoint: "Checkpoint"
    region: tuple[Any, ...] | None
    quality: "Quality"
    device: str
    seed: int
    measured: "AnnData | None" = None

    @property
    def n_predicted(self) -> int:
        """Number of spots to predict."""
        return len(self.spots) if self.region is None else int(inside(self.spots, self.region).sum())


@dataclass(frozen=True, slots=True)
class Machine:
    """What the model will run on: torch's device names and how to call them."""

    devices: tuple[tuple[str, str], ...]


def open_slide_file(path: Path, mpp: float | None = None) -> Steps["Slide"]:
    """Open a slide and, if it has no useful pyramid, build one."""
    from napari_flag.slides.slide import build_pyramid, open_slide

    yield Step("Opening slide", 0, None)
    slide = open_slide(path, mpp=mpp)
    return (yield from build_pyramid(slide))


def read_spot_table(path: Path, slide: "Slide") -> Steps[SpotChoice]:
    """Read the spots of a table, folder or h5ad."""
    from napari_flag.slides.tables import read_spots

    yield Step("Reading spots", 0, None)
    table = read_spots(path, slide=slide)
    return SpotChoice(
        table.spots,
        table.technology,
        tuple(table.notices),
        table.measured,
        table.mpp,
        table.mpp_source,
    )


def lay_grid(request: GridRequest, slide: "Slide") -> Steps[SpotChoice]:
    """Lay a grid of spots over the tissue or over drawn regions."""
    from napari_flag.slides.spots import grid_over

    if slide.mpp is None:
        raise UserError("A grid is laid in µm but the µm/px of this slide are not known; set them in step 1.")
    area: Any = request.polygons
    if area is None:
        from napari_flag.slides.tissue import find_tissue

        yield Step("Finding tissue", 0, None)
        area = find_tissue(slide)
    yield Step("Laying spots", 0, None)
    spots = grid_over(area, slide.mpp, request.spacing_um, request.diameter_um, lattice=request.lattice)
    where = "tissue" if request.polygons is None else "drawn regions"
    return SpotChoice(spots, f"{request.lattice} grid over {where}")


def estimate(spots: "Spots") -> Steps[float]:
    """Return µm/px from the array's lattice, whose pitch in µm is known."""
    from napari_flag.slides.spots import estimate_mpp

    yield Step("Fitting the array's lattice", 0, None)
    return float(estimate_mpp(spots))


def read_measured_file(path: Path) -> Steps["AnnData"]:
    """Read measured expression: raw counts with spot ids as rows."""
    from napari_flag.slides.tables import read_measured

    yield Step("Reading measured expression", 0, None)
    return read_measured(path)


def find_weights() -> Steps[tuple[tuple[str, Path], ...]]:
    """Return name and path of each bundled or imported weights file."""
    yield Step("Looking for models", 0, None)
    from napari_flag.model.checkpoint import list_weights

    return tuple((name, Path(path)) for name, path in list_weights())


def load_checkpoint(path: Path) -> Steps["Checkpoint"]:
    """Load a weights file, and the packages that predicting needs while nobody waits for them."""
    yield Step("Loading model", 0, None)
    import napari_flag.prediction  # noqa: F401
    from napari_flag.model.checkpoint import Checkpoint

    return Checkpoint.load(path)


def find_machine() -> Steps[Machine]:
    """Return the devices torch can use, the best first."""
    yield Step("Looking at this computer", 0, None)
    import torch

    devices = [
        (f"cuda:{i}" if i else "cuda", f"CUDA: {torch.cuda.get_device_name(i)}")
        for i in range(torch.cuda.device_count())
    ]
    devices.append(("cpu", "CPU"))
    return Machine(tuple(devices))


def predict(request: PredictionRequest) -> Steps["AnnData"]:
    """Predict, and lay the measured expression beside it; `Step.partial` is the live preview."""
    yield Step("Starting", 0, None)
    from napari_flag.prediction import predict_slide

    adata = yield from predict_slide(
        request.slide,
        request.spots,
        request.checkpoint,
        region=request.region,
        quality=request.quality,
        seed=request.seed,
        device=request.device,
    )
    if request.measured is not None:
        from napari_flag.analysis.truth import attach_measured

        try:
            attach_measured(adata, request.measured)
        except UserError as error:  # the prediction is whole without it, and must not be lost
            yield Step("Comparing", 0, None, notice=f"The measured expression was left out: {error}")
    return adata


def save_prediction(adata: "AnnData", path: Path) -> Steps[Path]:
    """Write a prediction as h5ad."""
    yield Step("Saving", 0, None)
    from napari_flag.prediction_file import write_prediction

    write_prediction(adata, path)
    return path


def load_prediction(path: Path) -> Steps["AnnData"]:
    """Read a prediction that was saved before."""
    yield Step("Opening result", 0, None)
    from napari_flag.prediction_file import read_prediction

    return read_prediction(path)


def inside(spots: "Spots", polygons: tuple[Any, ...]) -> npt.NDArray[np.bool_]:
    """Return (n,) which spot centres lie inside any of `polygons` (level-0 px)."""
    from shapely import contains_xy, union_all

    found: npt.NDArray[np.bool_] = contains_xy(union_all(list(polygons)), spots.xy[:, 0], spots.xy[:, 1])
    return found


class PreviewBuilder:
    """Collects the chunks of a running prediction into an AnnData of the spots done so far.

    Parameters
    ----------
    spots, slide, region
        As given to the prediction.
    """

    def __init__(self, spots: "Spots", slide: "Slide", region: tuple[Any, ...] | None = None) -> None:
        self._spots = spots if region is None else spots.take(inside(spots, region))
        self._slide = slide
        self._rows: list[Any] = []
        self._values: list[Any] = []
        self._genes: Sequence[str] = ()

    def add(self, preview: Any) -> None:
        """Take in one chunk (`prediction.Preview`)."""
        self._rows.append(preview.rows)
        self._values.append(preview.values)
        self._genes = preview.genes

    def adata(self) -> "AnnData":
        """Return the spots done so far, in the order of the spots; a later chunk wins."""
        from anndata import AnnData

        rows = np.concatenate(self._rows)[::-1]
        values = np.concatenate(self._values)[::-1]
        rows, first = np.unique(rows, return_index=True)
        spots = self._spots.take(rows)
        adata = AnnData(X=np.ascontiguousarray(values[first], dtype=np.float32))
        adata.obs_names = list(spots.ids)
        adata.var_names = list(self._genes)
        adata.obsm[keys.SPATIAL] = spots.xy
        if spots.array is not None:
            adata.obs[keys.ARRAY_ROW], adata.obs[keys.ARRAY_COL] = spots.array.T
        width, height = self._slide.size
        adata.uns[keys.PROVENANCE] = {
            key: value
            for key, value in {
                keys.UNITS: keys.EXPRESSION_UNITS,
                keys.SLIDE_NAME: self._slide.name,
                keys.SLIDE_WIDTH: width,
                keys.SLIDE_HEIGHT: height,
                keys.MPP: self._slide.mpp,
                keys.SPOT_DIAMETER_UM: spots.diameter_um,
                keys.SPOT_PITCH_UM: spots.pitch_um,
                keys.LATTICE: spots.lattice,
            }.items()
            if value is not None
        }
        return adata


@dataclass(frozen=True, slots=True)
class Tasks:
    """The work the dock can start."""

    open_slide: Callable[..., Steps["Slide"]] = open_slide_file
    read_spots: Callable[[Path, "Slide"], Steps[SpotChoice]] = read_spot_table
    lay_grid: Callable[[GridRequest, "Slide"], Steps[SpotChoice]] = lay_grid
    estimate: Callable[["Spots"], Steps[float]] = estimate
    read_measured: Callable[[Path], Steps["AnnData"]] = read_measured_file
    find_weights: Callable[[], Steps[tuple[tuple[str, Path], ...]]] = find_weights
    load_checkpoint: Callable[[Path], Steps["Checkpoint"]] = load_checkpoint
    find_machine: Callable[[], Steps[Machine]] = find_machine
    predict: Callable[[PredictionRequest], Steps["AnnData"]] = predict
    save: Callable[["AnnData", Path], Steps[Path]] = save_prediction
    load: Callable[[Path], Steps["AnnData"]] = load_prediction
