"""Layer data for the slide and the outlines of its spots."""

from typing import TYPE_CHECKING, Any, TypeAlias

from napari_flag import keys
from napari_flag.viewer.frame import Frame
from napari_flag.viewer.gene_raster import SpotRaster, spot_raster

if TYPE_CHECKING:
    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots

LayerData: TypeAlias = tuple[Any, dict[str, Any], str]
"""What a napari reader returns for one layer: data, options, layer type."""

OUTLINE_COLOUR = (0.09, 0.36, 0.80, 1.0)
"""A blue that stands out from hematoxylin, eosin and white alike."""


def slide_layer(slide: "Slide") -> LayerData:
    """Return the slide as one multiscale layer that reads only what is on screen."""
    from napari_flag.slides.slide import napari_levels

    options = {
        "name": slide.name,
        "rgb": True,
        "multiscale": True,
        "contrast_limits": (0, 255),
        "metadata": {keys.LAYER_KIND: "slide", keys.LAYER_SLIDE: slide},
        **Frame(slide.mpp).options(),
    }
    return napari_levels(slide), options, "image"


def spots_layer(spots: "Spots", mpp: float | None) -> LayerData:
    """Return the outlines of `spots` as one picture; its cost does not grow with their number."""
    frame = Frame(mpp)
    diameter = None if spots.diameter_um is None or mpp is None else spots.diameter_um / mpp
    raster = spot_raster(
        spots.xy, frame=frame, diameter_px=diameter, lattice=spots.lattice, array=spots.array
    )
    return outline_layer(raster, name=f"Spots ({len(spots):,})")


def outline_layer(raster: SpotRaster, name: str = "Spots") -> LayerData:
    """Return the rims of the spots of `raster` as one layer."""
    from napari.utils import Colormap

    options = {
        "name": name,
        "colormap": Colormap([(0, 0, 0, 0), OUTLINE_COLOUR], name="spot outlines"),
        "contrast_limits": (0, 1),
        "interpolation2d": "nearest",
        "blending": "translucent_no_depth",
        "metadata": {keys.LAYER_KIND: "spots"},
        **raster.options(),
    }
    return raster.outlines(), options, "image"
