"""HisToGene (Pang et al. 2021): a whole section as one sequence of a vision transformer.

The pixels of a patch give way to the tile's features, as TRIPLEX's authors do when they compare with
it.  The learned position tables stay: this is the one method here that knows where on the array a
spot lies, and its figures are to be read with that in mind.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.methods.learning import (
    Block,
    Descent,
    Standard,
    descend,
    draw_slide,
    expression_of,
    read_out_from,
)
from flag_training.methods.method import FloatArray, Predictor, pooled
from napari_flag.errors import UserError
from napari_flag.progress import Steps


class _Network(nn.Module):
    def __init__(self, features: int, values: "HisToGene", mean: Tensor) -> None:
        super().__init__()
        width = values.width
        self.embed = nn.Linear(features, width)
        self.row, self.column = (nn.Embedding(values.positions, width) for _ in range(2))
        self.drop = nn.Dropout(values.dropout)
        self.layers = nn.ModuleList(
            Block(width, values.heads, values.mlp_width, values.dropout) for _ in range(values.layers)
        )
        self.norm = nn.LayerNorm(width)
        self.read_out = read_out_from(width, mean)

    def forward(self, x: Tensor, places: Tensor) -> Tensor:
        """(n, d) features, (n, 2) places of one section → (n, G)."""
        h = self.drop(self.embed(x) + self.row(places[:, 0]) + self.column(places[:, 1]))[None]
        for layer in self.layers:
            h = layer(h)
        out: Tensor = self.read_out(self.norm(h))[0]
        return out


@dataclass(frozen=True, slots=True)
class HisToGene:
    """Transformer over all spots of a section, with learned tables of array positions.

    Parameters
    ----------
    width, layers, heads, mlp_width, dropout
        Of the transformer.
    positions
        Length of the tables; every array index must lie below it.
    training
        Steps (one section each) and rates.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    dropout: float
    positions: int
    training: Descent

    def fit(self, cohort: Cohort, seed: int) -> Steps[Predictor]:
        """Train section by section on the mean squared error."""
        torch.manual_seed(seed)  # initial weights and dropout know no generator
        features, expression = pooled(cohort)
        standard = Standard.of(features)
        network = _Network(features.shape[1], self, torch.from_numpy(expression).mean(0))
        places = [self._places(slide) for slide in cohort.slides]

        def loss(draws: torch.Generator) -> Tensor:
            at, view = draw_slide(cohort, draws)
            out = network(standard(cohort.features[at][view]), places[at])
            return nn.functional.mse_loss(out, expression_of(cohort.slides[at]))

        yield from descend(network, loss, self.training, seed, "HisToGene")

        def predict(slide: TrainingSlide, features: FloatArray) -> FloatArray:
            with torch.inference_mode():
                out = network(standard(torch.from_numpy(features)), self._places(slide))
            found: FloatArray = out.clamp_min(0).numpy()
            return found

        return predict

    def _places(self, slide: TrainingSlide) -> Tensor:
        places = torch.from_numpy(slide.places.grid)
        if int(places.max()) >= self.positions:
            raise UserError(
                f"HisToGene has tables for {self.positions} array positions, but {slide.entry.name} "
                f"spans {int(places.max()) + 1}; set positions higher in its config."
            )
        return places
