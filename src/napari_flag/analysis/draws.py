"""Several joint draws of one slide: drawing more, and keeping them with the prediction.

The model says not one expression for a slide but which ones are plausible together.  A draw is one of them;
what all draws share is what the slide says, where they part is what it leaves open.  Draw 1 is
``layers["sample"]``, the others are ``layers["sample_2"]`` and so on; they are saved with the prediction.
Holds no Qt.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.compare import SECTION_MOST_GENES
from napari_flag.errors import UserError
from napari_flag.prediction_file import provenance, spots_of
from napari_flag.progress import Step, Steps

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_flag.model.checkpoint import Checkpoint
    from napari_flag.slides.slide import Slide


Float32Array = npt.NDArray[np.float32]

MOST: Final = 32
"""Draws a person pages through; more say nothing that the spread does not."""
SAME: Final = 0.02
"""Largest difference, log2(count + 1), between a draw made again and the one in the file: devices round
differently."""


@dataclass(frozen=True, slots=True)
class Draw:
    """One joint draw that is done, the ``partial`` of a `Step`.

    Parameters
    ----------
    number
        From 1.
    values
        (n, G) float32 log2(count + 1).
    """

    number: int
    values: Float32Array


@dataclass(frozen=True, slots=True)
class DrawRequest:
    """What is to be drawn.

    Parameters
    ----------
    adata
        The prediction, of all spots of the tissue.
    slide
        Its slide.
    upto
        Number of the last draw.
    device
        "auto", "cpu", "cuda", …
    weights
        Weights file; None looks for the weights that the prediction names.
    cache
        Folder for features; None takes the user's.
    """

    adata: "AnnData"
    slide: "Slide"
    upto: int
    device: str = "auto"
    weights: Path | None = None
    cache: Path | None = None


def layer_of(number: int) -> str:
    """Return the ``layers`` key of draw `number`, from 1."""
    return keys.SAMPLE if number == 1 else f"{keys.SAMPLE}_{number}"


def count(adata: "AnnData") -> int:
    """Return how many draws `adata` holds."""
    number, names = 0, set(adata.layers)
    while layer_of(number + 1) in names:
        number += 1
    return number


def draws(adata: "AnnData") -> Iterator[npt.NDArray[np.float64]]:
    """Yield the (n, G) values of each draw."""
    from napari_flag.analysis.truth import dense

    for number in range(1, count(adata) + 1):
        yield dense(adata.layers[layer_of(number)]).astype(np.float64)


def keep(adata: "AnnData", draw: Draw) -> None:
    """Keep a draw with the prediction; the next number only, so that none is missing."""
    if draw.number == count(adata) + 1:
        adata.layers[layer_of(draw.number)] = draw.values


def why_not(adata: "AnnData | None", slide: "Slide | None") -> str | None:
    """Return why no more draws can be made, a sentence, or None if they can."""
    if adata is None:
        return "There is no prediction yet; predict first, or open a prediction."
    if keys.SAMPLE not in adata.layers or not provenance(adata):
        return "This file was not predicted by napari-flag, so no more can be drawn of it."
    if slide is None:
        return "More draws need the slide; open it in the Predict expression dock, then draw."
    return None


def draw_more(request: DrawRequest) -> Steps[int]:
    """Draw until there are as many as asked for, each with the next seed.

    The noise that all samples of a prediction share is drawn anew too: every draw is an independent one
    of the same distribution.

    Yields
    ------
    Steps; ``partial`` is a `Draw` when one is done.

    Returns
    -------
    int
        Number of the last draw.

    Raises
    ------
    UserError
        When the weights are not here, or do not give the sample in the file again.
    """
    from napari_flag.analysis.truth import dense
    from napari_flag.prediction import predict_slide

    adata, told = request.adata, provenance(request.adata)
    yield Step("Loading model", 0, None)
    checkpoint = _checkpoint(request)
    spots, slide = spots_of(adata), request.slide
    mpp = told.get(keys.MPP)
    if mpp and slide.mpp != mpp:
        slide = slide.with_mpp(float(mpp), str(told.get(keys.MPP_SOURCE, "")))
    first = count(adata) + 1
    for number in (1, *range(first, request.upto + 1)):
        drawing = predict_slide(
            slide,
            spots,
            checkpoint,
            genes=[str(gene) for gene in adata.var_names],
            samples=1,
            steps=int(told[keys.STEPS]) if keys.STEPS in told else None,
            seed=int(told.get(keys.SEED, 0)) + number - 1,
            device=request.device,
            cache=request.cache,
        )
        what = "Checking" if number == 1 else f"Draw {number} of {request.upto}"
        drawn = yield from _called(drawing, what)
        if number == 1:
            _check_same(adata, drawn)
            continue
        yield Step(what, 1, 1, "draws", partial=Draw(number, dense(drawn.layers[keys.SAMPLE])))
    return max(first - 1, request.upto)


def _called(steps: "Steps[AnnData]", what: str) -> "Steps[AnnData]":
    """Pass `steps` on under another name, without previews and notices, which the first run told."""
    try:
        while True:
            step = next(steps)
            yield replace(step, stage=f"{what}: {step.stage.lower()}", partial=None, notice=None)
    except StopIteration as ended:
        result: AnnData = ended.value
        return result
    finally:
        steps.close()


def _checkpoint(request: DrawRequest) -> "Checkpoint":
    from napari_flag.model.checkpoint import Checkpoint, find_weights

    told = provenance(request.adata)
    name, expected = str(told.get(keys.WEIGHTS_NAME, "")), told.get(keys.WEIGHTS_HASH)
    checkpoint = Checkpoint.load(request.weights or find_weights(name))
    if expected and checkpoint.sha256 != expected:
        raise UserError(
            f'The weights "{name}" here are not those of this prediction (another version of the file), so '
            "its draws cannot be continued; choose the weights file it was made with, or predict again."
        )
    unknown = set(map(str, request.adata.var_names)) - set(checkpoint.genes)
    if unknown:
        raise UserError(
            f'The weights "{checkpoint.name}" do not know {min(unknown)}, so they did not make this '
            "prediction; choose the weights file it was made with."
        )
    return checkpoint


def _check_same(adata: "AnnData", again: "AnnData") -> None:
    """Refuse to go on where draw 1 does not come out as it stands in the file."""
    from napari_flag.analysis.truth import dense

    off = float(np.abs(dense(adata.layers[keys.SAMPLE]) - dense(again.layers[keys.SAMPLE])).max())
    if off > SAME:
        raise UserError(
            f"Draw 1 made again differs from the one in the file by up to {off:.2g}, so more draws would be "
            "of something else; predict the whole tissue (not a region) with these weights, then draw."
        )


METRICS: Final = ("PCC", "GSC", "SSC")
TRUTH, MEAN = "truth", "mean"
ALIKE: Final = 1e-6
"""A column shorter than this, once centred, is constant up to float32 rounding."""


@dataclass(frozen=True, slots=True)
class DrawNumbers:
    """What stays from draw to draw and what moves.

    Parameters
    ----------
    table
        One row per draw: PCC, GSC and SSC against the truth where there is one, else against ``X``.
    against
        `TRUTH` or `MEAN`, what `table` holds the draws against.
    between
        "PCC", "GSC", "SSC" of two draws held against each other, mean over all pairs.
    moran
        (K, G) Moran's I of each gene in each draw.
    """

    table: "pd.DataFrame"
    against: str
    between: dict[str, float]
    moran: npt.NDArray[np.float64]


def compare_draws(adata: "AnnData") -> Steps[DrawNumbers]:
    """Hold the draws of `adata` against the truth (or their mean), and against one another.

    Parameters
    ----------
    adata
        With at least one draw; spots that were not measured are left out of the comparison with truth.
    """
    import pandas as pd

    from napari_flag.analysis.compare import spot_neighbours
    from napari_flag.analysis.truth import dense
    from napari_flag.statistics.coexpression import upper_triangle

    yield Step("Comparing draws", 0, None)
    measured = dense(adata.layers[keys.MEASURED]) if keys.MEASURED in adata.layers else None
    known = None if measured is None else np.isfinite(measured)
    if known is None or not known.any():
        rows, columns = np.arange(adata.n_obs), np.arange(adata.n_vars)
        reference, against = dense(adata.X), MEAN
    else:
        rows, columns = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
        assert measured is not None
        reference, against = measured, TRUTH
    here = np.ix_(rows, columns)
    weights = spot_neighbours(adata, rows).weights
    base = _Structure.of(reference[here].astype(np.float64), weights)
    found, moran, pairs = [], [], {name: _MeanOfPairs() for name in METRICS}
    for number, values in enumerate(draws(adata), start=1):
        yield Step("Comparing draws", number - 1, count(adata), "draws")
        one = _Structure.of(values[here], weights)
        found.append({"draw": str(number), **one.against(base)})
        moran.append(one.moran)
        pairs["PCC"].add(one.values)
        pairs["SSC"].add(one.moran[:, None])
        if one.together is not None:
            pairs["GSC"].add(upper_triangle(one.together)[:, None])
    everywhere = np.full((len(moran), adata.n_vars), np.nan)
    everywhere[:, columns] = moran
    between = {name: pair.mean() for name, pair in pairs.items()} if len(found) > 1 else {}
    return DrawNumbers(pd.DataFrame(found), against, between, everywhere)


class _MeanOfPairs:
    """Mean Pearson correlation over all pairs of arrays added, column by column, without keeping them.

    With z the arrays centred and of length 1, Σ over pairs of zᵢ·zⱼ is (|Σz|² − Σ|z|²) / 2.
    """

    def __init__(self) -> None:
        self._total: npt.NDArray[np.float64] | None = None
        self._squares: Any = 0.0
        self._arrays = 0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Add one (m, columns) array; a column that is constant in it correlates 0."""
        z = values - values.mean(axis=0)
        length = np.sqrt((z * z).sum(axis=0))
        z /= np.where(length > ALIKE, length, np.inf)
        self._total = z if self._total is None else self._total + z
        self._squares = self._squares + (z * z).sum(axis=0)
        self._arrays += 1

    def mean(self) -> float:
        """Return the mean over pairs, and over the columns that are not constant in all; NaN if none is."""
        if self._total is None or self._arrays < 2:
            return float("nan")
        known = self._squares > 0
        if not known.any():
            return float("nan")
        pairs = self._arrays * (self._arrays - 1)
        means = ((self._total**2).sum(axis=0) - self._squares)[known] / pairs
        return float(means.mean())


@dataclass(frozen=True, slots=True)
class _Structure:
    """Values of one draw, their gene–gene correlations (None for very many genes) and Moran's I."""

    values: npt.NDArray[np.float64]
    together: npt.NDArray[np.float64] | None
    moran: npt.NDArray[np.float64]

    @classmethod
    def of(cls, values: npt.NDArray[np.float64], weights: Any) -> "_Structure":
        from napari_flag.statistics import coexpression, moran

        few = values.shape[1] <= SECTION_MOST_GENES
        together = coexpression.gene_correlations(values) if few else None
        return cls(values, together, moran.moran_i(values, weights))

    def against(self, other: "_Structure") -> dict[str, float]:
        """Return PCC, GSC and SSC with `other` as the truth."""
        from napari_flag.statistics import accuracy, coexpression, moran

        unseen = accuracy.constant_genes(other.values)
        gsc = float("nan")
        if self.together is not None and other.together is not None:
            gsc = coexpression.gene_structure_correlation(self.together, other.together, unseen)
        return {
            "PCC": accuracy.mean_over_genes(accuracy.gene_pearson(self.values, other.values)),
            "GSC": gsc,
            "SSC": moran.spatial_structure_correlation(self.moran, other.moran, unseen),
        }


def gene_between(adata: "AnnData", gene: str) -> float:
    """Return the mean Pearson correlation of `gene` between two draws; NaN for fewer than two."""
    from napari_flag.analysis.truth import dense

    column = [int(adata.var_names.get_loc(gene))]
    names, layers = [layer_of(number) for number in range(1, count(adata) + 1)], adata.layers
    if len(names) < 2:
        return float("nan")
    values = np.stack([dense(layers[name][:, column])[:, 0] for name in names]).astype(np.float64)
    if (np.ptp(values, axis=1) <= 0).any():
        return float("nan")
    together = np.atleast_2d(np.corrcoef(values))
    return float(together[np.triu_indices(len(names), 1)].mean())
