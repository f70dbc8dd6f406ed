"""Differential genes of a region, in prediction and measurement.

Numbers of the prediction are over all its spots and genes; those of the measurement over what was measured.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from napari_flag.analysis.truth import MEASURED, PREDICTED, Extent, extent_of, matrix_of, sources
from napari_flag.prediction_file import spots_of
from napari_flag.progress import Step, Steps
from napari_flag.slides.lattice import lattice_of, pitch_px
from napari_flag.statistics.markers import FEWEST_SPOTS, differential_genes, overlap_at
from napari_flag.statistics.markers import Overlap as Overlap
from napari_flag.statistics.multiple_testing import q_values

if TYPE_CHECKING:
    import pandas as pd
    import shapely
    from anndata import AnnData


BoolArray = npt.NDArray[np.bool_]
TOPS: Final = (20, 50)
"""How many first genes of prediction and truth are compared."""
GENES_AT_ONCE: Final = 64
"""Genes ranked between two progress steps."""
SHOWN: Final = ["gene", "inside", "outside", "difference", "score", "q"]
"""Columns of one source in `RegionNumbers.genes`, in order."""


@dataclass(frozen=True, slots=True)
class RegionNumbers:
    """One region against another, or against the rest.

    Parameters
    ----------
    genes
        gene, and for each source at hand: inside_*, outside_* (means, log2(count + 1)), difference_*,
        score_* (Wilcoxon's z) and q_*; NaN where a gene was not measured.
    rankings
        Source → genes, those most raised in the region first.  Without the measurement where fewer than two
        spots inside, or outside, were measured.
    overlaps
        As `compare_rankings` of prediction and truth; empty without truth.
    spots
        Source → spots inside and outside that were compared.
    """

    genes: "pd.DataFrame"
    rankings: dict[str, tuple[str, ...]]
    overlaps: tuple[Overlap, ...]
    spots: dict[str, tuple[int, int]]


def compare_regions(adata: "AnnData", inside: BoolArray, outside: BoolArray | None) -> Steps[RegionNumbers]:
    """Compare spots `inside` with those `outside`, in prediction and truth.

    Parameters
    ----------
    adata
        A prediction, with ``layers["measured"]`` or without.
    inside, outside
        (n,) bool; None takes all other spots.

    Raises
    ------
    UserError
        When a region holds too few spots, or a spot lies in both.
    """
    rest = ~inside if outside is None else outside
    whole: pd.DataFrame | None = None
    tables, spots = {}, {}
    for source in sources(adata):
        counted = _count(extent_of(adata, source), inside, rest)
        if source == MEASURED and min(counted) < FEWEST_SPOTS:
            continue
        ranked = yield from rank_genes(adata, source, inside, rest)
        tables[source], spots[source] = ranked, counted
        found = ranked.rename(columns={"mean_inside": "inside", "mean_outside": "outside"})[SHOWN]
        named = found.rename(columns={name: f"{name}_{source}" for name in SHOWN[1:]})
        whole = named if whole is None else whole.merge(named, on="gene", how="left")
    assert whole is not None
    overlaps: tuple[Overlap, ...] = ()
    if MEASURED in tables:
        overlaps = yield from compare_rankings(adata, tables[PREDICTED], tables[MEASURED], inside, rest)
    rankings = {source: tuple(table["gene"]) for source, table in tables.items()}
    return RegionNumbers(whole, rankings, overlaps, spots)


def compare_rankings(
    adata: "AnnData",
    predicted: "pd.DataFrame",
    measured: "pd.DataFrame",
    inside: BoolArray,
    outside: BoolArray | None = None,
) -> Steps[tuple[Overlap, ...]]:
    """Count the leading genes of a region that prediction and truth share, over what was measured.

    Parameters
    ----------
    adata
        A prediction with ``layers["measured"]``.
    predicted, measured
        Tables of `rank_genes` between these regions.  Where some spots were not measured the prediction is
        ranked again without them: other spots are another contrast.
    inside, outside
        (n,) bool; None takes all other spots.

    Returns
    -------
    tuple
        One for each of `TOPS`, of the genes that were measured.
    """
    extent = extent_of(adata, MEASURED)
    if len(extent.spots) < adata.n_obs:
        predicted = yield from rank_genes(adata, PREDICTED, inside, outside, over=extent)
    return tuple(overlap_at(list(predicted["gene"]), list(measured["gene"]), k) for k in TOPS)


def _count(extent: Extent, inside: BoolArray, outside: BoolArray) -> tuple[int, int]:
    return int(inside[extent.spots].sum()), int(outside[extent.spots].sum())


def rank_genes(
    adata: "AnnData",
    source: str,
    inside: BoolArray,
    outside: BoolArray | None = None,
    *,
    over: Extent | None = None,
) -> "Steps[pd.DataFrame]":
    """Rank the genes of one source by how much higher they are inside a region than outside.

    Parameters
    ----------
    adata
        A prediction.
    source
        `truth.PREDICTED`, over all spots and genes, or `truth.MEASURED`, over what was measured.
    inside, outside
        (n,) bool over the spots of `adata`; None takes all other spots.
    over
        The spots and genes that count; None takes all that `source` has.

    Returns
    -------
    DataFrame
        As `statistics.markers.differential_genes`.

    Raises
    ------
    UserError
        When a region holds too few spots, or a spot is in both.
    """
    import pandas as pd

    extent, matrix = over or extent_of(adata, source), matrix_of(adata, source)
    rest = ~inside if outside is None else outside
    a, b = inside[extent.spots], rest[extent.spots]
    parts = []
    for start in range(0, len(extent.genes), GENES_AT_ONCE):
        yield Step(f"Comparing regions, {source}", start, len(extent.genes), "genes")
        here = Extent(extent.spots, extent.genes[start : start + GENES_AT_ONCE])
        names = [str(gene) for gene in adata.var_names[here.genes]]
        parts.append(differential_genes(here.cut(matrix), names, a, b))
    table = pd.concat(parts, ignore_index=True)
    table["q"] = q_values(table["p"].to_numpy(np.float64))
    return table.sort_values("score", ascending=False, kind="stable", ignore_index=True)


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Some spots of the current prediction, under a name.

    Parameters
    ----------
    name
        What it is called: of a shape drawn, of a QuPath annotation, of a domain.
    mask
        (n,) bool, which spots of the prediction belong to it.
    polygon
        Its outline in level-0 px, (x, y); None where it was never drawn (a domain).
    """

    name: str
    mask: BoolArray
    polygon: "shapely.Polygon | shapely.MultiPolygon | None" = None

    @property
    def spots(self) -> int:
        """How many spots belong to it."""
        return int(np.count_nonzero(self.mask))


@dataclass(frozen=True, slots=True)
class AreaScale:
    """From outlines and numbers of spots to mm².

    Parameters
    ----------
    um_per_px
        µm per level-0 px, None where it is not known: then no area is either.
    spot_px2
        Area that one spot stands for, level-0 px²: the pitch squared on a square array, √3/2 of that on a
        hexagonal one.
    """

    um_per_px: float | None
    spot_px2: float

    @classmethod
    def of(cls, adata: "AnnData", um_per_px: float | None) -> "AreaScale":
        """Return the scale of `adata`, its pitch as `lattice.pitch_px` has it."""
        spots = spots_of(adata)
        lattice = spots.lattice
        if lattice == "none" and spots.array is not None:
            lattice = lattice_of(spots.array)
        pitch = pitch_px(spots, um_per_px)
        return cls(um_per_px, pitch**2 * (np.sqrt(3) / 2 if lattice == "hex" else 1.0))

    def of_spots(self, spots: int) -> float:
        """Return the area in mm² of so many spots; NaN where µm/px is not known."""
        return self._mm2(spots * self.spot_px2)

    def of_region(self, region: Region) -> float:
        """Return the area in mm² of a region: of its outline, or of its spots where it was never drawn."""
        return self.of_spots(region.spots) if region.polygon is None else self._mm2(region.polygon.area)

    def _mm2(self, px2: float) -> float:
        return float("nan") if self.um_per_px is None else float(px2) * self.um_per_px**2 * 1e-6
