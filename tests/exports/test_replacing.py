"""What an export, a report or a comparison wrote is its own; nothing else is, whatever it is called."""

import json
import os

import pandas as pd
import pytest
import zarr
from tests.fakes import counts_for, fake_prediction

from napari_flag import keys
from napari_flag.cli import main
from napari_flag.errors import UserError
from napari_flag.exports.formats import FORMATS, export, place_of
from napari_flag.exports.replacing import refuse_foreign, repeats, statement, written_here
from napari_flag.prediction_file import write_prediction
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
