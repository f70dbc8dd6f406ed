"""Training of BLEEP (`napari_flag.methods.bleep`): tiles and expression contrasted."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flag_training.cohort import Cohort
from flag_training.methods.learning import Descent, descend, expected_by, made
from flag_training.methods.method import Fitted, pooled, sizes_of
from napari_flag.methods import bleep
from napari_flag.methods.bleep import BleepSizes, ProjectionHead
from napari_flag.methods.blocks import Standard
from napari_flag.progress import Steps


def contrastive_loss(image: Tensor, spot: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy, both ways, to targets softened by likeness within each side.

    Parameters
    ----------
    image, spot
        (b, width) embeddings of the same b spots.
    temperature
        T of logits and targets.
    """
    logits = spot @ image.T / temperature
    within = (image @ image.T + spot @ spot.T) / (2 * temperature)
    targets = within.softmax(1)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets.T)) / 2


@dataclass(frozen=True, slots=True)
class Bleep:
    """Contrastive embedding, and the mean of the k training spots nearest to a tile.

    Parameters
    ----------
    width, dropout
        Of both projection heads.
    temperature
        T of the loss.
    neighbours
        Training spots averaged.
    batch
        Spots per step.
    training
        Steps and rates.
    """

    width: int
    dropout: float
    temperature: float
    neighbours: int
    batch: int
    training: Descent

    def fit(self, cohort: Cohort, seed: int) -> Steps[Fitted]:
        """Train both heads, and keep the training spots' embeddings as the reference."""
        values = pooled(cohort)[1]
        sizes = sizes_of(self, BleepSizes, cohort, bank=len(values))
        network = made(lambda: bleep.Bleep(sizes), cohort, seed)
        views = network.standard(torch.cat(cohort.features, 1))  # (views, n, d)
        genes, expression = Standard(sizes.genes), torch.from_numpy(values)
        genes.measure(values)
        spots = genes(expression)
        other = ProjectionHead(sizes.genes, self.width, self.dropout)
        heads = nn.ModuleDict({"image": network.image, "spot": other})

        def loss(draws: torch.Generator) -> Tensor:
            rows = torch.randperm(len(spots), generator=draws)[: self.batch]
            view = torch.randint(len(views), (len(rows),), generator=draws)
            return contrastive_loss(network.image(views[view, rows]), other(spots[rows]), self.temperature)

        yield from descend(heads, loss, self.training, seed, "BLEEP")
        with torch.no_grad():
            network.get_buffer("bank_embedding").copy_(F.normalize(other(spots), dim=1))
            network.get_buffer("bank_expression").copy_(expression)
        return expected_by("bleep", network, cohort)
