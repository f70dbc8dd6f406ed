"""The sizes of a FLAG network, as its weights file states them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FlagConfig:
    """Sizes of the network; written into the weights file.

    Parameters
    ----------
    features, genes, slides
        Feature width, panel size, number of training slides stored.
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
    sharp, rough
        Multiples of each gene's Moran's I on the training slides at which the expectation, and ``X``, are
        kept (`mean_head.Sharpening`); 0 leaves them smooth.
    context_width, context_layers, context_heads, context_dropout
        Size of the encoder of H_spatial.
    width, heads, blocks, mlp_ratio, dropout, tap
        Size of the gene DiT; `tap` is the 1-based block that the alignment loss sees.
    diffusion
        False: the same trunk without noise, a regression of the residual (ablation).
    spatial_graph
        False: no spot sees its neighbours (ablation).
    """

    features: int
    genes: int
    slides: int
    components: int = 128
    landmarks: int = 1500
    members: int = 5
    mean_width: int = 128
    mean_layers: int = 2
    mean_dropout: float = 0.3
    graph_share: float = 0.3
    sharp: float = 1.8
    rough: float = 1.7
    context_width: int = 64
    context_layers: int = 2
    context_heads: int = 4
    context_dropout: float = 0.25
    width: int = 96
    heads: int = 4
    blocks: int = 3
    mlp_ratio: float = 3.0
    dropout: float = 0.0
    tap: int = 2
    diffusion: bool = True
    spatial_graph: bool = True

    def __post_init__(self) -> None:
        """Keep what cannot be more."""
        object.__setattr__(self, "components", min(self.components, self.features))
