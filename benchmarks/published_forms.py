"""The published network, and the forms between it and ours: one cause of its cost taken away after another.

Each differs from the one before by one thing alone, so that the time of one over that of the next is what
this thing costs.  From `GraphOnce` on the graph transformer does not see what is drawn: what it then answers
was not trained for, and these forms are there to be timed.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Self, TypeAlias

import numpy as np
import torch
from torch import Tensor

from flag_training.cohort import TrainingSlide
from napari_flag.methods.drawn import DrawingPredictor, Noise, Rows, as_counts, normal
from napari_flag.methods.flag import FlagPredictor
from napari_flag.methods.moments import FloatArray, Moments
from napari_flag.methods.published import Published
from napari_flag.methods.windowed import SeenSlide, WindowSizes
from napari_flag.model.diffusion import keyed_uniforms
from napari_flag.model.graph import Places
from napari_flag.model.published import LOG_RATIO, SIGMA_MAX, SIGMA_MIN, T_MIN, sigma_at
from napari_flag.model.samplers import SamplerSettings, dpmpp_2m, log_schedule
from napari_flag.progress import finish
from napari_flag.sampling import sample_expression

Drawing: TypeAlias = Callable[[SamplerSettings], FloatArray]
"""Encodes a slide and draws it: (K, n, G) log2(count + 1)."""
Answer: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""The network: of (b, G) values, as it sees them, and a time."""


class FewEvaluations(Published):
    """The published network, its noise levels and solver ours: one evaluation a step.

    Parameters
    ----------
    config
        Sizes.
    steps
        Noise levels.
    """

    def __init__(self, config: WindowSizes, steps: int) -> None:
        super().__init__(config)
        self.steps = steps

    @classmethod
    def of(cls, network: Published, steps: int) -> Self:
        """Return `network` in this form."""
        made = cls(network.config, steps)
        made.load_state_dict(network.state_dict())
        return made.eval()

    def sample(self, seen: SeenSlide, rows: Rows, noise: Noise) -> Generator[float, None, Tensor]:
        """Draw one window."""
        start = self.spots.around(normal(noise("start"), self.network.name) * SIGMA_MAX)
        return (yield from self.solve(self.answering(seen, rows), start))

    def answering(self, seen: SeenSlide, rows: Rows) -> Answer:
        """Return the network of the spots `rows`: of (b, G) values and a time, as it sees them."""
        features = self.window(seen, rows).features[0]
        return lambda x, t: self.network.score(x, t, features)

    def solve(self, answer: Answer, start: Tensor) -> Generator[float, None, Tensor]:
        """Solve from (b, G) noise at the first level."""

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            level, noisy = sigma[:1], x[None]
            time = torch.log(level / SIGMA_MIN)[0] / LOG_RATIO
            found = answer(self.spots.into(noisy, level)[0], time)
            return x + level.square() * self.spots.score(found[None], noisy, level)[0]

        last = float(sigma_at(torch.tensor(T_MIN)))
        return (yield from dpmpp_2m(denoise, start, log_schedule(self.steps, SIGMA_MAX, last)))


class GraphOnce(FewEvaluations):
    """The graph transformer sees a window once per slide, and no noisy expression."""

    def see(self, features: Tensor, places: Places) -> SeenSlide:
        """Return what is kept of the graph transformer's answers in place of the features."""
        seen, time = super().see(features, places), self.network.time(features.new_ones(1))
        answers = features.new_empty(len(features), self.genes)
        for rows in map(torch.from_numpy, self.together(places)):
            nothing = features.new_zeros(1, len(rows), self.genes)
            answers[rows] = self.network.graph(nothing, None, time, seen.features[rows][None])[0][0]
        return seen._replace(features=self.kept(answers))

    def kept(self, answers: Tensor) -> Tensor:
        """Return what is kept of the (n, G) answers of the graph transformer."""
        return answers

    def condition(self, kept: Tensor) -> Tensor:
        """Return the (b, tokens) condition, without time, of what was kept."""
        out: Tensor = self.network.condition(kept)
        return out

    def answering(self, seen: SeenSlide, rows: Rows) -> Answer:
        """Return the gene transformer under what was kept of the spots `rows`."""
        kept = seen.features[torch.from_numpy(rows)]
        return lambda x, t: self.network.under(x, self.network.time(t.view(1)) + self.condition(kept))[0]


class ConditionOnce(GraphOnce):
    """The graph transformer's answer is made into the condition once, too."""

    def kept(self, answers: Tensor) -> Tensor:
        """Return the (n, tokens) conditions."""
        return super().condition(answers)

    def condition(self, kept: Tensor) -> Tensor:
        """Return what was kept."""
        return kept


@dataclass(frozen=True, slots=True)
class Batched:
    """All draws of a chunk of spots in one batch, as ours are made (a `methods.predictor.EncodedSlide`)."""

    network: ConditionOnce
    seen: SeenSlide

    def expectation(self, rows: Rows, ids: Sequence[str]) -> Generator[float, None, Moments]:
        """Return nothing: draws alone are compared."""
        yield 1.0
        return Moments(np.zeros((len(rows), self.network.genes), np.float32), None)

    @torch.inference_mode()
    def draw(
        self, rows: Rows, ids: Sequence[str], settings: SamplerSettings
    ) -> Generator[float, None, FloatArray]:
        """Draw (K, b, G) log2(count + 1), with the noise that windows get."""
        genes = self.network.genes
        uniform = [keyed_uniforms(settings.seed, k - 1, ids, genes, "start") for k in settings.numbers]
        start = self.network.spots.around(normal(np.concatenate(uniform), self.seen.features) * SIGMA_MAX)
        answer = self.network.answering(self.seen, np.tile(rows, settings.draws))
        drawn = yield from self.network.solve(answer, start)
        return as_counts(drawn.numpy().reshape(settings.draws, len(rows), genes))


@dataclass(frozen=True, slots=True)
class Form:
    """One way to draw a slide.

    Parameters
    ----------
    name
        As tables name it.
    cause
        What it does otherwise than the form before.
    scored
        Whether its draws are scored; the forms whose network was not trained so are timed alone.
    draw
        Encodes the slide and draws it: (K, n, G) log2(count + 1).
    """

    name: str
    cause: str
    scored: bool
    draw: Drawing


def forms_of(
    published: Published,
    flag: FlagPredictor,
    slide: TrainingSlide,
    features: FloatArray,
    steps: Sequence[int],
) -> tuple[Form, ...]:
    """Return the published form, those between, and ours with each number of `steps`.

    Parameters
    ----------
    published, flag
        Both trained.
    slide, features
        What is drawn, with (n, d) features.
    steps
        Of our solver; the forms between have the first.
    """
    rows, ids, genes = np.arange(len(slide.spots)), slide.spots.ids, flag.genes
    heun = 2 * published.config.solver_steps + 1

    def windows(network: Published) -> Drawing:
        def work(settings: SamplerSettings) -> FloatArray:
            encoded = DrawingPredictor(network, genes).encode(features, slide.graph(features))
            return finish(encoded.draw(rows, ids, settings))  # type: ignore[arg-type]  # shares, no steps

        return work

    def batched(settings: SamplerSettings) -> FloatArray:
        predictor = DrawingPredictor(once, genes)
        encoded = Batched(once, predictor.encode(features, slide.graph(features)).seen)
        return finish(sample_expression(predictor, encoded, ids, rows, settings)).draws  # type: ignore[arg-type]

    def ours(number: int) -> Drawing:
        def work(settings: SamplerSettings) -> FloatArray:
            encoded, own = flag.encode(features, slide.graph(features)), replace(settings, steps=number)
            return finish(sample_expression(flag, encoded, ids, rows, own)).draws

        return work

    first = steps[0]
    once = ConditionOnce.of(published, first)
    few, graph = FewEvaluations.of(published, first), GraphOnce.of(published, first)
    return (
        Form("published network and schedule", "", True, windows(published)),
        Form(f"published network, {first} evaluations", f"{heun} → {first} evaluations", True, windows(few)),
        Form("… graph transformer once", "graph transformer once per slide", False, windows(graph)),
        Form("… condition once", "condition made of it once per slide", False, windows(once)),
        Form("… draws batched", "all draws of a chunk of spots in one batch", False, batched),
        Form("ours", "another network: fixed sparse graph, mean head, residual, counts", True, ours(first)),
        *(
            Form(f"ours, {after} evaluations", f"{before} → {after} evaluations", True, ours(after))
            for before, after in pairwise(steps)
        ),
    )
