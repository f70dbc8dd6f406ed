"""The `Predictor` protocol of methods that predict expression, and their registry.

A weights file names its method in its header; `open_method` returns that method as a `Predictor`, and
everything after it (`sampling`, `prediction`, further draws) knows only this protocol.

To add a method: write a module in `methods` with a class of these members, and name it in
`METHODS`.  Its tensors are stored under ``<name>.`` in the weights file (`Checkpoint.part`).  A network that
states an expectation becomes a method by `expected.ExpectingPredictor`, one that draws by
`drawn.DrawingPredictor`.
"""

from collections.abc import Callable, Generator, Sequence
from importlib import import_module
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from napari_flag.errors import UserError
from napari_flag.formatting import first_of
from napari_flag.methods.moments import FloatArray, Moments, Sampler
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.model.graph import SpotGraph
from napari_flag.model.samplers import SamplerSettings


class EncodedSlide(Protocol):
    """One slide as a method sees it: what is computed once, however many spots and draws follow."""

    def expectation(self, rows: npt.NDArray[np.int64], ids: Sequence[str]) -> Generator[float, None, Moments]:
        """Expect the expression of the spots `rows`.

        It knows neither seed nor draws: who has to average draws of its own keys their noise by spot and gene
        alone.

        Parameters
        ----------
        rows
            (b,) positions among the spots of the slide.
        ids
            Names of these b spots.

        Yields
        ------
        The share of this work done so far, 0–1; closing the generator stops it.

        Returns
        -------
        Mean and standard deviation of a measurement, (b, G) each.
        """
        ...

    def draw(
        self, rows: npt.NDArray[np.int64], ids: Sequence[str], settings: SamplerSettings
    ) -> Generator[float, None, FloatArray]:
        """Draw the joint expression of the spots `rows`: counts that could have been measured there.

        Parameters
        ----------
        rows
            (b,) positions among the spots of the slide.
        ids
            Names of these b spots; with the seed and the number of the draw they key the noise, so that
            neither chunks, the order of spots nor the number of draws change a count.
        settings
            Which draws, and how they are made.

        Yields
        ------
        The share of this work done so far, 0–1; closing the generator stops it.

        Returns
        -------
        (K, b, G) float32 log2(integer count + 1) of the draws ``settings.numbers``.
        """
        ...

    def total(self, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> float:
        """Return the expected total count of the genes `columns` in a spot, a mean over the spots `rows`."""
        ...

    def shifted(self, shift: float) -> "EncodedSlide":
        """Return the slide with all its counts ``exp(shift)`` times as high: its depth is known.

        Genes keep their shares; X, draws and the standard deviation follow, and how far patients differ in
        depth, to first order of their total, is no longer part of what is not known.
        """
        ...


class Predictor(Protocol):
    """A trained method: features and graph of a slide → expectation and draws of its expression."""

    @property
    def genes(self) -> tuple[str, ...]:
        """The G gene symbols it predicts, in the order of its outputs."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def sampler(self) -> Sampler | None:
        """How it draws; None for a method that states an expectation only, of which nothing can be drawn."""
        ...

    def encode(self, features: FloatArray, graph: SpotGraph) -> EncodedSlide:
        """Encode a slide once.

        Parameters
        ----------
        features
            (n, d) float32 raw features of every spot on the tissue, from the encoder that the weights name.
        graph
            Over the same spots, with their places.
        """
        ...


Opener: TypeAlias = Callable[[Checkpoint, torch.device | str], Predictor]


def _method(place: str) -> Opener:
    """Return the opener of the `Predictor` class at "module.Class", imported when it is used."""

    def opened(checkpoint: Checkpoint, device: torch.device | str) -> Predictor:
        found: Predictor = _named(place).open(checkpoint, device)
        return found

    return opened


def _network(place: str, sizes: str, kind: str = "expected.ExpectingPredictor") -> Opener:
    """Return the opener of the network class at `place`, of which the class at `kind` makes a `Predictor`.

    Parameters
    ----------
    place, sizes, kind
        "module.Class" in `methods`: the network, the dataclass it is built from, and the `Predictor`.
    """

    def opened(checkpoint: Checkpoint, device: torch.device | str) -> Predictor:
        network, config = _named(place), _named(sizes)
        restored = checkpoint.restore(lambda sizes: network(config(**sizes)), device)
        found: Predictor = _named(kind)(restored, checkpoint.genes)
        return found

    return opened


def _named(place: str) -> Any:
    module, name = place.split(".")
    return getattr(import_module(f"napari_flag.methods.{module}"), name)


METHODS: Final[dict[str, Opener]] = {
    "flag": _method("flag.FlagPredictor"),
    "mean": _network("floors.SlideMean", "floors.FloorSizes"),
    "ridge": _network("floors.Ridge", "floors.FloorSizes"),
    "ring_ridge": _network("floors.RingRidge", "floors.FloorSizes"),
    "knn": _network("floors.NearestTiles", "floors.FloorSizes"),
    "regression": _network("regression.Regression", "regression.RegressionSizes"),
    "histogene": _network("histogene.HisToGene", "histogene.HisToGeneSizes"),
    "bleep": _network("bleep.Bleep", "bleep.BleepSizes"),
    "triplex": _network("triplex.Triplex", "triplex.TriplexSizes"),
    "stem": _network("stem.Stem", "stem.StemSizes", "drawn.DrawingPredictor"),
    "stflow": _network("stflow.StFlow", "stflow.StFlowSizes", "drawn.DrawingPredictor"),
    "node_only": _network("windowed.NodeOnly", "windowed.WindowSizes", "drawn.DrawingPredictor"),
    "joint": _network("windowed.Joint", "windowed.WindowSizes", "drawn.DrawingPredictor"),
    "published": _network("published.Published", "windowed.WindowSizes", "drawn.DrawingPredictor"),
}
"""How each method is opened, by its name in the header of a weights file; nothing is imported before."""


def open_method(checkpoint: Checkpoint, device: torch.device | str = "cpu") -> Predictor:
    """Return the method that `checkpoint` holds the weights of, ready on `device`.

    Raises
    ------
    UserError
        When this version has no such method, or the weights do not fit it.
    """
    opened = METHODS.get(checkpoint.method)
    if opened is None:
        method = first_of([checkpoint.method], 1)
        raise UserError(
            f'The weights "{checkpoint.name}" are of the method "{method}", which this version of '
            f"napari-flag does not have (it has: {', '.join(METHODS)}); update napari-flag, or choose other "
            "weights."
        )
    return opened(checkpoint, device)
