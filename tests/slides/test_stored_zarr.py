"""Zarrs whose metadata name codecs that run code, and whose chunks unpack to gigabytes."""

import gzip
import json
import pickle
import shutil
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from tests.slides.test_spatial_data import elements, write

from napari_flag.errors import UserError
from napari_flag.slides.formats.stored_zarr import MOST_CHUNKS, refuse_bombs, refuse_unsafe
from napari_flag.slides.slide import open_slide
from napari_flag.slides.spot_tables import read_measured


class Payload:
    """Leaves a file where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return Path.touch, (self.place,)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    images, shapes, tables, _ = elements()
    return write(tmp_path_factory.mktemp("sd") / "S.zarr", images=images, shapes=shapes, tables=tables)


@pytest.fixture
def store(sound, tmp_path):
    return Path(shutil.copytree(sound, tmp_path / "S.zarr"))


def changed(path: Path, **values) -> None:
    stated = json.loads(path.read_text())
    path.write_text(json.dumps(stated | values))


@pytest.mark.parametrize("ids", [("vlen-utf8", "pickle"), ("pickle", "vlen-utf8"), ("pickle",)])
def test_a_zarr_that_would_be_unpickled_is_refused_and_runs_nothing(ids, store, tmp_path, monkeypatch):
    monkeypatch.setattr(
        numcodecs.pickles, "ALLOW_UNSAFE_PICKLE_DECODE", True
    )  # as numcodecs was until 0.16.5
    import anndata

    folder = store / "tables" / "table"
    attributes = zarr.open_group(folder, mode="r").attrs.asdict()
    table = anndata.read_zarr(folder)
    shutil.rmtree(folder)
    group = zarr.open_group(folder, mode="w", zarr_format=2)
    anndata.io.write_elem(group, "/", table)
    group.attrs.update(attributes)
    read_measured(folder)
    names = folder / "obs" / str(zarr.open_group(folder / "obs", mode="r").attrs["_index"])
    changed(names / ".zarray", compressor=None, filters=[{"id": name} for name in ids])
    (names / "0").write_bytes(pickle.dumps(Payload(tmp_path / "was_run")))
    with pytest.raises(UserError, match="names the codec pickle"):
        read_measured(folder)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize(
    "codecs",
    [
        [{"name": "bytes"}, {"name": "numcodecs.pickle"}],
        [{"name": "sharding_indexed", "configuration": {"chunk_shape": [1], "codecs": [{"name": "pickle"}]}}],
        [{"name": "bytes"}, {"name": "zstd"}, {"name": "gzip"}],
        "pickle",
        None,
    ],
)
def test_codecs_of_zarr_3_that_nobody_needs_are_refused(codecs, tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("a", shape=(4,), dtype="u1")
    refuse_unsafe(tmp_path / "a.zarr")
    changed(tmp_path / "a.zarr" / "a" / "zarr.json", codecs=codecs)
    with pytest.raises(UserError, match=r"could not be read as part of a zarr"):
        refuse_unsafe(tmp_path / "a.zarr")


@pytest.mark.parametrize("version", [2, 3])
def test_metadata_that_are_kept_once_more_are_looked_at(version, tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    group.create_group("inner").create_array("a", shape=(4,), dtype="u1")
    zarr.consolidate_metadata(group.store)
    refuse_unsafe(tmp_path / "a.zarr")
    path = tmp_path / "a.zarr" / (".zmetadata" if version == 2 else "zarr.json")
    stated = json.loads(path.read_text())
    nodes = stated["metadata"] if version == 2 else stated["consolidated_metadata"]["metadata"]
    node = nodes["inner/a/.zarray" if version == 2 else "inner/a"]
    node.update({"filters": [{"id": "pickle"}]} if version == 2 else {"codecs": [{"name": "pickle"}]})
    path.write_text(json.dumps(stated))
    with pytest.raises(UserError, match="names the codec pickle"):
        refuse_unsafe(tmp_path / "a.zarr")


@pytest.mark.parametrize("shape", [[3, 2**40, 2**40], [3, -1, 5], [3, 4.5, 4], [3, 4], "wide", None])
def test_an_image_that_states_more_than_a_slide_can_have_is_refused_at_once(shape, store):
    changed(store / "images" / "he" / "s0" / "zarr.json", shape=shape)
    with pytest.raises(UserError, match=r"chunks|shape"):
        open_slide(store)


def packed(kind: str, size: int) -> bytes:
    if kind == "gzip":
        return gzip.compress(bytes(size // 4), 9) * 4  # one after the other
    if kind == "zstd twice":
        return numcodecs.Zstd().encode(b"a") + numcodecs.Zstd().encode(bytes(size))
    return (numcodecs.Zstd() if kind == "zstd" else numcodecs.Blosc(cname="zstd")).encode(bytes(size))


def used(store: Path, what: str) -> None:
    """Read what a chunk belongs to."""
    if what.startswith("tables"):
        read_measured(store / "tables" / "table")
        return
    with open_slide(store) as slide:
        slide.read_region(0, 0, 20, 20)


@pytest.mark.parametrize("kind", ["gzip", "zstd", "zstd twice", "blosc"])
@pytest.mark.parametrize("what", ["images/he/s0", "tables/table/X/data"])
def test_a_chunk_that_unpacks_to_gigabytes_is_refused(what, kind, store):
    folder = store / what
    codec = {"name": kind.split()[0], "configuration": {"level": 1} if kind == "gzip" else {}}
    if kind == "blosc":
        codec["configuration"] = {
            "cname": "lz4",
            "clevel": 5,
            "shuffle": "noshuffle",
            "blocksize": 0,
            "typesize": 1,
        }
    stated = json.loads((folder / "zarr.json").read_text())
    changed(folder / "zarr.json", codecs=[stated["codecs"][0], codec])
    bomb = packed(kind, 80_000_000)
    for chunk in (each for each in (folder / "c").rglob("*") if each.is_file()):
        chunk.write_bytes(bomb)
    with pytest.raises(UserError, match=r"unpacks to more than"):
        used(store, what)


@pytest.mark.parametrize(
    ("kind", "version"),
    [(kind, 3) for kind in ("plain", "packed", "shards", "text", "number")]
    + [(kind, 2) for kind in ("plain", "packed", "text", "number")],  # which has no shards
)
def test_chunks_as_zarr_writes_them_pass(kind, version, tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=version)
    more = {"shards": (8, 8)} if kind == "shards" else {"compressors": None} if kind == "plain" else {}
    shape = () if kind == "number" else (20, 20)
    array = group.create_array(
        "a", shape=shape, chunks=shape and (4, 4), dtype=str if kind == "text" else "u2", **more
    )
    values = np.random.default_rng(0).integers(0, 9, shape)
    array[...] = values.astype(str) if kind == "text" else values
    refuse_unsafe(tmp_path / "a.zarr")
    refuse_bombs(zarr.open_group(tmp_path / "a.zarr", mode="r")["a"])


def test_a_shard_is_looked_into(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    array = group.create_array("a", shape=(8, 8), chunks=(4, 4), shards=(8, 8), dtype="u1")
    array[...] = 7
    (shard,) = (path for path in (tmp_path / "a.zarr" / "a" / "c").rglob("*") if path.is_file())
    bomb, index = numcodecs.Zstd().encode(bytes(50_000_000)), shard.read_bytes()[-68:]
    places = np.frombuffer(index[:-4], "<u8").reshape(4, 2).copy()
    places[2] = 0, len(bomb)
    shard.write_bytes(bomb + places.tobytes() + index[-4:])
    with pytest.raises(ValueError, match="unpacks to more than"):
        refuse_bombs(zarr.open_group(tmp_path / "a.zarr", mode="r")["a"])


def test_as_many_chunks_as_the_largest_slide_has_are_read(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.create_array("a", shape=(3, 800_000, 800_000), chunks=(3, 512, 512), dtype="u1")
    refuse_unsafe(tmp_path / "a.zarr")
    assert MOST_CHUNKS > (800_000 / 512) ** 2
