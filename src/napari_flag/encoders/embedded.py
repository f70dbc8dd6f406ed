"""The encoder that ships with the package and needs no network.

A tile of 600 × 600 px at 0.683 µm/px (410 µm, about two array pitches) becomes one vector of

* stain and texture statistics in three nested windows (150, 300, 600 px): percentiles of
  hematoxylin, eosin, red, green, blue and gradient magnitude, and uniform local binary patterns
  (Ojala et al. 2002) at three radii;
* features of `TileNet`, a small convolutional network trained without labels on tiles of the
  training slides (`flag_training.stages.tile_encoder`), pooled over the spot and its surroundings.

The network's weights are stored in each FLAG checkpoint.
"""

import platform
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_flag.encoders.foundation.state_dicts import computed_in, fingerprint
from napari_flag.encoders.tile_statistics import STATISTICS_DIM, TILE_PX, statistics, statistics_of_tile

TILE_UM_PER_PX: Final = 0.683
"""Resolution of the her2st scans (200 µm pitch over about 293 px)."""
CHANNELS: Final = (24, 48, 64, 96, 128, 160)
STRIDES: Final = (2, 1, 2, 1, 2, 1)
POOLED: Final = 5
DIM: Final = STATISTICS_DIM + POOLED * CHANNELS[-1]


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
        features: Tensor = self.layers(_centred(images))
        return features

    def pairs(self) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
        """Return each convolution with its normalisation."""
        for convolution, normalisation in zip(self.layers[0::3], self.layers[1::3], strict=True):
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(normalisation, nn.BatchNorm2d)
            yield convolution, normalisation

    def folded(self) -> nn.Sequential:
        """Return the layers in evaluation mode, each normalisation folded into its convolution."""
        layers: list[nn.Module] = []
        for convolution, normalisation in self.pairs():
            layers += [fuse_conv_bn_eval(convolution, normalisation), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)


def _centred(images: Tensor) -> Tensor:
    """Return `images`, in [0, 1], as the first convolution takes them."""
    return (images - 0.5) * 4.0


class IntegerNet:
    """`TileNet` in 8-bit integers, after training and without data (Nagel et al., ICCV 2019).

    Weights are rounded to 127 steps of each output channel's largest.  An activation's range is what its
    batch normalisation says of it: its mean and `SIGMAS` standard deviations of the channel where that is
    most, so that it depends on no tile.  Activations have 127 steps too, whose products with weights no
    processor has to saturate.  Sums of integers are exact: neither batches nor threads change a result.

    Parameters
    ----------
    net
        In evaluation mode, on the CPU.
    """

    SIGMAS: Final = 6.0
    STEPS: Final = 127

    def __init__(self, net: TileNet) -> None:
        self._first, self._zero = 4.0 / self.STEPS, self.STEPS // 2 + 1  # of `_centred` images, in [-2, 2]
        self._layers: list[tuple[Any, ...]] = []
        scale, zero = self._first, self._zero
        for convolution, normalisation in net.pairs():
            fused = fuse_conv_bn_eval(convolution, normalisation)
            assert fused.bias is not None
            weight, bias = fused.weight.detach(), fused.bias.detach()
            steps = weight.abs().amax((1, 2, 3)).clamp_min(1e-12) / 127
            rounded = (weight / steps[:, None, None, None]).round().to(torch.int8)
            shape = (list(fused.stride), list(fused.padding), [1, 1], 1)  # stride, padding, dilation, groups
            packed = torch.ops.onednn.qconv_prepack(rounded, steps, scale, zero, *shape)
            highest = (normalisation.bias + self.SIGMAS * normalisation.weight.abs()).max().item()
            out = max(highest, 1e-12) / self.STEPS
            zeros = torch.zeros(len(steps), dtype=torch.int32)
            self._layers.append((scale, zero, packed, steps, zeros, bias, *shape, out))
            scale, zero = out, 0
        self._last = scale

    @staticmethod
    def supported() -> bool:
        """Return whether there are such convolutions: on Intel's and AMD's processors, with oneDNN."""
        return (
            platform.machine().lower() in ("x86_64", "amd64")
            and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
            and hasattr(torch.ops.onednn, "qconv2d_pointwise")
        )

    def __call__(self, images: Tensor) -> Tensor:
        """Return the feature map of `_centred` images, (b, 160, h/8, w/8) float32."""
        steps = (images / self._first).round_().add_(self._zero).clamp_(0, 255)
        found = steps.to(torch.uint8).contiguous(memory_format=torch.channels_last)
        for *layer, out in self._layers:
            found = torch.ops.onednn.qconv2d_pointwise(found, *layer, out, 0, torch.uint8, "relu", [], "")
        return found.float() * self._last


class EmbeddedEncoder:
    """Batched tiles → vectors, on CPU or GPU.

    Parameters
    ----------
    net
        The self-supervised network; put into evaluation mode and moved to `device`.
    device
        Where to compute.
    integers
        Convolve in 8-bit integers on a CPU that can (`IntegerNet`): a tile takes two thirds of the time.
    """

    name = "embedded"
    dim = DIM
    tile_px = TILE_PX
    mpp = TILE_UM_PER_PX

    def __init__(self, net: TileNet, device: torch.device | str = "cpu", *, integers: bool = False) -> None:
        self.device = torch.device(device)
        self.weights = fingerprint(net.state_dict())
        self._half = _supports_half(self.device)
        arithmetic = torch.bfloat16 if self._half else torch.float32
        self._net: nn.Module | IntegerNet
        with torch.inference_mode():
            if integers and self.device.type == "cpu" and IntegerNet.supported():
                self._net = IntegerNet(net.eval())
                arithmetic = torch.int8
            else:
                self._net = net.eval().folded().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fingerprint = computed_in(self.weights, arithmetic)

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
        result: npt.NDArray[np.float32]
        tiles = np.ascontiguousarray(tiles)  # turned and flipped ones are views
        if self.device.type == "cpu":
            # a thread per core and tile: these arrays fit its cache, where those of a batch do not
            with ThreadPoolExecutor(torch.get_num_threads(), "statistics") as pool:
                own = np.stack(list(pool.map(statistics_of_tile, tiles)))
                half = np.stack(list(pool.map(_halved, tiles)))
            images = torch.from_numpy(half).permute(0, 3, 1, 2)  # (b, 3, 300, 300)
            result = np.concatenate([own, self._pooled(images).numpy()], axis=1)
            return result
        images = torch.from_numpy(tiles).to(self.device)
        images = images.permute(0, 3, 1, 2).float() / 255.0  # (b, 3, 600, 600)
        half_size = F.avg_pool2d(images, 2).contiguous(memory_format=torch.channels_last)
        result = torch.cat([statistics(images), self._pooled(half_size)], dim=1).cpu().numpy()
        return result

    def _pooled(self, half: Tensor) -> Tensor:
        """Return what the network sees of tiles at half their size: (b, 3, 300, 300) → (b, 5 c)."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
            features = self._net(_centred(half))
        return pool_map(features.float())


def _halved(tile: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the means of the 2 × 2 blocks of one tile, in [0, 1]: (600, 600, 3) → (300, 300, 3)."""
    rows = tile[0::2].astype(np.uint16)
    rows += tile[1::2]
    pairs = rows.reshape(len(rows), -1, 6)
    found: npt.NDArray[np.float32] = (pairs[..., :3] + pairs[..., 3:]) * np.float32(1 / 1020)
    return found


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


def _supports_half(device: torch.device) -> bool:
    """Return whether to convolve in bfloat16: on CUDA where it can; a CPU stays in float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return False
