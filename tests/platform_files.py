"""Makers of Visium HD, Xenium and CosMx folders, with the files, columns and types their programs write.

What is measured is small and known; names, layout and encodings are those of the real ones.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy import sparse
from tests.slide_files import plain_image, pyramid_tiff, tissue_picture

GENES = ["ERBB2", "ESR1", "KRT5", "CD8A", "ACTA2"]
MPP = 0.5
"""µm/px of the H&E made here."""
SIDE_PX = 2400
TISSUE = (300, 300, 2100, 2100)


def he_image(path: Path) -> Path:
    """Write an H&E of 2400 × 2400 px (1.2 mm) with a square of tissue."""
    return pyramid_tiff(path, tissue_picture(SIDE_PX, SIDE_PX, TISSUE), mpp=MPP)


def matrix_h5(path: Path, barcodes: list[str], counts: sparse.csr_matrix, controls: int = 2) -> None:
    """Write a 10x matrix of version 3 with `controls` features that are no genes behind the genes."""
    rng = np.random.default_rng(1)
    extra = sparse.csr_matrix(rng.poisson(1, (counts.shape[0], controls)))
    values = sparse.csr_matrix(sparse.hstack([counts, extra]))  # (barcodes, features) by row
    names = [*GENES, *(f"NegControlProbe_{i:05d}" for i in range(controls))]
    kinds = ["Gene Expression"] * len(GENES) + ["Negative Control Probe"] * controls
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i:011d}" for i in range(len(names))], "S")
        features["name"], features["feature_type"] = np.array(names, "S"), np.array(kinds, "S")
        group["barcodes"] = np.array(barcodes, "S")
        group["data"], group["indices"] = values.data.astype(np.int32), values.indices.astype(np.int64)
        group["indptr"] = values.indptr.astype(np.int64)
        group["shape"] = np.array(values.shape[::-1], np.int32)


@dataclass
class Truth:
    """Counts at points, as they were written: (n, 2) µm on the H&E and (n, genes)."""

    um: np.ndarray
    counts: np.ndarray

    def in_disc(self, centre_um: np.ndarray, diameter_um: float) -> np.ndarray:
        """Sum over the points of a disc, one by one."""
        total = np.zeros(self.counts.shape[1])
        for point, values in zip(self.um, self.counts, strict=True):
            if (point[0] - centre_um[0]) ** 2 + (point[1] - centre_um[1]) ** 2 <= (diameter_um / 2) ** 2:
                total += values
        return total

    def in_square(self, left_top_um: np.ndarray, side_um: float) -> np.ndarray:
        """Sum over the points of a square that holds its left and upper edge."""
        total = np.zeros(self.counts.shape[1])
        for (x, y), values in zip(self.um, self.counts, strict=True):
            left, top = left_top_um
            if left <= x < left + side_um and top <= y < top + side_um:
                total += values
        return total


def visium_hd(sample: Path, *, bins: int = 400, turn: float = 0.01, he: bool = True) -> Truth:
    """Write Space Ranger's outs of a Visium HD sample and return its 2 µm bins under tissue.

    The capture area is `bins` bins of 2 µm along each side (a real one has 3,350), turned by `turn` rad.
    """
    outs = sample / "outs"
    if he:
        sample.mkdir(parents=True, exist_ok=True)
        he_image(sample / f"{sample.name}_tissue_image.tif")
    truth = None
    for size in (2, 8, 16):
        count = bins * 2 // size
        rows, columns = np.divmod(np.arange(count**2), count)
        along = (np.stack([columns, rows], 1) + 0.5) * size / MPP
        spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        xy = along @ spin.T + [420.0, 390.0]
        names = [f"s_{size:03d}um_{r:05d}_{c:05d}-1" for r, c in zip(rows, columns, strict=True)]
        on = ((xy > TISSUE[0]) & (xy < TISSUE[2])).all(1)
        folder = outs / "binned_outputs" / f"square_{size:03d}um"
        (folder / "spatial").mkdir(parents=True)
        frame = pd.DataFrame(
            {
                "barcode": names, "in_tissue": on.astype(np.int64), "array_row": rows, "array_col": columns,
                "pxl_row_in_fullres": xy[:, 1], "pxl_col_in_fullres": xy[:, 0],
            }
        )  # fmt: skip
        frame.to_parquet(folder / "spatial/tissue_positions.parquet")
        factors = {
            "spot_diameter_fullres": size / MPP, "bin_size_um": float(size), "microns_per_pixel": MPP,
            "regist_target_img_scalef": 0.25, "tissue_lowres_scalef": 0.05, "fiducial_diameter_fullres": 1.0,
            "tissue_hires_scalef": 0.25,
        }  # fmt: skip
        (folder / "spatial/scalefactors_json.json").write_text(json.dumps(factors))
        small = tissue_picture(SIDE_PX, SIDE_PX, TISSUE)
        plain_image(folder / "spatial/tissue_hires_image.png", small[::4, ::4])
        plain_image(folder / "spatial/tissue_lowres_image.png", small[::20, ::20])
        counts = np.random.default_rng(size).poisson(0.05 * size, (count**2, len(GENES)))
        kept = np.random.default_rng(0).permutation(
            np.flatnonzero(on)
        )  # matrices follow no order of the array
        matrix_h5(
            folder / "filtered_feature_bc_matrix.h5",
            [names[i] for i in kept],
            sparse.csr_matrix(counts[kept]),
        )
        if truth is None:
            truth = Truth(xy[kept] * MPP, counts[kept])
    assert truth is not None
    return truth


ALIGNMENT = np.array([[0.02, 2.35, -110.0], [-2.35, 0.02, 6000.0], [0.0, 0.0, 1.0]])
"""H&E px of .5 µm → px of .2128 µm of the platform's image, turned by a quarter as Xenium's examples are."""


def _on_he(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return (n, 2) µm on the H&E, all on the tissue."""
    return rng.uniform(TISSUE[0] * MPP + 5, TISSUE[2] * MPP - 5, (n, 2))


def _on_platform(um: np.ndarray) -> np.ndarray:
    """Return (n, 2) px of the platform's image."""
    return (np.column_stack([um / MPP, np.ones(len(um))]) @ ALIGNMENT.T)[:, :2]


def _one_hot(codes: np.ndarray) -> np.ndarray:
    return np.eye(len(GENES) + 1, dtype=int)[codes][:, : len(GENES)]


def xenium(
    folder: Path, *, n: int = 5000, n_cells: int = 600, csv: bool = False, old: bool = False
) -> dict[str, Truth]:
    """Write Xenium Onboard Analysis' output; return what counts, by "transcripts" and "cells".

    `csv` writes ``.csv.gz`` in place of parquet; `old` leaves out the columns of version 2 and writes names
    as bytes.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    pixel = 0.2125
    (folder / "experiment.xenium").write_text(json.dumps({"major_version": 5, "pixel_size": pixel}))
    np.savetxt(folder / "P5_he_imagealignment.csv", ALIGNMENT, delimiter=",")
    um = _on_he(rng, n)
    own = _on_platform(um) * pixel
    if not old:  # as float32 in the files, so that is where they are
        own = own.astype(np.float32).astype(np.float64)
        um = (np.column_stack([own / pixel, np.ones(n)]) @ np.linalg.inv(ALIGNMENT).T)[:, :2] * MPP
    codes = rng.integers(0, len(GENES) + 1, n)
    qv = rng.uniform(5, 40, n).astype(np.float32)
    names = np.array([*GENES, "NegControlProbe_00042"], object)[codes]
    frame = pd.DataFrame(
        {
            "transcript_id": np.arange(n, dtype=np.uint64), "cell_id": "UNASSIGNED",
            "overlaps_nucleus": np.uint8(0),
            "feature_name": [name.encode() for name in names] if old else names,
            "x_location": own[:, 0] if old else own[:, 0].astype(np.float32),
            "y_location": own[:, 1] if old else own[:, 1].astype(np.float32),
            "z_location": np.float32(12.0), "qv": qv,
        }
    )  # fmt: skip
    if not old:
        frame["fov_name"] = np.where(um[:, 0] < 600, "A1", "A2")
        frame["nucleus_distance"], frame["codeword_index"] = np.float32(1), np.int32(7)
        frame["is_gene"] = codes < len(GENES)
    ending = "csv.gz" if csv else "parquet"
    write = (
        (lambda table, path: table.to_csv(path, index=False))
        if csv
        else (lambda table, path: table.to_parquet(path))
    )
    write(frame, folder / f"transcripts.{ending}")
    counted = (qv >= 20) & (codes < len(GENES))
    cells_um = _on_he(rng, n_cells)
    cells = _on_platform(cells_um) * pixel
    ids = [f"cell{i:04d}-1" for i in range(n_cells)]
    counts = rng.poisson(0.8, (n_cells, len(GENES)))
    table = pd.DataFrame(
        {"cell_id": ids, "x_centroid": cells[:, 0], "y_centroid": cells[:, 1], "total_counts": 1}
    )
    write(table, folder / f"cells.{ending}")
    order = rng.permutation(n_cells)
    matrix_h5(folder / "cell_feature_matrix.h5", [ids[i] for i in order], sparse.csr_matrix(counts[order]))
    return {"transcripts": Truth(um[counted], _one_hot(codes)[counted]), "cells": Truth(cells_um, counts)}


def cosmx(folder: Path, *, n: int = 5000, n_cells: int = 600, gz: bool = True) -> dict[str, Truth]:
    """Write the flat files of a CosMx slide; return what counts, by "transcripts" and "cells"."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(4)
    end = ".csv.gz" if gz else ".csv"
    np.savetxt(folder / "S1_alignment.csv", ALIGNMENT, delimiter=",")
    um = _on_he(rng, n)
    own = _on_platform(um)
    codes = rng.integers(0, len(GENES) + 1, n)
    fov = np.where(um[:, 0] < 600, 1, 2)
    pd.DataFrame(
        {
            "fov": fov, "cell_ID": 0, "cell": "c_1_1_0", "x_local_px": 0.0, "y_local_px": 0.0,
            "x_global_px": own[:, 0], "y_global_px": own[:, 1], "z": 3,
            "target": np.array([*GENES, "NegPrb3"], object)[codes], "CellComp": "None",
        }
    ).to_csv(folder / f"S1_tx_file{end}", index=False)  # fmt: skip
    cells_um = _on_he(rng, n_cells)
    cells = _on_platform(cells_um)
    cell_fov = np.where(cells_um[:, 0] < 600, 1, 2)
    number = np.arange(1, n_cells + 1)
    pd.DataFrame(
        {
            "fov": cell_fov, "cell_ID": number, "Area": 900, "CenterX_local_px": 0, "CenterY_local_px": 0,
            "CenterX_global_px": cells[:, 0], "CenterY_global_px": cells[:, 1],
        }
    ).to_csv(folder / f"S1_metadata_file{end}", index=False)  # fmt: skip
    counts = rng.poisson(0.8, (n_cells, len(GENES)))
    frame = pd.DataFrame(counts, columns=GENES).assign(NegPrb3=1, SystemControl1=2)
    frame.insert(0, "cell_ID", number)
    frame.insert(0, "fov", cell_fov)
    outside = pd.DataFrame(
        {"fov": [1, 2], "cell_ID": [0, 0], **{g: [50, 60] for g in GENES}, "NegPrb3": 1, "SystemControl1": 1}
    )
    frame = pd.concat([outside, frame]).sample(frac=1.0, random_state=0)
    frame.to_csv(folder / f"S1_exprMat_file{end}", index=False)
    scale = 0.5 / np.sqrt(abs(np.linalg.det(ALIGNMENT[:2, :2])))  # µm per global px
    px = np.array([[0.0, 0.0], [4256.0, 0.0], [0.0, 4256.0]])
    pd.DataFrame(
        {
            "FOV": [1, 2, 3], "x_global_px": px[:, 0], "y_global_px": px[:, 1],
            "x_global_mm": px[:, 0] * scale / 1000, "y_global_mm": px[:, 1] * scale / 1000,
        }
    ).to_csv(folder / f"S1_fov_positions_file{end}", index=False)  # fmt: skip
    return {"transcripts": Truth(um, _one_hot(codes)), "cells": Truth(cells_um, counts)}
