"""Train the embedded encoder's network without labels (VICReg, Bardes et al. 2022).

Two views of one place in the tissue — shifted, turned, flipped, scaled and re-stained — should be
close in feature space, while features keep their variance and stay uncorrelated.  Only the images
of the training slides are seen; a held-out slide contributes no crop.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flag_training.engine.checkpointing import load_state, save_state
from napari_flag.encoders.embedded import CHANNELS, TileNet
from napari_flag.progress import Step, Steps

CROP_PX: Final = 64
"""At half resolution: 64 × 1.366 µm = 87 µm, about one spot."""
_SAVE_EVERY: Final = 200
_PATCH_PX: Final = 112
"""Cut before rotation and scaling, so that no view needs padding."""
_EXPANDED: Final = 768
"""Width in which features are compared."""


@dataclass(frozen=True, slots=True)
class TileEncoderConfig:
    """Values of one self-supervised run.

    Parameters
    ----------
    steps
        Optimiser steps.
    schedule_steps
        Steps over which the learning rate decays; a run may stop before its end.
    batch_size
        Places per step; each gives two views.
    learning_rate, weight_decay
        AdamW; the rate warms up over 5 % of the schedule and decays along a cosine.
    shift_px
        Largest distance between the two views' centres along each axis, in half-resolution pixels.
    stain_jitter, brightness_jitter
        Spread of the log gain of each optical-density channel, and of the common gain.
    seed
        Seeds weights and views.
    """

    steps: int = 1000
    schedule_steps: int = 1000
    batch_size: int = 192
    learning_rate: float = 1.5e-3
    weight_decay: float = 1e-4
    shift_px: int = 12
    stain_jitter: float = 0.15
    brightness_jitter: float = 0.2
    seed: int = 0


def train_tile_encoder(
    images: Sequence[npt.NDArray[np.uint8]],
    config: TileEncoderConfig,
    state_file: Path | None = None,
) -> Steps[TileNet]:
    """Train on tissue of `images`; resumes from `state_file` and saves there as it goes.

    Parameters
    ----------
    images
        Slides at half the encoder's resolution (1.366 µm/px), (h, w, 3) uint8.
    config
        Values of the run.
    state_file
        Where the state is kept; None keeps none.  Once training has ended it holds the network alone.
    """
    torch.manual_seed(config.seed)
    net, expander = TileNet(), _expander()
    net.to(memory_format=torch.channels_last)
    parameters = [*net.parameters(), *expander.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    modules = {"net": net, "expander": expander, "optimiser": optimiser}
    values = asdict(config)
    first = load_state(state_file, {"net": net}, values, config.steps) if state_file else 0
    if state_file and first < config.steps:
        first = load_state(state_file, modules, values, config.steps)
    places = [np.argwhere(_tissue(image)) * 8 for image in images]
    for step in range(first, config.steps):
        _set_rate(optimiser, config, step)
        generator = np.random.default_rng([config.seed, step])
        views = _two_views(images, places, config, generator)
        loss = vicreg_loss(*expander(net(views).mean((2, 3))).chunk(2))
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        optimiser.step()
        if state_file and step + 1 == config.steps:
            save_state(state_file, {"net": net}, values, step + 1)
        elif state_file and (step + 1) % _SAVE_EVERY == 0:
            save_state(state_file, modules, values, step + 1)
        yield Step("Training the tile encoder", step + 1, config.steps, "steps", partial=loss.item())
    return net.eval()


def vicreg_loss(first: Tensor, second: Tensor) -> Tensor:
    """VICReg loss (25 invariance, 25 variance, 1 covariance) of two (b, d) views."""
    invariance = F.mse_loss(first, second)
    variance = torch.zeros(())
    covariance = torch.zeros(())
    for view in (first, second):
        centred = view - view.mean(0)
        variance = variance + F.relu(1 - torch.sqrt(centred.var(0) + 1e-4)).mean() / 2
        cov = centred.T @ centred / (len(view) - 1)
        off = cov.pow(2).sum() - cov.diagonal().pow(2).sum()
        covariance = covariance + off / view.shape[1]
    return 25 * invariance + 25 * variance + covariance


def _expander() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(CHANNELS[-1], _EXPANDED),
        nn.BatchNorm1d(_EXPANDED),
        nn.ReLU(),
        nn.Linear(_EXPANDED, _EXPANDED),
    )


def _set_rate(optimiser: torch.optim.Optimizer, config: TileEncoderConfig, step: int) -> None:
    warm = max(1, config.schedule_steps // 20)
    decay = 0.5 * (1 + np.cos(np.pi * step / config.schedule_steps))
    for group in optimiser.param_groups:
        group["lr"] = float(config.learning_rate * min(1.0, (step + 1) / warm) * decay)


def _tissue(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Every eighth pixel that lies in coloured tissue and far enough from the border."""
    small = image[::8, ::8].astype(np.int16)
    coloured = (small.max(2) - small.min(2)) > 25
    margin = (_PATCH_PX // 2 + 16) // 8 + 1
    coloured[:margin] = coloured[-margin:] = False
    coloured[:, :margin] = coloured[:, -margin:] = False
    return np.asarray(coloured)


def _two_views(
    images: Sequence[npt.NDArray[np.uint8]],
    places: Sequence[npt.NDArray[np.int64]],
    config: TileEncoderConfig,
    generator: np.random.Generator,
) -> Tensor:
    """Return (2 b, 3, 64, 64) float views in [0, 1]: all first views, then all second ones."""
    which = generator.integers(len(images), size=config.batch_size)
    centres = np.stack([places[i][generator.integers(len(places[i]))] for i in which])
    half = _PATCH_PX // 2
    patches = np.empty((2 * config.batch_size, _PATCH_PX, _PATCH_PX, 3), np.uint8)
    for view in range(2):
        shift = generator.integers(-config.shift_px // 2, config.shift_px // 2 + 1, centres.shape)
        for row, (image, (y, x)) in enumerate(zip(which, centres + shift, strict=True)):
            patch = images[image][y - half : y + half, x - half : x + half]
            patches[view * config.batch_size + row] = patch
    tensor = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255
    return restain(_turn(tensor, generator), config, generator)


def _turn(patches: Tensor, generator: np.random.Generator) -> Tensor:
    """Rotate, flip and scale (0.8–1.25) each patch and keep its central crop."""
    n = len(patches)
    angle = generator.uniform(0, 2 * np.pi, n)
    zoom = np.exp(generator.uniform(np.log(0.8), np.log(1.25), n)) * CROP_PX / _PATCH_PX
    flip = generator.choice([-1.0, 1.0], n)
    rows = np.stack([np.cos(angle), -np.sin(angle) * flip, np.sin(angle), np.cos(angle) * flip], 1)
    theta = np.zeros((n, 2, 3), np.float32)
    theta[:, :, :2] = (rows * zoom[:, None]).reshape(n, 2, 2)
    grid = F.affine_grid(torch.from_numpy(theta), [n, 3, CROP_PX, CROP_PX], align_corners=False)
    turned = F.grid_sample(patches, grid, mode="bilinear", align_corners=False)
    return turned.contiguous(memory_format=torch.channels_last)


def restain(images: Tensor, config: TileEncoderConfig, generator: np.random.Generator) -> Tensor:
    """Scale each image's optical densities by random gains per channel and in common."""
    n = len(images)
    log_gain = generator.normal(0, config.stain_jitter, (n, 3, 1, 1))
    log_gain = log_gain + generator.normal(0, config.brightness_jitter, (n, 1, 1, 1))
    gain = torch.from_numpy(np.exp(log_gain).astype(np.float32))
    density = -torch.log(images.clamp_min(1 / 255))
    return torch.exp(-density * gain).contiguous(memory_format=torch.channels_last)
