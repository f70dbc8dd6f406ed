"""The gene diffusion transformer: one token per gene, attention over genes within a spot.

Blocks are adaLN-Zero (Peebles & Xie 2023): condition and noise level scale, shift and gate every
block, and each block starts as the identity.  On panels beyond `MOST_GENES` genes attend to each other
through a few summary tokens (induced set attention, Lee et al. 2019), so that cost grows with the genes and
not with their square.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MOST_GENES: Final = 1000
"""Largest panel whose genes attend to each other directly."""
_DEEPEST: Final = 3.0
"""ln(counts) beyond which depth residuals look alike: a nearly empty spot has no composition."""
_LEVEL: Final = 2.0
"""ln(counts) by which levels are divided: about their spread over the genes of a panel."""
_FREQUENCIES: Final = 32
"""Of the noise level's features."""


class NoiseLevelEmbedding(nn.Module):
    """Sinusoidal features of c_noise = ln(σ) / 4 (Karras et al. 2022, table 1) → (b, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        bands = torch.exp(torch.linspace(0, math.log(100.0), _FREQUENCIES))
        self.register_buffer("bands", bands, persistent=False)
        self.bands: Tensor
        self.mlp = nn.Sequential(nn.Linear(2 * _FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, c_noise: Tensor) -> Tensor:
        """Return embeddings of (b,) `c_noise`."""
        angles = c_noise[:, None] * self.bands  # (b, frequencies)
        out: Tensor = self.mlp(torch.cat([angles.cos(), angles.sin()], 1))
        return out


def zero_linear(width: int, out: int) -> nn.Linear:
    """Return a linear layer that starts at zero: the "Zero" of adaLN-Zero."""
    layer = nn.Linear(width, out)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class GeneBlock(nn.Module):
    """Self-attention over genes and a feed-forward net, both under adaLN-Zero.

    Parameters
    ----------
    width, heads, mlp_ratio, dropout
        Its size.
    summaries
        Learned queries that summarise the genes for each other; 0 lets every gene see every gene.
    eps
        Of the layer norms.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_ratio: float,
        dropout: float,
        summaries: int = 0,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"{width} values cannot be shared among {heads} heads")
        self.heads = heads
        self.dropout = dropout
        self.norm_attention = nn.LayerNorm(width, elementwise_affine=False, eps=eps)
        self.norm_mlp = nn.LayerNorm(width, elementwise_affine=False, eps=eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.summaries = nn.Parameter(torch.randn(summaries, width) * 0.02) if summaries else None
        hidden = round(mlp_ratio * width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, width)
        )
        self.modulation = nn.Sequential(nn.SiLU(), zero_linear(width, 6 * width))

    def forward(self, tokens: Tensor, condition: Tensor) -> Tensor:
        """Return updated (b, genes, width) `tokens` under (b, width) `condition`."""
        b, genes, width = tokens.shape
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition)[:, None].chunk(
            6, dim=2
        )  # each (b, 1, width)
        x = torch.addcmul(shift_a, self.norm_attention(tokens), 1 + scale_a)  # (b, genes, width)
        qkv = self.qkv(x).view(b, genes, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (b, heads, genes, width / heads)
        if self.summaries is not None:
            k, v = self._summarised(k, v)  # each (b, heads, summaries, …)
        drop = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=drop)  # (b, heads, genes, …)
        tokens = torch.addcmul(tokens, gate_a, self.out(attended.transpose(1, 2).reshape(b, genes, width)))
        x = torch.addcmul(shift_m, self.norm_mlp(tokens), 1 + scale_m)
        return torch.addcmul(tokens, gate_m, self.mlp(x))

    def _summarised(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values of the summaries: what each of them attends to among all genes."""
        assert self.summaries is not None
        asked = self.summaries.view(len(self.summaries), self.heads, -1).transpose(0, 1)  # (heads, m, …)
        asked = asked[None].expand(len(k), -1, -1, -1).to(k.dtype)
        return (
            F.scaled_dot_product_attention(asked, k, k),
            F.scaled_dot_product_attention(asked, k, v),
        )


class GeneDiT(nn.Module):
    """Noisy expression of a spot's genes, under the spot's context → one value per gene.

    Parameters
    ----------
    genes
        Panel size; one learned name embedding each.
    context
        Width of H_spatial.
    width, heads, blocks, mlp_ratio, dropout
        Size of the transformer.
    tap
        1-based block whose output the alignment loss sees.
    summaries
        Summary tokens of each block on a panel of more than `MOST_GENES`.
    """

    def __init__(
        self,
        genes: int,
        context: int,
        width: int = 96,
        heads: int = 4,
        blocks: int = 3,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
        tap: int = 2,
        summaries: int = 64,
    ) -> None:
        super().__init__()
        self.tap = tap
        summaries = summaries if genes > MOST_GENES else 0
        self.name = nn.Parameter(torch.randn(genes, width) * 0.02)
        self.value = nn.Sequential(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, width))
        self.noise_level = NoiseLevelEmbedding(width)
        self.context = nn.Sequential(nn.Linear(context + 1, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            GeneBlock(width, heads, mlp_ratio, dropout, summaries) for _ in range(blocks)
        )
        self.final_norm = nn.LayerNorm(width, elementwise_affine=False)
        self.final_modulation = nn.Sequential(nn.SiLU(), zero_linear(width, 2 * width))
        self.final = zero_linear(width, 1)

    def condition(self, context: Tensor, depth: Tensor) -> Tensor:
        """Return the (b, width) embedding of (b, context) H_spatial and (b,) depth residuals.

        It does not depend on the noise level, so that it is computed once per draw.
        """
        seen = depth[:, None].clamp(-_DEEPEST, _DEEPEST)
        out: Tensor = self.context(torch.cat([context, seen], 1))
        return out

    def forward(self, x: Tensor, c_noise: Tensor, condition: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
        """Return (b, genes) outputs and the (b, genes, width) tokens after block `tap`.

        Parameters
        ----------
        x
            (b, genes) noisy values, scaled to unit variance.
        c_noise
            (b,) noise level, ln(σ) / 4.
        condition
            (b, width) as `condition` returns it.
        level
            (b, genes) log-rate that is expected of each gene, absolute: ln(counts).
        """
        tokens = self.name + self.value(torch.stack([x, level / _LEVEL], dim=2))  # (b, genes, width)
        condition = self.noise_level(c_noise) + condition  # (b, width)
        tapped = tokens
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens, condition)
            if number == self.tap:
                tapped = tokens
        shift, scale = self.final_modulation(condition)[:, None].chunk(2, dim=2)  # each (b, 1, width)
        out: Tensor = self.final(torch.addcmul(shift, self.final_norm(tokens), 1 + scale))[..., 0]
        return out, tapped
