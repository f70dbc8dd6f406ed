"""What every method states of the expression it expects; the protocol is `methods.predictor`."""

from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float32]


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
