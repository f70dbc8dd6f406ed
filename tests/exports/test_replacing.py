"""What an export, a report or a comparison wrote is its own; nothing else is, whatever it is called."""

import json
import os

import anndata
import h5py
import pandas as pd
import pytest
import zarr
from tests.fakes import counts_for, fake_prediction

from napari_flag import files, keys
from napari_flag.cli import main
from napari_flag.errors import UserError
from napari_flag.exports.formats import FORMATS, export, place_of
from napari_flag.exports.replacing import (
    check_place,
    is_unchanged,
    refuse_foreign,
    repeats,
    statement,
    written_here,
)
from napari_flag.files import write_json
from napari_flag.prediction_file import read_prediction, write_prediction
from napari_flag.progress import finish

HOSTILE = "../outside/T"


@pytest.fixture
def named(tmp_path, monkeypatch):
    """A prediction whose slide is called ``../outside/T``, and a folder of someone else at that place."""
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    prediction = fake_prediction(n_spots=49, n_genes=8)
    prediction.uns[keys.PROVENANCE][keys.SLIDE_NAME] = HOSTILE
    write_prediction(prediction, "p.h5ad")
    counts_for(prediction).write_h5ad("m.h5ad")
    (tmp_path / "in" / "outside").mkdir()
    store = tmp_path / "in" / "outside" / "T.zarr"
    zarr.open_group(store, mode="w").create_array("mine", shape=(2,), dtype="i4")
    return tmp_path / "in"


@pytest.mark.slow
@pytest.mark.parametrize(
    "line",
    [
        ["export", "p.h5ad", "--to", "csv", "h5ad", "geojson", "ome-tiff", "spatialdata"],
        pytest.param(["report", "p.h5ad"], marks=pytest.mark.slow),
        pytest.param(["compare", "p.h5ad", "m.h5ad"], marks=pytest.mark.slow),
        pytest.param(["compare", "p.h5ad", "p2.h5ad", "--measured", "m.h5ad"], marks=pytest.mark.slow),
    ],
)
def test_the_name_in_a_file_never_chooses_the_folder(named, line):
    (named / "p2.h5ad").write_bytes((named / "p.h5ad").read_bytes())
    before = sorted(p for p in named.parent.rglob("*") if (named / "out") not in p.parents)
    assert main([*line, "--out", "out/inner", "--overwrite"]) == 0
    after = sorted(p for p in named.parent.rglob("*") if (named / "out") not in p.parents)
    assert [p for p in after if p not in before] == [named / "out"]
    written = list((named / "out" / "inner").iterdir())
    assert written
    assert [p.name for p in (named / "out").iterdir()] == ["inner"]
    assert main([*line, "--out", "out/inner", "--overwrite"]) == 0, "its own files may be replaced"
    assert sorted(p.name for p in written) == sorted(p.name for p in (named / "out" / "inner").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("wanted", FORMATS, ids=lambda known: known.name)
def test_every_format_is_known_again_and_nothing_else_is(wanted, tmp_path):
    prediction = fake_prediction(n_spots=36, n_genes=5)
    place = place_of(prediction, wanted, tmp_path)
    finish(export(prediction, [(wanted, place)]))
    assert written_here(place)
    if place.is_dir():
        (place / "notes.txt").write_text("mine")
        assert not written_here(place)
    else:
        foreign = tmp_path / f"other{wanted.suffix}"
        foreign.write_bytes(b"mine" + place.read_bytes()[4:])
        content = {".csv": b"gene,mine\n", ".geojson": b'{"type": "FeatureCollection", "features": []}'}
        foreign.write_bytes(content.get(place.suffix, place.read_bytes()[:4] + b"mine" * 2000))
        assert not written_here(foreign)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "name"),
    [
        (["export", "p.h5ad", "--to", "csv"], "fake_expression.csv"),
        (["export", "p.h5ad", "--to", "geojson"], "fake.geojson"),
        (["export", "p.h5ad", "--to", "ome-tiff"], "fake.ome.tif"),
        pytest.param(["report", "p.h5ad"], "fake_report.html", marks=pytest.mark.slow),
        pytest.param(["compare", "p.h5ad", "m.h5ad"], "fake_genes.csv", marks=pytest.mark.slow),
        (["compare", "p.h5ad", "m.h5ad"], "fake_scores.json"),
    ],
)
def test_overwrite_replaces_nothing_of_someone_else(tmp_path, monkeypatch, capsys, line, name):
    monkeypatch.chdir(tmp_path)
    prediction = fake_prediction(n_spots=49, n_genes=8)
    write_prediction(prediction, "p.h5ad")
    counts_for(prediction).write_h5ad("m.h5ad")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("my own notes\n")
    assert main([*line, "--out", "out", "--overwrite"]) == 2
    assert "was not written by napari-flag" in capsys.readouterr().err
    assert (tmp_path / "out" / name).read_text() == "my own notes\n"
    (tmp_path / "out" / name).write_text("")
    assert main([*line, "--out", "out", "--overwrite"]) == 0, "an empty file holds nothing"


def test_a_zarr_of_another_program_is_not_emptied(tmp_path):
    place = tmp_path / "fake.zarr"
    zarr.open_group(place, mode="w").create_array("mine", shape=(2,), dtype="i4")
    spatialdata = next(known for known in FORMATS if known.name == "spatialdata")
    with pytest.raises(UserError, match="no export wrote"):
        finish(export(fake_prediction(n_spots=36, n_genes=5), [(spatialdata, place)]))
    assert (place / "mine" / "zarr.json").is_file()


@pytest.mark.slow
def test_what_compare_writes_is_known_again(named):
    (named / "p2.h5ad").write_bytes((named / "p.h5ad").read_bytes())
    assert main(["compare", "p.h5ad", "p2.h5ad", "--measured", "m.h5ad", "--out", "out"]) == 0
    assert main(["compare", "p.h5ad", "m.h5ad", "--out", "out"]) == 0
    written = list((named / "out").iterdir())
    assert {p.suffix for p in written} == {".json", ".csv", ".md", ".html"}
    assert all(written_here(path) for path in written)


def test_a_link_or_a_pipe_is_no_file_of_ours(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "link.csv").symlink_to(tmp_path / "gone.csv")
    for name in ("pipe.csv", "link.csv"):
        with pytest.raises(UserError, match="not written by napari-flag"):
            refuse_foreign(tmp_path / name)
    refuse_foreign(tmp_path / "new.csv")


@pytest.mark.parametrize("kind", [".html", ".geojson", ".tif", ".tiff"])
def test_a_file_without_provenance_is_of_the_command_it_states(tmp_path, kind):
    path = tmp_path / f"a{kind}"
    assert not repeats(path, "f" * 64)
    path.write_text("it begins " + statement(kind, "f" * 64) + " and goes on" * 20_000)
    assert repeats(path, "f" * 64)
    assert not repeats(path, "e" * 64)
    path.write_text("it begins" + statement(kind, None))
    assert not repeats(path, "f" * 64)


def test_tables_and_json_of_other_programs_are_not_ours(tmp_path):
    pd.DataFrame({"spot": ["a"], "x": [1.0]}).to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "b.json").write_text(json.dumps({"made by": "napari-flag"}))
    (tmp_path / "c.md").write_text("Notes on napari-flag\n")
    assert not any(written_here(path) for path in tmp_path.iterdir())


@pytest.fixture
def exported(tmp_path, monkeypatch):
    """A prediction, and what exports it again."""
    monkeypatch.chdir(tmp_path)
    write_prediction(fake_prediction(n_spots=49, n_genes=8), "p.h5ad")

    def again(to, *options):
        return main(["export", "p.h5ad", "--to", to, "--out", "out", *options])

    return again


def with_a_note(path):
    """Have a person's program add something to what is at `path`, and save it."""
    if path.suffix == ".h5ad":
        adata = anndata.read_h5ad(path)
        adata.obs["note"] = "mine"
        adata.write_h5ad(path)
    elif path.suffix == ".zarr":
        table = zarr.open_group(path / "tables" / "table" / "obsm", mode="r+")
        table.create_array("mine", shape=(2,), dtype="i4")
    elif path.suffix == ".tif":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    else:
        path.write_text(path.read_text().replace("\n", "\n\n", 1))


@pytest.mark.parametrize(
    ("to", "name"),
    [
        ("h5ad", "fake.h5ad"), ("geojson", "fake.geojson"), ("ome-tiff", "fake.ome.tif"),
        pytest.param("spatialdata", "fake.zarr", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_what_a_person_changed_is_not_replaced(exported, tmp_path, capsys, to, name):
    place = tmp_path / "out" / name
    assert exported(to) == 0
    assert is_unchanged(place) is True
    assert exported(to) == 0, "an earlier result as it was written"
    with_a_note(place)
    assert is_unchanged(place) is False
    for options in ((), ("--overwrite",)):
        assert exported(to, *options) == 2
        assert str(place.name) in capsys.readouterr().err
    assert is_unchanged(place) is False, "it is still there"


def test_a_prediction_that_another_program_saved_again_is_changed(tmp_path):
    place = tmp_path / "p.h5ad"
    write_prediction(fake_prediction(n_spots=49, n_genes=8), place)
    anndata.read_h5ad(place).write_h5ad(place)
    assert is_unchanged(place) is False
    assert not written_here(place)
    assert keys.CONTENT_HASH not in read_prediction(place).uns[keys.PROVENANCE]
    write_prediction(read_prediction(place), tmp_path / "again.h5ad")
    assert is_unchanged(tmp_path / "again.h5ad") is True


def test_a_file_of_an_earlier_version_needs_overwrite(tmp_path):
    place = tmp_path / "p.h5ad"
    write_prediction(fake_prediction(n_spots=49, n_genes=8), place)
    with h5py.File(place, "r+") as file:
        del file["uns"][keys.PROVENANCE][keys.CONTENT_HASH]
    assert is_unchanged(place) is None
    with pytest.raises(UserError, match="does not say whether it was changed"):
        check_place(place, False, lambda: True)
    check_place(place, True)


def test_a_large_prediction_is_known_by_its_ends_and_blocks_between(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "WHOLE_BYTES", 1000)
    monkeypatch.setattr(files, "END_BYTES", 1000)
    place = tmp_path / "p.h5ad"
    write_prediction(fake_prediction(n_spots=49, n_genes=8), place)
    assert is_unchanged(place) is True
    with h5py.File(place, "r+") as file:
        file["obsm"]["mine"] = [1.0]
    assert is_unchanged(place) is False


def test_results_as_json_state_what_they_held(tmp_path):
    place = tmp_path / "a.json"
    write_json(
        {"command": "napari-flag x", keys.COMMAND_HASH: "f" * 64, "use": keys.RESEARCH_USE_ONLY}, place
    )
    assert is_unchanged(place) is True
    place.write_text(place.read_text().replace("flag x", "flag y"))
    assert is_unchanged(place) is False
    assert not written_here(place)


def test_a_table_of_values_with_a_column_of_a_person_is_not_replaced(exported, tmp_path, capsys):
    place = tmp_path / "out" / "fake_expression.csv"
    assert exported("csv") == 0
    assert exported("csv", "--overwrite") == 0
    pd.read_csv(place).assign(mine=1).to_csv(place, index=False)
    before = place.read_text()
    assert exported("csv", "--overwrite") == 2
    assert "has columns that this export would not write (mine)" in capsys.readouterr().err
    assert place.read_text() == before


def test_a_table_beside_scores_that_a_person_changed_is_not_replaced_unasked(named, capsys):
    line = ["compare", "p.h5ad", "m.h5ad", "--out", "out"]
    assert main(line) == main(line) == 0
    table = next((named / "out").glob("*_genes.csv"))
    table.write_text(table.read_text() + "mine,,,\n")
    assert main(line) == 2
    assert table.name in capsys.readouterr().err
    assert table.read_text().endswith("mine,,,\n")


def test_nothing_is_written_into_a_zarr(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    adata = fake_prediction(n_spots=49, n_genes=8)
    write_prediction(adata, "p.h5ad")
    adata.write_zarr("table")
    zarr.open_group("store.zarr", mode="w").create_group("tables")
    before = sorted(tmp_path.rglob("*"))
    for line in (
        ["report", "p.h5ad", "--out", "table"],
        ["export", "p.h5ad", "--to", "csv", "--out", "store.zarr/tables/other"],
        ["anonymise", "p.h5ad", "--out", "store.zarr/clean.h5ad"],
    ):
        assert main(line) == 2
        assert "lies inside the zarr" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
