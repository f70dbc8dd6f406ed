"""Gene maps as an OME-TIFF: one float32 channel per gene, on a canvas that covers the whole slide.

The canvas begins at the slide's corner, so a program that reads physical sizes aligns it with the slide.
Outside the spots a pixel is NaN: not predicted, which is not the same as not expressed.
"""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_flag import keys, prediction_file
from napari_flag.analysis.truth import dense
from napari_flag.exports.replacing import statement
from napari_flag.files import UNSEALED, check_writable, seal, write_whole_in_steps
from napari_flag.formatting import legible
from napari_flag.layers.frame import frame_of
from napari_flag.layers.raster import SpotRaster, spot_raster
from napari_flag.prediction_file import drawn_diameter_px, output_name
from napari_flag.progress import Step, Steps
from napari_flag.slides.spots import typical_pitch

if TYPE_CHECKING:
    from anndata import AnnData


LONGEST_PX: Final = 2048
"""Of the canvas, unless the spots need more to be seen; see `_step`."""
MOST_PX: Final = 4096
SPOT_PX: Final = 8
"""A spot this wide is a disc and not a block."""
BIG_BYTES: Final = 2**32 - 2**25
"""From here on a TIFF needs 64-bit offsets."""


def write_ome_tiff(adata: "AnnData", path: Path) -> Steps[None]:
    """Write one channel per gene of `adata`, predicted log2(count + 1), named by the gene.

    Parameters
    ----------
    adata
        A prediction, restricted to the requested genes.
    path
        The file, usually ending in ``.ome.tif``.

    Raises
    ------
    UserError
        When the file cannot be written.
    """
    check_writable(path)
    yield from write_whole_in_steps(path, lambda place: _write(adata, place))


def _write(adata: "AnnData", place: Path) -> Steps[None]:
    import tifffile

    yield Step("Drawing maps", 0, adata.n_vars, "genes")
    size, step = slide_size(adata), _step(adata)
    raster = _raster(adata)
    shape = tuple(int(np.ceil(side / step)) for side in (size[1], size[0]))
    lookup = _canvas(raster, shape, step)
    values = dense(adata.X)
    planes = adata.n_vars * shape[0] * shape[1] * 4
    xml = _ome_xml(adata, shape, step)
    with tifffile.TiffWriter(place, ome=False, bigtiff=planes > BIG_BYTES) as file:
        for column in range(adata.n_vars):
            yield Step("Drawing maps", column, adata.n_vars, "genes")
            padded = np.append(np.float32(np.nan), values[:, column].astype(np.float32))
            file.write(
                padded[lookup],
                photometric="minisblack",
                compression="zlib",
                description=xml if column == 0 else None,
                metadata=None,
                contiguous=False,
            )
    seal(place)


def slide_size(adata: "AnnData") -> tuple[float, float]:
    """Return (width, height) of the slide in level-0 px; up to the last spot where it is not known."""
    if (known := prediction_file.slide_size(adata)) is not None:
        return float(known[0]), float(known[1])
    xy = np.asarray(adata.obsm[keys.SPATIAL], float)
    across, down = xy.max(axis=0) + typical_pitch(xy)
    return float(across), float(down)


def _step(adata: "AnnData") -> float:
    """Return level-0 px per canvas px: fine enough for a disc, within bounds."""
    longest = max(slide_size(adata))
    return max(longest / MOST_PX, min(longest / LONGEST_PX, drawn_diameter_px(adata) / SPOT_PX), 1.0)


def _raster(adata: "AnnData") -> SpotRaster:
    """Return the raster of the docks; square bins are stamped, so that its axes are those of the slide."""
    return spot_raster(
        np.asarray(adata.obsm[keys.SPATIAL], float)[:, :2],
        diameter_px=drawn_diameter_px(adata),
        lattice=prediction_file.stated_lattice(adata),
    )


def _canvas(raster: SpotRaster, shape: tuple[int, ...], step: float) -> Any:
    """Return (h, w) int32: the spot shown by each pixel of the canvas + 1, 0 outside."""
    lookup = np.zeros(shape, np.int32)
    scale = raster.matrix[0, 0]
    rows, cols = (
        np.rint((step * (np.arange(count) + 0.5) - 0.5 - raster.matrix[axis, 2]) / scale).astype(np.int64)
        for axis, count in enumerate(shape)
    )
    height, width = raster.lookup.shape
    seen_rows, seen_cols = (rows >= 0) & (rows < height), (cols >= 0) & (cols < width)
    lookup[np.ix_(seen_rows, seen_cols)] = raster.lookup[np.ix_(rows[seen_rows], cols[seen_cols])]
    return lookup


def _ome_xml(adata: "AnnData", shape: tuple[int, ...], step: float) -> bytes:
    """Return the OME-XML of the first page: names of channels, µm per pixel where known."""
    import tifffile

    whole = (adata.n_vars, *shape)
    stated = statement(".tif", prediction_file.provenance(adata).get(keys.COMMAND_HASH))
    about: dict[str, Any] = {
        "Name": legible(f"{output_name(adata)}, predicted log2(count + 1)"),
        "Description": " ".join(
            filter(None, (keys.RESEARCH_USE_ONLY, stated, f"{keys.CONTENT_HASH}: {UNSEALED}"))
        ),
        "Channel": {"Name": [legible(str(name)) for name in adata.var_names]},
    }
    mpp = frame_of(adata).mpp
    if mpp is not None:
        for axis in ("X", "Y"):
            about |= {f"PhysicalSize{axis}": step * mpp, f"PhysicalSize{axis}Unit": "µm"}
    xml = tifffile.OmeXml(UUID=f"urn:uuid:{uuid.uuid4()}")  # its own would hold this computer's address
    xml.addimage(
        dtype="float32", shape=whole, storedshape=(adata.n_vars, 1, 1, *shape, 1), axes="CYX", **about
    )
    return xml.tostring(declaration=True).encode()
