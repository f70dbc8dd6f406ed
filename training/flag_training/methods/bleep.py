"""BLEEP (Xie et al. 2023): tiles and expression in one space; predict by looking up training spots.

The image encoder is frozen here: its features enter in place of a fine-tuned ResNet50's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.methods.learning import Descent, Standard, descend
from flag_training.methods.method import FloatArray, Predictor, pooled
from napari_flag.progress import Steps


class ProjectionHead(nn.Module):
    """Linear, then a residual GELU block under LayerNorm: (b, d) → (b, width)."""

    def __init__(self, features: int, width: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(features, width)
        self.block = nn.Sequential(nn.GELU(), nn.Linear(width, width), nn.Dropout(dropout))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the projections of `x`."""
        projected = self.project(x)
        out: Tensor = self.norm(projected + self.block(projected))
        return out


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

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Train both heads, and keep the training spots' embeddings as the reference."""
        torch.manual_seed(seed)  # initial weights and dropout know no generator
        features, values = pooled(cohort)
        standard, standard_genes = Standard.of(features), Standard.of(values)
        views = standard(torch.cat(cohort.features, 1))  # (views, n, d)
        expression = torch.from_numpy(values)
        spots = standard_genes(expression)
        heads = nn.ModuleDict(
            {
                "image": ProjectionHead(features.shape[1], self.width, self.dropout),
                "spot": ProjectionHead(values.shape[1], self.width, self.dropout),
            }
        )

        def loss(draws: torch.Generator) -> Tensor:
            rows = torch.randperm(len(spots), generator=draws)[: self.batch]
            view = torch.randint(len(views), (len(rows),), generator=draws)
            return contrastive_loss(
                heads["image"](views[view, rows]), heads["spot"](spots[rows]), self.temperature
            )

        yield from descend(heads, loss, self.training, seed, "BLEEP")
        with torch.inference_mode():
            reference = F.normalize(heads["spot"](spots), dim=1)
        k = min(self.neighbours, len(spots))

        def predict(slide: TrainingSlide, features: FloatArray) -> FloatArray:
            with torch.inference_mode():
                query = F.normalize(heads["image"](standard(torch.from_numpy(features))), dim=1)
                near = (query @ reference.T).topk(k, dim=1).indices
            found: FloatArray = expression[near].mean(1).numpy()
            return found

        return predict
