"""The networks of the foundation encoders, and how published files name their tensors.

Vision transformers are timm's.  Files written by timm, by DINOv2 and by transformers hold the same
numbers under different keys; each architecture knows how to read its own.  No code is ever taken
from the hub: models that upstream loads with remote code (Hibou) are the same transformer.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_flag.encoders.foundation.state_dicts import Tensors, from_conch, from_transformers


class Pooling(Enum):
    """How the tokens of a tile become one vector."""

    CLASS = "class token"
    CLASS_AND_MEAN = "class token and mean of the patch tokens"


class Architecture(Protocol):
    """A network, and how its published tensors are named."""

    @property
    def dim(self) -> int:
        """Length of the vector of one tile."""
        ...

    def build(self) -> nn.Module:
        """Return the network: normalised (b, 3, h, w) images → (b, dim)."""
        ...

    def rename(self, tensors: Tensors, network: nn.Module) -> dict[str, Tensor]:
        """Return `tensors` of a published file under the keys of `network`."""
        ...


class PooledVit(nn.Module):
    """A timm vision transformer without head, and the pooling of its normalised tokens."""

    def __init__(self, trunk: nn.Module, pooling: Pooling) -> None:
        super().__init__()
        self.trunk = trunk
        self.pooling = pooling

    def forward(self, images: Tensor) -> Tensor:
        """Return (b, dim) of (b, 3, h, w)."""
        tokens: Tensor = self.trunk.forward_features(images)  # type: ignore[operator]
        if self.pooling is Pooling.CLASS:
            return tokens[:, 0]
        patches = tokens[:, self.trunk.num_prefix_tokens :]
        return torch.cat([tokens[:, 0], patches.mean(1)], dim=1)


@dataclass(frozen=True, slots=True)
class TimmVit:
    """A vision transformer whose file has timm's keys, or DINOv2's, which timm translates.

    Parameters
    ----------
    model
        timm's name of the architecture.
    width
        Length of a token.
    pooling
        How tokens become one vector.
    image_px
        Side of the image the network sees.
    swiglu
        Whether the feed-forward layers are packed SwiGLU.
    epsilon
        Of the layer norms.
    options
        Further arguments of timm's constructor.
    """

    model: str
    width: int
    pooling: Pooling = Pooling.CLASS
    image_px: int = 224
    swiglu: bool = False
    epsilon: float = 1e-6
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def dim(self) -> int:
        """Length of the vector of one tile."""
        return self.width * (2 if self.pooling is Pooling.CLASS_AND_MEAN else 1)

    def build(self) -> nn.Module:
        """Return the network, untrained."""
        return PooledVit(build_trunk(self), self.pooling)

    def rename(self, tensors: Tensors, network: nn.Module) -> dict[str, Tensor]:
        """Translate DINOv2's keys where they are; resample position embeddings as timm does."""
        from timm.models.vision_transformer import checkpoint_filter_fn

        trunk = network.trunk
        return _under_trunk(checkpoint_filter_fn(dict(tensors), trunk))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class TransformersVit(TimmVit):
    """A vision transformer whose file was written by transformers (``ViTModel``, ``Dinov2Model``)."""

    def rename(self, tensors: Tensors, network: nn.Module) -> dict[str, Tensor]:
        """Translate the keys; resample position embeddings as transformers does."""
        grid, registers = patch_grid(network), bool(network.trunk.no_embed_class)  # type: ignore[union-attr]
        return _under_trunk(from_transformers(tensors, grid, registers=registers))


class AttentionalPooler(nn.Module):
    """One learned query attends to all tokens (CoCa, Yu et al. 2022).

    Parameters
    ----------
    width, context
        Length of the query and of a token.
    heads
        Number of attention heads.
    bias
        Whether the projections have one.
    """

    def __init__(self, width: int, context: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.zeros(1, width))
        self.query_norm = nn.LayerNorm(width)
        self.token_norm = nn.LayerNorm(context)
        self.to_query = nn.Linear(width, width, bias=bias)
        self.to_key = nn.Linear(context, width, bias=bias)
        self.to_value = nn.Linear(context, width, bias=bias)
        self.to_out = nn.Linear(width, width, bias=bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (b, width) of (b, n, context) tokens."""
        tokens = self.token_norm(tokens)
        query = self.to_query(self.query_norm(self.query)).expand(len(tokens), 1, -1)
        parts = (query, self.to_key(tokens), self.to_value(tokens))
        split = [part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts]
        attended = F.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
        result: Tensor = self.to_out(attended[:, 0])
        return result


class ConchTower(nn.Module):
    """CONCH's vision tower up to, and without, the projection into the space it shares with text."""

    def __init__(self, trunk: nn.Module, pooler: AttentionalPooler, width: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.pooler = pooler
        self.norm = nn.LayerNorm(width)

    def forward(self, images: Tensor) -> Tensor:
        """Return (b, width) of (b, 3, h, w)."""
        pooled: Tensor = self.norm(self.pooler(self.trunk.forward_features(images)))  # type: ignore[operator]
        return pooled


@dataclass(frozen=True, slots=True)
class ConchVit:
    """CONCH (Lu et al. 2024): a ViT, attentional pooling with one query, layer norm.

    Parameters
    ----------
    trunk
        The transformer.
    width
        Length of the query, and so of the vector of a tile.
    bias
        Whether the pooler's projections have one (CONCH: yes, CONCH 1.5: no).
    heads
        Of the pooler.
    stretch
        Added to the wanted number of patches before position embeddings are stretched: CONCH 1.5
        has them for 224 px and, like DINO, stretches them by (28 + 0.1) / 14.
    """

    trunk: TimmVit
    width: int
    bias: bool
    heads: int = 8
    stretch: float = 0.0

    @property
    def dim(self) -> int:
        """Length of the vector of one tile."""
        return self.width

    def build(self) -> nn.Module:
        """Return the tower, untrained."""
        pooler = AttentionalPooler(self.width, self.trunk.width, self.heads, self.bias)
        return ConchTower(build_trunk(self.trunk), pooler, self.width)

    def rename(self, tensors: Tensors, network: nn.Module) -> dict[str, Tensor]:
        """Take the vision tower out of the file, and the pooler's projections apart."""
        return from_conch(tensors, patch_grid(network), stretch=self.stretch)


class ConvTrunk(nn.Module):
    """A convolutional network up to one of its stages, averaged over the tile."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        """Return (b, channels) of (b, 3, h, w)."""
        maps: Tensor = self.trunk(images)[0]
        return maps.mean((2, 3))


@dataclass(frozen=True, slots=True)
class ResNetTrunk:
    """A residual network up to its third stage, as HEST-bench uses it.

    Parameters
    ----------
    model
        timm's name of the architecture.
    channels
        Of the third stage.
    """

    model: str
    channels: int

    @property
    def dim(self) -> int:
        """Length of the vector of one tile."""
        return self.channels

    def build(self) -> nn.Module:
        """Return the network, untrained."""
        load_triton_apart()
        import timm

        return ConvTrunk(timm.create_model(self.model, pretrained=False, features_only=True, out_indices=[3]))

    def rename(self, tensors: Tensors, network: nn.Module) -> dict[str, Tensor]:
        """Leave out the fourth stage and the classifier."""
        return _under_trunk({k: v for k, v in tensors.items() if not k.startswith(("layer4.", "fc."))})


def build_trunk(shape: TimmVit) -> nn.Module:
    """Return the transformer of `shape`, without head and pooling."""
    from functools import partial

    load_triton_apart()
    import timm
    from timm.layers import SwiGLUPacked  # type: ignore[attr-defined]

    options = dict(shape.options)
    if shape.swiglu:
        options |= {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU}
    trunk: nn.Module = timm.create_model(
        shape.model,
        pretrained=False,
        num_classes=0,
        global_pool="",
        img_size=shape.image_px,
        norm_layer=partial(nn.LayerNorm, eps=shape.epsilon),
        weight_init="skip",  # all of it comes from the file
        **options,
    )
    return trunk


def load_triton_apart() -> None:
    """Load triton, which timm and lightning import, so that it calls its own LLVM and no other.

    Where Mesa draws the window, the system's LLVM is loaded as well; triton's library would take functions of
    that for its own, which ends the process with a segmentation fault.
    """
    apart = getattr(os, "RTLD_DEEPBIND", None)  # of Linux; elsewhere libraries do not share names
    if apart is None or "triton" in sys.modules:
        return
    before = sys.getdlopenflags()
    sys.setdlopenflags(before | apart)
    try:
        with suppress(ImportError):  # not part of every PyTorch
            import_module("triton")
    finally:
        sys.setdlopenflags(before)


def patch_grid(network: nn.Module) -> tuple[int, int]:
    """Return the number of patches (down, across) of a network around a transformer."""
    down, across = network.trunk.patch_embed.grid_size  # type: ignore[union-attr,misc]
    return int(down), int(across)


def _under_trunk(tensors: Tensors) -> dict[str, Tensor]:
    return {f"trunk.{key}": tensor for key, tensor in tensors.items()}
