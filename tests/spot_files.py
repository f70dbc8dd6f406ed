"""Makers of spot tables, as the programs of each technology write them."""

import gzip
import json
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import io, sparse
from tests import slide_files
from tests.slide_files import picture

from napari_flag.slides.slide import Slide, open_slide

GENES = ["ERBB2", "ACTB", "ACTB", "CD8A"]
UNIQUE = ["ERBB2", "ACTB", "ACTB-1", "CD8A"]
ENSEMBL = [f"ENSG0000000000{i}" for i in range(4)]


def image(folder: Path, width: int, height: int, name: str = "image.png") -> Slide:
    flat = np.full((height, width, 3), 230, np.uint8)
    return open_slide(slide_files.plain_image(folder / name, flat))


def st_table(path: Path, **columns: list[object]) -> Path:
    frame = {
        "x": [10, 11, 12], "y": [13, 13, 14], "new_x": [9.9, 11, 12.1], "new_y": [13, 13, 14],
        "pixel_x": [100.5, 200, 300], "pixel_y": [50, 60, 150.25], "selected": [1, 1, 1],
    }  # fmt: skip
    pd.DataFrame(frame | columns).to_csv(path, sep="\t", index=False)
    return path


BARCODES = ["AAAC-1", "AAAG-1", "AACT-1", "AAGG-1", "ACGT-1"]
COUNTS = np.array([[0, 1, 2, 0], [3, 0, 0, 1], [0, 0, 7, 0], [1, 1, 1, 1]])
POSITIONS = pd.DataFrame(
    {
        "barcode": BARCODES,
        "in_tissue": [1, 1, 0, 1, 1],
        "array_row": [0, 0, 1, 1, 2],
        "array_col": [0, 2, 1, 3, 2],
        "pxl_row_in_fullres": [1000, 1010, 1170, 1180, 1350],
        "pxl_col_in_fullres": [500, 700, 600, 800, 705],
    }
)
FACTORS = {
    "spot_diameter_fullres": 120.0, "tissue_hires_scalef": 0.2, "tissue_lowres_scalef": 0.06,
}  # fmt: skip


def write_h5(path: Path, version: int = 3) -> None:
    kinds = ["Gene Expression"] * 4 + ["Antibody Capture"]
    values = sparse.csc_matrix(np.column_stack([COUNTS, [5, 5, 5, 5]]).T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        ids, names = [*ENSEMBL, "CD3"], [*GENES, "CD3"]
        if version == 3:
            features = group.create_group("features")
            for key, strings in (("id", ids), ("name", names), ("feature_type", kinds)):
                features[key] = np.array(strings, "S")
        else:
            values = sparse.csc_matrix(COUNTS.T)
            group["genes"], group["gene_names"] = np.array(ENSEMBL, "S"), np.array(GENES, "S")
        group["barcodes"] = np.array([BARCODES[i] for i in (1, 0, 3, 2)], "S")
        group["data"], group["indices"] = values.data, values.indices
        group["indptr"], group["shape"] = values.indptr, values.shape


def write_mex(folder: Path) -> None:
    folder.mkdir()
    with gzip.open(folder / "matrix.mtx.gz", "wb") as stream:
        io.mmwrite(stream, sparse.coo_matrix(COUNTS.T))
    rows = [f"{i}\t{n}\tGene Expression\n" for i, n in zip(ENSEMBL, GENES, strict=True)]
    (folder / "features.tsv.gz").write_bytes(gzip.compress("".join(rows).encode()))
    names = "\n".join(BARCODES[i] for i in (1, 0, 3, 2)) + "\n"
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress(names.encode()))


def space_ranger(
    outs: Path, *, version: int = 2, matrix: str = "filtered", kind: str = "h5", images: bool = True
) -> Path:
    """Write an outs folder; the full-resolution image would be 1200 × 2000 px."""
    spatial = outs / "spatial"
    spatial.mkdir(parents=True)
    name = "tissue_positions_list.csv" if version == 1 else "tissue_positions.csv"
    POSITIONS.to_csv(spatial / name, index=False, header=version != 1)
    (spatial / "scalefactors_json.json").write_text(json.dumps(FACTORS))
    if images:
        slide_files.plain_image(spatial / "tissue_hires_image.png", picture(240, 400))
        slide_files.plain_image(spatial / "tissue_lowres_image.png", picture(72, 120))
    stem = f"{matrix}_feature_bc_matrix"
    if kind == "h5":
        write_h5(outs / f"{stem}.h5")
    elif kind == "mex":
        write_mex(outs / stem)
    return outs


def annotated(n: int = 6, *, dense: bool = False) -> anndata.AnnData:
    counts = np.random.default_rng(0).poisson(2, (n, 4)).astype(np.float32)
    adata = anndata.AnnData(counts if dense else sparse.csr_matrix(counts))
    adata.obs_names = [f"spot{i}" for i in range(n)]
    adata.var_names = ["ERBB2", "ACTB", "CD8A", "KRT5"]
    adata.obsm["spatial"] = np.stack([np.arange(n) * 30 + 20, np.arange(n) * 10 + 40], axis=1)
    return adata
