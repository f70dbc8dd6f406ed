"""A second method, in 60 lines: every gene at its own level everywhere, counts drawn around it."""

from dataclasses import dataclass

import numpy as np
import torch
from tests.tiny_weights import GENES

from napari_flag.encoders.embedded import DIM
from napari_flag.methods.moments import Moments, Sampler
from napari_flag.model.diffusion import keyed_uniforms
from napari_flag.model.observation import count_at

LEVELS = np.arange(1, len(GENES) + 1, dtype=np.float32)
SD = 0.25


@dataclass(frozen=True)
class Sizes:
    features: int = DIM


class Level(torch.nn.Module):
    """A `Predictor` and, since it looks at no slide, its own `EncodedSlide`."""

    config = Sizes()
    device = torch.device("cpu")
    genes = GENES
    sampler = Sampler("inverse CDF")

    def __init__(self):
        super().__init__()
        self.register_buffer("levels", torch.from_numpy(LEVELS))

    @classmethod
    def open(cls, checkpoint, device):
        made = cls()
        made.load_state_dict(checkpoint.part("level."))
        return made

    def encode(self, features, graph):
        assert len(features) == len(graph)
        return self

    def total(self, rows, columns):
        return float((np.exp2(self.levels.numpy()) - 1)[columns].sum())

    def shifted(self, shift):
        moved = Level()
        moved.levels.copy_(torch.log2(1 + (torch.exp2(self.levels) - 1) * np.exp(shift)))
        return moved

    def expectation(self, rows, ids):
        yield 0.5
        shape = (len(rows), len(GENES))
        return Moments(np.tile(self.levels.numpy(), (len(rows), 1)), np.full(shape, SD, np.float32))

    def draw(self, rows, ids, settings):
        rate = np.exp2(np.tile(self.levels.numpy(), (len(rows), 1))) - 1
        drawn = []
        for number in settings.numbers:
            uniform = keyed_uniforms(settings.seed, number - 1, ids, len(GENES), "count")
            drawn.append(np.log2(count_at(rate, uniform) + 1))
            yield len(drawn) / settings.draws
        return np.stack(drawn).astype(np.float32)
