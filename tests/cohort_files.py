"""Makers of small cohorts, laid out as HEST-1k, Space Ranger and legacy ST lay them out."""

import csv
import json
import time
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import sparse
from tests import slide_files

SYMBOLS = [
    "ERBB2", "ESR1", "KRT8", "KRT19", "COL1A1", "COL1A2", "CD74", "CD3E", "ACTB", "FASN", "GAPDH", "IGKC",
    "VIM", "EPCAM", "MKI67", "TP53", "CDH1", "ACTA2", "PECAM1", "TMSB10", "MT-CO1", "RPS3", "RPL5",
]  # fmt: skip
ENSEMBL = [f"ENSG{i:011d}" for i in range(1, len(SYMBOLS) + 1)]
MPP = 4.0
"""µm per pixel: coarse, so that files are small."""


class TinyEncoder:
    """Tiles to features by a fixed random projection; after `stall_after` tiles it sleeps until killed."""

    name, dim, tile_px, mpp = "tiny", 6, 8, MPP

    def __init__(self, fingerprint: str = "f" * 64, stall_after: float = float("inf")) -> None:
        self.weights = self.fingerprint = fingerprint
        self.stall_after = stall_after
        self.tiles = 0
        self._weight = np.random.default_rng(0).normal(size=(8 * 8 * 3, self.dim))

    def encode(self, tiles):
        """Return (b, 6) float32."""
        if self.tiles >= self.stall_after:
            time.sleep(600)
        self.tiles += len(tiles)
        return (tiles.reshape(len(tiles), -1) / 255 @ self._weight).astype(np.float32)


def st_spots(side: int) -> pd.DataFrame:
    """A square array of `side` × `side` spots of 200 µm pitch."""
    row, col = np.divmod(np.arange(side * side), side)
    at = 200 / MPP
    return pd.DataFrame({"array_row": row, "array_col": col, "x": (col + 1) * at, "y": (row + 1) * at})


def st_counts(n: int, seed: int) -> sparse.csr_matrix:
    """Counts whose genes differ in level, with a wave over the section."""
    rng = np.random.default_rng(seed)
    level = np.linspace(0.5, 12, len(SYMBOLS))
    wave = 1 + 0.8 * np.sin(np.arange(n) / 5)[:, None] * rng.choice([-1, 1], len(SYMBOLS))
    return sparse.csr_matrix(rng.poisson(level * wave).astype(np.float32))


def image_for(spots: pd.DataFrame, seed: int) -> np.ndarray:
    """A picture with a pitch of margin around the spots."""
    width, height = int(spots.x.max() + 50), int(spots.y.max() + 50)
    return slide_files.picture(width, height, seed)


def visium_spots(side: int) -> pd.DataFrame:
    """A hexagonal array of `side` × `side` spots of 100 µm pitch, with barcodes."""
    row, half = np.divmod(np.arange(side * side), side)
    col = 2 * half + row % 2
    step = 100 / MPP
    at = {"x": (col + 2) * step / 2, "y": (row + 1) * step * np.sqrt(3) / 2}
    barcodes = [f"{''.join('ACGT'[(i >> (2 * b)) % 4] for b in range(6))}-1" for i in range(side * side)]
    return pd.DataFrame({"array_row": row, "array_col": col, **at}, index=barcodes)


VISIUM: dict[str, object] = {"st_technology": "Visium", "inter_spot_dist": 100, "spot_diameter": 55}
"""What HEST's metadata says of a Visium sample in other words than of a legacy one."""


def hest_sample(folder: Path, name: str, seed: int = 0, side: int = 5, **changes: object) -> dict[str, str]:
    """Write one sample as HEST-1k has it, legacy ST unless `changes` are `VISIUM`; return its metadata."""
    hexagonal = changes.get("st_technology") == "Visium"
    spots = visium_spots(side) if hexagonal else st_spots(side)
    adata = anndata.AnnData(st_counts(len(spots), seed))
    square = [f"{c}x{r}" for r, c in zip(spots.array_row, spots.array_col, strict=True)]
    adata.obs_names = list(spots.index) if hexagonal else square
    adata.var_names = SYMBOLS
    adata.obs["in_tissue"] = 1
    for key in ("array_row", "array_col"):
        adata.obs[key] = spots[key].to_numpy()
    adata.obs["pxl_col_in_fullres"] = spots.x.to_numpy()
    adata.obs["pxl_row_in_fullres"] = spots.y.to_numpy()
    adata.obsm["spatial"] = spots[["x", "y"]].to_numpy()
    image = image_for(spots, seed)
    adata.uns["spatial"] = {
        "ST": {
            "images": {"downscaled_fullres": image[::2, ::2]},
            "scalefactors": {"spot_diameter_fullres": 25.0, "tissue_downscaled_fullres_scalef": 0.5},
        }
    }
    for place in ("st", "wsis"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(folder / "st" / f"{name}.h5ad")
    # HEST's images often state a screen's resolution; the metadata is what counts.
    slide_files.pyramid_tiff(folder / "wsis" / f"{name}.tif", image, mpp=0.3528)
    row = {
        "dataset_title": "A study", "id": name, "organ": "Breast", "species": "Homo sapiens",
        "patient": f"Patient {seed // 2}", "st_technology": "Spatial Transcriptomics", "license": "CC BY 4.0",
        "inter_spot_dist": "200", "spot_diameter": "100", "pixel_size_um_embedded": "0.3528",
        "pixel_size_um_estimated": str(MPP), "subseries": "",
    }  # fmt: skip
    return row | {key: str(value) for key, value in changes.items()}


def hest_metadata(folder: Path, rows: list[dict[str, str]], name: str = "HEST_v1_1_0.csv") -> Path:
    """Write the metadata table, with a byte order mark as the hub's has."""
    with (folder / name).open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / name


def hest_folder(folder: Path, samples: int = 6, side: int = 5) -> Path:
    """Write samples TST1 … TSTn, two of each patient."""
    folder.mkdir(parents=True, exist_ok=True)
    hest_metadata(folder, [hest_sample(folder, f"TST{i + 1}", i, side) for i in range(samples)])
    return folder


def hest_cohort(path: Path, samples: int = 6, **tables: str) -> Path:
    """Write a cohort file over `hest_folder`."""
    text = f'name = "tiny"\n[hest]\nfirst = "TST1"\nlast = "TST{samples}"\nsamples = {samples}\n'
    text += '[panel]\nname = "top8"\ngenes = 8\nvariable_genes = 15\n'
    path.write_text(text + "".join(f"[{name}]\n{values}\n" for name, values in tables.items()))
    return path


def st_folder(folder: Path, names: tuple[str, ...] = ("A1", "A2"), side: int = 5) -> Path:
    """Write sections as her2st lays them out; the first has a pathologist's labels."""
    for place in ("images", "spots", "counts", "pathology"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        spots = st_spots(side)
        table = pd.DataFrame({"x": spots.array_col, "y": spots.array_row})
        table = table.assign(pixel_x=spots.x, pixel_y=spots.y, selected=1)
        table.to_csv(folder / "spots" / f"{name}_selection.tsv", sep="\t", index=False)
        counts = pd.DataFrame(st_counts(len(spots), seed).todense().astype(int), columns=SYMBOLS)
        counts.index = [f"{x}x{y}" for x, y in zip(table.x, table.y, strict=True)]
        counts.iloc[:-1].to_csv(folder / "counts" / f"{name}.tsv.gz", sep="\t")  # one spot has none
        slide_files.plain_image(folder / "images" / f"{name}.png", image_for(spots, seed))
        if seed == 0:
            labels = table.assign(x=table.x + 0.02, label=np.where(table.y < 2, "cancer", "stroma"))
            labels.to_csv(folder / "pathology" / f"{name}_labeled_coordinates.tsv", sep="\t", index=False)
    return folder


def hd_bins(folder: Path, side: int = 12) -> Path:
    """Write one bin size of Visium HD: ``square_016um`` with its matrix, and ``full.png`` beside it."""
    bins = folder / "binned_outputs" / "square_016um"
    (bins / "spatial").mkdir(parents=True)
    row, col = np.divmod(np.arange(side * side), side)
    barcodes = [f"s_016um_{r:05d}_{c:05d}-1" for r, c in zip(row, col, strict=True)]
    pitch = 16 / MPP
    positions = pd.DataFrame(
        {
            "barcode": barcodes, "in_tissue": 1, "array_row": row, "array_col": col,
            "pxl_row_in_fullres": (row + 1) * pitch, "pxl_col_in_fullres": (col + 1) * pitch,
        }
    )  # fmt: skip
    positions.to_parquet(bins / "spatial" / "tissue_positions.parquet")
    factors = {"bin_size_um": 16.0, "microns_per_pixel": MPP, "spot_diameter_fullres": pitch}
    (bins / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    write_10x_h5(
        bins / "filtered_feature_bc_matrix.h5", st_counts(side * side, 0), barcodes, SYMBOLS, ENSEMBL
    )
    slide_files.plain_image(folder / "full.png", slide_files.picture(80, 80))
    return bins


def visium(outs: Path, side: int = 6) -> Path:
    """Write a Space Ranger 2 folder on a hexagonal array of 100 µm pitch, and ``full.png`` beside it."""
    (outs / "spatial").mkdir(parents=True)
    spots = visium_spots(side)
    barcodes = list(spots.index)
    positions = pd.DataFrame(
        {
            "barcode": barcodes, "in_tissue": 1, "array_row": spots.array_row, "array_col": spots.array_col,
            "pxl_row_in_fullres": spots.y, "pxl_col_in_fullres": spots.x,
        }
    )  # fmt: skip
    positions.to_csv(outs / "spatial" / "tissue_positions.csv", index=False)
    factors = {"spot_diameter_fullres": 65 / MPP, "tissue_hires_scalef": 0.2}
    (outs / "spatial" / "scalefactors_json.json").write_text(json.dumps(factors))
    write_10x_h5(
        outs / "filtered_feature_bc_matrix.h5", st_counts(side * side, 1), barcodes, SYMBOLS, ENSEMBL
    )
    slide_files.plain_image(outs / "full.png", slide_files.picture(240, 200))
    return outs


def spatial_libd(folder: Path, names: tuple[str, ...], side: int = 6) -> Path:
    """Write sections of spatialLIBD: Space Ranger 1 folders, their full images, and one table of layers."""
    layers = []
    for name in names:
        outs = visium(folder / name, side)
        table = outs / "spatial" / "tissue_positions.csv"
        rows = table.read_text().splitlines()[1:]
        (outs / "spatial" / "tissue_positions_list.csv").write_text("\n".join(rows) + "\n")
        table.unlink()
        image = slide_files.picture(240, 200)
        slide_files.pyramid_tiff(outs / "full_image.tif", image)
        (outs / "full.png").unlink()
        layers += [f"{row.split(',')[0]}\t{name}\tLayer{1 + i % 3}" for i, row in enumerate(rows)]
    (folder / "barcode_level_layer_map.tsv").write_text("\n".join(layers) + "\n")
    return folder


def write_10x_h5(
    path: Path, counts: sparse.csr_matrix, barcodes: list[str], symbols: list[str], ids: list[str]
) -> None:
    """Write counts (spots, genes) as Space Ranger 3 and later does."""
    columns = sparse.csc_matrix(counts.T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        features = group.create_group("features")
        kinds = ["Gene Expression"] * len(ids)
        for key, strings in (("id", ids), ("name", symbols), ("feature_type", kinds)):
            features[key] = np.array(strings, "S")
        group["barcodes"] = np.array(barcodes, "S")
        group["data"], group["indices"] = columns.data.astype(np.int32), columns.indices
        group["indptr"], group["shape"] = columns.indptr, columns.shape


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file below `folder` with its bytes."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }
