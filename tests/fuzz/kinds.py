"""The kinds of files that people open, each made at a small real shape, changed by chance and used.

To use a file is what the program does with it: reading, and computing until numbers come out.  A `UserError`
is a refusal; anything else that is raised would have been exit 1.
"""

import gzip
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tests.fakes import counts_for, fake_prediction
from tests.fuzz import mutations as by
from tests.fuzz.mutations import Change, Random

SPOTS, GENES = 25, 6


@dataclass(frozen=True)
class Kind:
    """One kind of file.

    Parameters
    ----------
    name
        As the table of counts calls it.
    make
        Writes a good file (or folder) into a folder and returns it.
    use
        Uses it; returns the notices that a person would see.
    changes
        Made by chance, each as likely.
    wrong
        Well-formed but wrong: name → change; to be refused, or noticed.
    """

    name: str
    make: Callable[[Path], Path]
    use: Callable[[Path], tuple[str, ...]]
    changes: tuple[Change, ...]
    wrong: Mapping[str, Change] = field(default_factory=dict)


def _prediction() -> Any:
    return fake_prediction(n_spots=SPOTS, n_genes=GENES)


# --- predictions ---------------------------------------------------------------------------------


def _make_prediction(folder: Path) -> Path:
    from napari_flag.prediction_file import write_prediction

    write_prediction(_prediction(), folder / "predicted.h5ad")
    counts_for(_prediction()).write_h5ad(folder / "measured.h5ad")
    return folder / "predicted.h5ad"


def _compare(predicted: Path, measured: Path) -> tuple[str, ...]:
    from napari_flag.analysis.compare import compare
    from napari_flag.foreign_prediction import read_any_prediction
    from napari_flag.slides.spot_tables import read_measured

    return compare(read_any_prediction(predicted, "log2p1"), read_measured(measured)).notices


def _use_prediction(path: Path) -> tuple[str, ...]:
    return _compare(path, path.with_name("measured.h5ad"))


def _make_foreign(folder: Path) -> Path:
    from tests.foreign_files import write_hest_like

    counts_for(_prediction()).write_h5ad(folder / "measured.h5ad")
    return write_hest_like(_prediction(), folder / "foreign.h5ad")


# --- counts --------------------------------------------------------------------------------------


def _beside(folder: Path) -> Path:
    from napari_flag.prediction_file import write_prediction

    write_prediction(_prediction(), folder / "predicted.h5ad")
    return folder


def _use_counts(path: Path) -> tuple[str, ...]:
    return _compare(path.with_name("predicted.h5ad"), path)


def _make_counts(folder: Path) -> Path:
    measured = counts_for(_prediction())
    measured.obsm["spatial"] = _prediction().obsm["spatial"]
    measured.write_h5ad(_beside(folder) / "counts.h5ad")
    return folder / "counts.h5ad"


def _make_10x(folder: Path) -> Path:
    import h5py

    measured = counts_for(_prediction())
    values = measured.X.tocsr()
    with h5py.File(_beside(folder) / "matrix.h5", "w") as file:
        group = file.create_group("matrix")
        features = group.create_group("features")
        features["id"] = np.array([f"ENSG{i:011d}" for i in range(measured.n_vars)], "S")
        features["name"] = np.array(list(measured.var_names), "S")
        features["feature_type"] = np.array(["Gene Expression"] * measured.n_vars, "S")
        group["barcodes"] = np.array(list(measured.obs_names), "S")
        group["data"], group["indices"] = values.data.astype(np.int64), values.indices.astype(np.int64)
        group["indptr"], group["shape"] = values.indptr.astype(np.int64), np.array(values.shape[::-1])
    return folder / "matrix.h5"


def _make_table(folder: Path) -> Path:
    measured = counts_for(_prediction())
    frame = measured.to_df().astype(int)
    frame.to_csv(_beside(folder) / "counts.tsv", sep="\t")
    return folder / "counts.tsv"


def _use_zipped(path: Path) -> tuple[str, ...]:
    zipped = path.with_name("counts.tsv.gz")
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    return _use_counts(zipped)


def _make_mex(folder: Path) -> Path:
    from scipy import io

    measured = counts_for(_prediction())
    place = _beside(folder) / "matrix.mtx"
    io.mmwrite(place, measured.X.T.astype(np.int64))
    rows = [f"ENSG{i:011d}\t{name}\tGene Expression" for i, name in enumerate(measured.var_names)]
    (folder / "features.tsv").write_text("\n".join(rows))
    (folder / "barcodes.tsv").write_text("\n".join(measured.obs_names))
    return place


# --- spots ---------------------------------------------------------------------------------------


def _make_spots(folder: Path) -> Path:
    prediction = fake_prediction(n_spots=SPOTS, n_genes=2)
    xy = prediction.obsm["spatial"]
    rows = [
        f"{c}\t{r}\t{x:g}\t{y:g}"
        for (r, c), (x, y) in zip(prediction.obs[["array_row", "array_col"]].to_numpy(), xy, strict=True)
    ]
    (folder / "spots.tsv").write_text("\n".join(["x\ty\tpixel_x\tpixel_y", *rows]))
    return folder / "spots.tsv"


def _use_spots(path: Path) -> tuple[str, ...]:
    from tests.fakes import FakeSlide

    from napari_flag import preflight
    from napari_flag.inputs import settle_scale
    from napari_flag.slides.spot_tables import read_spots

    slide = FakeSlide(2600, 2600)
    table = read_spots(path, slide=slide)
    _, doubts = settle_scale(slide, table)
    checked = preflight.check(slide, table)
    checked.refuse()
    return (*table.notices, *doubts, *checked.warnings)


def _make_space_ranger(folder: Path) -> Path:
    from tests.spot_files import space_ranger

    space_ranger(folder / "outs", images=False)
    return folder / "outs" / "spatial" / "tissue_positions.csv"


def _use_folder(path: Path) -> tuple[str, ...]:
    from napari_flag.slides.spot_tables import read_spots

    return read_spots(path.parents[1]).notices


# --- regions, sets, labels -----------------------------------------------------------------------


def _make_regions(folder: Path) -> Path:
    square = [[100, 100], [900, 100], [900, 900], [100, 900], [100, 100]]
    shapes = [
        {"type": "Feature", "id": "a", "geometry": {"type": "Polygon", "coordinates": [square]},
         "properties": {"name": "a", "classification": {"name": "Tumor", "color": [200, 0, 0]}}},
        {"type": "Feature", "geometry": {"type": "MultiPolygon", "coordinates": [[square]]},
         "properties": {"classification": {"names": ["a", "b"], "colorRGB": -3670016}}},
    ]  # fmt: skip
    (folder / "r.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": shapes}))
    return folder / "r.geojson"


def _use_regions(path: Path) -> tuple[str, ...]:
    from napari_flag.slides.formats.geojson import read_annotations, write_annotations
    from napari_flag.slides.spots import inside

    found = read_annotations(path)
    polygons = [polygon for annotation in found for polygon in annotation.polygons]
    inside(polygons, np.random.default_rng(0).uniform(0, 1000, (50, 2)))
    write_annotations(found, path.with_name("again.geojson"))
    return ()


def _make_gmt(folder: Path) -> Path:
    names = list(fake_prediction(n_spots=4, n_genes=6).var_names)
    lines = [f"SET{i}\thttp://x\t" + "\t".join(names[i:]) for i in range(3)]
    (folder / "sets.gmt").write_text("\n".join(lines))
    return folder / "sets.gmt"


def _use_gmt(path: Path) -> tuple[str, ...]:
    from napari_flag.analysis.pathways import find_region_sets, read_gmt
    from napari_flag.progress import finish

    prediction = fake_prediction(n_spots=16, n_genes=6)
    finish(find_region_sets(prediction, np.arange(16) < 8, None, read_gmt(path)))
    return ()


def _make_labels(folder: Path) -> Path:
    names = fake_prediction(n_spots=SPOTS, n_genes=2).obs_names
    rows = [f"{name},{'a' if i % 2 else 'b'}" for i, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["barcode,label", *rows]))
    return folder / "labels.csv"


def _use_labels(path: Path) -> tuple[str, ...]:
    from napari_flag.slides.formats.labels import read_labels

    read_labels(path).of(list(fake_prediction(n_spots=SPOTS, n_genes=2).obs_names))
    return ()


def _make_workspace(folder: Path) -> Path:
    from napari_flag.workspace_file import WorkspaceFile, WorkspaceSlide, write_workspace

    one = WorkspaceSlide("T", folder / "t.tif", 0.5, "set by hand", folder / "t.tsv")
    write_workspace(WorkspaceFile((one, one), 0, "ERBB2", "X"), folder / "w.json")
    return folder / "w.json"


def _use_workspace(path: Path) -> tuple[str, ...]:
    from napari_flag.workspace_file import read_workspace

    _ = read_workspace(path).missing
    return ()


# --- zarr ----------------------------------------------------------------------------------------


def _make_zarr(folder: Path) -> Path:
    prediction = _prediction()
    prediction.uns.pop("spatial")
    store = folder / "P.zarr"
    (store / "tables").mkdir(parents=True)
    attributes = {
        "attributes": {"spatialdata_attrs": {"version": "0.2"}},
        "zarr_format": 3,
        "node_type": "group",
    }
    (store / "zarr.json").write_text(json.dumps(attributes))
    (store / "tables" / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group"}))
    prediction.write_zarr(store / "tables" / "table")
    counts_for(prediction).write_h5ad(folder / "measured.h5ad")
    return store


# --- weights -------------------------------------------------------------------------------------


def _make_weights(folder: Path) -> Path:
    from tests.tiny_weights import write_tiny_weights

    return write_tiny_weights(folder / "tiny.safetensors")


def _use_weights(path: Path) -> tuple[str, ...]:
    from napari_flag.methods.predictor import open_method
    from napari_flag.model.checkpoint import Checkpoint, describe_entries, label_of

    checkpoint = Checkpoint.load(path)
    describe_entries(checkpoint.card)
    label_of("tiny", path)
    open_method(checkpoint)
    checkpoint.build_encoder()
    checkpoint.build_out_of_distribution_score()
    return ()


# --- slides --------------------------------------------------------------------------------------


def _make_tiff(folder: Path) -> Path:
    from tests.slide_files import picture, plain_tiff

    return plain_tiff(folder / "s.tif", picture(300, 200))


def _make_ome(folder: Path) -> Path:
    from tests.slide_files import ome_tiff, picture

    return ome_tiff(folder / "s.ome.tif", picture(300, 200))


def _use_slide(path: Path) -> tuple[str, ...]:
    from napari_flag.slides.slide import open_slide

    with open_slide(path) as slide:
        slide.thumbnail(64)
        slide.read_region(10, 10, 50, 40)
        return slide.notices


# --- well-formed and wrong -------------------------------------------------------------------------


def _in_h5ad(change: Callable[[Any, Random], None]) -> Change:
    """Return a change of an AnnData in its file."""

    def changed(path: Path, random: Random) -> None:
        import anndata

        adata = anndata.read_h5ad(path)
        change(adata, random)
        adata.write_h5ad(path)

    return changed


def _shuffle_ids(adata: Any, random: Random) -> None:
    adata.obs_names = random.permutation(adata.obs_names)


def _turn_ids(adata: Any, _: Random) -> None:
    adata.obs_names = ["_".join(name.split("_")[::-1]) for name in adata.obs_names]


def _small_letters(adata: Any, _: Random) -> None:
    half = adata.n_vars // 2
    adata.var_names = [name.lower() if i < half else name for i, name in enumerate(adata.var_names)]


def _of_one_total(adata: Any, _: Random) -> None:
    values = adata.X.toarray() if hasattr(adata.X, "toarray") else adata.X
    adata.X = np.rint(values / values.sum(1, keepdims=True) * 1e4)


def _log(adata: Any, _: Random) -> None:
    adata.X = adata.X.log1p()


def _times(factor: float) -> Callable[[Any, Random], None]:
    def change(adata: Any, _: Random) -> None:
        adata.X = adata.X * factor

    return change


def _twice(adata: Any, _: Random) -> None:
    names = list(adata.obs_names)
    adata.obs_names = [names[0], names[0], *names[2:]]


def _antibodies(adata: Any, _: Random) -> None:
    adata.var["feature_types"] = "Antibody Capture"


def _below_zero(adata: Any, _: Random) -> None:
    adata.X = adata.X - 3.0


def _swap_unit(adata: Any, _: Random) -> None:
    adata.uns["napari_flag"]["units"] = "counts"


WRONG_COUNTS = {
    "ids shuffled": _in_h5ad(_shuffle_ids),
    "half the genes in small letters": _in_h5ad(_small_letters),
    "log values": _in_h5ad(_log),
    "scaled by ten": _in_h5ad(_times(10.0)),
    "scaled to one total": _in_h5ad(_of_one_total),
    "all zero": _in_h5ad(_times(0.0)),
    "negative": _in_h5ad(_times(-1.0)),
    "an id twice": _in_h5ad(_twice),
    "antibodies": _in_h5ad(_antibodies),
}
WRONG_PREDICTION = {
    "X below zero": _in_h5ad(_below_zero),
    "another unit": _in_h5ad(_swap_unit),
}


def _in_table(change: Callable[[Any, Random], Any]) -> Change:
    """Return a change of a tab-separated table in its file."""

    def changed(path: Path, random: Random) -> None:
        import pandas as pd

        frame = pd.read_csv(path, sep="\t")
        change(frame, random).to_csv(path, sep="\t", index=False)

    return changed


def _shuffled(frame: Any, random: Random) -> Any:
    columns = ["pixel_x", "pixel_y"]
    return frame.assign(**dict(zip(columns, random.permutation(frame[columns].to_numpy()).T, strict=True)))


WRONG_SPOTS = {
    "positions shuffled": _in_table(_shuffled),
    "x and y exchanged": _in_table(
        lambda frame, _: frame.assign(pixel_x=frame.pixel_y, pixel_y=frame.pixel_x)
    ),
    "ids exchanged": _in_table(lambda frame, _: frame.assign(x=frame.y, y=frame.x)),
    "all on one point": _in_table(lambda frame, _: frame.assign(pixel_x=500, pixel_y=500)),
    "metres for pixels": _in_table(lambda frame, _: frame.assign(pixel_x=frame.pixel_x * 1e4)),
}

KINDS = (
    Kind(
        "predictions",
        _make_prediction,
        _use_prediction,
        (by.change_hdf5, by.change_hdf5, by.change_bytes),
        WRONG_PREDICTION,
    ),
    Kind(
        "other programs'", _make_foreign, _use_prediction, (by.change_hdf5, by.change_hdf5, by.change_bytes)
    ),
    Kind(
        "counts h5ad",
        _make_counts,
        _use_counts,
        (by.change_hdf5, by.change_hdf5, by.change_bytes),
        WRONG_COUNTS,
    ),
    Kind("counts 10x h5", _make_10x, _use_counts, (by.change_hdf5, by.change_hdf5, by.change_bytes)),
    Kind("counts mtx", _make_mex, _use_counts, (by.change_table, by.change_bytes)),
    Kind("counts tables", _make_table, _use_zipped, (by.change_table, by.change_table, by.change_bytes)),
    Kind(
        "spot tables",
        _make_spots,
        _use_spots,
        (by.change_table, by.change_table, by.change_bytes),
        WRONG_SPOTS,
    ),
    Kind("Space Ranger", _make_space_ranger, _use_folder, (by.change_table, by.change_bytes)),
    Kind("GeoJSON", _make_regions, _use_regions, (by.change_json, by.change_json, by.change_bytes)),
    Kind("GMT", _make_gmt, _use_gmt, (by.change_table, by.change_bytes)),
    Kind("labels", _make_labels, _use_labels, (by.change_table, by.change_bytes)),
    Kind("workspaces", _make_workspace, _use_workspace, (by.change_json, by.change_bytes)),
    Kind("zarr", _make_zarr, _use_prediction, (by.change_zarr,)),
    Kind("weights", _make_weights, _use_weights, (by.change_weights, by.change_weights, by.change_bytes)),
    Kind("TIFF", _make_tiff, _use_slide, (by.change_tiff, by.change_tiff, by.change_bytes)),
    Kind("OME-TIFF", _make_ome, _use_slide, (by.change_tiff, by.change_bytes)),
)


def copied(source: Path, target: Path) -> None:
    """Copy what `Kind.make` wrote."""
    shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)
