"""Sparse matrices and arrays that state what is not so: refused before compiled code believes them."""

import gzip
import json
import time
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import zarr
from anndata import AnnData
from scipy import io, sparse
from tests.spot_files import annotated, write_h5, write_mex

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.foreign_prediction import read_any_prediction
from napari_flag.prediction_file import read_prediction
from napari_flag.slides.formats.counts import expression_columns, read_10x_h5, read_mex
from napari_flag.slides.formats.h5ad import read_h5ad_counts
from napari_flag.slides.formats.stored_anndata import with_file
from napari_flag.slides.formats.stored_arrays import (
    DAMAGED,
    checked,
    csr_of,
    refuse_inflated,
    refuse_lost_chunks,
)

MATRIX = sparse.csr_matrix(np.array([[1, 0, 2], [0, 0, 0], [0, 3, 4]], np.float32))
LIES = {
    "an index beyond": ("indices", lambda v: v + 1_000_000),
    "a negative index": ("indices", lambda v: v - 5),
    "rows that end before they begin": ("indptr", lambda v: np.array([v[0], v[-1], *v[2:]])),
    "a last row without end": ("indptr", lambda v: np.array([*v[:-1], 2**31 - 1])),
    "rows from below zero": ("indptr", lambda v: v - 7),
    "too few rows": ("indptr", lambda v: v[:-2]),
    "fewer values than places": ("data", lambda v: v[:-1]),
    "texts for values": ("data", lambda v: np.array([b"x"] * len(v), "S1")),
    "fractions for places": ("indices", lambda v: v + 0.5),
    "two values for one place": ("indices", lambda v: np.array([v[0], v[0], *v[2:]])),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_matrix_is_no_matrix(lie):
    part, change = LIES[lie]
    parts = {name: getattr(MATRIX, name) for name in ("data", "indices", "indptr")}
    parts[part] = change(parts[part])
    with pytest.raises(ValueError, match="sparse matrix"):
        csr_of(**parts, shape=(3, 3))


def test_a_true_matrix_stays_as_it_is():
    found = csr_of(MATRIX.data, MATRIX.indices, MATRIX.indptr, (3, 3))
    np.testing.assert_array_equal(found.toarray(), MATRIX.toarray())
    for kind in ("csr", "csc", "coo"):
        assert checked(MATRIX.asformat(kind)).shape == (3, 3)
    assert checked(np.eye(3)).shape == (3, 3)


def lie_in(group: h5py.Group, lie: str) -> None:
    part, change = LIES[lie]
    values = change(group[part][:])
    attributes = dict(group[part].attrs)
    del group[part]
    group[part] = values
    group[part].attrs.update(attributes)


@pytest.mark.parametrize("lie", LIES)
def test_readers_of_counts_refuse_it_in_one_sentence(lie, tmp_path):
    annotated().write_h5ad(tmp_path / "a.h5ad")
    write_h5(tmp_path / "m.h5")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file, h5py.File(tmp_path / "m.h5", "r+") as other:
        lie_in(file["X"], lie)
        lie_in(other["matrix"], lie)
    for read, name in ((read_h5ad_counts, "a.h5ad"), (read_10x_h5, "m.h5")):
        with pytest.raises(UserError, match=f"{name} could not be read") as refused:
            read(tmp_path / name)
        assert len(str(refused.value)) < 400


@pytest.mark.parametrize("shape", [(2**32 - 1, 4), (5, 2**32 - 1), (-1, 4), (5, 3)])
def test_a_10x_matrix_of_another_size_than_its_names_is_refused(shape, tmp_path):
    write_h5(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        del file["matrix/shape"]
        file["matrix/shape"] = np.array(shape)
    for read in (read_10x_h5, expression_columns):
        with pytest.raises(UserError, match=r"could not be read as a 10x matrix .it states"):
            read(tmp_path / "m.h5")


@pytest.mark.parametrize("where", ["X", "layers/sample", "obsp/near"])
def test_a_prediction_with_such_a_matrix_is_refused(where, tmp_path):
    from tests.fakes import fake_prediction

    prediction = fake_prediction(n_spots=9, n_genes=4)
    prediction.X = sparse.csr_matrix(prediction.X)
    prediction.layers[keys.SAMPLE] = sparse.csr_matrix(prediction.layers[keys.SAMPLE])
    prediction.obsp["near"] = sparse.csr_matrix(np.eye(9))
    prediction.write_h5ad(tmp_path / "p.h5ad")
    with h5py.File(tmp_path / "p.h5ad", "r+") as file:
        lie_in(file[where], "an index beyond")
    with pytest.raises(UserError, match=r"p\.h5ad could not be read"):
        read_prediction(tmp_path / "p.h5ad")


def test_a_table_of_a_zarr_is_checked_too(tmp_path):
    from napari_flag.slides.formats.stored_anndata import H5ad

    adata = annotated()
    adata.write_zarr(tmp_path / "t.zarr")
    zarr.open_group(tmp_path / "t.zarr")["X"]["indices"][:] = 10**6
    with pytest.raises(UserError, match="outside itself"):
        H5ad(zarr.open_group(tmp_path / "t.zarr", mode="r"), tmp_path / "t.zarr").values("X")


@pytest.mark.parametrize("part", ["name", "feature_type"])
def test_a_10x_matrix_that_does_not_state_each_feature_is_refused(part, tmp_path):
    write_h5(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        stated = file["matrix/features"][part][:]
        del file["matrix/features"][part]
        file["matrix/features"][part] = stated[:-1]
    for read in (read_10x_h5, expression_columns):
        with pytest.raises(UserError, match="could not be read"):
            read(tmp_path / "m.h5")


def test_a_line_of_features_without_its_kind_is_refused(tmp_path):
    write_mex(tmp_path / "m")
    [path] = (tmp_path / "m").glob("features.tsv*")
    text = gzip.decompress(path.read_bytes()).decode()
    path.write_bytes(gzip.compress(text.replace("\tGene Expression", "", 2).encode()))
    with pytest.raises(UserError, match="lines of different lengths"):
        read_mex(tmp_path / "m")


@pytest.mark.parametrize(
    "header", ["4 100000000000 9", "100000000000 4 9", "5 4 100000000000", "-1 4 1", "x"]
)
def test_the_size_in_a_matrix_market_file_is_not_believed(header, tmp_path):
    write_mex(tmp_path / "m")
    (tmp_path / "m" / "matrix.mtx.gz").unlink()
    kind = "%%MatrixMarket matrix coordinate integer general\n"
    (tmp_path / "m" / "matrix.mtx").write_text(f"{kind}{header}\n1 1 1\n")
    with pytest.raises(UserError, match=r"could not be read|for a matrix of"):
        read_mex(tmp_path / "m")


@pytest.mark.parametrize(
    "body",
    [
        "1 1 1\n2 1 1\n3 1 5\n",
        "1 1 1 7\n1 2 1 7\n",
        "1 1\n",
        "x y z\n",
        "1.5 1 1\n",
        "1 1 nan\n1 1 1 1\n",
        "1 1 1\n1 1 2\n",
    ],
)
def test_lines_that_are_not_those_stated_are_refused(body, tmp_path):
    """SciPy's reader wrote outside its arrays where there were more than stated, and ended the process."""
    write_mex(tmp_path / "m")
    path = tmp_path / "m" / "matrix.mtx.gz"
    rows, columns = io.mminfo(path)[:2]
    path.unlink()
    kind = "%%MatrixMarket matrix coordinate integer general\n% a remark\n"
    (tmp_path / "m" / "matrix.mtx").write_text(f"{kind}{rows} {columns} 2\n{body}")
    with pytest.raises(UserError, match="could not be read"):
        read_mex(tmp_path / "m")


def test_a_matrix_market_file_is_read_as_scipy_reads_it(tmp_path):
    write_mex(tmp_path / "m")
    expected = io.mmread(tmp_path / "m" / "matrix.mtx.gz").T.toarray()
    np.testing.assert_array_equal(read_mex(tmp_path / "m").X.toarray(), expected)


def test_a_place_outside_a_matrix_market_file_is_refused(tmp_path):
    write_mex(tmp_path / "m")
    path = tmp_path / "m" / "matrix.mtx.gz"
    rows, columns = io.mminfo(path)[:2]
    path.unlink()
    kind = "%%MatrixMarket matrix coordinate integer general\n"
    (tmp_path / "m" / "matrix.mtx").write_text(f"{kind}{rows} {columns} 1\n{rows + 9} 1 1\n")
    with pytest.raises(UserError, match="could not be read"):
        read_mex(tmp_path / "m")


def test_an_array_that_is_said_to_be_huge_is_not_read(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("X", shape=(200_000, 50_000), dtype="f4", chunks=(100, 100))
    with h5py.File(tmp_path / "a.h5") as file, pytest.raises(ValueError, match=r"said to hold 40\.0 GB"):
        refuse_inflated(file)
    store = zarr.open_group(tmp_path / "a.zarr", mode="w")
    store.create_array("X", shape=(200_000, 50_000), dtype="f4", chunks=(1000, 1000))
    with pytest.raises(ValueError, match=r"said to hold 40\.0 GB"):
        refuse_inflated(store)


def test_values_in_other_files_are_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"private!" * 3)
    annotated().write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        del file["X"]
        file.create_dataset("X", shape=(6, 4), dtype="u1", external=[(str(secret), 0, 24)])
    with pytest.raises(UserError, match="other files"):
        read_h5ad_counts(tmp_path / "a.h5ad")
    annotated().write_h5ad(tmp_path / "b.h5ad")
    with h5py.File(tmp_path / "b.h5ad", "r+") as file:
        del file["X"]
        file["X"] = h5py.ExternalLink(str(tmp_path / "a.h5ad"), "/layers")
    with pytest.raises(UserError, match="link to something elsewhere"):
        read_h5ad_counts(tmp_path / "b.h5ad")


def test_groups_in_groups_without_end_are_left(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["a"] = file["/"]  # holds itself
        with pytest.raises(ValueError, match="without end"):
            refuse_inflated(file)


def test_an_ordinary_file_passes(tmp_path):
    adata: AnnData = annotated()
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert read_h5ad_counts(tmp_path / "a.h5ad").shape == adata.shape


def test_texts_of_a_zarr_that_state_more_than_they_hold_are_refused(tmp_path):
    texts = zarr.open_group(tmp_path / "texts.zarr", mode="w", zarr_format=2).create_array(
        "names", shape=(2,), chunks=(2,), dtype=str, compressors=None
    )
    texts[:] = np.array(["ERBB2", "ESR1"])
    refuse_inflated(zarr.open_group(tmp_path / "texts.zarr", mode="r"))
    chunk = tmp_path / "texts.zarr" / "names" / "0"
    chunk.write_bytes((3_539_992_578).to_bytes(4, "little") + chunk.read_bytes()[4:])
    with pytest.raises(ValueError, match=r"more texts|buffer|corrupt|truncated"):
        refuse_inflated(zarr.open_group(tmp_path / "texts.zarr", mode="r"))


@pytest.mark.parametrize("comment", ["%\n", "%" * 2_000_000 + "\n"])
def test_a_matrix_with_comments_without_end_is_refused_at_once(tmp_path, comment):
    (tmp_path / "features.tsv").write_text("E1\tA\tGene Expression")
    (tmp_path / "barcodes.tsv").write_text("AAAC-1")
    head, body = "%%MatrixMarket matrix coordinate integer general\n", "1 1 1\n1 1 7\n"
    (tmp_path / "matrix.mtx").write_text(f"{head}%metadata\n%two\n{body}")
    assert read_mex(tmp_path).X.sum() == 7
    (tmp_path / "matrix.mtx").write_text(f"{head}{comment * (4_000_000 // len(comment))}{body}")
    began = time.process_time()
    with pytest.raises(UserError, match="comments of more than 1 MB before its values"):
        read_mex(tmp_path)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("sparse_matrix", [False, True])
def test_a_matrix_that_takes_more_memory_than_is_free_is_refused_before_it_is_read(
    tmp_path, monkeypatch, sparse_matrix
):
    """A few bytes of a file can stand for gigabytes: 2,000 times as many are believed."""
    path = tmp_path / "m.h5ad"
    adata = annotated()
    if not sparse_matrix:
        adata.X = adata.X.toarray()
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        held = file["X/data"] if sparse_matrix else file["X"]
        shape = (4_000_000, *held.shape[1:]) if sparse_matrix else (4_000, 1_000)
        attributes, name = dict(held.attrs), held.name
        del file[name]
        file.create_dataset(name, shape, "f4", chunks=shape, compression="gzip", data=np.zeros(shape, "f4"))
        file[name].attrs.update(attributes)
    free = SimpleNamespace(available=30e6)
    monkeypatch.setattr("psutil.virtual_memory", lambda: free)
    with pytest.raises(UserError, match=r"Reading X of m\.h5ad needs about 4[\d.]* MB of memory"):
        read_h5ad_counts(path)
    with pytest.raises(UserError, match=r"Reading X of m\.h5ad needs about 4[\d.]* MB of memory"):
        read_any_prediction(path, "counts")


def test_a_matrix_of_zeros_in_a_few_bytes_is_not_read(tmp_path):
    path = tmp_path / "m.h5ad"
    adata = annotated()
    adata.X = adata.X.toarray()
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        attributes = dict(file["X"].attrs)
        del file["X"]
        shape, chunks = (100_000, 1_000), (25_000, 1_000)
        file.create_dataset("X", shape, "f4", chunks=chunks, compression="gzip", compression_opts=9)
        for row in range(0, shape[0], chunks[0]):
            file["X"][row : row + chunks[0]] = np.zeros(chunks, "f4")
        file["X"].attrs.update(attributes)
        refuse_inflated(file)
    with pytest.raises(
        UserError, match=r"said to hold 400 MB and is stored in 3.. kB, as almost nothing but zeros"
    ):
        read_h5ad_counts(path)


def test_an_array_in_chunks_of_no_size_is_damage(tmp_path):
    zarr.open_group(tmp_path / "t.zarr", mode="w", zarr_format=2).create_array("X", data=np.ones((4, 2)))
    place = tmp_path / "t.zarr" / "X" / ".zarray"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"chunks": [0, 0]}))
    with pytest.raises(DAMAGED):
        refuse_lost_chunks(zarr.open_group(tmp_path / "t.zarr", mode="r"), ["X"], [])


def test_more_groups_than_any_file_has_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_flag.slides.formats.stored_arrays.MOST_NODES", 20)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for number in range(19):
            file.create_group(str(number))
        refuse_inflated(file)
        file.create_group("one more")
        with pytest.raises(ValueError, match="groups in groups without end"):
            refuse_inflated(file)


def test_a_table_that_names_a_column_twice_is_refused(tmp_path):
    adata = annotated()
    adata.obs["label"] = 1
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        file["obs"].attrs["column-order"] = ["label", "label"]
    with pytest.raises(UserError, match="obs names a column twice"):
        with_file(tmp_path / "a.h5ad", lambda h5ad: h5ad.frame("obs"))
