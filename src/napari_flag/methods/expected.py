"""Methods that state an expectation and nothing of what it leaves open: no draws, no standard deviation.

A method is an `ExpectingNetwork`; `ExpectingPredictor` makes a `methods.predictor.Predictor` of it.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_flag.errors import UserError
from napari_flag.methods.moments import FloatArray, Moments, Sampler
from napari_flag.model.graph import SpotGraph
from napari_flag.model.observation import Observation
from napari_flag.model.samplers import SamplerSettings

NO_DRAWS: Final = (
    "This method states an expectation and no distribution, so nothing can be drawn of it; ask for no draws, "
    "or choose weights of a method that draws."
)


class ExpectingNetwork(nn.Module):
    """A network that expects the expression of all spots of a slide at once.

    Parameters
    ----------
    config
        Its sizes, a dataclass; ``features`` is the length of a feature vector.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def expect(self, features: Tensor, graph: SpotGraph) -> Tensor:
        """Return (n, G) log2(count + 1) from (n, d) raw features; values below 0 count as 0."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ExpectingPredictor:
    """A method that states an expectation (a `methods.predictor.Predictor`).

    Parameters
    ----------
    network
        In evaluation mode.
    genes
        The panel, in the order of the network's outputs.
    """

    network: ExpectingNetwork
    genes: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next(chain(self.network.parameters(), self.network.buffers())).device

    @property
    def sampler(self) -> Sampler | None:
        """None: it draws nothing."""
        return None

    @torch.inference_mode()
    def encode(self, features: FloatArray, graph: SpotGraph) -> "ExpectedSlide":
        """Expect all spots of a slide, from raw (n, d) float32 `features` and their `graph`."""
        expected = self.network.expect(torch.from_numpy(features).to(self.device), graph)
        mean: FloatArray = expected.float().clamp_min(0).cpu().numpy()
        return ExpectedSlide(mean)


@dataclass(frozen=True, slots=True)
class ExpectedSlide:
    """A slide of which an expectation is stated (a `methods.predictor.EncodedSlide`).

    Parameters
    ----------
    mean
        (n, G) float32 log2(count + 1), of all spots.
    """

    mean: FloatArray

    def expectation(self, rows: npt.NDArray[np.int64], ids: Sequence[str]) -> Generator[float, None, Moments]:
        """Return the (b, G) expectation of the spots `rows`, and no standard deviation."""
        yield 1.0
        return Moments(self.mean[rows], None)

    def draw(
        self, rows: npt.NDArray[np.int64], ids: Sequence[str], settings: SamplerSettings
    ) -> Generator[float, None, FloatArray]:
        """Refuse: there is no distribution to draw from."""
        raise UserError(NO_DRAWS)

    def total(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> float:
        """Return the expected total count of the genes `columns`, were nothing but counting uncertain."""
        return float(np.exp(_rates(self.mean[np.ix_(rows, columns)])).sum(1).mean())

    def shifted(self, shift: float) -> "ExpectedSlide":
        """Return the slide with all its counts ``exp(shift)`` times as high."""
        rates = _rates(self.mean) + shift
        mean = _counting().expected(rates.reshape(-1, 1)).reshape(self.mean.shape)
        return replace(self, mean=mean.astype(np.float32))


def _rates(mean: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return the log-rates of Poisson counts whose log2(count + 1) has the expectation `mean`."""
    return _counting().latent(mean.reshape(-1, 1)).reshape(mean.shape)


def _counting() -> Observation:
    return Observation.of(np.zeros(1), np.zeros(1))  # no residual: one table for all genes
