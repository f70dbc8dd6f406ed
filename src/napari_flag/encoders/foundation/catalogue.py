"""Catalogue of encoders: source and licence of the weights, tile geometry, precision."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from napari_flag.encoders.foundation.architectures import (
    Architecture,
    ConchVit,
    Pooling,
    ResNetTrunk,
    TimmVit,
    TransformersVit,
)

Interpolation: TypeAlias = Literal["bilinear", "bicubic"]
Precision: TypeAlias = Literal["float32", "float16", "bfloat16"]
Colour: TypeAlias = tuple[float, float, float]

IMAGENET: Final[tuple[Colour, Colour]] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation per channel."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Where a foundation encoder's weights are and how a tile is read with them.

    Parameters
    ----------
    repository
        On huggingface.co.
    files
        Names its weights may have there, the preferred first.
    architecture
        The network.
    normalisation
        Mean and standard deviation per channel of images in [0, 1].
    resize_px
        Side the tile is resized to; None: `crop_px`.
    crop_px
        Side of the centre that the network sees.
    interpolation
        Of the resize.
    precision
        Of the computation on a GPU; a CPU computes in float32.
    """

    repository: str
    files: tuple[str, ...]
    architecture: Architecture
    normalisation: tuple[Colour, Colour] = IMAGENET
    resize_px: int | None = None
    crop_px: int = 224
    interpolation: Interpolation = "bicubic"
    precision: Precision = "float16"


@dataclass(frozen=True, slots=True)
class EncoderRow:
    """One encoder of the registry.

    Parameters
    ----------
    name, title
        Key, and what a person calls it.
    about
        What it is: network, paper.
    dim, tile_px, mpp
        As in `Encoder`.
    licence
        SPDX name or the provider's own words.
    gated
        Whether the weights must be asked for.
    recipe
        How it is opened; None where the weights are stored in each FLAG weights file.
    """

    name: str
    title: str
    about: str
    dim: int
    tile_px: int
    mpp: float
    licence: str
    gated: bool
    recipe: Recipe | None = None

    @property
    def source(self) -> str:
        """Where its weights come from."""
        if self.recipe is None:
            return "inside each weights file"
        return f"https://huggingface.co/{self.recipe.repository}"


OPENAI: Final[tuple[Colour, Colour]] = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
HALF: Final[tuple[Colour, Colour]] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
BIOPTIMUS: Final[tuple[Colour, Colour]] = (
    (0.707223, 0.578729, 0.703617),
    (0.211883, 0.230117, 0.177517),
)
HIBOU: Final[tuple[Colour, Colour]] = ((0.7068, 0.5755, 0.722), (0.195, 0.2316, 0.1816))

CC_BY_NC_ND: Final = "CC-BY-NC-ND-4.0"
OWKIN: Final = "Owkin non-commercial licence"
SAFE_FIRST: Final = ("model.safetensors", "pytorch_model.bin")


EMBEDDED: Final = EncoderRow(
    name="embedded",
    title="the embedded encoder",
    about="stain, texture and self-supervised features",
    dim=1016,
    tile_px=600,
    mpp=0.683,
    licence="BSD-3-Clause",
    gated=False,
)


def _row(
    name: str, title: str, about: str, licence: str, recipe: Recipe, *, gated: bool, tile_px: int = 224
) -> EncoderRow:
    """Return a row of a foundation encoder; all of them read 20× tiles, 0.5 µm/px."""
    return EncoderRow(
        name=name,
        title=title,
        about=about,
        dim=recipe.architecture.dim,
        tile_px=tile_px,
        mpp=0.5,
        licence=licence,
        gated=gated,
        recipe=recipe,
    )


_LAYER_SCALE: Final = {"init_values": 1e-5}
_GIANT_H: Final = TimmVit("vit_giant_patch14_reg4_dinov2", 1536)  # SwiGLU and four registers are in it
_VIRCHOW: Final = {"init_values": 1e-5, "mlp_ratio": 5.3375}

ROWS: Final = (
    EMBEDDED,
    _row(
        "uni",
        "UNI",
        "ViT-L/16, Chen et al. 2024",
        CC_BY_NC_ND,
        Recipe(
            "MahmoodLab/UNI",
            ("pytorch_model.bin", "model.safetensors"),
            TimmVit("vit_large_patch16_224", 1024, options=_LAYER_SCALE),
            interpolation="bilinear",
        ),
        gated=True,
        tile_px=256,
    ),
    _row(
        "uni2-h",
        "UNI2-h",
        "ViT-H/14, eight registers",
        CC_BY_NC_ND,
        Recipe(
            "MahmoodLab/UNI2-h",
            ("pytorch_model.bin", "model.safetensors"),
            TimmVit(
                "vit_giant_patch14_224",
                1536,
                swiglu=True,
                options={
                    "embed_dim": 1536,
                    "depth": 24,
                    "num_heads": 24,
                    "mlp_ratio": 2.66667 * 2,
                    "init_values": 1e-5,
                    "reg_tokens": 8,
                    "no_embed_class": True,
                },
            ),
            interpolation="bilinear",
            precision="bfloat16",
        ),
        gated=True,
        tile_px=256,
    ),
    _row(
        "conch",
        "CONCH",
        "ViT-B/16 with attentional pooling, Lu et al. 2024",
        CC_BY_NC_ND,
        Recipe(
            "MahmoodLab/CONCH",
            ("pytorch_model.bin",),
            ConchVit(TimmVit("vit_base_patch16_224", 768, image_px=448), 512, bias=True),
            normalisation=OPENAI,
            crop_px=448,
            precision="float32",
        ),
        gated=True,
        tile_px=512,
    ),
    _row(
        "conch-1.5",
        "CONCH 1.5",
        "ViT-L/16 with attentional pooling",
        CC_BY_NC_ND,
        Recipe(
            "MahmoodLab/conchv1_5",
            ("pytorch_model_vision.bin",),
            ConchVit(
                TimmVit("vit_large_patch16_224", 1024, image_px=448, options=_LAYER_SCALE),
                768,
                bias=False,
                stretch=0.1,
            ),
            crop_px=448,
            interpolation="bilinear",
        ),
        gated=True,
        tile_px=512,
    ),
    _row(
        "virchow",
        "Virchow",
        "ViT-H/14, Vorontsov et al. 2024",
        "Apache-2.0",
        Recipe(
            "paige-ai/Virchow",
            SAFE_FIRST,
            TimmVit(
                "vit_huge_patch14_224", 1280, pooling=Pooling.CLASS_AND_MEAN, swiglu=True, options=_VIRCHOW
            ),
        ),
        gated=True,
    ),
    _row(
        "virchow2",
        "Virchow2",
        "ViT-H/14, four registers",
        CC_BY_NC_ND,
        Recipe(
            "paige-ai/Virchow2",
            SAFE_FIRST,
            TimmVit(
                "vit_huge_patch14_224",
                1280,
                pooling=Pooling.CLASS_AND_MEAN,
                swiglu=True,
                options=_VIRCHOW | {"reg_tokens": 4},
            ),
        ),
        gated=True,
    ),
    _row(
        "h-optimus-0",
        "H-optimus-0",
        "ViT-g/14, four registers",
        "Apache-2.0",
        Recipe("bioptimus/H-optimus-0", SAFE_FIRST, _GIANT_H, normalisation=BIOPTIMUS),
        gated=True,
    ),
    _row(
        "h-optimus-1",
        "H-optimus-1",
        "ViT-g/14, four registers",
        CC_BY_NC_ND,
        Recipe("bioptimus/H-optimus-1", SAFE_FIRST, _GIANT_H, normalisation=BIOPTIMUS),
        gated=True,
    ),
    _row(
        "h0-mini",
        "H0-mini",
        "ViT-B/14, four registers",
        CC_BY_NC_ND,
        Recipe(
            "bioptimus/H0-mini",
            SAFE_FIRST,
            TimmVit("vit_base_patch14_reg4_dinov2", 768, swiglu=True, options={"mlp_ratio": 2.66667 * 2}),
            normalisation=BIOPTIMUS,
        ),
        gated=True,
    ),
    _row(
        "prov-gigapath",
        "Prov-GigaPath",
        "tile encoder, ViT-g/16, Xu et al. 2024",
        "Apache-2.0, research use only",
        Recipe(
            "prov-gigapath/prov-gigapath",
            ("pytorch_model.bin", "model.safetensors"),
            TimmVit("vit_giant_patch14_dinov2", 1536, options={"patch_size": 16}),
            resize_px=256,
        ),
        gated=True,
        tile_px=256,
    ),
    _row(
        "phikon",
        "Phikon",
        "ViT-B/16, Filiot et al. 2023",
        OWKIN,
        Recipe(
            "owkin/phikon",
            SAFE_FIRST,
            TransformersVit("vit_base_patch16_224", 768, epsilon=1e-12),
            precision="float32",
        ),
        gated=False,
    ),
    _row(
        "phikon-v2",
        "Phikon-v2",
        "ViT-L/16, Filiot et al. 2024",
        OWKIN,
        Recipe(
            "owkin/phikon-v2",
            SAFE_FIRST,
            TransformersVit("vit_large_patch16_224", 1024, options=_LAYER_SCALE),
            precision="float32",
        ),
        gated=False,
    ),
    _row(
        "gpfm",
        "GPFM",
        "ViT-L/14, Ma et al. 2024",
        "CC-BY-NC-4.0",
        Recipe(
            "majiabo/GPFM",
            ("GPFM.pth",),
            TimmVit("vit_large_patch14_dinov2", 1024),
        ),
        gated=False,
    ),
    _row(
        "hibou-b",
        "Hibou-B",
        "ViT-B/14, four registers, Nechaev et al. 2024",
        "Apache-2.0",
        Recipe(
            "histai/hibou-b",
            SAFE_FIRST,
            TransformersVit(
                "vit_base_patch14_reg4_dinov2", 768, swiglu=True, options={"mlp_ratio": 4096 / 768}
            ),
            normalisation=HIBOU,
            precision="float32",
        ),
        gated=False,
    ),
    _row(
        "hibou-l",
        "Hibou-L",
        "ViT-L/14, four registers, Nechaev et al. 2024",
        "Apache-2.0",
        Recipe(
            "histai/hibou-L",
            SAFE_FIRST,
            TransformersVit(
                "vit_large_patch14_reg4_dinov2", 1024, swiglu=True, options={"mlp_ratio": 5472 / 1024}
            ),
            normalisation=HIBOU,
            precision="float32",
        ),
        gated=False,
    ),
    _row(
        "midnight",
        "Midnight-12k",
        "ViT-g/14, Karasikov et al. 2025",
        "MIT",
        Recipe(
            "kaiko-ai/midnight",
            SAFE_FIRST,
            TransformersVit("vit_giant_patch14_dinov2", 1536, pooling=Pooling.CLASS_AND_MEAN),
            normalisation=HALF,
        ),
        gated=False,
    ),
    _row(
        "resnet50",
        "ResNet50",
        "residual network up to its third stage, ImageNet",
        "BSD-3-Clause",
        Recipe(
            "timm/resnet50.tv_in1k",
            SAFE_FIRST,
            ResNetTrunk("resnet50", 1024),
            interpolation="bilinear",
            precision="float32",
        ),
        gated=False,
        tile_px=256,
    ),
)
