"""Training of Stem (`napari_flag.methods.stem`)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flag_training.cohort import Cohort
from flag_training.methods.learning import Descent, descend, drawn_by, made
from flag_training.methods.method import Fitted, pooled, sizes_of
from napari_flag.methods import stem
from napari_flag.methods.stem import NOISE_STEPS, StemSizes, kept_shares
from napari_flag.progress import Steps


@dataclass(frozen=True, slots=True)
class Stem:
    """A gene transformer that denoises one spot under one tile.

    Parameters
    ----------
    width, heads, blocks, mlp_ratio
        Of the transformer.
    batch
        Spots per training step.
    solver_steps, samples
        Ancestral steps, evenly among the 1000; samples averaged.
    training
        Steps and rates.
    """

    width: int
    heads: int
    blocks: int
    mlp_ratio: float
    batch: int
    solver_steps: int
    samples: int
    training: Descent

    def fit(self, cohort: Cohort, seed: int) -> Steps[Fitted]:
        """Train on spots of all slides and views."""
        sizes, expression = sizes_of(self, StemSizes, cohort), pooled(cohort)[1]
        network = made(lambda: stem.Stem(sizes), cohort, seed)
        network.standard_genes.measure(expression)
        views = network.standard(torch.cat(cohort.features, 1))
        clean, kept = network.standard_genes(torch.from_numpy(expression)), kept_shares()

        def loss(draws: torch.Generator) -> Tensor:
            rows = torch.randint(len(clean), (self.batch,), generator=draws)
            view = torch.randint(len(views), (self.batch,), generator=draws)
            step = torch.randint(NOISE_STEPS, (self.batch,), generator=draws)
            noise = torch.randn(self.batch, clean.shape[1], generator=draws)
            share = kept[step, None]
            x = share.sqrt() * clean[rows] + (1 - share).sqrt() * noise
            return nn.functional.mse_loss(network(x, step, network.tile(views[view, rows])), noise)

        yield from descend(network, loss, self.training, seed, "Stem")
        return drawn_by("stem", network, cohort)
