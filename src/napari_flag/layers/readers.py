"""npe2 readers: slides and predictions that are dropped onto napari or opened with File, Open."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeAlias

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.layers.frame import Frame, frame_of
from napari_flag.layers.gene_values import Contrast, GeneValues, Quantity
from napari_flag.layers.raster import raster_of
from napari_flag.layers.slide_layers import LayerData, slide_layer

ReaderFunction: TypeAlias = Callable[[Any], list[Any]]

NOTHING: Final[list[Any]] = [(None,)]
"""What napari calls a file that was read and holds no layer."""


def read_slide(path: Any) -> list[Any]:
    """Open the slide at `path`; a file without pyramid gets one first, with a progress bar."""
    from napari.utils import progress
    from napari.utils.notifications import show_warning

    from napari_flag.inputs import open_with_pyramid
    from napari_flag.progress import Step, finish

    bar: Any = None

    def show(step: Step) -> None:
        nonlocal bar
        if bar is None and step.total is None:
            return  # the length of the work is not known yet
        if bar is None:
            bar = progress(total=step.total, desc=step.stage)
        bar.update(max(step.done - bar.n, 0))

    try:
        slide = finish(open_with_pyramid(Path(path)), show)
        if notice := Frame(slide.mpp).notice:
            show_warning(notice)
        return [slide_layer(slide)]
    except UserError as error:
        return show_error(error)
    finally:
        if bar is not None:
            bar.close()


def read_prediction_layers(path: Any) -> list[Any]:
    """Open a prediction as one gene layer; the docks take it up from there."""
    from napari_flag.foreign_prediction import read_any_prediction

    try:
        return [prediction_layer(read_any_prediction(Path(path)))]
    except UserError as error:
        return show_error(error)


def prediction_layer(adata: Any) -> LayerData:
    """Return the first gene of the prediction `adata` as a layer."""
    gene = str(adata.var_names[0])
    raster, values = raster_of(adata), GeneValues(adata)
    options = {
        "name": f"{gene} · {Quantity.PREDICTED.value}",
        "colormap": "viridis",
        "contrast_limits": values.limits(gene, Quantity.PREDICTED, Contrast()),
        "interpolation2d": "nearest",
        "blending": "translucent_no_depth",
        **raster.options(frame_of(adata), {keys.LAYER_KIND: "gene", keys.LAYER_ADATA: adata}),
    }
    return raster.paint(values.values(gene, Quantity.PREDICTED)), options, "image"


def show_error(error: UserError) -> list[Any]:
    """Show the sentence itself; napari would only say that the plugin failed."""
    from napari.utils import notifications

    notifications.show_error(str(error))
    return NOTHING


def synthetic_slide() -> list[Any]:
    """Return the bundled slide; its truth is known, but it is simulated tissue, not a patient's."""
    from napari_flag.simulation import demo_slide

    return read_slide(demo_slide())
