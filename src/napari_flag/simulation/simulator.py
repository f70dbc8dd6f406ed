"""Simulate a slide: image, spots and counts from one seed."""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile
from anndata import AnnData
from PIL import Image

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.files import replacing, write_whole
from napari_flag.simulation.anatomy import Anatomy, plan
from napari_flag.simulation.cells import populate
from napari_flag.simulation.expression import GeneModel, KnownExpression, counted, known_expression
from napari_flag.simulation.fields import Canvas, Points
from napari_flag.simulation.painting import paint
from napari_flag.simulation.programmes import (
    GENES,
    SOURCES,
    Truth,
    cells_under,
    expected,
    overdispersed_counts,
)
from napari_flag.slides.spots import IntArray, Spots

SIZE_PX = 2400
MPP = 0.7
"""Side in pixels and µm per pixel of a slide: 1.7 mm, about 270 spots."""
PITCH_UM = 100.0
DIAMETER_UM = 55.0
"""Array geometry, as Visium has it."""
ORIGIN = "napari_flag_simulator"
"""``uns`` key: seed and geometry."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """One simulated slide.

    Parameters
    ----------
    image
        uint8 (size, size, 3).
    mpp
        µm per pixel.
    spots
        Hexagonal array over the tissue, ids ``row_col``, centres in pixels of `image`.
    counts
        Raw counts, spots × genes, float32; ``layers["rate"]`` the counts expected when chance is
        left out, ``layers["visible"]`` those expected from what is drawn alone;
        ``obs`` the number of cells of each kind under the spot.
    known
        The exact distribution of the counts given the tissue, where the genes are generated ones.
    """

    image: npt.NDArray[np.uint8]
    mpp: float
    spots: Spots
    counts: AnnData
    known: KnownExpression | None = None


def simulate(
    seed: int,
    *,
    size_px: int = SIZE_PX,
    mpp: float = MPP,
    pitch_um: float = PITCH_UM,
    diameter_um: float = DIAMETER_UM,
    genes: GeneModel | None = None,
) -> Simulated:
    """Return a synthetic H&E slide of breast tissue with known spatial expression.

    Parameters
    ----------
    seed
        The slide; the same seed and geometry give the same slide.
    size_px, mpp
        Side in pixels and µm per pixel.  At the default size this takes about five seconds, at
        600 px well under one.
    pitch_um, diameter_um
        Geometry of the hexagonal array in µm.
    genes
        Generated genes (`expression.generated_genes`) to measure instead of the named ones.
    """
    canvas = Canvas(size_px, mpp)
    # one stream per step, so that a change in how things are drawn leaves the counts as they are
    laid, sown, painted, grown, drawn = np.random.default_rng(seed).spawn(5)
    section = plan(canvas, laid)
    cells = populate(canvas, section, sown)
    spots = hex_array(canvas, section, pitch_um, diameter_um)
    spots_um = spots.xy * mpp
    amounts = cells_under(canvas, section, cells, spots_um, diameter_um / 2)
    known = None if genes is None else known_expression(genes, amounts, spots_um, pitch_um)
    if known is None:
        table = _named_genes(expected(canvas, section, amounts, spots_um, grown), drawn)
    else:
        table = _generated_genes(known, grown, drawn)
    return Simulated(
        image=paint(canvas, section, cells, painted),
        mpp=mpp,
        spots=spots,
        counts=_described(table, seed, canvas, spots, amounts),
        known=known,
    )


def hex_array(canvas: Canvas, section: Anatomy, pitch_um: float, diameter_um: float) -> Spots:
    """Return the spots of a hexagonal array whose centres lie on tissue."""
    radius = diameter_um / 2
    step = np.array([pitch_um / 2, pitch_um * np.sqrt(3) / 2])
    many = ((canvas.side_um - 2 * radius) / step).astype(int) + 1
    rows, cols = np.meshgrid(np.arange(many[1]), np.arange(many[0]), indexing="ij")
    on_array = (rows + cols) % 2 == 0
    array: IntArray = np.column_stack([rows[on_array], cols[on_array]]).astype(np.int64)
    slack = (canvas.side_um - (many - 1) * step) / 2
    xy_um: Points = array[:, ::-1] * step + slack
    keep = canvas.at(section.tissue, xy_um) > radius / 3
    array, xy_um = array[keep], xy_um[keep]
    return Spots(
        ids=tuple(f"{r}_{c}" for r, c in array),
        xy=xy_um / canvas.mpp,
        diameter_um=diameter_um,
        pitch_um=pitch_um,
        lattice="hex",
        array=array,
    )


def _named_genes(truth: Truth, drawn: np.random.Generator) -> AnnData:
    table = _counts(overdispersed_counts(truth.rate, drawn), GENES)
    table.layers["rate"] = truth.rate.astype(np.float32)
    table.layers["visible"] = truth.visible.astype(np.float32)
    return table


def _generated_genes(
    known: KnownExpression, grown: np.random.Generator, drawn: np.random.Generator
) -> AnnData:
    rate = known.draw_rates(grown)
    table = _counts(counted(rate, drawn), known.genes.names)
    table.layers["rate"] = rate
    table.layers["visible"] = np.exp(known.log_rate())
    return table


def _counts(counts: npt.NDArray[np.float32], genes: tuple[str, ...]) -> AnnData:
    return AnnData(counts, var=pd.DataFrame(index=pd.Index(genes, dtype=object)))


def _described(table: AnnData, seed: int, canvas: Canvas, spots: Spots, amounts: Points) -> AnnData:
    """Write spots, cells and geometry into the table of counts; return it."""
    array = spots.array if spots.array is not None else np.zeros((len(spots), 2), np.int64)
    under = {f"n {k}": amounts[:, i].astype(np.float32) for i, k in enumerate(SOURCES)}
    table.obs = pd.DataFrame(
        {keys.ARRAY_ROW: array[:, 0], keys.ARRAY_COL: array[:, 1], **under},
        index=pd.Index(spots.ids, dtype=object),
    )
    table.obsm[keys.SPATIAL] = spots.xy
    assert spots.diameter_um is not None
    table.uns[keys.SPATIAL] = {
        f"simulated {seed}": {
            "images": {},
            "scalefactors": {"spot_diameter_fullres": spots.diameter_um / canvas.mpp},
            "metadata": {},
        }
    }
    # not keys.PROVENANCE, which would make it a prediction
    table.uns[ORIGIN] = {
        "seed": seed,
        keys.MPP: canvas.mpp,
        keys.SLIDE_WIDTH: canvas.size_px,
        keys.SLIDE_HEIGHT: canvas.size_px,
        keys.SPOT_DIAMETER_UM: spots.diameter_um,
        keys.SPOT_PITCH_UM: spots.pitch_um,
        keys.LATTICE: spots.lattice,
        keys.UNITS: "raw counts",
    }
    return table


DEMO_SEED = 15
"""Seed of the bundled slide.  The demo weights are trained on others."""
NAME = "demo_slide"
TILE_PX = 256
JPEG_QUALITY = 76
SMALLEST_PX = 512


def demo_slide() -> Path:
    """Return the path of the bundled slide, a tiled pyramidal TIFF."""
    return _bundled(f"{NAME}.tif")


def demo_table() -> Path:
    """Return the path of the bundled slide's spots and raw counts, h5ad."""
    return _bundled(f"{NAME}.h5ad")


def _bundled(name: str) -> Path:
    path = Path(str(files("napari_flag").joinpath("data", name)))
    if not path.is_file():
        raise UserError(
            f"The demo file {name} is missing from this installation ({path.parent}); reinstall "
            "napari-flag, or make it with: python -m napari_flag.simulation"
        )
    return path


def write_slide(path: Path, image: npt.NDArray[np.uint8], mpp: float) -> None:
    """Write a tiled pyramidal TIFF, JPEG-compressed, µm/px in its resolution tags.

    Parameters
    ----------
    path
        The file, overwritten.
    image
        uint8 (height, width, 3).
    mpp
        µm per pixel.
    """
    levels = [image]
    while max(levels[-1].shape[:2]) > SMALLEST_PX:
        last = levels[-1]
        half = Image.fromarray(last).resize((last.shape[1] // 2, last.shape[0] // 2), Image.Resampling.BOX)
        levels.append(np.asarray(half))
    with replacing(path) as place, tifffile.TiffWriter(place) as tif:
        for k, level in enumerate(levels):
            per_cm = 1e4 / (mpp * image.shape[1] / level.shape[1])
            tif.write(
                level,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": JPEG_QUALITY},
                resolution=(per_cm, per_cm),
                resolutionunit="CENTIMETER",
                subfiletype=0 if k == 0 else 1,
                description="napari-flag synthetic H&E, no patient" if k == 0 else None,
                metadata=None,
                software=keys.SIMULATOR,
            )


def write_simulated(folder: Path, name: str, simulated: Simulated) -> tuple[Path, Path]:
    """Write ``name.tif`` and ``name.h5ad`` of a simulated slide into `folder`; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    slide, table = folder / f"{name}.tif", folder / f"{name}.h5ad"
    write_slide(slide, simulated.image, simulated.mpp)
    counts = simulated.counts.copy()
    for layer in list(counts.layers):
        counts.layers[layer] = counts.layers[layer].round(2)
    write_whole(table, lambda place: counts.write_h5ad(place, compression="gzip"))
    return slide, table
