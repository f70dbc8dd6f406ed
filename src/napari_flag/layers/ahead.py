"""What can be done ahead, in a worker, so that the window is not held up when it is needed.

Everything works without; it is then done when it is first asked for.
"""

from typing import Any, Final

import numpy as np

from napari_flag import keys
from napari_flag.analysis.truth import MeasuredLayer, measured_layer
from napari_flag.layers.gene_values import GeneValues, Quantity, keep_measured
from napari_flag.layers.local_map import neighbours_of, prepare_measured
from napari_flag.layers.overlays import rings_of
from napari_flag.layers.raster import Thumbnails, raster_of
from napari_flag.progress import Step, Steps

PREPARING: Final = "Preparing the maps"


def prepare(adata: Any) -> Steps[None]:
    """Make what all maps of `adata` share: raster, small pictures, columns, summary, rings, neighbours."""
    yield Step(PREPARING, 0)
    values = GeneValues(adata)
    makers = [lambda: raster_of(adata), lambda: Thumbnails.of(adata), values.warm]
    if keys.DISTANCE in adata.obs:
        makers.append(lambda: rings_of(adata))
    makers.append(lambda: neighbours_of(adata, Quantity.PREDICTED))
    if values.why_not(Quantity.MEASURED) is None:
        makers.append(lambda: neighbours_of(adata, Quantity.MEASURED))
    for done, make in enumerate(makers):
        yield Step(PREPARING, done, len(makers))
        make()
    yield Step(PREPARING, len(makers), len(makers))


def prepare_preview(adata: Any) -> None:
    """Make what all maps of a prediction in the making share: raster and small pictures."""
    raster_of(adata)
    Thumbnails.of(adata)


def attaching(adata: Any, measured: Any, *, force: bool = False) -> Steps[MeasuredLayer]:
    """Make what a prediction holds of raw counts, and what maps of these share; `adata` is not changed.

    Parameters
    ----------
    adata, measured, force
        As of `truth.measured_layer`.

    Raises
    ------
    UserError
        As `truth.measured_layer`.
    """
    yield Step("Matching counts", 0)
    layer = measured_layer(adata, measured, force=force)
    yield Step(PREPARING, 0)
    prepare_measured(adata, layer.values)
    keep_measured(adata, layer.values)
    return layer


def warm_up() -> Steps[None]:
    """Have napari load what its first layers need, units and how shapes are cut into triangles; and anndata.

    The three take .1, .3 and .5 s, once in a process.
    """
    from napari.layers import Image, Shapes

    yield Step("Getting ready to draw", 0, 3)
    Image(np.zeros((2, 2), np.float32), units=("um", "um"))
    yield Step("Getting ready to draw", 1, 3)
    Shapes(ndim=2)
    yield Step("Getting ready to draw", 2, 3)
    import anndata  # noqa: F401 - with pandas, SciPy and zarr: what every table and prediction is read by

    yield Step("Getting ready to draw", 3, 3)
