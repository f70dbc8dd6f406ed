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
