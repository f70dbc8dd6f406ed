"""Layer data for the slide and the outlines of its spots."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.formatting import whole
from napari_flag.layers.frame import Frame, moved_by_hand, place
from napari_flag.layers.kept import Kept
from napari_flag.layers.raster import SpotRaster, spot_raster
from napari_flag.layers.region_shapes import affine_of, outline, shapes_among
from napari_flag.layers.spot_layers import selection_kept, set_place
from napari_flag.slides.lattice import drawn_diameter

if TYPE_CHECKING:
    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots


LayerData: TypeAlias = tuple[Any, dict[str, Any], str]
"""What a napari reader returns for one layer: data, options, layer type."""
Picture: TypeAlias = npt.NDArray[np.uint8]
"""(h, w), 1 on the rim of a spot."""

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


def picture_of(slide: "Slide") -> Any:
    """Return the slide as a layer of no viewer."""
    from napari.layers import Layer

    return Layer.create(*slide_layer(slide))


def placeholder_layer(slide: "Slide") -> LayerData:
    """Return the place of a slide in grey, to be filled once it has a pyramid; it takes no memory."""
    _, options, kind = slide_layer(slide)
    width, height = slide.size
    sizes = [(height, width), (max(height // 16, 1), max(width // 16, 1))]
    options["metadata"] |= {keys.LAYER_PENDING: True}
    return [np.broadcast_to(np.uint8(PENDING_GREY), (*size, 3)) for size in sizes], options, kind


def spots_layer(spots: "Spots", frame: Frame) -> LayerData:
    """Return the outlines of `spots` as one picture; its cost does not grow with their number."""
    raster, picture = outlined(spots, frame.mpp)
    return outline_layer(raster, frame, f"Spots ({whole(len(spots))})", picture)


_OUTLINED: Final[Kept[tuple[SpotRaster, Picture]]] = Kept("outlines")


def outlined(spots: "Spots", mpp: float | None) -> tuple[SpotRaster, Picture]:
    """Return the raster of `spots` at `mpp` µm/px and the picture of their rims, kept while `spots` live.

    Of many spots it takes long, so it is made where they are found: in the thread of that work.
    """

    def make() -> tuple[SpotRaster, Picture]:
        diameter = drawn_diameter(spots, mpp)
        raster = spot_raster(spots.xy, diameter_px=diameter, lattice=spots.lattice, array=spots.array)
        return raster, raster.outlines()

    return _OUTLINED.of(spots, (mpp,), make)


def outline_layer(
    raster: SpotRaster, frame: Frame, name: str = "Spots", picture: Picture | None = None
) -> LayerData:
    """Return the rims of the spots of `raster` as one layer; `picture` where they were drawn already."""
    from napari.utils import Colormap

    options = {
        "name": name,
        "colormap": Colormap([(0, 0, 0, 0), OUTLINE_COLOUR], name="spot outlines"),
        "contrast_limits": (0, 1),
        "interpolation2d": "nearest",
        "blending": "translucent_no_depth",
        **raster.options(frame, {keys.LAYER_KIND: "spots"}),
    }
    return raster.outlines() if picture is None else picture, options, "image"


PENDING_GREY: Final = 225
REGION_NAME: Final = "Region"
FIT: Final = 0.95
"""What is fitted takes this share of the canvas."""
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


def add_slide(viewer: Any, slide: "Slide", index: int = 0) -> Any:
    """Add `slide` below all else, or at `index`, and return its layer; it reads only what is on screen."""
    from napari.layers import Layer

    layer = Layer.create(*slide_layer(slide))
    viewer.layers.insert(index, layer)
    fit(viewer, [layer])
    return layer


def add_copy(viewer: Any, layer: Any, index: int) -> Any:
    """Show the picture `layer` in another viewer, at `index`, and return the copy; pixels are shared."""
    from napari.layers import Image

    copy = Image(
        layer.data,
        rgb=True,
        multiscale=layer.multiscale,
        name=layer.name,
        contrast_limits=layer.contrast_limits,
        scale=layer.scale,
        translate=layer.translate,
        rotate=layer.rotate,
        shear=layer.shear,
        affine=layer.affine,
        units=layer.units,
        axis_labels=layer.axis_labels,
        visible=layer.visible,
        metadata=dict(layer.metadata),
    )
    viewer.layers.insert(index, copy)
    return copy


def set_mpp(viewer: Any, layer: Any, slide: "Slide") -> None:
    """Give the picture `layer` a slide whose µm/px was set.

    All that is drawn on it stays put on the tissue, and on the screen.
    """
    before = layer.metadata[keys.LAYER_SLIDE].mpp
    moved, number = moved_by_hand(layer, before), layer.metadata.get(keys.LAYER_OF)
    layer.metadata.update(Frame(before, moved, number).recorded())  # where it lies, not as it was opened
    factor = Frame(slide.mpp).um_per_px / Frame(before).um_per_px
    if moved is not None:  # as far on the tissue as before
        size = np.diag([factor, factor, 1.0])
        moved = tuple(map(tuple, (size @ np.array(moved) @ np.linalg.inv(size)).tolist()))
    frame, otherwise = Frame(slide.mpp, moved, number), Frame(before)
    layer.metadata[keys.LAYER_SLIDE] = slide
    camera = camera_of(viewer)
    center, zoom = camera.center, camera.zoom
    with sliced_once(viewer):
        for other in viewer.layers:
            if other.metadata.get(keys.LAYER_OF) == number:
                place(other, frame, otherwise)
    if layer.visible:
        camera.center = tuple(factor * c for c in center)
        camera.zoom = zoom / factor


def show_spots(viewer: Any, spots: "Spots", slide: "Slide", frame: Frame, *, visible: bool = True) -> None:
    """Draw the outlines of `spots`, in place of those drawn before on the same slide.

    Parameters
    ----------
    viewer
        A napari viewer.
    spots, slide
        What is drawn, and on what.
    frame
        Of the slide.
    visible
        Whether they can be seen at once; not while another slide is shown.
    """
    from napari.layers import Layer

    if not len(spots):
        remove_spots(viewer, frame)
        return
    few = len(spots) <= RINGS_UP_TO
    data, options, kind = _rings(spots, slide, frame) if few else spots_layer(spots, frame)
    there = outlines(viewer, frame)
    if len(there) == 1 and type(there[0]).__name__.lower() == kind:
        _redraw_spots(there[0], data, options)
        if there[0].visible != visible:
            there[0].visible = visible
        return
    remove_spots(viewer, frame)
    with selection_kept(viewer):  # napari would select the new layer's tools
        viewer.add_layer(Layer.create(data, {**options, "visible": visible}, kind))


def _redraw_spots(layer: Any, data: Any, options: Mapping[str, Any]) -> None:
    """Draw other outlines in a layer of such; napari takes far longer to remove one and add another."""
    if not np.array_equal(layer.data, data):
        layer.data = data
    if "size" in options:
        layer.features = options["features"]
        if not np.all(layer.size == options["size"]):
            layer.size = options["size"]
    if layer.name != options["name"]:
        layer.name = options["name"]
    set_place(layer, options)


def _rings(spots: "Spots", slide: "Slide", frame: Frame) -> LayerData:
    """Return spots as circles; unlike a picture of them they stay visible when zoomed out."""
    options = {
        "name": f"Spots ({whole(len(spots))})",
        "size": drawn_diameter(spots, slide.mpp, slide.size),
        "face_color": "transparent",
        "border_color": np.array(OUTLINE_COLOUR),
        "border_width": 0.12,
        "border_width_is_relative": True,
        "features": {"spot": np.asarray(spots.ids, dtype=object)},
        **frame.options(metadata={keys.LAYER_KIND: "spots"}),
    }
    return spots.xy[:, ::-1], options, "points"


def outlines(viewer: Any, frame: Frame) -> list[Any]:
    """Return the layers that show the spots of a slide."""
    return [
        layer
        for layer in viewer.layers
        if layer.metadata.get(keys.LAYER_KIND) == "spots" and layer.metadata.get(keys.LAYER_OF) == frame.slide
    ]


def hide_spots(viewer: Any, frame: Frame) -> None:
    """Hide the outlines on a slide, which would frame and so tint the colours of a gene map."""
    for layer in outlines(viewer, frame):
        if layer.visible:
            layer.visible = False


def remove_spots(viewer: Any, frame: Frame) -> None:
    """Take away the outlines drawn on a slide."""
    for layer in outlines(viewer, frame):
        viewer.layers.remove(layer)


def shapes_layers(layers: Iterable[Any]) -> list[Any]:
    """Return the Shapes layers among `layers`, the topmost first."""
    return shapes_among(layers)[::-1]


def extent_of(layers: Iterable[Any]) -> tuple[Any, Any]:
    """Return the lowest and the highest world (y, x) of `layers`."""
    boxes = np.array([layer.extent.world[:, -2:] for layer in layers])
    return np.nanmin(boxes[:, 0], axis=0), np.nanmax(boxes[:, 1], axis=0)


def fit(viewer: Any, layers: Iterable[Any], beside: Iterable[tuple[float, float]] = ()) -> None:
    """Move the camera so that all of `layers` is seen, also on canvases `beside` of (height, width) px."""
    low, high = extent_of(layers)
    camera = camera_of(viewer)
    own = viewer.canvas.size if hasattr(viewer, "canvas") else viewer._canvas_size
    canvas = np.min(np.asarray([own, *beside], float), axis=0)
    camera.center = (*camera.center[:-2], *(low + high) / 2)
    camera.zoom = float(FIT * (canvas / np.maximum(high - low, 1e-9)).min())


def add_region(viewer: Any, slide: "Slide", frame: Frame) -> Any:
    """Add an empty Shapes layer to draw a region in, and make it ready for drawing."""
    layer = viewer.add_shapes(
        ndim=2,
        name=REGION_NAME,
        face_color="#ffd50030",
        edge_color="#ffd500",
        edge_width=max(slide.size) / 400,
        **frame.options(metadata={keys.LAYER_KIND: "region"}),
    )
    viewer.layers.selection.active = layer
    layer.mode = "add_polygon"
    return layer


_POLYGONS: Final[Kept[tuple[Any, ...]]] = Kept("polygons")


def region_polygons(layer: Any, slide_layer: Any, name: str) -> tuple[Any, ...]:
    """Return the shapes of `layer` as shapely polygons in level-0 px (x, y) of the slide.

    They are made once for what is drawn and where it lies.

    Raises
    ------
    UserError
        When the layer holds no shape with an area.
    """
    from shapely import make_valid
    from shapely.geometry import Polygon

    to_px = affine_of(slide_layer.world_to_data) @ affine_of(layer.data_to_world)
    kinds = [str(kind) for kind in layer.shape_type]
    shapes = [np.ascontiguousarray(corners, np.float64)[:, -2:] for corners in layer.data]

    def make() -> tuple[Any, ...]:
        polygons = []
        for kind, corners in zip(kinds, shapes, strict=True):
            if kind in ("line", "path"):
                continue
            placed = outline(kind, corners) @ to_px[:2, :2].T + to_px[:2, 2]
            polygon = make_valid(Polygon(placed[:, ::-1]))
            if polygon.area > 0:
                polygons.append(polygon)
        return tuple(polygons)

    drawn = hashlib.sha256(repr((kinds, [len(corners) for corners in shapes])).encode() + to_px.tobytes())
    for corners in shapes:
        drawn.update(corners.tobytes())
    polygons = _POLYGONS.of(layer, (drawn.hexdigest(),), make)
    if not polygons:
        raise UserError(
            f"The layer “{name}” holds no closed shape, so there is no region; draw a polygon, "
            "rectangle or ellipse in it, or choose another region."
        )
    return polygons


@contextmanager
def sliced_once(viewer: Any, later: Callable[[Callable[[], Any]], Any] = lambda act: act()) -> Iterator[None]:
    """Have napari slice what is shown once, by `later`, for all layers that are placed or go in the block.

    The range of the axes changes with each of them, and napari slices every layer each time.
    """
    before = {name: getattr(viewer.dims, name) for name in SLICED_BY}
    with ExitStack() as blocked:
        for name in SLICED_BY:
            blocked.enter_context(getattr(viewer.dims.events, name).blocker())
        yield
    for name in SLICED_BY:
        if getattr(viewer.dims, name) != before[name]:
            later(partial(_tell, viewer.dims, name))


SLICED_BY: Final = ("point", "current_step")
"""Of the axes: what has napari slice all layers when it changes."""


def _tell(dims: Any, name: str) -> None:
    getattr(dims.events, name)(value=getattr(dims, name))


def camera_of(viewer: Any) -> Any:
    """Return the camera of a viewer; napari 0.9 moved it to the scene."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera
