"""The slide that was predicted: its H&E with the spots on it, and how like the training tissue it is."""

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.figures.spot_map import draw_discs, draw_scale_bar, frame_axes, shape_of, thumbnail
from napari_flag.figures.style import SEQUENTIAL
from napari_flag.viewer.frame import frame_of

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LONGEST_PX: Final = 800
"""Of the H&E; more would make a page heavy."""
RING: Final = (0.0, 0.0, 0.0, 0.55)
DISTANCES: Final = (0.0, 2.0)
"""Colours span this; 1, their middle, is where unlike begins (see `model.familiarity`)."""


def draw_overview(adata: "AnnData") -> "Figure | None":
    """Draw H&E and spots, and each spot's distance from the training tissue; None where neither is known."""
    from matplotlib.figure import Figure

    picture, width, height = thumbnail(adata, None)
    known = keys.DISTANCE in adata.obs
    if picture is None and not known:
        return None
    count = (picture is not None) + known
    figure = Figure(figsize=(4.3 * count, 4.0 * shape_of(adata) + 0.3))
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    if picture is not None:
        panel = panels[0]
        panel.imshow(_smaller(picture), extent=(-0.5, width - 0.5, height - 0.5, -0.5))
        draw_discs(panel, adata, np.tile(RING, (adata.n_obs, 1)), np.ones(adata.n_obs, bool), rings=True)
        panel.set_title("H&E and spots", loc="left")
    if known:
        panel = panels[-1]
        panel.set_title("distance from the training tissue", loc="left")
        _draw_distance(panel, adata, adata.obs[keys.DISTANCE].to_numpy(np.float64))
    for panel in panels:
        frame_axes(panel, adata)
        panel.spines[:].set_visible(False)
    draw_scale_bar(panels[0], frame_of(adata))
    return figure


def _draw_distance(panel: "Axes", adata: "AnnData", distance: npt.NDArray[np.float64]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scale = ScalarMappable(Normalize(*DISTANCES, clip=True), SEQUENTIAL)
    draw_discs(panel, adata, scale.to_rgba(distance), np.isfinite(distance), touching=True)
    panel.figure.colorbar(scale, ax=panel, shrink=0.8, extend="max", label="1: unlike begins")


def _smaller(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    from PIL import Image

    image = Image.fromarray(np.ascontiguousarray(picture[..., :3]))
    image.thumbnail((LONGEST_PX, LONGEST_PX))
    return np.asarray(image)
