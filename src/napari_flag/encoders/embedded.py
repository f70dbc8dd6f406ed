"""The encoder that ships with the package and needs no network.

A tile of 600 × 600 px at 0.683 µm/px (410 µm, about two array pitches) becomes one vector of

* stain and texture statistics in three nested windows (150, 300, 600 px): percentiles of
  hematoxylin, eosin, red, green, blue and gradient magnitude, and uniform local binary patterns
  (Ojala et al. 2002) at three radii;
* features of `TileNet`, a small convolutional network trained without labels on tiles of the
  training slides (`flag_training.stages.tile_encoder`), pooled over the spot and its surroundings.

The network's weights are stored in each FLAG checkpoint.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_flag.encoders.foundation.state_dicts import fingerprint

TILE_PX: Final = 600
TILE_UM_PER_PX: Final = 0.683
"""Resolution of the her2st scans (200 µm pitch over about 293 px)."""
WINDOWS_PX: Final = (150, 300, 600)
"""Nested windows: the spot (100 µm), its border, its surroundings."""
CHANNELS: Final = (24, 48, 64, 96, 128, 160)
STRIDES: Final = (2, 1, 2, 1, 2, 1)
STATISTICS_DIM: Final = len(WINDOWS_PX) * (6 * 7 + 3 * 10)
POOLED: Final = 5
DIM: Final = STATISTICS_DIM + POOLED * CHANNELS[-1]

_PERCENTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
_GRID: Final = 75
"""Pixels per window side at which colour percentiles are taken."""
# Hematoxylin and eosin optical densities, Ruifrok & Johnston 2001; the third is their complement.
_STAINS: Final = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))
_LUMA: Final = (0.299, 0.587, 0.114)


class TileNet(nn.Module):
    """Six 3 × 3 convolutions; an image at half resolution becomes a map at a sixteenth.

    Takes (b, 3, h, w) float in [0, 1], returns (b, 160, h/8, w/8).
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for channels, stride in zip(CHANNELS, STRIDES, strict=True):
            layers += [
                nn.Conv2d(width, channels, 3, stride, padding=1, bias=False),
                nn.BatchNorm2d(channels),
                nn.ReLU(inplace=True),
            ]
            width = channels
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        """Return the feature map of `images`."""
        features: Tensor = self.layers((images - 0.5) * 4.0)
        return features


class EmbeddedEncoder:
    """Batched tiles → vectors, on CPU or GPU.

    Parameters
    ----------
    net
        The self-supervised network; put into evaluation mode and moved to `device`.
    device
        Where to compute.
    """

    name = "embedded"
    dim = DIM
    tile_px = TILE_PX
    mpp = TILE_UM_PER_PX

    def __init__(self, net: TileNet, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.fingerprint = fingerprint(net.state_dict())
        self._net = net.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._half = _supports_half(self.device)

    @torch.inference_mode()
    def encode(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the features of `tiles`.

        Parameters
        ----------
        tiles
            (b, 600, 600, 3) uint8 RGB at 0.683 µm/px, spot in the centre.

        Returns
        -------
        (b, 1016) float32.
        """
        images = torch.from_numpy(np.ascontiguousarray(tiles)).to(self.device)
        images = images.permute(0, 3, 1, 2).float() / 255.0  # (b, 3, 600, 600)
        features = torch.cat([statistics(images), self._pooled(images)], dim=1)
        result: npt.NDArray[np.float32] = features.cpu().numpy()
        return result

    def _pooled(self, images: Tensor) -> Tensor:
        half = F.avg_pool2d(images, 2).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            features = self._net(half)
        return pool_map(features.float())


def pool_map(features: Tensor) -> Tensor:
    """Pool a (b, c, 38, 38) map of one tile into (b, 5 c): spot, border, surroundings.

    Mean and spread over the spot's window, mean over 300 px, mean and spread over 600 px.
    """
    side = features.shape[-1]
    spot, border = (
        features[..., lo : side - lo, lo : side - lo] for lo in (round(side * 3 / 8), round(side / 4))
    )
    blocks = F.adaptive_avg_pool2d(features, 4).flatten(2)
    parts = (
        spot.mean((2, 3)),
        spot.flatten(2).std(2),
        border.mean((2, 3)),
        blocks.mean(2),
        blocks.std(2),
    )
    return torch.cat(parts, dim=1)


def statistics(images: Tensor) -> Tensor:
    """Stain and texture statistics of (b, 3, 600, 600) images in [0, 1]: (b, 216)."""
    density = -torch.log10(images.clamp_min(1 / 255))  # Beer–Lambert
    unmix = torch.linalg.inv(torch.tensor(_STAINS, dtype=images.dtype))[:, :2]
    stains = torch.einsum("bchw,cs->bshw", density, unmix.to(images.device))
    grey = torch.einsum("bchw,c->bhw", images, images.new_tensor(_LUMA))
    gradient = _gradient(grey)
    stack = torch.cat([stains, images, gradient[:, None]], dim=1)  # (b, 6, h, w)
    codes = torch.stack([_uniform_patterns(grey, radius) for radius in (1, 2, 3)], dim=1)
    parts = []
    for window in WINDOWS_PX:
        lo = (images.shape[-1] - window) // 2
        inside = (slice(None), slice(None), slice(lo, lo + window), slice(lo, lo + window))
        parts += [_colour(stack[inside], window // _GRID), _pattern_histogram(codes[inside])]
    return torch.cat(parts, dim=1)


def _colour(stack: Tensor, stride: int) -> Tensor:
    """Mean, spread and five percentiles per channel of a (b, 6, w, w) window: (b, 42)."""
    values = stack[..., ::stride, ::stride].flatten(2)
    ordered = values.sort(dim=2).values
    picks = [round(p * (ordered.shape[2] - 1)) for p in _PERCENTILES]
    parts = [values.mean(2, keepdim=True), values.std(2, keepdim=True), ordered[..., picks]]
    return torch.cat(parts, dim=2).flatten(1)


def _gradient(grey: Tensor) -> Tensor:
    padded = F.pad(grey[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    dx = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    dy = padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]
    return torch.sqrt(dx * dx + dy * dy)


def _uniform_patterns(grey: Tensor, radius: int) -> Tensor:
    """Uniform local binary pattern (Ojala et al. 2002, riu2) with 8 neighbours: 0–9 as uint8."""
    r, d = radius, max(1, round(radius / 2**0.5))
    ring = ((0, r), (-d, d), (-r, 0), (-d, -d), (0, -r), (d, -d), (r, 0), (d, d))
    height, width = grey.shape[-2:]
    padded = F.pad(grey[:, None], (r, r, r, r), mode="replicate")[:, 0]
    bits = [padded[:, r + y : r + y + height, r + x : r + x + width] >= grey for y, x in ring]
    ones = torch.zeros_like(grey, dtype=torch.uint8)
    changes = torch.zeros_like(grey, dtype=torch.uint8)
    for here, following in zip(bits, bits[1:] + bits[:1], strict=True):
        ones += here
        changes += here ^ following
    return torch.where(changes <= 2, ones, torch.full_like(ones, 9))


def _pattern_histogram(codes: Tensor) -> Tensor:
    """Shares of the ten patterns in (b, 3, w, w) codes: (b, 30)."""
    flat = codes.flatten(2)
    shares = [(flat == code).float().mean(2) for code in range(10)]
    return torch.stack(shares, dim=2).flatten(1)


def _supports_half(device: torch.device) -> bool:
    """Return whether to convolve in bfloat16: on CUDA where it can; a CPU stays in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return False
