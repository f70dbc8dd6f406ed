"""The sizes of a FLAG network, as its weights file states them."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class FlagConfig:
    """Sizes and form of the network; written into the weights file.

    Two forms share all classes.  In the *residual* form a mean head gives the expectation in closed form, and
    the composition residual around it is diffused, preconditioned by its covariance.  In the form of the
    paper, *FLAG proper* (`mean_head` and `covariance` False, `attention` "channels"), expression itself is
    diffused under H_spatial, and the expectation is an average over draws.

    Parameters
    ----------
    features, genes, slides
        Feature width, panel size, number of training slides stored.
    patients
        Factors of the levels of patients (`model.normalization`).
    mean_head
        Whether there is one; without it expression itself is diffused.
    covariance
        Whether the diffusion is preconditioned by the residual covariance; otherwise by EDM's scalars.
    components
        Principal components of the normalised features that the network sees; at most `features`.
    landmarks
        Training spots that the mean head's kernel branch stores.
    members
        Graph branches of the mean head.
    mean_width, mean_layers, mean_dropout
        Their size.
    graph_share
        Share of the graph branches in the mean head on a slide like the training slides; the rest is the
        kernel branch.
    context_width, context_layers, context_heads, context_dropout
        Size of the encoder of H_spatial.
    attention
        "heads": one weight per head and neighbour.  "channels": one per channel, and edges that are updated
        from block to block, as FLAG's edge-modulated attention is published.
    width, heads, blocks, mlp_ratio, dropout, tap
        Size of the gene DiT; `tap` is the 1-based block that the alignment loss sees.
    summaries
        Tokens through which genes attend to each other on panels beyond `gene_dit.MOST_GENES`.
    averaged
        Draws that the expectation of FLAG proper is averaged over.
    diffusion
        False: the same trunk without noise, a regression (ablation).
    spatial_graph
        False: no spot sees its neighbours (ablation).
    """

    features: int
    genes: int
    slides: int
    patients: int = 0
    mean_head: bool = True
    covariance: bool = True
    components: int = 128
    landmarks: int = 1500
    members: int = 5
    mean_width: int = 128
    mean_layers: int = 2
    mean_dropout: float = 0.3
    graph_share: float = 0.3
    context_width: int = 64
    context_layers: int = 2
    context_heads: int = 4
    context_dropout: float = 0.25
    attention: Literal["heads", "channels"] = "heads"
    width: int = 96
    heads: int = 4
    blocks: int = 3
    mlp_ratio: float = 3.0
    dropout: float = 0.0
    tap: int = 2
    summaries: int = 64
    averaged: int = 16
    diffusion: bool = True
    spatial_graph: bool = True

    def __post_init__(self) -> None:
        """Keep what cannot be more."""
        object.__setattr__(self, "components", min(self.components, self.features))
