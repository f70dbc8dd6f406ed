"""FLAG as published and its two relatives as methods: node-only and joint node–edge diffusion.

The networks are those of `napari_flag.methods.windowed` and `.published`; all three are trained alike
(`methods.window_training`).  `OracleDiffusion` is no method but a bound: it looks at what was measured.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.engine.loop import Objective
from flag_training.gene_targets.gene_table import read_table
from flag_training.methods.learning import Descent, drawn_by
from flag_training.methods.method import Fitted, FloatArray, expectation
from flag_training.methods.tissue_windows import TrainingWindows
from flag_training.methods.window_losses import (
    Centre,
    FlagObjective,
    JointObjective,
    NodeObjective,
    NoisyWindows,
    spot_correlation,
)
from flag_training.methods.window_training import train
from napari_flag.methods.drawn import DrawingPredictor, DrawnSlide, Rows
from napari_flag.methods.published import Published
from napari_flag.methods.windowed import (
    Joint,
    NodeOnly,
    Scale,
    SeenSlide,
    WindowNetwork,
    Windows,
    WindowSizes,
)
from napari_flag.model.published import PublishedConfig, State
from napari_flag.progress import Steps


@dataclass(frozen=True, slots=True)
class WindowDiffusion:
    """What the three have in common.

    Parameters
    ----------
    window_um, kernel_um
        Side of a window, and width of the kernel of distance, µm.
    width, blocks, head_width
        Of the graph transformer; `head_width` scales its attention.
    batch
        Windows per step.
    solver_steps, samples
        Steps of Heun's method (two evaluations each), and draws averaged for X.
    training
        Steps and rates.
    scaled
        Whether features are standardised and in- and output of the network scaled (`windowed.Scale`);
        False is as published.
    """

    written: ClassVar[str]
    """Its name in `napari_flag.methods.predictor.METHODS`."""

    window_um: float
    kernel_um: float
    width: int
    blocks: int
    head_width: int
    batch: int
    solver_steps: int
    samples: int
    training: Descent
    scaled: bool = True

    @property
    def name(self) -> str:
        """As tables name it."""
        raise NotImplementedError

    @property
    def correlated(self) -> Centre:
        """Which correlation its edges are."""
        return "mean"

    def network(self, genes: int, features: int) -> WindowNetwork:
        """Return the network, untrained."""
        raise NotImplementedError

    def objective(self, network: WindowNetwork, genes: Sequence[str]) -> Objective[NoisyWindows]:
        """Return what training minimises."""
        raise NotImplementedError

    def fit(self, cohort: Cohort, seed: int) -> Steps[Fitted]:
        """Train on windows of all slides and views."""
        with tempfile.TemporaryDirectory() as folder:
            network = yield from train(self, cohort, seed, Path(folder))
        return self.fitted(network, cohort)

    def fitted(self, network: WindowNetwork, cohort: Cohort) -> Fitted:
        """Return the trained `network` as weights of this method."""
        return drawn_by(self.written, network, cohort)

    def sizes(self, config: PublishedConfig) -> WindowSizes:
        """Return what the weights file states."""
        return WindowSizes(
            features=config.features,
            network=asdict(config),
            window_um=self.window_um,
            solver_steps=self.solver_steps,
            samples=self.samples,
            kernel_um=self.kernel_um,
            scaled=self.scaled,
        )

    def graph_sizes(self, genes: int, features: int) -> WindowSizes:
        """Return the sizes of a relative, which knows the time and the attributes of edges."""
        return self.sizes(
            PublishedConfig(
                genes, features, self.width, self.blocks, self.head_width, adaptive=True, edge_conditions=2
            )
        )


@dataclass(frozen=True, slots=True)
class NodeDiffusion(WindowDiffusion):
    """Diffusion of the spots of a window by the graph transformer, whose edges start empty."""

    written: ClassVar[str] = "node_only"

    @property
    def name(self) -> str:
        """As tables name it."""
        return "node-only diffusion"

    def network(self, genes: int, features: int) -> NodeOnly:
        """Return the network, untrained."""
        return NodeOnly(self.graph_sizes(genes, features))

    def objective(self, network: WindowNetwork, genes: Sequence[str]) -> Objective[NoisyWindows]:
        """Return what training minimises."""
        return NodeObjective(network)


@dataclass(frozen=True, slots=True)
class JointDiffusion(WindowDiffusion):
    """Joint diffusion of the spots of a window and of the correlations of every two of them.

    Parameters
    ----------
    centre
        Which correlation (`window_losses.spot_correlation`).
    edge_weight, consistency_weight
        Of the edges' denoising loss, and of how far edges are from the correlations of the spots.
    """

    written: ClassVar[str] = "joint"

    centre: Centre = "mean"
    edge_weight: float = 1.0
    consistency_weight: float = 0.1

    @property
    def name(self) -> str:
        """As tables name it."""
        published = ", edges centred as published" if self.centre == "sum" else ""
        return f"joint diffusion{published}"

    @property
    def correlated(self) -> Centre:
        """Which correlation its edges are."""
        return self.centre

    def network(self, genes: int, features: int) -> Joint:
        """Return the network, untrained."""
        return Joint(self.graph_sizes(genes, features))

    def objective(self, network: WindowNetwork, genes: Sequence[str]) -> Objective[NoisyWindows]:
        """Return what training minimises."""
        return JointObjective(cast(Joint, network), self.centre, self.edge_weight, self.consistency_weight)


@dataclass(frozen=True, slots=True)
class FlagDiffusion(WindowDiffusion):
    """FLAG in its published form: the graph transformer's output conditions a transformer over genes.

    Parameters
    ----------
    heads, gene_blocks, mlp_ratio
        Of the gene transformer, which is as wide as the graph's.
    tap, projector
        1-based block whose output is aligned, and width of the projector.
    alignment_targets, alignment_weight
        File with one vector per gene (``napari-flag gene-targets``), and the weight of the alignment to
        them; "" trains without.
    """

    written: ClassVar[str] = "published"

    heads: int = 4
    gene_blocks: int = 3
    mlp_ratio: float = 4.0
    tap: int = 2
    projector: int = 256
    alignment_targets: str = ""
    alignment_weight: float = 0.5

    @property
    def name(self) -> str:
        """As tables name it."""
        return "FLAG, published form"

    def network(self, genes: int, features: int) -> Published:
        """Return the network, untrained."""
        target = read_table(Path(self.alignment_targets)).vectors.shape[1] if self.alignment_targets else 1
        config = PublishedConfig(
            genes,
            features,
            self.width,
            self.blocks,
            self.head_width,
            gene_hidden=4 * self.width // 3,
            tokens=self.width,
            heads=self.heads,
            blocks=self.gene_blocks,
            mlp_ratio=self.mlp_ratio,
            tap=self.tap,
            projector=self.projector,
            target=target,
        )
        return Published(self.sizes(config))

    def objective(self, network: WindowNetwork, genes: Sequence[str]) -> Objective[NoisyWindows]:
        """Return what training minimises."""
        vectors = None
        if self.alignment_targets:
            table = read_table(Path(self.alignment_targets))
            rows = dict(zip(table.genes, table.vectors, strict=True))
            unknown = np.full(table.vectors.shape[1], np.nan, np.float32)
            vectors = torch.from_numpy(np.stack([rows.get(gene, unknown) for gene in genes]))
        return FlagObjective(cast(Published, network), vectors, self.alignment_weight)


class MeasuredSlide(NamedTuple):
    """A `SeenSlide` and its (n, G) measured log2(count + 1)."""

    features: Tensor
    xy_um: Tensor
    expression: Tensor


class OracleNodes(NodeOnly):
    """Node-only diffusion whose edges are the true correlations of the spots."""

    def __init__(self, config: WindowSizes) -> None:
        super().__init__(config)
        self.edges = Scale(config.scaled)

    def scores(self, state: State, t: Tensor, windows: Windows) -> State:
        """Return the score of the spots."""
        assert isinstance(windows, TrainingWindows)
        known = spot_correlation(windows.expression, windows.present)
        return (self.denoised(state[0], self.edges.into(known, torch.zeros_like(t)), t, windows)[0],)

    def window(self, seen: SeenSlide | MeasuredSlide, rows: Rows) -> TrainingWindows:
        """Return the spots `rows` as one window, with what was measured there."""
        assert isinstance(seen, MeasuredSlide)
        at = torch.from_numpy(rows)
        plain = super().window(SeenSlide(seen.features, seen.xy_um), rows)
        measured = seen.expression[at].to(plain.features)[None]
        return TrainingWindows(plain.features, plain.attributes, plain.present, measured, at[None])


@dataclass(frozen=True, slots=True)
class OraclePredictor:
    """What `OracleDiffusion` fits (a `methods.method.Predictor`): of use with what was measured alone.

    Parameters
    ----------
    predictor
        Of an `OracleNodes`.
    """

    predictor: DrawingPredictor

    def encode(self, slide: TrainingSlide, features: FloatArray) -> DrawnSlide:
        """Return `slide`, what was measured there included, under (n, d) `features`."""
        plain = self.predictor.encode(features, slide.graph(features))
        seen = MeasuredSlide(plain.seen.features, plain.seen.xy_um, torch.from_numpy(slide.expression))
        return DrawnSlide(plain.network, seen, plain.places, plain.groups)

    def __call__(self, slide: TrainingSlide, features: FloatArray) -> FloatArray:
        """Return the (n, G) expectation of `slide`."""
        return expectation(self.predictor, self.encode(slide, features), slide)


@dataclass(frozen=True, slots=True)
class OracleDiffusion(NodeDiffusion):
    """Node-only diffusion that is handed the true correlations of spots as edges, when it predicts, too.

    It looks at the expression of the slide, and is no method but a bound: nothing of it can be written.
    """

    @property
    def name(self) -> str:
        """As tables name it."""
        return "node-only diffusion, oracle edges"

    def network(self, genes: int, features: int) -> OracleNodes:
        """Return the network, untrained."""
        return OracleNodes(self.graph_sizes(genes, features))

    def fitted(self, network: WindowNetwork, cohort: Cohort) -> Any:
        """Return the trained `network` as a bound."""
        return OraclePredictor(DrawingPredictor(cast(OracleNodes, network), cohort.genes))
