"""A weights file of the real architecture, tiny and untrained, for tests of everything around it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.small_encoders import random_network, shrink, write_published

from napari_flag.encoders import registry
from napari_flag.encoders.embedded import DIM, TileNet
from napari_flag.encoders.foundation.hub import FOLDER_VARIABLE, HuggingFace
from napari_flag.encoders.foundation.loader import load_foundation
from napari_flag.encoders.registry import EncoderRow, find_encoder
from napari_flag.model.checkpoint import save_checkpoint
from napari_flag.model.config import FlagConfig
from napari_flag.model.flag import QUANTILES, Flag

GENES = ("ERBB2", "KRT8", "COL1A1", "CD74", "ACTB")


def tiny_network(features: int = DIM, **stated: Any) -> Flag:
    """An untrained network in which no layer is silent, of tiny sizes but for those `stated`."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "slides": 2,
        "components": 24,
        "landmarks": 30,
        "members": 1,
        "mean_width": 16,
        "context_width": 16,
        "width": 16,
        "blocks": 2,
    }
    network = Flag(FlagConfig(features=features, genes=len(GENES), **sizes | stated)).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    network.get_buffer("slide_location").fill_(2.0)
    torch.nn.init.normal_(network.get_buffer("axes"), std=features**-0.5)
    network.get_buffer("spread").fill_(0.4)
    if network.mean_head is not None:
        kernel = network.mean_head.kernel
        torch.nn.init.normal_(kernel.get_buffer("landmarks"))
        torch.nn.init.normal_(kernel.get_buffer("weights"), std=0.2)
        kernel.get_buffer("bandwidth").fill_(50.0)
        kernel.get_buffer("length").fill_(5.0)
        network.get_buffer("depth").copy_(torch.linspace(-0.8, 0.6, QUANTILES))
    return network


def write_tiny_weights(
    path: Path, *, encoder: str = "embedded", pitch_um: float = 200.0, **sizes: Any
) -> Path:
    """Write the file of `tiny_network` and return its path."""
    torch.manual_seed(1)
    card = {
        "title": "tiny",
        "sections": ["her2st-C2"],
        "array": {"pitch_um": pitch_um, "diameter_um": 100.0},
        "um_per_px": 0.683,
        "sampler": {"solver": "dpmpp_2m", "steps": 10},
    }
    save_checkpoint(
        path, tiny_network(**sizes), TileNet().state_dict(), encoder=encoder, genes=GENES, card=card
    )
    return path


def only_small_uni(folder: Path, monkeypatch: pytest.MonkeyPatch) -> EncoderRow:
    """Have a small UNI in `folder` be the only encoder there is, and return its row."""
    row = shrink(find_encoder("uni"))
    monkeypatch.setattr(registry, "ROWS", (row,))
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder / "encoders"))
    monkeypatch.setattr(HuggingFace, "find_cached", lambda *_: None)
    return row


def write_weights_on_uni(folder: Path, monkeypatch: pytest.MonkeyPatch, fingerprint: str = "") -> Path:
    """Write weights trained on a small UNI, and that UNI into the only folder of encoders there is."""
    row = only_small_uni(folder, monkeypatch)
    uni = write_published(row, folder / "encoders" / "uni", random_network(row))
    encoder = load_foundation(row, uni, "cpu")
    card = {"encoder": {"name": "uni", "fingerprint": fingerprint or encoder.fingerprint}}
    path = folder / "on_uni.safetensors"
    save_checkpoint(path, tiny_network(encoder.dim), {}, encoder="uni", genes=GENES, card=card)
    return path
