"""What every method states: the expression it expects, and how it draws (`methods.predictor`)."""

from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]

AVERAGED: Final = "expectation"
"""Keys the noise of draws that are only averaged: the same whatever the seed of the prediction."""


class Moments(NamedTuple):
    """Mean and standard deviation of the measurements that could be made of spots.

    Parameters
    ----------
    mean
        (b, G) float32, the expected log2(count + 1).
    sd
        (b, G) float32, standard deviation of a measurement, log2(count + 1); None where a method cannot state
        it, which must not depend on the spots.
    """

    mean: FloatArray
    sd: FloatArray | None


class Sampler(NamedTuple):
    """How a method draws.

    Parameters
    ----------
    name
        Of the solver.
    steps
        Solver steps, where the weights fix them; None where whoever predicts chooses.
    """

    name: str
    steps: int | None = None
