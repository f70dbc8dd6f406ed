"""Layer data for the slide and the outlines of its spots."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.layers.frame import Frame, frame_in, place
from napari_flag.layers.raster import SpotRaster, spot_raster
from napari_flag.layers.region_shapes import outline

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
        **Frame(slide.mpp).options(metadata={keys.LAYER_KIND: "slide", keys.LAYER_SLIDE: slide}),
    }
    return napari_levels(slide), options, "image"


def spots_layer(spots: "Spots", mpp: float | None) -> LayerData:
    """Return the outlines of `spots` as one picture; its cost does not grow with their number."""
    diameter = None if spots.diameter_um is None or mpp is None else spots.diameter_um / mpp
    raster = spot_raster(spots.xy, diameter_px=diameter, lattice=spots.lattice, array=spots.array)
    return outline_layer(raster, Frame(mpp), name=f"Spots ({len(spots):,})")


def outline_layer(raster: SpotRaster, frame: Frame, name: str = "Spots") -> LayerData:
    """Return the rims of the spots of `raster` as one layer."""
    from napari.utils import Colormap

    options = {
        "name": name,
        "colormap": Colormap([(0, 0, 0, 0), OUTLINE_COLOUR], name="spot outlines"),
        "contrast_limits": (0, 1),
        "interpolation2d": "nearest",
        "blending": "translucent_no_depth",
        **raster.options(frame, {keys.LAYER_KIND: "spots"}),
    }
    return raster.outlines(), options, "image"


REGION_NAME: Final = "Region"
RINGS_UP_TO: Final = 5_000
"""More spots than these are drawn as one picture, whose cost does not grow with their number."""


def slide_of(layer: Any) -> "Slide | None":
    """Return the slide a layer shows, None when it is not one of our slide layers."""
    slide: Slide | None = layer.metadata.get(keys.LAYER_SLIDE)
    return slide


def file_of(layer: Any) -> Path | None:
    """Return the file of a plain RGB image layer that another reader opened, else None."""
    from napari.layers import Image

    if not isinstance(layer, Image) or not layer.rgb or keys.LAYER_KIND in layer.metadata:
        return None
    path = layer.source.path
    return Path(path) if path and Path(path).is_file() else None


def candidates(viewer: Any) -> list[Any]:
    """Return the layers that can be predicted on, ours first, the topmost first."""
    layers = list(reversed(viewer.layers))
    ours = [layer for layer in layers if slide_of(layer) is not None]
    opened = {slide_of(layer).path for layer in ours}  # type: ignore[union-attr]
    others = [layer for layer in layers if (path := file_of(layer)) and path not in opened]
    return ours + others


def add_slide(viewer: Any, slide: "Slide") -> Any:
    """Add `slide` below everything else and return its layer; it reads only what is on screen."""
    from napari.layers import Layer

    layer = viewer.add_layer(Layer.create(*slide_layer(slide)))
    viewer.layers.move(len(viewer.layers) - 1, 0)
    viewer.reset_view()
    return layer


def add_copy(viewer: Any, layer: Any, index: int) -> Any:
    """Show the picture `layer` in another viewer, at `index`, and return the copy; pixels are shared."""
    copy = viewer.add_image(
        layer.data,
        rgb=True,
        multiscale=layer.multiscale,
        name=layer.name,
        contrast_limits=layer.contrast_limits,
        scale=layer.scale,
        translate=layer.translate,
        affine=layer.affine,
        units=layer.units,
        axis_labels=layer.axis_labels,
        visible=layer.visible,
        metadata=dict(layer.metadata),
    )
    viewer.layers.move(len(viewer.layers) - 1, index)
    return copy


def set_mpp(viewer: Any, layer: Any, slide: "Slide") -> None:
    """Give the slide `layer` a slide whose µm/px was set.

    All that is drawn stays put on the tissue, and on the screen.
    """
    before, after = Frame(layer.metadata[keys.LAYER_SLIDE].mpp), Frame(slide.mpp)
    factor = after.um_per_px / before.um_per_px
    camera = camera_of(viewer)
    center, zoom = camera.center, camera.zoom
    layer.metadata[keys.LAYER_SLIDE] = slide
    for other in viewer.layers:
        shown = slide_of(other)
        adata = other.metadata.get(keys.LAYER_ADATA)
        frame = after if shown is None else Frame(shown.mpp)
        place(other, frame if adata is None else frame_in(viewer, adata), before)
    camera.center = tuple(factor * c for c in center)
    camera.zoom = zoom / factor


def follow_slides(viewer: Any) -> None:
    """Place predictions, and the regions drawn on them, on the slides that `viewer` shows now."""
    frame = None
    for layer in viewer.layers:
        if (adata := layer.metadata.get(keys.LAYER_ADATA)) is not None:
            frame = frame_in(viewer, adata)
            place(layer, frame, frame)
    if frame is not None:
        for layer in viewer.layers:
            if layer.metadata.get(keys.LAYER_KIND) == "region":
                place(layer, frame, frame)


def show_spots(viewer: Any, spots: "Spots", slide: "Slide") -> None:
    """Draw the outlines of `spots`, in place of those drawn before."""
    from napari.layers import Layer

    remove_spots(viewer)
    if not len(spots):
        return
    few = len(spots) <= RINGS_UP_TO
    data = _rings(spots, slide) if few else spots_layer(spots, slide.mpp)
    active = viewer.layers.selection.active
    viewer.add_layer(Layer.create(*data))
    viewer.layers.selection.active = active  # napari would select the new layer's tools


def _rings(spots: "Spots", slide: "Slide") -> LayerData:
    """Return spots as circles; unlike a picture of them they stay visible when zoomed out."""
    diameter_um = spots.diameter_um or 0.5 * (spots.pitch_um or 0.0)
    # Where the size in px cannot be known: large enough to see, and clearly only a symbol.
    known = slide.mpp and diameter_um
    size = diameter_um / slide.mpp if slide.mpp and known else max(slide.size) / 150
    options = {
        "name": f"Spots ({len(spots):,})",
        "size": size,
        "face_color": "transparent",
        "border_color": np.array(OUTLINE_COLOUR),
        "border_width": 0.12,
        "border_width_is_relative": True,
        "features": {"spot": np.asarray(spots.ids, dtype=object)},
        **Frame(slide.mpp).options(metadata={keys.LAYER_KIND: "spots"}),
    }
    return spots.xy[:, ::-1], options, "points"


def hide_spots(viewer: Any) -> None:
    """Hide the outlines, which would frame and so tint the colours of a gene map."""
    for layer in viewer.layers:
        if layer.metadata.get(keys.LAYER_KIND) == "spots":
            layer.visible = False


def remove_spots(viewer: Any) -> None:
    """Take away the spots this dock drew."""
    for layer in [la for la in viewer.layers if la.metadata.get(keys.LAYER_KIND) == "spots"]:
        viewer.layers.remove(layer)


def shapes_layers(viewer: Any) -> list[Any]:
    """Return the Shapes layers, the topmost first."""
    from napari.layers import Shapes

    return [layer for layer in reversed(viewer.layers) if isinstance(layer, Shapes)]


def add_region(viewer: Any, slide: "Slide") -> Any:
    """Add an empty Shapes layer to draw a region in, and make it ready for drawing."""
    layer = viewer.add_shapes(
        ndim=2,
        name=REGION_NAME,
        face_color="#ffd50030",
        edge_color="#ffd500",
        edge_width=max(slide.size) / 400,
        **Frame(slide.mpp).options(metadata={keys.LAYER_KIND: "region"}),
    )
    viewer.layers.selection.active = layer
    layer.mode = "add_polygon"
    return layer


def region_polygons(layer: Any, slide_layer: Any, name: str) -> tuple[Any, ...]:
    """Return the shapes of `layer` as shapely polygons in level-0 px (x, y) of the slide.

    Raises
    ------
    UserError
        When the layer holds no shape with an area.
    """
    from shapely import make_valid
    from shapely.geometry import Polygon

    polygons = []
    for kind, corners in zip(layer.shape_type, layer.data, strict=True):
        if kind in ("line", "path"):
            continue
        points = outline(kind, np.asarray(corners, dtype=float)[:, -2:])
        xy = np.array([slide_layer.world_to_data(layer.data_to_world(p))[-2:] for p in points])
        polygon = make_valid(Polygon(xy[:, ::-1]))
        if polygon.area > 0:
            polygons.append(polygon)
    if not polygons:
        raise UserError(
            f"The layer “{name}” holds no closed shape, so there is no region; draw a polygon, "
            "rectangle or ellipse in it, or choose another region."
        )
    return tuple(polygons)


def camera_of(viewer: Any) -> Any:
    """Return the camera of a viewer; napari 0.9 moved it to the scene."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera
