"""What the truth of one section says of an expectation, of draws, and of one set of draws against another."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from flag_training.cohort import TrainingSlide
from napari_flag.analysis.scores import (
    EXPECTATION,
    FEWEST_DRAWS,
    METRICS,
    PROPER,
    STRUCTURE,
    scoring,
    scoring_draws,
)
from napari_flag.formatting import percent
from napari_flag.model.diffusion import TOGETHER
from napari_flag.progress import finish
from napari_flag.statistics import bootstrap, scoring_rules
from napari_flag.statistics.bootstrap import Interval
from napari_flag.statistics.calibration import normal_coverage, spread_over_error
from napari_flag.statistics.neighbours import Neighbours, find_neighbours
from napari_flag.statistics.scoring_rules import ProperScores

FloatArray: TypeAlias = npt.NDArray[np.float32]
FloatArray64: TypeAlias = npt.NDArray[np.float64]
Scores: TypeAlias = dict[str, float]
"""Metric → value; NaN where it is not defined."""
Difference: TypeAlias = tuple[float, float, float]
"""A difference of two scores, and the ends of its 95 % interval."""

JUDGED: Final = ("ES", "CRPS", "VS-gene", "VS-space")
"""Proper scores that distributions are judged by."""
FAIR: Final = {f"{name} fair": name for name in JUDGED}
"""Scores of the distribution itself → the score of a finite number of draws."""
COMPARED: Final = (*JUDGED, *FAIR)
"""Proper scores by which draws are held against a rival's, spot by spot."""
SCORED: Final = range(2 * TOGETHER)
"""Draws that are scored, from 0: two blocks of evenly spread noise, the first of them also as it is."""
COVERAGE: Final = {"coverage_50": 0.5, "coverage_80": 0.8, "coverage_95": 0.95}
"""Shares of truth within X ± z · sd → what they should be."""
CALIBRATION: Final = (*COVERAGE, "spread/error")
OF_X: Final = (*EXPECTATION, *CALIBRATION)
"""What an expectation is judged by."""
OF_DRAWS: Final = (*PROPER, *FAIR, *STRUCTURE)
"""What draws are judged by."""


_CALLED: Final = {
    **{metric: f"in {percent(share)}" for metric, share in COVERAGE.items()},
    **{metric: f"fair {name}" for metric, name in FAIR.items()},
}


def called(metric: str) -> str:
    """Return what people read for a metric: "in 50 %" for "coverage_50", "fair ES" for "ES fair"."""
    return _CALLED.get(metric, metric)


@dataclass(frozen=True, slots=True)
class Judged:
    """Scores of one answer on one section.

    Parameters
    ----------
    scores
        Metric → value.
    intervals
        Metric → 95 % bootstrap interval, where there is one.
    proper, fair
        Of draws, the proper scores spot by spot: of eight, and of the distribution.
    """

    scores: Scores
    intervals: dict[str, Interval] = field(default_factory=dict)
    proper: ProperScores | None = None
    fair: ProperScores | None = None

    def by_spot(self, metric: str) -> tuple[FloatArray64, FloatArray64]:
        """Return the (n,) values of one of `COMPARED`, and their weights."""
        source, name = (self.fair, FAIR[metric]) if metric in FAIR else (self.proper, metric)
        assert source is not None  # of draws
        return source.values(name), source.weights(name)


@dataclass(frozen=True, slots=True)
class Section:
    """A section's truth, and what its scores need.

    Parameters
    ----------
    slide
        With its measured expression.
    neighbours
        First-ring graph of its spots.
    blocks
        (n,) block of neighbouring spots that a spot is drawn with in the bootstrap.
    seed
        Of the bootstrap.
    """

    slide: TrainingSlide
    neighbours: Neighbours
    blocks: npt.NDArray[np.int64]
    seed: int

    @classmethod
    def of(cls, slide: TrainingSlide, seed: int = 0) -> "Section":
        """Find neighbours and blocks of the spots of `slide`."""
        spots = slide.spots
        graph = find_neighbours(spots.xy, spots.array, spots.lattice)
        return cls(slide, graph, bootstrap.neighbouring_blocks(spots.xy.astype(np.float64)), seed)

    def array(self, values: FloatArray) -> Judged:
        """Read all of `METRICS` from one (n, G) array of log2(count + 1), whatever it is."""
        return self._read(values, self.blocks)

    def expectation(self, mean: FloatArray, sd: FloatArray | None) -> Judged:
        """Score an expectation (n, G), and how often the truth lies within `sd` of it."""
        read = self.array(mean)
        if sd is None:
            return read
        truth = self.slide.expression
        levels = normal_coverage(mean, sd, truth, tuple(COVERAGE.values()))
        shares = {name: level.share for name, level in zip(COVERAGE, levels, strict=True)}
        error = {"spread/error": spread_over_error(mean, sd, truth)}
        return Judged(read.scores | shares | error, read.intervals)

    def draws(self, drawn: FloatArray) -> Judged:
        """Score draws (16, n, G), log2(count + 1), numbered as `SCORED`.

        Proper scores and mean structure are those of the first eight, as `compare` states them; fair scores
        are of all.
        """
        truth = self.slide.expression.astype(np.float64)
        plain = finish(
            scoring_draws(list(drawn[:FEWEST_DRAWS]), truth, self.neighbours, self.blocks, self.seed)
        )
        graph = self.neighbours.weights
        fair = finish(scoring_rules.scoring_draws(list(drawn), truth, graph, block=TOGETHER))
        means, values = fair.means(), plain.values
        structure = {name: values[name] for name in STRUCTURE}
        found = plain.proper | {name: means[one] for name, one in FAIR.items()} | structure
        return Judged(found, plain.intervals, plain.spotwise, fair)

    def difference(self, ours: Judged, theirs: Judged) -> dict[str, Difference]:
        """Return each of `COMPARED`, ours less theirs, with its paired interval over blocks of spots.

        Both were scored on this section.  Ours are better where the interval lies below 0.
        """
        found = {}
        for place, name in enumerate(COMPARED):
            (values, weights), (other, _) = ours.by_spot(name), theirs.by_spot(name)
            away = values - other
            ends = bootstrap.mean_interval(away, weights, self.blocks, self._random(place))
            total = float(weights.sum())
            found[name] = (float(weights @ away) / total if total else float("nan"), *ends)
        return found

    def _read(self, values: FloatArray, blocks: npt.NDArray[np.int64] | None) -> Judged:
        truth = self.slide.expression.astype(np.float64)
        genes = [str(gene) for gene in range(truth.shape[1])]
        work = scoring(values.astype(np.float64), truth, self.neighbours, blocks, genes, self.seed)
        scored, _ = finish(work)
        return Judged(scored.values, scored.intervals)

    def _random(self, place: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, len(METRICS) + place])


def score(predicted: FloatArray, slide: TrainingSlide) -> Scores:
    """Return the metrics of (n, G) `predicted` log2(count + 1) on `slide`; no intervals are drawn."""
    return Section.of(slide)._read(predicted, None).scores


def is_better(metric: str, value: float, than: float) -> bool:
    """Whether `value` is the better one; what is known is better than NaN."""
    return _merit(metric, value) > _merit(metric, than)


def _merit(metric: str, value: float) -> float:
    """Return a number that grows with how good `value` is."""
    if np.isnan(value):
        return -np.inf
    if metric in ("amplitude", "spread/error"):  # 1 is best
        return -abs(float(np.log(max(value, 1e-9))))
    if metric in COVERAGE:
        return -abs(value - COVERAGE[metric])
    lower: Sequence[str] = ("MSE", *PROPER, *FAIR)
    return -value if metric in lower else value
