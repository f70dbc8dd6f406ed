import json
import re

import h5py
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.cli import main
from napari_flag.prediction_file import output_name, read_prediction, write_prediction


@pytest.fixture
def earlier(tmp_path, monkeypatch):
    """A prediction of a version that recorded folders, of a patient's slide, in the current folder."""
    monkeypatch.chdir(tmp_path)
    adata = fake_prediction(16)
    adata.uns[keys.PROVENANCE] |= {
        keys.SLIDE_NAME: "Smith_John",
        keys.COMMAND: "napari-flag predict /home/jdoe/Smith_John.svs --seed 0",
        keys.NOTICES: ["/home/jdoe/Smith_John.svs has no µm/px."],
    }
    adata.uns[keys.SPATIAL] = {"Smith_John": adata.uns[keys.SPATIAL]["fake"]}
    write_prediction(adata, tmp_path / "Smith_John_predicted.h5ad")
    return adata


LINE = ["anonymise", "Smith_John_predicted.h5ad"]


def test_a_prediction_is_written_anew_without_names_and_folders(earlier, tmp_path, capsys):
    assert main(LINE) == 0
    [written] = tmp_path.glob("anonymous-*.h5ad")
    assert re.fullmatch(r"anonymous-[0-9a-f]{8}_predicted\.h5ad", written.name)
    assert capsys.readouterr().out.startswith(f"Wrote {written.name}: the slide is called anonymous-")
    for secret in (b"Smith", b"jdoe"):
        assert secret not in written.read_bytes()
    clean = read_prediction(written)
    assert (clean.X == earlier.X).all()
    assert clean.uns[keys.PROVENANCE][keys.COMMAND].startswith("napari-flag predict anonymous-")
    assert output_name(read_prediction(tmp_path / LINE[1])) == "Smith_John"


def test_a_hash_that_is_none_chooses_no_path(earlier, tmp_path, capsys):
    folder = tmp_path / "sub"
    folder.mkdir()
    with h5py.File(tmp_path / LINE[1], "r+") as file:
        file[f"uns/{keys.PROVENANCE}"].create_dataset(keys.SLIDE_HASH, data="/../../x")
    assert main(["anonymise", str(tmp_path / LINE[1]), "--out", str(folder / "x.h5ad")]) == 2
    assert 'has /../../x as "slide_sha256", which should be 64 hexadecimal digits' in capsys.readouterr().err
    assert not [*folder.iterdir()]


def test_what_others_wrote_into_it_is_named(earlier, tmp_path, capsys):
    earlier.obs["pathologist"] = "jdoe"
    earlier.uns["leiden"] = {"by": "jdoe"}
    write_prediction(earlier, tmp_path / LINE[1])
    assert main([*LINE, "--out", "clean.h5ad"]) == 0
    said = capsys.readouterr()
    assert 'Note: uns["leiden"] were left out, since napari-flag does not write them so.' in said.err
    assert 'Note: obs["pathologist"] were written by others and are as they were' in said.err
    assert "Note" not in said.out
    assert main([*LINE, "--out", "clean.h5ad", "--overwrite", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["left_out"], said["as_they_were"]) == (['uns["leiden"]'], ['obs["pathologist"]'])


def test_json_names_what_was_written_into_a_folder_that_was_missing(earlier, tmp_path, capsys):
    assert main([*LINE, "--out", "new/clean.h5ad", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["written"] == ["new/clean.h5ad"]
    assert said["slide"].startswith("anonymous-")
    assert (tmp_path / "new" / "clean.h5ad").is_file()


def test_nothing_is_replaced_without_being_asked(earlier, tmp_path, capsys):
    assert main([*LINE, "--out", LINE[1], "--overwrite"]) == 2
    assert "is the prediction itself" in capsys.readouterr().err
    assert main([*LINE, "--out", "clean.h5ad"]) == 0
    assert main([*LINE, "--out", "clean.h5ad"]) == 2
    said = capsys.readouterr().err
    assert said == (
        "clean.h5ad already exists; choose another place, or add --overwrite (in Python overwrite=True) to "
        "replace it.\n"
    )
    assert main([*LINE, "--out", "clean.h5ad", "--overwrite"]) == 0


@pytest.mark.parametrize(
    "name", ["Smith_John_report.html", "Smith_John_expression.csv", "Smith_John.geojson"]
)
def test_what_was_made_from_a_prediction_is_refused_with_what_to_do(tmp_path, capsys, name):
    (tmp_path / name).write_text("Smith")
    assert main(["anonymise", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert "anonymise the prediction (.h5ad), and export or report that again." in said
