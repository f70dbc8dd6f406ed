"""An encoded slide → expression, chunk by chunk: what is expected of it, with a preview, then its draws."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from napari_flag import scratch
from napari_flag.encoders.features import halve
from napari_flag.methods.moments import FloatArray
from napari_flag.methods.predictor import EncodedSlide, Predictor
from napari_flag.model.samplers import SamplerSettings
from napari_flag.prediction_file import build_prediction, describe_place
from napari_flag.progress import Step, Steps

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots

STAGE: Final = "Predicting expression"
_TOKENS_CPU: Final = 16_000
"""Values (spots × genes × draws) drawn at once on the CPU: about a quarter of a second an evaluation."""
_TOKENS_GPU: Final = 400_000
"""The same on a GPU, where larger chunks are faster until memory runs out."""
_EMPTIED: Final = 2**26
"""Values set to NaN at once: a quarter of a second, where they lie in a file."""
_EXPECTING: Final = 0.1
"""Share of a chunk that counts as done with its expectation, which most methods have in closed form."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Expression:
    """Expected and drawn expression, log2(count + 1).

    Parameters
    ----------
    mean
        (n, G) float32, the expectation.  Large arrays lie in files (`scratch.empty`).
    draws
        (K, n, G) float32, joint draws in the order of their numbers; K = 0 where the method draws nothing.
    spread
        (n, G) float32, standard deviation of a measurement; None where the method cannot state it.
    """

    mean: FloatArray
    draws: FloatArray
    spread: FloatArray | None


@dataclass(frozen=True, slots=True)
class Preview:
    """Prediction that can be shown while the rest is computed.

    Parameters
    ----------
    rows
        (b,) int64 positions among the spots predicted that came last.
    values
        (n, G) float32 log2(count + 1), the expectation, in the array that becomes the result: later chunks
        are written into it, and NaN is what none has reached.
    genes
        G gene symbols.
    """

    rows: npt.NDArray[np.int64]
    values: FloatArray
    genes: tuple[str, ...]


def preview_of(preview: Preview, slide: "Slide", spots: "Spots") -> "AnnData":
    """Return the AnnData of all `spots` that are predicted of `slide`; it follows, as no value is copied."""
    return build_prediction(preview.values, spots, preview.genes, describe_place(slide, spots))


def sample_expression(
    predictor: Predictor,
    encoded: EncodedSlide,
    ids: Sequence[str],
    rows: npt.NDArray[np.int64],
    settings: SamplerSettings | None,
    columns: npt.NDArray[np.int64] | None = None,
) -> Steps[Expression]:
    """Expect the expression of spots `rows`, and draw it, chunk by chunk.

    Parameters
    ----------
    predictor, encoded
        The method, and the slide as it encoded it.
    ids
        Names of all spots of the slide.
    rows
        Positions of the spots to predict.
    settings
        Which draws, solver, seed; None for a method that draws nothing.
    columns
        Positions of the genes to keep, None for all; all are drawn, so that numbers do not change.

    Yields
    ------
    A `Step` per evaluation; when a chunk is expected, and not drawn yet, its ``partial`` is a `Preview`,
    which holds the array of all chunks.

    Raises
    ------
    UserError
        When GPU memory runs out at one spot at a time.
    FloatingPointError
        When the method gives values that are not numbers.
    """
    n, g = len(rows), len(predictor.genes)
    tokens = _TOKENS_GPU if predictor.device.type == "cuda" else _TOKENS_CPU
    number = 0 if settings is None else settings.draws
    chunk = max(1, tokens // (g * max(number, 1)))
    kept: slice | npt.NDArray[np.int64] = slice(None) if columns is None else columns
    shape = (n, g if columns is None else len(columns))
    mean, draws = scratch.empty(shape, np.float32), scratch.empty((number, *shape), np.float32)
    spread: FloatArray | None = None
    genes = tuple(np.array(predictor.genes, object)[kept])
    for first in range(0, n, room := max(1, _EMPTIED // max(shape[1], 1))):
        if first:
            yield Step(STAGE, 0, n)
        mean[first : first + room] = np.nan
    start = 0
    while start < n:
        here = np.arange(start, min(start + chunk, n))
        names, expecting = [ids[row] for row in rows[here]], _EXPECTING * len(here)
        try:
            expected = yield from _counted(encoded.expectation(rows[here], names), start, expecting, n)
            _refuse_no_numbers(expected.mean, expected.sd)
            mean[here] = expected.mean[:, kept]
            if expected.sd is not None:
                spread = scratch.empty(shape, np.float32) if spread is None else spread
                spread[here] = expected.sd[:, kept]
            done = start + expecting
            yield Step(STAGE, int(done), n, partial=Preview(here, mean, genes))
            if settings is not None:
                drawing = encoded.draw(rows[here], names, settings)
                drawn = yield from _counted(drawing, done, len(here) - expecting, n)
                _refuse_no_numbers(drawn)
                draws[:, here] = drawn[:, :, kept]
        except torch.cuda.OutOfMemoryError:
            chunk = halve(chunk, "spots")
            torch.cuda.empty_cache()
            notice = f"GPU memory ran out; continuing with {chunk} spots at a time."
            yield Step(STAGE, start, n, notice=notice)
            continue
        start = int(here[-1]) + 1
        yield Step(STAGE, start, n)
    return Expression(mean, draws, spread)


def _refuse_no_numbers(*found: FloatArray | None) -> None:
    if not all(values is None or np.isfinite(values).all() for values in found):
        raise FloatingPointError("predicted values that are not numbers")


def _counted(
    work: Generator[float, None, _T], done: float, spots: float, total: int
) -> Generator[Step, None, _T]:
    """Count the share that `work` yields as so many `spots` after those `done`."""
    try:
        while True:
            yield Step(STAGE, int(done + next(work) * spots), total)
    except StopIteration as stop:
        result: _T = stop.value
        return result
    finally:
        work.close()
