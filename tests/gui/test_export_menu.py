import json

import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QFileDialog, QMessageBox
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.exports.formats import FORMATS, find_format
from napari_flag.gui import export_menu
from napari_flag.gui.controls.file_filters import file_filter
from napari_flag.gui.session import Session
from napari_flag.prediction_file import output_name, provenance, read_prediction, write_prediction
from napari_flag.progress import Step

pytestmark = pytest.mark.usefixtures("qapp")


@pytest.fixture
def viewer():
    viewer = ViewerModel()
    Session.of(viewer).set_prediction(fake_prediction(16))
    return viewer


def choosing(monkeypatch, path, name):
    wanted = find_format(name)
    answer = str(path), file_filter(wanted.summary, wanted.suffix)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: answer)


def test_a_chosen_format_is_written_in_the_background_and_said(viewer, tmp_path, monkeypatch, qtbot):
    said = []
    monkeypatch.setattr("napari.utils.notifications.show_info", said.append)
    choosing(monkeypatch, tmp_path / "mine", "geojson")
    with qtbot.waitSignal(export_menu.export_prediction(viewer).ended):
        pass
    features = json.loads((tmp_path / "mine.geojson").read_text())["features"]
    assert [feature["properties"]["objectType"] for feature in features].count("detection") == 16
    assert said == [f"Saved {tmp_path / 'mine.geojson'}."]


def test_a_chosen_name_that_ends_in_upper_case_stays_as_it_is(viewer, tmp_path, monkeypatch, qtbot):
    choosing(monkeypatch, tmp_path / "MINE.H5AD", "h5ad")
    with qtbot.waitSignal(export_menu.export_prediction(viewer).ended):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["MINE.H5AD"]


def test_with_a_gene_set_only_its_genes_may_be_saved(viewer, tmp_path, monkeypatch, qtbot):
    Session.of(viewer).set_gene_set("Two", ["ESR1", "ERBB2", "UNKNOWN"])
    monkeypatch.setattr(QMessageBox, "exec", lambda box: None)
    monkeypatch.setattr(QMessageBox, "clickedButton", lambda box: box.buttons()[1])
    choosing(monkeypatch, tmp_path / "two.h5ad", "h5ad")
    with qtbot.waitSignal(export_menu.export_prediction(viewer).ended):
        pass
    assert list(read_prediction(tmp_path / "two.h5ad").var_names) == ["ESR1", "ERBB2"]


def test_what_goes_wrong_is_one_sentence(viewer, tmp_path, monkeypatch, qtbot):
    said = []
    monkeypatch.setattr("napari.utils.notifications.show_error", said.append)
    (tmp_path / "file").touch()
    choosing(monkeypatch, tmp_path / "file" / "x.csv", "csv")
    assert export_menu.export_prediction(viewer) is None
    assert said == [f"{tmp_path / 'file'} is a file, so no folder can be made in it; choose another place."]


def test_the_file_of_the_prediction_that_is_shown_and_those_of_others_are_not_replaced(
    viewer, tmp_path, monkeypatch
):
    said, mine, other = [], tmp_path / "mine.h5ad", tmp_path / "other.csv"
    monkeypatch.setattr("napari.utils.notifications.show_error", said.append)
    session = Session.of(viewer)
    write_prediction(session.adata, mine)
    session.workspace.saved(session.adata, mine)
    other.write_text("a,b\n")
    before = {path: path.read_bytes() for path in (mine, other)}
    for path, to in ((mine, "h5ad"), (other, "csv")):
        choosing(monkeypatch, path, to)
        assert export_menu.export_prediction(viewer) is None
    assert said[0] == f"{mine} is the prediction itself; choose another place."
    assert "other.csv was not written by napari-flag" in said[1]
    assert {path: path.read_bytes() for path in before} == before


def test_a_prediction_whose_file_was_deleted_is_exported_to_its_place(viewer, tmp_path, monkeypatch, qtbot):
    session = Session.of(viewer)
    session.workspace.saved(session.adata, tmp_path / "gone.h5ad")
    (tmp_path / "fake.h5ad").touch()
    choosing(monkeypatch, tmp_path / "fake.h5ad", "h5ad")
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    with qtbot.waitSignal(export_menu.export_prediction(viewer).ended):
        pass
    assert read_prediction(tmp_path / "fake.h5ad").n_obs == 16


@pytest.mark.parametrize("answer", [QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No])
def test_a_file_that_the_dialog_did_not_ask_about_is_replaced_only_where_a_person_says_so(
    viewer, tmp_path, monkeypatch, qtbot, answer
):
    asked = []
    monkeypatch.setattr(QMessageBox, "question", lambda *said: asked.append(said[-1]) or answer)
    there = tmp_path / "fake_expression.csv"
    there.write_text("spot,x_px,y_px,\n")
    choosing(monkeypatch, there, "csv")  # asked about by the dialog itself
    with qtbot.waitSignal(export_menu.export_prediction(viewer).ended):
        pass
    assert asked == []
    choosing(monkeypatch, tmp_path / "fake.h5ad", "csv")  # the name that was offered, another format
    job = export_menu.export_prediction(viewer)
    assert asked == [f"{there.name} is there already, in {tmp_path}. Replace it?"]
    assert (job is not None) is (answer is QMessageBox.StandardButton.Yes)
    if job is not None:
        with qtbot.waitSignal(job.ended):
            pass


@pytest.mark.parametrize(
    ("error", "words"),
    [(MemoryError(), "ran out of memory"), (KeyError("spots"), "Something went wrong inside napari-flag")],
)
def test_what_no_sentence_was_written_for_is_one_too(viewer, tmp_path, monkeypatch, qtbot, error, words):
    def failing(*_, **__):
        yield Step("Writing", 0)
        raise error

    said = []
    monkeypatch.setattr("napari.utils.notifications.show_error", said.append)
    monkeypatch.setattr(export_menu, "export", failing)
    choosing(monkeypatch, tmp_path / "x.csv", "csv")
    with qtbot.waitSignal(export_menu.export_prediction(viewer).ended):
        pass
    assert words in said[0]


def test_without_prediction_or_place_nothing_is_started(viewer, monkeypatch):
    said = []
    monkeypatch.setattr("napari.utils.notifications.show_error", said.append)
    assert export_menu.export_prediction(ViewerModel()) is None
    assert said == [export_menu.NOTHING]
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: ("", ""))
    assert export_menu.export_prediction(viewer) is None


@pytest.mark.parametrize(("answer", "kept"), [(0, False), (1, True), (2, None)])
def test_a_name_that_may_be_a_patients_is_asked_about(viewer, tmp_path, monkeypatch, qtbot, answer, kept):
    Session.of(viewer).adata.uns["napari_flag"]["slide_name"] = "Smith_John"
    monkeypatch.setattr(QMessageBox, "exec", lambda box: None)
    monkeypatch.setattr(QMessageBox, "clickedButton", lambda box: box.buttons()[answer])
    choosing(monkeypatch, tmp_path / "mine.h5ad", "h5ad")
    job = export_menu.export_prediction(viewer)
    if kept is None:
        assert job is None
        return
    with qtbot.waitSignal(job.ended):
        pass
    assert (output_name(read_prediction(tmp_path / "mine.h5ad")) == "Smith_John") is kept
    assert output_name(Session.of(viewer).adata) == "Smith_John"  # the person's own window


@pytest.mark.parametrize("answer", [QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.Cancel])
def test_spots_that_look_misplaced_are_exported_only_where_a_person_insists(
    tmp_path, monkeypatch, qtbot, answer
):
    viewer, adata = ViewerModel(), fake_prediction(16)
    adata.obsm[keys.SPATIAL][:] = 500.0
    Session.of(viewer).set_prediction(adata)
    monkeypatch.setattr(QMessageBox, "exec", lambda box: answer)
    choosing(monkeypatch, tmp_path / "a.h5ad", "h5ad")
    job = export_menu.export_prediction(viewer)
    if answer == QMessageBox.StandardButton.Cancel:
        assert job is None
        return
    with qtbot.waitSignal(job.ended):
        pass
    written = provenance(read_prediction(tmp_path / "a.h5ad"))
    assert any("look wrong" in notice for notice in written[keys.NOTICES])


def test_every_format_can_be_distinguished_from_the_others_by_its_filter():
    assert len({f"{known.summary} (*{known.suffix})" for known in FORMATS}) == len(FORMATS)


@pytest.mark.parametrize("loaded", [True, False])
def test_scores_are_of_the_gene_sets_that_were_loaded(viewer, tmp_path, monkeypatch, qtbot, loaded):
    session = Session.of(viewer)
    genes = tuple(str(gene) for gene in session.adata.var_names[:3])
    if loaded:
        session.set_gene_sets({"OWN": genes}, tmp_path / "own.gmt")
    choosing(monkeypatch, tmp_path / "scored.h5ad", "h5ad")
    with qtbot.waitSignal(export_menu.export_prediction(viewer).ended):
        pass
    scores = read_prediction(tmp_path / "scored.h5ad").obsm[keys.GENE_SETS]
    assert (list(scores.columns) == ["OWN"]) is loaded
