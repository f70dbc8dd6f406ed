"""What the user set in Preferences, Plugins, napari-flag; defaults where napari is older than 0.9.

The settings themselves are declared in the manifest (`napari.yaml`, ``configurations``).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from napari_flag.keys import DEFAULT_QUALITY, STEPS_OF

PLUGIN: Final = "napari-flag"
DEVICES: Final = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True, slots=True)
class Preferences:
    """What the main dock starts with.

    Parameters
    ----------
    device
        "auto", "cpu", "cuda" or "mps".
    quality
        "fast", "balanced" or "best".
    weights
        A weights file offered first, or None for the bundled ones.
    seed
        Seed of the sampler.
    """

    device: str = "auto"
    quality: str = DEFAULT_QUALITY
    weights: Path | None = None
    seed: int = 0


def read_preferences() -> Preferences:
    """Return the user's preferences; what is missing or no longer valid keeps its default."""
    return from_settings(_plugin_settings())


def _plugin_settings() -> Any:
    """Return napari's settings object of this plugin, None where there is none."""
    try:
        from napari.settings import get_plugin_settings
    except ImportError:  # napari before 0.9
        return None
    try:
        return get_plugin_settings(PLUGIN)
    except KeyError:  # not installed as a plugin, or disabled
        return None


def from_settings(settings: Any) -> Preferences:
    """Return `Preferences` from napari's settings object (None: all defaults)."""
    group = getattr(settings, "prediction", None)
    default = Preferences()
    device = str(getattr(group, "device", default.device))
    quality = str(getattr(group, "quality", default.quality))
    weights = str(getattr(group, "weights", "") or "").strip()
    return Preferences(
        device=device if device in DEVICES else default.device,
        quality=quality if quality in STEPS_OF else default.quality,
        weights=Path(weights).expanduser() if weights else None,
        seed=int(getattr(group, "seed", default.seed)),
    )
