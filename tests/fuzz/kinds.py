"""The kinds of files that people open, each made at a small real shape, changed by chance and used.

To use a file is what the program does with it: reading, and computing until numbers come out.  A `UserError`
is a refusal; anything else that is raised would have been exit 1.
"""

import gzip
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from tests.fakes import counts_for, fake_prediction
from tests.fuzz import mutations as by
from tests.fuzz.mutations import Change, Random

SPOTS, GENES = 25, 6


@dataclass(frozen=True)
class Used:
    """What a person sees of a file, and what was read from it.

    Parameters
    ----------
    notices
        Sentences said.
    rows
        Numbers and texts by the name of a spot, a set, …, and of a gene, "x", …; none where nothing is held
        against the good file.
    """

    notices: tuple[str, ...] = ()
    rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def columns(self) -> set[str]:
        """Names of what is known of any row."""
        return {name for row in self.rows.values() for name in row}


@dataclass(frozen=True)
class Altered:
    """What a change may have altered of what is read.

    Parameters
    ----------
    rows, columns
        How many rows, and how many names of columns.
    numbers
        Those that the changed file states, where they are read as they stand: a row that was altered holds
        no others.
    """

    rows: int
    columns: int = 0
    numbers: frozenset[float] | None = None


def wrongly_read(altered: Altered, before: Used, after: Used) -> str | None:
    """Say what was read from a changed file that the change does not explain; None where all is explained."""
    gone = [name for name, row in before.rows.items() if not _alike(row, after.rows.get(name))]
    new = [name for name, row in after.rows.items() if not _alike(row, before.rows.get(name))]
    if max(len(gone), len(new)) > altered.rows:
        most = max(gone, new, key=len)
        shown = {name: (before.rows.get(name), after.rows.get(name)) for name in most[:2]}
        return f"{len(most)} rows are read otherwise where {altered.rows} may be: {shown}"[:600]
    for name in new:
        numbers = {_rounded(value) for value in after.rows[name].values() if isinstance(value, int | float)}
        if altered.numbers is not None and (odd := numbers - altered.numbers):
            return f"{name} has {sorted(odd)[:3]}, which the file does not state"
    lost, more = before.columns - after.columns, after.columns - before.columns
    if max(len(lost), len(more)) > altered.columns:
        return f"columns {more} are read for {lost} where {altered.columns} may be others"
    return None


def _alike(one: Mapping[str, Any], other: Mapping[str, Any] | None) -> bool:
    """Return whether two rows are the same in what both have."""
    return other is not None and all(str(one[name]) == str(other[name]) for name in one if name in other)


def altered_lines(good: Path, case: Path) -> Altered:
    """Compare text with a heading: the lines below it that differ, and the cells of it."""
    (head, *before), (title, *after) = ([*path.read_bytes().splitlines(), b""] for path in (good, case))
    mark = b"\t" if b"\t" in head else b","
    named, others = Counter(head.split(mark)), Counter(title.split(mark))
    columns = max((named - others).total(), (others - named).total())
    return Altered(_differing(before, after), columns, frozenset(_stated(b" ".join((title, *after)))))


def altered_entries(good: Path, case: Path) -> Altered:
    """Compare text of an entry a line, whose place may be another: two rows."""
    found = altered_lines(good, case)
    return replace(found, rows=2 * found.rows, columns=0)


def altered_columns(good: Path, case: Path) -> Altered:
    """Compare text whose heading names columns that may be left out: then any row may be another."""
    found = altered_lines(good, case)
    heads = [next(iter(path.read_bytes().splitlines()), b"") for path in (good, case)]
    return found if heads[0] == heads[1] else Altered(10**6, 10**6)


def altered_sets(good: Path, case: Path) -> Altered:
    """Compare text without a heading."""
    return Altered(_differing(good.read_bytes().splitlines(), case.read_bytes().splitlines()))


def _differing(before: Sequence[bytes], after: Sequence[bytes]) -> int:
    gone, new = Counter(before) - Counter(after), Counter(after) - Counter(before)
    return max(gone.total(), new.total())


def _stated(text: bytes) -> Iterator[float]:
    """Yield every number in a text, also as a whole one, and 0 for what a sparse table leaves out."""
    yield 0.0
    for word in re.split(rb'[\s,"]+', text):
        with suppress(ValueError):
            yield _rounded(float(word))
            yield _rounded(np.rint(float(word)))


def _rounded(number: float) -> float:
    """Return a number to twelve digits: readers of text differ in the last."""
    return float(f"{number:.12g}")


def altered_arrays(good: Path, case: Path) -> Altered:
    """Compare the numbers and texts of an HDF5; what is missing or of another shape is to be noticed.

    An index of a sparse matrix moves a value from one row to another, which are two.
    """
    import h5py

    rows = columns = 0
    with h5py.File(good) as one, h5py.File(case) as other:
        names: list[str] = []
        one.visit(lambda name: names.append(name) if isinstance(one[name], h5py.Dataset) else None)
        for name in names:
            before, after = np.asarray(one[name][()]), other.get(name)
            if not isinstance(after, h5py.Dataset) or after.shape != before.shape:
                continue
            differ = int((before.astype(str) != np.asarray(after[()]).astype(str)).sum())
            rows += 2 * differ
            columns += differ if name.startswith(("var", "matrix/features")) else 0
    return Altered(rows, columns)


def altered_files(good: Path, case: Path) -> Altered:
    """Compare the chunks of a zarr: what stands in one with other bytes is not known."""
    chunks = [path for path in good.rglob("*") if path.is_file() and not _is_metadata(path)]
    for chunk in chunks:
        there = case / chunk.relative_to(good)
        if there.is_file() and there.read_bytes() != chunk.read_bytes():
            return Altered(10**6, 10**6)
    return Altered(0)


def _is_metadata(path: Path) -> bool:
    return path.suffix == ".json" or path.name.startswith(".z")


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
        Uses it; returns the notices that a person would see, and what was read.
    changes
        Made by chance, each as likely.
    wrong
        Well-formed but wrong: name → change; to be refused, or noticed.
    altered
        What differs between a good file and a changed one: anything else that is read otherwise, without a
        notice, is silently wrong.
    """

    name: str
    make: Callable[[Path], Path]
    use: Callable[[Path], Used]
    changes: tuple[Change, ...]
    wrong: Mapping[str, Change] = field(default_factory=dict)
    altered: Callable[[Path, Path], Altered] | None = None


def _prediction() -> Any:
    return fake_prediction(n_spots=SPOTS, n_genes=GENES)


# --- predictions ---------------------------------------------------------------------------------


def _make_prediction(folder: Path) -> Path:
    from napari_flag.prediction_file import write_prediction

    write_prediction(_prediction(), folder / "predicted.h5ad")
    counts_for(_prediction()).write_h5ad(folder / "measured.h5ad")
    return folder / "predicted.h5ad"


def _compare(predicted: Path, measured: Path) -> tuple[Any, Any, tuple[str, ...]]:
    from napari_flag.analysis.compare import comparing
    from napari_flag.foreign_prediction import read_any_prediction
    from napari_flag.progress import finish
    from napari_flag.slides.spot_tables import read_measured

    read = read_any_prediction(predicted, "log2p1"), read_measured(measured)
    return (*read, finish(comparing(*read)).notices)


def _rows(adata: Any, *layers: str) -> dict[str, dict[str, float]]:
    """Return spot → gene → value, also of `layers`, where they are there ("sample ERBB2")."""
    from napari_flag.analysis.truth import dense

    found: dict[str, dict[str, float]] = {str(name): {} for name in adata.obs_names}
    held = {"": adata.X} | {f"{name} ": adata.layers[name] for name in layers if name in adata.layers}
    for layer, values in held.items():
        for row, of_spot in zip(found.values(), dense(values).tolist(), strict=True):
            row |= {f"{layer}{gene}": value for gene, value in zip(adata.var_names, of_spot, strict=True)}
    return found


def _use_prediction(path: Path) -> Used:
    predicted, _, notices = _compare(path, path.with_name("measured.h5ad"))
    rows = _rows(predicted, "sample")
    for row, (x, y) in zip(rows.values(), predicted.obsm["spatial"].tolist(), strict=True):
        row |= {"x": x, "y": y}
    return Used(notices, rows)


def _make_foreign(folder: Path) -> Path:
    from tests.foreign_files import write_hest_like

    counts_for(_prediction()).write_h5ad(folder / "measured.h5ad")
    return write_hest_like(_prediction(), folder / "foreign.h5ad")


# --- counts --------------------------------------------------------------------------------------


def _beside(folder: Path) -> Path:
    from napari_flag.prediction_file import write_prediction

    write_prediction(_prediction(), folder / "predicted.h5ad")
    return folder


def _use_counts(path: Path) -> Used:
    _, measured, notices = _compare(path.with_name("predicted.h5ad"), path)
    return Used(notices, _rows(measured))


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


def _use_zipped(path: Path) -> Used:
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


def _placed(table: Any) -> dict[str, dict[str, float]]:
    """Return where every spot of a table lies, in pixels and in the array."""
    spots = table.spots
    rows = np.column_stack([spots.xy, *(() if spots.array is None else (spots.array,))]).tolist()
    return {
        name: dict(zip(("x", "y", "row", "column"), row, strict=False))
        for name, row in zip(spots.ids, rows, strict=True)
    }


def _use_spots(path: Path) -> Used:
    from tests.fakes import FakeSlide

    from napari_flag import preflight
    from napari_flag.inputs import settle_scale
    from napari_flag.slides.spot_tables import read_spots

    slide = FakeSlide(2600, 2600)
    table = read_spots(path, slide=slide)
    _, doubts = settle_scale(slide, table)
    checked = preflight.check(slide, table)
    checked.refuse()
    return Used((*table.notices, *doubts, *checked.warnings), _placed(table))


def _make_space_ranger(folder: Path) -> Path:
    from tests.spot_files import space_ranger

    space_ranger(folder / "outs", images=False)
    return folder / "outs" / "spatial" / "tissue_positions.csv"


def _use_folder(path: Path) -> Used:
    from tests.fakes import FakeSlide

    from napari_flag import preflight
    from napari_flag.slides.spot_tables import read_spots

    slide = FakeSlide(1200, 2000)
    table = read_spots(path.parents[1], slide=slide)
    checked = preflight.check(slide, table)
    checked.refuse()
    return Used((*table.notices, *checked.warnings), _placed(table))


def _make_parquet(folder: Path) -> Path:
    import pandas as pd

    positions = _make_space_ranger(folder)
    pd.read_csv(positions).to_parquet(positions.with_suffix(".parquet"))
    positions.unlink()
    return positions.with_suffix(".parquet")


def _make_transcripts(folder: Path) -> Path:
    from tests.platform_files import cosmx

    cosmx(folder / "run", n=300, n_cells=40, gz=False)
    return folder / "run" / "S1_tx_file.csv"


def _make_cells(folder: Path) -> Path:
    transcripts = _make_transcripts(folder)
    transcripts.unlink()
    return transcripts.with_name("S1_metadata_file.csv")


def _make_expression(folder: Path) -> Path:
    return _make_cells(folder).with_name("S1_exprMat_file.csv")


def _use_run(path: Path) -> Used:
    from tests.platform_files import MPP, SIDE_PX

    from napari_flag.progress import finish
    from napari_flag.slides.pooling import Picture
    from napari_flag.slides.spot_tables import measured_at
    from napari_flag.slides.spots import Spots

    centres = np.random.default_rng(8).uniform(220, 980, (SPOTS, 2))
    spots = Spots(tuple(f"s{k}" for k in range(SPOTS)), centres / MPP, 55.0, 100.0)
    _, notices = finish(measured_at(path.parent, spots, MPP, Picture(Path("he.tif"), (SIDE_PX, SIDE_PX))))
    return Used(notices)


# --- regions, sets, labels, lists -----------------------------------------------------------------------


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


def _use_regions(path: Path) -> Used:
    from napari_flag.slides.formats.geojson import read_annotations, write_annotations
    from napari_flag.slides.spots import inside

    found = read_annotations(path)
    polygons = [polygon for annotation in found for polygon in annotation.polygons]
    inside(polygons, np.random.default_rng(0).uniform(0, 1000, (50, 2)))
    write_annotations(found, path.with_name("again.geojson"))
    return Used()


def _make_gmt(folder: Path) -> Path:
    names = list(fake_prediction(n_spots=4, n_genes=6).var_names)
    lines = [f"SET{i}\thttp://x\t" + "\t".join(names[i:]) for i in range(3)]
    (folder / "sets.gmt").write_text("\n".join(lines))
    return folder / "sets.gmt"


def _use_gmt(path: Path) -> Used:
    from napari_flag.analysis.pathways import find_region_sets, read_gmt
    from napari_flag.progress import finish

    prediction = fake_prediction(n_spots=16, n_genes=6)
    sets = read_gmt(path)
    finish(find_region_sets(prediction, np.arange(16) < 8, None, sets))
    return Used((), {name: {"genes": genes} for name, genes in sets.items()})


def _make_labels(folder: Path) -> Path:
    names = fake_prediction(n_spots=SPOTS, n_genes=2).obs_names
    rows = [f"{name},{'a' if i % 2 else 'b'}" for i, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["barcode,label", *rows]))
    return folder / "labels.csv"


def _use_labels(path: Path) -> Used:
    from napari_flag.slides.formats.labels import read_labels

    names = list(fake_prediction(n_spots=SPOTS, n_genes=2).obs_names)
    labels = read_labels(path).of(names)
    return Used((), {name: {"label": label} for name, label in zip(names, labels, strict=True)})


def _make_genes(folder: Path) -> Path:
    (folder / "genes.txt").write_text("\n".join(fake_prediction(n_spots=4, n_genes=GENES).var_names))
    return folder / "genes.txt"


def _use_genes(path: Path) -> Used:
    from napari_flag.gene_names import names_in, symbols_of

    names = names_in(path)
    symbols_of(list(fake_prediction(n_spots=4, n_genes=GENES).var_names), path)
    return Used((), {name: {} for name in names})


def _make_sections(folder: Path) -> Path:
    lines = [f"S{i},s{i}.tif,s{i}.tsv,c{i}.tsv,P{i},0.5" for i in range(4)]
    (folder / "sections.csv").write_text("\n".join(["name,slide,spots,counts,patient,mpp", *lines]))
    return folder / "sections.csv"


def _use_sections(path: Path) -> Used:
    from napari_flag.listing import read_listing

    return Used((), {slide.name: {"mpp": slide.mpp} for slide in read_listing(path)})


def _make_workspace(folder: Path) -> Path:
    from napari_flag.workspace_file import WorkspaceFile, WorkspaceSlide, write_workspace

    one = WorkspaceSlide("T", folder / "t.tif", 0.5, "set by hand", folder / "t.tsv")
    write_workspace(WorkspaceFile((one, one), 0, "ERBB2", "X"), folder / "w.json")
    return folder / "w.json"


def _use_workspace(path: Path) -> Used:
    from napari_flag.workspace_file import read_workspace

    _ = read_workspace(path).missing
    return Used()


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


def _make_store(folder: Path) -> Path:
    """Write a SpatialData zarr of an image with a pyramid, circles, and their counts."""
    import spatialdata
    from anndata import AnnData
    from scipy import sparse
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity
    from tests.slide_files import picture

    place = {"global": Identity()}
    xy = fake_prediction(n_spots=SPOTS, n_genes=2).obsm["spatial"] / 10
    image = Image2DModel.parse(
        picture(300, 200), dims=("y", "x", "c"), c_coords=["r", "g", "b"], scale_factors=[2],
        transformations=place,
    )  # fmt: skip
    circles = ShapesModel.parse(xy, geometry=0, radius=5.0, index=np.arange(SPOTS), transformations=place)
    counts = AnnData(sparse.csr_matrix(counts_for(_prediction()).X))
    counts.obs_names, counts.var_names = [f"s{i}" for i in range(SPOTS)], _prediction().var_names
    counts.obs["region"], counts.obs["spot"] = "spots", np.arange(SPOTS)
    counts.obs["region"] = counts.obs["region"].astype("category")
    table = TableModel.parse(counts, region="spots", region_key="region", instance_key="spot")
    store = spatialdata.SpatialData(images={"he": image}, shapes={"spots": circles}, tables={"table": table})
    store.write(folder / "S.zarr")
    return folder / "S.zarr"


def _use_store(path: Path) -> Used:
    from napari_flag.slides.formats.spatial_data import choose
    from napari_flag.slides.slide import open_slide
    from napari_flag.slides.spot_tables import read_spots

    with open_slide(path) as slide:
        slide.thumbnail(64)
        slide.read_region(10, 10, 50, 40)
        table = read_spots(path, slide=slide)
        rows = _placed(table)
        counts = {} if table.measured is None else _rows(table.measured)
        held = {name: row | counts.get(name, {}) for name, row in rows.items()}
        return Used((choose(path).why, *slide.notices, *table.notices), held)


def _state_gigabytes(path: Path, _: Random) -> None:
    for level in (path / "images").rglob("s0/zarr.json"):
        stated = json.loads(level.read_text())
        stated["shape"] = stated["chunk_grid"]["configuration"]["chunk_shape"] = [3, 40_000, 30_000]
        level.write_text(json.dumps(stated))


# --- weights -------------------------------------------------------------------------------------


def _make_weights(folder: Path) -> Path:
    from tests.tiny_weights import write_tiny_weights

    return write_tiny_weights(folder / "tiny.safetensors")


def _use_weights(path: Path) -> Used:
    from napari_flag.model.checkpoint import Checkpoint

    found = _use_weights_of(path)
    checkpoint = Checkpoint.load(path)
    checkpoint.build_encoder()
    checkpoint.build_out_of_distribution_score()
    return found


def _use_weights_of(path: Path) -> Used:
    """Use weights but for their encoder."""
    from napari_flag.methods.predictor import open_method
    from napari_flag.model.checkpoint import Checkpoint, describe_entries, label_of

    checkpoint = Checkpoint.load(path)
    describe_entries(checkpoint.card)
    label_of("tiny", path)
    open_method(checkpoint)
    return Used()


def _make_published(folder: Path) -> Path:
    """Write a checkpoint of the published code with its parts, and the encoder that it was trained on."""
    import pytest
    from tests.methods import test_published_checkpoint as published
    from tests.tiny_weights import write_weights_on_uni

    from napari_flag.model.checkpoint import Checkpoint

    with pytest.MonkeyPatch.context() as patch:
        features = Checkpoint.load(write_weights_on_uni(folder, patch)).config["features"]
    config = published.configuration("FLAG", features)
    state = published.random_state(config["model_config"], len(published.GENES))
    published.write_parts(folder, config, state, state)
    return folder / "config.yaml"


def _make_panel(folder: Path) -> Path:
    return _make_published(folder).with_name("genes.txt")


def _use_published(path: Path) -> Used:
    import pytest
    from tests.tiny_weights import only_small_uni

    from napari_flag.methods.published_checkpoint import import_published

    folder, out = path.parent, path.with_name("out.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        only_small_uni(folder, patch)
        import_published(folder / "model.pt", folder / "config.yaml", folder / "genes.txt", 0.5, out)
    return _use_weights_of(out)


# --- scores of training --------------------------------------------------------------------------


def _make_scores(folder: Path) -> Path:
    from flag_training.evaluate import Comparison, Outcome, Plan, Record
    from flag_training.result_tables import results_of
    from flag_training.scoring import COMPARED, OF_DRAWS, OF_X

    who = {"X": ("FLAG", OF_X), "draws": ("FLAG", OF_DRAWS), "counting noise": ("rival", OF_DRAWS)}
    who |= {"ridge": ("floor", OF_X)}
    records = [
        Record("r", kind, name, "all others", section, seed, dict.fromkeys(of, 0.5), {of[0]: (0.4, 0.6)})
        for name, (kind, of) in who.items()
        for section in ("C2", "C3")
        for seed in (0, 1)
    ]
    differences = dict.fromkeys(COMPARED, (-0.1, -0.2, 0.1))
    compared = [
        Comparison("r", "all others", section, 0, "rival", "counting noise", "all others", differences)
        for section in ("C2", "C3")
    ]
    levels = {"C2": {"all others": ("A", "B")}}
    held = results_of(Outcome(tuple(records), tuple(compared), levels), Plan(("C2", "C3")), "napari-flag e")
    (folder / "scores.json").write_text(json.dumps(held))
    return folder / "scores.json"


def _use_scores(path: Path) -> Used:
    from flag_training.paper_table import FORMATS, PaperTable
    from flag_training.result_tables import markdown, metrics_of, read_results
    from napari_flag.exports.replacing import repeats

    results = [read_results(path)]
    repeats(path, "0" * 64)
    json.dumps(metrics_of(results))
    markdown(results, "Scores")
    for write in FORMATS.values():
        write(PaperTable.of(results, "Scores", cohort="HER2ST"))
    return Used()


# --- slides --------------------------------------------------------------------------------------


def _make_tiff(folder: Path) -> Path:
    from tests.slide_files import picture, plain_tiff

    return plain_tiff(folder / "s.tif", picture(300, 200))


def _make_ome(folder: Path) -> Path:
    from tests.slide_files import ome_tiff, picture

    return ome_tiff(folder / "s.ome.tif", picture(300, 200))


def _use_slide(path: Path) -> Used:
    from napari_flag.slides.slide import open_slide

    with open_slide(path) as slide:
        slide.thumbnail(64)
        slide.read_region(10, 10, 50, 40)
        return Used(slide.notices)


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


def _move(places: Callable[[Any, Random], Any]) -> Callable[[Any, Random], None]:
    def change(adata: Any, random: Random) -> None:
        adata.obsm["spatial"] = places(adata.obsm["spatial"], random)

    return change


def _swap_unit(adata: Any, _: Random) -> None:
    adata.uns["napari_flag"]["units"] = "counts"


WRONG_COUNTS = {
    "ids shuffled": _in_h5ad(_shuffle_ids),
    "ids turned": _in_h5ad(_turn_ids),
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
    "positions shuffled": _in_h5ad(_move(lambda xy, random: random.permutation(xy))),
    "x and y exchanged": _in_h5ad(_move(lambda xy, _: xy[:, ::-1].copy())),
    "all on one point": _in_h5ad(_move(lambda xy, _: np.full_like(xy, 500.0))),
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
        altered_arrays,
    ),
    Kind(
        "other programs'",
        _make_foreign,
        _use_prediction,
        (by.change_hdf5, by.change_hdf5, by.change_bytes),
        altered=altered_arrays,
    ),
    Kind(
        "counts h5ad",
        _make_counts,
        _use_counts,
        (by.change_hdf5, by.change_hdf5, by.change_bytes),
        WRONG_COUNTS,
        altered_arrays,
    ),
    Kind(
        "counts 10x h5",
        _make_10x,
        _use_counts,
        (by.change_hdf5, by.change_hdf5, by.change_bytes),
        altered=altered_arrays,
    ),
    Kind(
        "counts mtx",
        _make_mex,
        _use_counts,
        (by.change_table, by.add_comments, by.change_bytes),
        altered=altered_entries,
    ),
    Kind(
        "counts tables",
        _make_table,
        _use_zipped,
        (by.change_table, by.change_table, by.repeat_line, by.change_bytes),
        altered=altered_lines,
    ),
    Kind(
        "spot tables",
        _make_spots,
        _use_spots,
        (by.change_table, by.change_table, by.change_bytes),
        WRONG_SPOTS,
        altered_lines,
    ),
    Kind(
        "Space Ranger",
        _make_space_ranger,
        _use_folder,
        (by.change_table, by.change_bytes),
        altered=altered_lines,
    ),
    Kind(
        "GeoJSON",
        _make_regions,
        _use_regions,
        (by.change_json, by.change_json, by.change_outlines, by.change_bytes),
    ),
    Kind("GMT", _make_gmt, _use_gmt, (by.change_table, by.change_bytes), altered=altered_sets),
    Kind("labels", _make_labels, _use_labels, (by.change_table, by.change_bytes), altered=altered_lines),
    Kind("workspaces", _make_workspace, _use_workspace, (by.change_json, by.change_bytes)),
    Kind("zarr", _make_zarr, _use_prediction, (by.change_zarr,), altered=altered_files),
    Kind(
        "SpatialData",
        _make_store,
        _use_store,
        (by.change_zarr,),
        {"a chunk of gigabytes": _state_gigabytes},
        altered_files,
    ),
    Kind("CosMx transcripts", _make_transcripts, _use_run, (by.change_table, by.change_bytes)),
    Kind("CosMx cells", _make_cells, _use_run, (by.change_table, by.change_bytes)),
    Kind("CosMx expression", _make_expression, _use_run, (by.change_table, by.change_bytes)),
    Kind("positions parquet", _make_parquet, _use_folder, (by.change_bytes,)),
    Kind("lists of genes", _make_genes, _use_genes, (by.change_table, by.change_bytes), altered=altered_sets),
    Kind(
        "lists of sections",
        _make_sections,
        _use_sections,
        (by.change_table, by.change_bytes),
        altered=altered_columns,
    ),
    Kind("weights", _make_weights, _use_weights, (by.change_weights, by.change_weights, by.change_bytes)),
    Kind(
        "configurations of checkpoints",
        _make_published,
        _use_published,
        (by.change_yaml, by.change_yaml, by.change_bytes, by.change_whole),
    ),
    Kind(
        "panels of checkpoints",
        _make_panel,
        _use_published,
        (by.change_table, by.change_bytes, by.change_whole),
    ),
    Kind(
        "scores",
        _make_scores,
        _use_scores,
        (by.change_json, by.change_json, by.change_bytes, by.change_whole),
    ),
    Kind("TIFF", _make_tiff, _use_slide, (by.change_tiff, by.change_tiff, by.change_bytes)),
    Kind("OME-TIFF", _make_ome, _use_slide, (by.change_tiff, by.change_ome, by.change_bytes)),
)


def copied(source: Path, target: Path) -> None:
    """Copy what `Kind.make` wrote."""
    shutil.copytree(source, target, dirs_exist_ok=True, symlinks=True)
