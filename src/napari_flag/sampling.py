"""An encoded slide → expression, drawn chunk by chunk, with a preview of every chunk that is done."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from napari_flag.encoders.features import halve
from napari_flag.methods.predictor import EncodedSlide, FloatArray, Predictor
from napari_flag.model.samplers import SamplerSettings
from napari_flag.progress import Step, Steps

STAGE: Final = "Predicting expression"
_TOKENS_CPU: Final = 16_000
"""Values (spots × genes × samples) drawn at once on the CPU: about a quarter of a second an evaluation."""
_TOKENS_GPU: Final = 400_000
"""The same on a GPU, where larger chunks are faster until memory runs out."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Sampled expression, log2(count + 1).

    Parameters
    ----------
    mean, sample
        (n, G) float32, the expectation and the first joint sample.
    spread
        (n, G) float32, predictive standard deviation; None where the method cannot state it.
    """

    mean: FloatArray
    sample: FloatArray
    spread: FloatArray | None


@dataclass(frozen=True, slots=True)
class Preview:
    """Chunk of a prediction that can be shown while the rest is computed.

    Parameters
    ----------
    rows
        (b,) int64 positions among the spots predicted.
    values
        (b, G) float32 log2(count + 1), the expectation.
    genes
        G gene symbols.
    """

    rows: npt.NDArray[np.int64]
    values: FloatArray
    genes: tuple[str, ...]


def sample_expression(
    predictor: Predictor,
    encoded: EncodedSlide,
    ids: Sequence[str],
    rows: npt.NDArray[np.int64],
    settings: SamplerSettings,
) -> Steps[Expression]:
    """Draw joint samples of the expression of spots `rows`, chunk by chunk.

    Parameters
    ----------
    predictor, encoded
        The method, and the slide as it encoded it.
    ids
        Names of all spots of the slide.
    rows
        Positions of the spots to predict.
    settings
        Number of samples, solver, seed.

    Yields
    ------
    A `Step` per evaluation; when a chunk is done its ``partial`` is a `Preview`.

    Raises
    ------
    UserError
        When GPU memory runs out at one spot at a time.
    """
    n, g = len(rows), len(predictor.genes)
    tokens = _TOKENS_GPU if predictor.device.type == "cuda" else _TOKENS_CPU
    chunk = max(1, tokens // (g * settings.samples))
    mean, sample = np.empty((n, g), np.float32), np.empty((n, g), np.float32)
    spread: FloatArray | None = None
    start = 0
    while start < n:
        here = np.arange(start, min(start + chunk, n))
        drawing = encoded.draw(rows[here], [ids[row] for row in rows[here]], settings)
        try:
            while True:
                yield Step(STAGE, start + int(next(drawing) * len(here)), n)
        except StopIteration as stop:
            drawn: FloatArray = stop.value  # (K, b, G)
        except torch.cuda.OutOfMemoryError:
            chunk = halve(chunk, "spots")
            torch.cuda.empty_cache()
            notice = f"GPU memory ran out; continuing with {chunk} spots at a time."
            yield Step(STAGE, start, n, notice=notice)
            continue
        mean[here], sample[here] = encoded.expectation(rows[here], drawn), drawn[0]
        if (deviation := encoded.spread(rows[here], drawn)) is not None:
            spread = np.empty((n, g), np.float32) if spread is None else spread
            spread[here] = deviation
        start = int(here[-1]) + 1
        yield Step(STAGE, start, n, partial=Preview(here, mean[here], predictor.genes))
    return Expression(mean, sample, spread)
