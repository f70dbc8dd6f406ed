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
from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps
from napari_flag.viewer.frame import provenance

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.model.checkpoint import Checkpoint
    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots

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
    from napari_flag.matching import dense

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
    from napari_flag.pipeline import predict_slide

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
        yield Step(what, 1, 1, "draws", partial=Draw(number, np.asarray(drawn.X, np.float32)))
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
    from napari_flag.matching import dense

    off = float(np.abs(dense(adata.layers[keys.SAMPLE]) - dense(again.X)).max())
    if off > SAME:
        raise UserError(
            f"Draw 1 made again differs from the one in the file by up to {off:.2g}, so more draws would be "
            "of something else; predict the whole tissue (not a region) with these weights, then draw."
        )


def spots_of(adata: "AnnData") -> "Spots":
    """Return the spots that `adata` was predicted for."""
    from napari_flag.slides.spots import Spots

    told = provenance(adata)
    array = None
    if keys.ARRAY_ROW in adata.obs and keys.ARRAY_COL in adata.obs:
        array = adata.obs[[keys.ARRAY_ROW, keys.ARRAY_COL]].to_numpy(np.int64)
    lattice = str(told.get(keys.LATTICE, "none"))
    return Spots(
        ids=tuple(str(name) for name in adata.obs_names),
        xy=np.asarray(adata.obsm[keys.SPATIAL], np.float64),
        diameter_um=_number(told.get(keys.SPOT_DIAMETER_UM)),
        pitch_um=_number(told.get(keys.SPOT_PITCH_UM)),
        lattice="square" if lattice == "square" else "hex" if lattice == "hex" else "none",
        array=array,
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
