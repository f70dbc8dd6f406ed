"""Setting a napari layer's look with as few redraws as possible: each setter redraws, changed or not."""

from typing import Any

from napari_flag.viewer.gene_values import Limits


def set_shown(layer: Any, shown: bool) -> None:
    """Show or hide a layer and its colour bar."""
    if layer.visible != shown:
        layer.visible = shown
    if layer.colorbar.visible != shown:
        layer.colorbar.visible = shown


def set_limits(layer: Any, limits: Limits, span: Limits) -> None:
    """Set contrast limits, and the `span` their slider runs over, which holds them.

    Limits go first: napari widens the span by itself, but cuts limits that a new span does not hold.
    """
    layer.contrast_limits = limits
    layer.contrast_limits_range = span
