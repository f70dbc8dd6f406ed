"""Parts that the networks of several published methods share."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_flag.methods.moments import FloatArray


class Standard(nn.Module):
    """Standardises by mean and spread (d,) of every feature, or of every gene, over the training spots.

    Parameters
    ----------
    width
        d.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))

    def measure(self, values: FloatArray, floor: float = 1e-3) -> None:
        """Take mean and spread of (n, d) `values`; `floor` is added to the spread."""
        both = torch.from_numpy(values)
        self.get_buffer("mean").copy_(both.mean(0))
        self.get_buffer("spread").copy_(both.std(0, correction=0) + floor)

    def forward(self, values: Tensor) -> Tensor:
        """Standardise (..., d)."""
        return (values - self.get_buffer("mean")) / self.get_buffer("spread")

    def back(self, values: Tensor) -> Tensor:
        """Undo it."""
        return values * self.get_buffer("spread") + self.get_buffer("mean")


class Block(nn.Module):
    """Pre-LN self-attention and feed-forward net.

    Of our own, because PyTorch's layer returns NaN from its inference path under a mask of numbers.

    Parameters
    ----------
    width, heads, wide, dropout
        `wide` is the width within the feed-forward net.
    """

    def __init__(self, width: int, heads: int, wide: int, dropout: float) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{width} values cannot be shared among {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(width)
        self.query_key_value, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.drop = nn.Dropout(dropout)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, wide),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(wide, width),
            nn.Dropout(dropout),
        )

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return updated (b, t, width) `tokens`; `mask` is added to the (b, heads, t, t) logits."""
        b, t, width = tokens.shape
        parts = self.query_key_value(self.norm(tokens)).view(b, t, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        seen = F.scaled_dot_product_attention(query, key, value, mask, dropout_p=drop)
        tokens = tokens + self.drop(self.out(seen.transpose(1, 2).reshape(b, t, width)))
        out: Tensor = tokens + self.feed_forward(tokens)
        return out


def sinusoid(values: Tensor, width: int) -> Tensor:
    """Return (b, width) cosines and sines of (b,) `values`, frequencies 1 down to 1e-4."""
    bands = torch.exp(torch.linspace(0, -math.log(1e4), width // 2, device=values.device))
    angles = values[:, None] * bands
    return torch.cat([angles.cos(), angles.sin()], 1)


def small_read_out(width: int, genes: int) -> nn.Linear:
    """Return a linear head of small weights, whose bias `start_at` sets to what is expected anyway."""
    head = nn.Linear(width, genes)
    nn.init.normal_(head.weight, std=0.02)
    return head


def start_at(mean: Tensor, *heads: nn.Linear) -> None:
    """Let `heads` start at the (G,) training mean, so that no step is spent on it."""
    with torch.no_grad():
        for head in heads:
            head.bias.copy_(mean)
