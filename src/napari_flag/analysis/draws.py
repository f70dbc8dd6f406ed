"""Several joint draws of one slide: drawing more, keeping them with the prediction, and scoring them.

The model says not one expression for a slide but which ones are plausible together.  A draw is one of them;
what all draws share is what the slide says, where they differ is what it leaves open.  They are numbered from
1, stand in the layers that `prediction_file.layer_of` names, and are saved with the prediction.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.scores import DrawScores, scoring_draws, spot_blocks
from napari_flag.analysis.spatial import spot_neighbours
from napari_flag.analysis.truth import FEWEST_SPOTS, Extent, dense, measured_extent
from napari_flag.errors import UserError
from napari_flag.files import sha256_of
from napari_flag.foreign_prediction import is_foreign
from napari_flag.formatting import number as shown
from napari_flag.formatting import percent
from napari_flag.prediction_file import check_draws, draw_layers, layer_of, provenance, spots_of
from napari_flag.progress import Step, Steps
from napari_flag.slides.colours import colours_of
from napari_flag.slides.file_identity import neutral_name, why_personal
from napari_flag.statistics.accuracy import FloatArray
from napari_flag.statistics.coexpression import correlations_for_gsc, upper_triangle
from napari_flag.statistics.moran import moran_i

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.model.checkpoint import Checkpoint
    from napari_flag.slides.slide import Slide


Float32Array = npt.NDArray[np.float32]

SAME: Final = 1e-4
"""Difference, log2(count + 1), up to which two values are the same: counts that differ lie further apart."""
DIFFERING: Final = 1e-3
"""Largest share of values in which a draw made again may differ from the one in the file: devices round
differently, and now and then that is another count."""
MOVED: Final = 0.05
"""Largest difference of X, log2(count + 1), by which devices may differ."""
EARLIER: Final = (
    "An earlier version of napari-flag made the draws of this prediction in another way, so this version "
    "cannot continue them; predict again, then draw."
)


NO_DRAWS: Final = (
    "The method of this prediction states an expectation and no distribution, so nothing can be drawn of it; "
    "predict with weights of a method that draws."
)


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
    """Slide, weights and number of the joint draws to make.

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


def count(adata: "AnnData") -> int:
    """Return how many draws `adata` holds."""
    return len(draw_layers(adata))


def draws(adata: "AnnData") -> Iterator[FloatArray]:
    """Yield the (n, G) values of each draw."""
    for name in draw_layers(adata):
        yield dense(adata.layers[name]).astype(np.float64)


def keep(adata: "AnnData", draw: Draw) -> None:
    """Store a draw in the prediction; the next number only, so that none is missing."""
    if draw.number == count(adata) + 1:
        adata.layers[layer_of(draw.number)] = draw.values


def _is_earlier(adata: "AnnData") -> bool:
    made = provenance(adata)
    return keys.EARLIER_SAMPLES in made and keys.DRAWS not in made


def why_not(adata: "AnnData | None", slide: "Slide | None") -> str | None:
    """Return why no more draws can be made, a sentence, or None if they can."""
    if adata is None:
        return "There is no prediction yet; predict first, or open a prediction."
    if provenance(adata).get(keys.DRAWS) == 0:
        return NO_DRAWS
    if keys.SAMPLE not in adata.layers or not provenance(adata):
        return "This file was not predicted by napari-flag, so no more can be drawn of it."
    if _is_earlier(adata):
        return EARLIER
    if slide is None:
        return "More draws need the slide; open it on the Predict page, then draw."
    return None


def draw_more(request: DrawRequest) -> Steps[int]:
    """Draw until there are as many as requested, each with the seed of the prediction and the next number.

    Draw 1 is made again first, and has to be the one in the file.

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
        When there would be more than a prediction holds, an earlier version made the draws, or the weights
        are not here or do not give draw 1 of the file again.
    """
    from napari_flag.prediction import predict_slide

    check_draws(request.upto)
    adata, made = request.adata, provenance(request.adata)
    if _is_earlier(adata):
        raise UserError(EARLIER)
    if made.get(keys.DRAWS) == 0:
        raise UserError(NO_DRAWS)
    yield Step("Loading model", 0, None)
    checkpoint = _checkpoint(request)
    spots, slide = spots_of(adata), request.slide
    mpp = made.get(keys.MPP)
    if mpp and slide.mpp != mpp:
        slide = slide.with_mpp(float(mpp), str(made.get(keys.MPP_SOURCE, "")))
    first = count(adata) + 1
    for number in (1, *range(first, request.upto + 1)):
        drawing = predict_slide(
            slide,
            spots,
            checkpoint,
            genes=[str(gene) for gene in adata.var_names],
            depth=float(made[keys.DEPTH]) if keys.DEPTH in made else None,
            first_draw=number,
            steps=int(made[keys.STEPS]) if keys.STEPS in made else None,
            seed=int(made.get(keys.SEED, 0)),
            device=request.device,
            colours=colours_of(made.get(keys.COLOURS), "This prediction"),
            cache=request.cache,
        )
        what = "Checking" if number == 1 else f"Draw {number} of {request.upto}"
        drawn = yield from _called(drawing, what)
        if number == 1:
            _check_same(adata, drawn)
            continue
        yield Step(what, 1, 1, "draws", partial=Draw(number, dense(drawn.layers[layer_of(number)])))
    return max(first - 1, request.upto)


def _called(steps: "Steps[AnnData]", what: str) -> "Steps[AnnData]":
    """Pass `steps` on under another name, without previews and notices, which the first run gave."""
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

    made = provenance(request.adata)
    name, expected = str(made.get(keys.WEIGHTS_NAME, "")), made.get(keys.WEIGHTS_HASH)
    checkpoint = Checkpoint.load(request.weights or _renamed_weights(name, expected) or find_weights(name))
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


def _renamed_weights(name: str, expected: str | None) -> Path | None:
    """Return the listed weights that a prediction calls by a neutral name; None where there are none."""
    from napari_flag.model.checkpoint import list_weights

    if expected is None or name != neutral_name(expected):
        return None
    named_so = (path for listed, path in list_weights() if why_personal(listed) is not None)
    return next((path for path in named_so if sha256_of(path) == expected), None)


def _check_same(adata: "AnnData", again: "AnnData") -> None:
    """Raise a `UserError` when draw 1 or X differs from the one in the file."""
    apart = np.abs(dense(adata.layers[keys.SAMPLE]) - dense(again.layers[keys.SAMPLE]))
    share = float((apart > SAME).mean())
    moved = float(np.abs(dense(adata.X) - dense(again.X)).max(initial=0))
    differs = ""
    if share > max(DIFFERING, 1 / apart.size):  # of few values one may, too
        differs = f"Draw 1 made again differs from the one in the file in {percent(share, 1)} of its values"
    elif moved > MOVED:
        differs = f"X made again differs from that in the file by up to {shown(moved, 2)}"
    if differs:
        raise UserError(
            f"{differs}, so more draws would be of something else; predict the whole tissue (not a region) "
            "with these weights, then draw."
        )


BETWEEN: Final = ("PCC", "GSC", "SSC")
ALIKE: Final = 1e-6
"""A column shorter than this, once centred, is constant up to float32 rounding."""


def depend_on_each_other(adata: "AnnData") -> int:
    """Return how many consecutive draws of a prediction depend on each other: another program's do not."""
    return 1 if is_foreign(adata) else keys.DRAWS_TOGETHER


def score_draws(
    adata: "AnnData", extent: Extent, truth: FloatArray, *, fair: bool = False
) -> Steps[DrawScores]:
    """Score the draws of a prediction against its measurement.

    Parameters
    ----------
    adata
        The prediction, with or without draws.
    extent
        The spots and genes that were measured.
    truth
        (n, G) log2(count + 1) of these.
    fair
        Whether proper scores are fair ones, which compare with those of other models.
    """
    block = depend_on_each_other(adata) if fair else None
    cut = [extent.cut(adata.layers[name]) for name in draw_layers(adata)]
    neighbours, blocks = spot_neighbours(adata, extent.spots), spot_blocks(adata, extent)
    return (yield from scoring_draws(cut, truth, neighbours, blocks, keys.ANALYSIS_SEED, block=block))


@dataclass(frozen=True, slots=True)
class DrawNumbers:
    """Agreement between draws, and of draws with the measurement.

    Parameters
    ----------
    scores
        Against the measurement, over what was measured; None where nothing was.
    between
        `BETWEEN` → two draws compared with each other over all spots and genes, mean over all pairs.
    moran
        (K, G) Moran's I of each gene in each draw, over all spots.
    """

    scores: DrawScores | None
    between: dict[str, float]
    moran: FloatArray


def compare_draws(adata: "AnnData") -> Steps[DrawNumbers]:
    """Compare the draws of `adata` with one another, and with the measurement where there is one.

    Parameters
    ----------
    adata
        With at least one draw.
    """
    yield Step("Comparing draws", 0, None)
    weights = spot_neighbours(adata).weights
    roughness, pairs = [], {name: _MeanOfPairs() for name in BETWEEN}
    for number, values in enumerate(draws(adata), start=1):
        yield Step("Comparing draws", number - 1, count(adata), "draws")
        roughness.append(moran_i(values, weights))
        correlations = correlations_for_gsc(values)
        pairs["PCC"].add(values)
        pairs["SSC"].add(roughness[-1][:, None])
        if len(correlations) == adata.n_vars:
            pairs["GSC"].add(upper_triangle(correlations)[:, None])
    between = {name: pair.mean() for name, pair in pairs.items()} if len(roughness) > 1 else {}
    scores, extent = None, measured_extent(adata)
    if extent is not None and len(extent.spots) >= FEWEST_SPOTS:
        scores = yield from score_draws(adata, extent, extent.cut(adata.layers[keys.MEASURED]))
    return DrawNumbers(scores, between, np.array(roughness).reshape(-1, adata.n_vars))


class _MeanOfPairs:
    """Mean Pearson correlation over all pairs of arrays added, column by column, without keeping them.

    With z the arrays centred and of length 1, Σ over pairs of zᵢ·zⱼ is (|Σz|² − Σ|z|²) / 2.
    """

    def __init__(self) -> None:
        self._total: FloatArray | None = None
        self._squares: Any = 0.0
        self._arrays = 0

    def add(self, values: FloatArray) -> None:
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


def gene_between(adata: "AnnData", gene: str) -> float:
    """Return the mean Pearson correlation of `gene` between two draws; NaN for fewer than two."""
    column = [int(adata.var_names.get_loc(gene))]
    names, layers = draw_layers(adata), adata.layers
    if len(names) < 2:
        return float("nan")
    values = np.stack([dense(layers[name][:, column])[:, 0] for name in names]).astype(np.float64)
    if (np.ptp(values, axis=1) <= 0).any():
        return float("nan")
    together = np.atleast_2d(np.corrcoef(values))
    return float(together[np.triu_indices(len(names), 1)].mean())
