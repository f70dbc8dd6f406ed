"""Predictions in the layouts that other models' programs write, made here at real shapes; no model is run.

Every function writes the values of a fake prediction (see `tests.fakes`) as that program would; its docstring
says which layout it is like.  None of them is a file of the program itself.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import shapely
from anndata import AnnData

from napari_flag import keys


def plain(prediction: AnnData, values: np.ndarray) -> AnnData:
    """Values at the spots and genes of a prediction, with nothing else."""
    adata = AnnData(np.asarray(values, np.float32))
    adata.obs_names, adata.var_names = prediction.obs_names, prediction.var_names
    return adata


def natural(prediction: AnnData) -> np.ndarray:
    """The expectation as ln(count + 1)."""
    return prediction.X * np.log(2)


def write_deepspot_like(prediction: AnnData, path: Path) -> Path:
    """Like a file made with scanpy, as DeepSpot's: ``X`` by log1p, centres in ``obsm``, sample in ``obs``."""
    adata = plain(prediction, natural(prediction))
    adata.obs["sampleID"] = "C5"
    adata.obs["x_pixel"], adata.obs["y_pixel"] = prediction.obsm[keys.SPATIAL].T
    adata.obsm[keys.SPATIAL] = prediction.obsm[keys.SPATIAL]
    adata.uns["log1p"] = {"base": None}
    adata.write_h5ad(path)
    return path


def write_hest_like(prediction: AnnData, path: Path) -> Path:
    """Like a prediction in HEST-1k's h5ad, as for STPath: the library is "ST", no unit is stated."""
    adata = plain(prediction, natural(prediction))
    adata.obs["in_tissue"] = 1
    adata.obs[keys.ARRAY_ROW] = prediction.obs[keys.ARRAY_ROW].to_numpy()
    adata.obs[keys.ARRAY_COL] = prediction.obs[keys.ARRAY_COL].to_numpy()
    xy = prediction.obsm[keys.SPATIAL]
    adata.obs["pxl_col_in_fullres"], adata.obs["pxl_row_in_fullres"] = xy.T
    adata.obsm[keys.SPATIAL] = xy
    adata.uns[keys.SPATIAL] = {
        "ST": {
            "images": {"downscaled_fullres": np.full((50, 50, 3), 230, np.uint8)},
            "scalefactors": {"spot_diameter_fullres": 200.0, "tissue_downscaled_fullres_scalef": 0.01},
        }
    }
    adata.write_h5ad(path)
    return path


def write_lazyslide_like(prediction: AnnData, path: Path, *, in_shapes: bool = False) -> Path:
    """Like LazySlide's zarr: tiles as squares in shapes, the genes in a table of them or as their columns."""
    import pyarrow as pa
    import pyarrow.parquet as parquet
    import zarr

    xy = prediction.obsm[keys.SPATIAL]
    zarr.open_group(str(path), mode="w")
    shapes = path / "shapes" / "tiles"
    zarr.open_group(str(shapes), mode="w").attrs["coordinateTransformations"] = [{"type": "identity"}]
    squares = shapely.box(*(xy - 112).T, *(xy + 112).T)
    columns = {"tile_id": np.arange(len(xy)), "tissue_id": np.zeros(len(xy), int)}
    frame = pd.DataFrame(columns)
    if in_shapes:
        frame[list(prediction.var_names)] = natural(prediction)
    table = pa.Table.from_pandas(frame).append_column("geometry", pa.array(shapely.to_wkb(squares)))
    parquet.write_table(table, shapes / "shapes.parquet")
    if not in_shapes:
        adata = plain(prediction, natural(prediction))
        adata.obs_names = [str(k) for k in range(len(xy))]
        adata.obs["tile_id"] = np.arange(len(xy))
        adata.obs["library_id"] = pd.Categorical(["tiles"] * len(xy))
        adata.uns["spatialdata_attrs"] = {
            "region": "tiles", "region_key": "library_id", "instance_key": "tile_id",
        }  # fmt: skip
        zarr.open_group(str(path / "tables"), mode="w")
        adata.write_zarr(path / "tables" / "stpath_tiles")
    return path
