import re
import threading
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QMessageBox
from tests.fakes import add_draws, counts_for, fake_prediction

from napari_flag import keys
from napari_flag.analysis import truth
from napari_flag.analysis.models import comparing_models
from napari_flag.analysis.pathways import bundled, describe_sets, recover_in_truth
from napari_flag.analysis.truth import truth_of
from napari_flag.errors import Doubtful
from napari_flag.formatting import interval, score
from napari_flag.gui import compare_dock
from napari_flag.gui.compare_dock import CompareDock
from napari_flag.layers import ahead
from napari_flag.layers.gene_values import Quantity
from napari_flag.layers.local_map import neighbours_of
from napari_flag.prediction_file import output_name, provenance
from napari_flag.progress import Step, finish
from napari_flag.report import report_place, reporting


def with_counts(seed=0, **options):
    adata = fake_prediction(64, n_genes=8, **options)
    counts = np.rint(np.exp2(adata.X)) + np.random.default_rng(seed).poisson(2, adata.shape)
    adata.layers[keys.MEASURED] = np.log2(counts + 1.0).astype(np.float32)
    return adata


@pytest.fixture
def dock(viewer, qtbot):
    dock = CompareDock(viewer)
    qtbot.addWidget(dock)
    dock.show()
    return dock


@pytest.fixture
def filled(dock, qtbot):
    dock.session.set_prediction(with_counts())
    qtbot.waitUntil(lambda: dock.agreement is not None, timeout=10_000)
    return dock


def test_without_a_prediction_it_says_what_to_do(dock):
    assert "No prediction yet" in dock.heading.text()
    assert not dock.report.isEnabled()


def test_what_judges_the_expectation_is_bold_and_has_intervals(filled):
    scores = filled.agreement.comparison.scores["X"]
    for name in ("PCC", "MSE", "cPCC"):
        assert f"<b>{score(scores.values[name], name)}</b>" in filled.numbers[name].text()
        low, high = scores.intervals[name]
        assert filled.intervals[name].text() == interval((low, high), name, "no interval")
    for name in ("GSC", "SSC", "amplitude"):
        assert filled.numbers[name].text() == f"{name} {score(scores.values[name], name)}"
    assert filled.numbers["CRPS"].isHidden()


def test_scores_of_one_draw_are_a_choice_away(filled):
    filled.values.value = "sample"
    scores = filled.agreement.comparison.scores["sample"]
    assert f"{score(scores.values['MSE'], 'MSE')}" in filled.numbers["MSE"].text()
    row = filled.table.table.row("VIM")
    expected = filled.agreement.tables["sample"].set_index("gene").pcc["VIM"]
    assert filled.table.table.index(row, 1).data() == score(expected, "PCC")


def test_scores_of_all_draws_have_proper_scores_where_there_are_eight(filled, qtbot):
    filled.values.value = "draws"
    assert any("need 8 joint draws" in text for text in filled.messages.texts)
    assert filled.numbers["CRPS"].isHidden()
    before = filled.agreement
    filled.session.set_prediction(add_draws(with_counts(), 9))
    qtbot.waitUntil(lambda: filled.agreement is not before, timeout=10_000)
    draws = filled.agreement.comparison.draws
    assert not any("need 8 joint draws" in text for text in filled.messages.texts)
    for name, value in draws.proper.items():
        assert f"<b>{score(value, name)}</b>" in filled.numbers[name].text()
        low, high = draws.intervals[name]
        assert filled.intervals[name].text() == interval((low, high), name, "no interval")
    for name in ("GSC", "SSC", "amplitude"):
        assert f"<b>{score(draws.values[name], name)}</b>" in filled.numbers[name].text()


def test_genes_are_listed_best_first_and_a_click_shows_one_everywhere(filled, viewer):
    pcc = filled.agreement.tables["X"].set_index("gene").pcc
    assert filled.table.table.shown == list(pcc.sort_values(ascending=False).index)
    filled.table.setCurrentIndex(filled.table.table.index(3, 0))
    assert filled.session.gene == filled.table.table.name(3)
    assert viewer.layers[-1].name.startswith(filled.session.gene)


def test_gene_sets_are_recovered_on_request_and_said_with_their_chance_level(dock, qtbot):
    adata = with_counts()
    adata.var_names = [*bundled()["Proliferation"][:6], "A", "B"]
    dock.session.set_prediction(adata)
    qtbot.waitUntil(lambda: dock.agreement is not None, timeout=10_000)
    assert dock.recovered.isHidden()
    dock.sets.click()
    qtbot.waitUntil(lambda: bool(dock.recovered.text()), timeout=10_000)
    expected = finish(recover_in_truth(dock.session.adata, bundled()))
    assert dock.recovered.text() == expected.described()
    assert dock.recovered.toolTip() == describe_sets(expected.whole)
    before = dock.agreement
    dock.session.set_prediction(with_counts(1))
    qtbot.waitUntil(lambda: dock.agreement is not before, timeout=10_000)
    assert dock.recovered.isHidden(), "the sets of the prediction before"


def test_gene_sets_of_a_file_are_looked_for_here_in_all_predictions_and_in_the_report(dock, qtbot, tmp_path):
    adata = with_counts()
    genes = [str(gene) for gene in adata.var_names]
    (tmp_path / "own.gmt").write_text("\t".join(["OWN", "", *genes[:6]]))
    own = {"OWN": tuple(genes[:6])}
    for each in (adata, with_counts(1)):
        dock.session.set_prediction(each)
    qtbot.waitUntil(lambda: dock.all.isEnabled(), timeout=10_000)
    dock.sets.click()
    qtbot.waitUntil(lambda: bool(dock.recovered.text()), timeout=10_000)
    assert "none was tested" in dock.recovered.text()
    dock.compare_all()
    qtbot.waitUntil(lambda: not dock.models.isHidden(), timeout=10_000)
    dock.read_sets(tmp_path / "own.gmt")
    qtbot.waitUntil(lambda: dock.session.gene_sets == own, timeout=10_000)
    assert dock.recovered.isHidden(), "of other sets"
    assert dock.models.isHidden(), "with other sets"
    assert dock.sets.toolTip().endswith("own.gmt: 1")
    dock.sets.click()
    qtbot.waitUntil(lambda: bool(dock.recovered.text()), timeout=10_000)
    expected = finish(recover_in_truth(dock.session.adata, own))
    assert dock.recovered.text() == expected.described()
    assert expected.whole.tested
    dock.compare_all()
    qtbot.waitUntil(lambda: not dock.models.isHidden(), timeout=10_000)
    dock.write_report(tmp_path)
    assert expected.described() in reported(dock, tmp_path, qtbot).read_text("utf-8")


def test_no_gene_sets_are_offered_without_a_truth(dock, qtbot):
    assert not dock.sets.isEnabled()
    dock.session.set_prediction(fake_prediction(36, n_genes=6, measured=False))
    qtbot.waitUntil(lambda: dock.agreement is not None, timeout=10_000)
    assert not dock.sets.isEnabled()


def test_all_predictions_of_a_slide_are_scored_in_one_table_and_a_row_shows_its_prediction(dock, qtbot):
    first, second = with_counts(), add_draws(with_counts(), 16)
    second.X = second.X + np.random.default_rng(1).normal(0, 1, second.shape).astype(np.float32)
    dock.session.set_prediction(first)
    qtbot.waitUntil(lambda: dock.agreement is not None, timeout=10_000)
    assert dock.all.isHidden(), "there is one prediction"
    dock.session.set_prediction(second)
    qtbot.waitUntil(lambda: dock.all.isEnabled(), timeout=10_000)
    dock.all.click()
    qtbot.waitUntil(lambda: not dock.models.isHidden(), timeout=10_000)
    names = [result.name for result in dock.session.state.results]
    predictions = dict(zip(names, (first, second), strict=True))
    expected = finish(comparing_models(predictions, finish(truth_of(first)))).table().set_index("model")
    table = dock.models.table
    assert set(table.shown) == set(expected.index)
    for name in names:
        assert table.index(table.row(name), 1).data() == score(expected.PCC[name], "PCC")
    titles = [table.headerData(k, Qt.Orientation.Horizontal) for k in range(table.columnCount())]
    crps = table.index(table.row(names[1]), titles.index("fair CRPS")).data()
    assert crps == score(expected.CRPS_fair[names[1]], "CRPS")
    assert any("predict with --draws 16" in text for text in dock.messages.texts), "of the first, one draw"
    before = dock.agreement
    dock.models.setCurrentIndex(table.index(table.row(names[0]), 0))
    assert dock.session.adata is first
    qtbot.waitUntil(lambda: dock.agreement is not before, timeout=10_000)
    assert not dock.models.isHidden(), "it is of both predictions"
    dock.models.setCurrentIndex(table.index(table.row("control: neighbours"), 0))
    assert dock.session.adata is first
    dock.session.set_prediction(with_counts(2))
    assert dock.models.isHidden(), "a third is not in the table"


def test_a_gene_chosen_elsewhere_is_marked(filled):
    filled.session.select_gene("VIM")
    assert filled.table.table.name(filled.table.currentIndex().row()) == "VIM"


def test_each_small_map_shows_its_quantity_large(filled, viewer):
    for quantity in (Quantity.MEASURED, Quantity.DIFFERENCE, Quantity.SPREAD, Quantity.PREDICTED):
        filled.maps.buttons[quantity].click()
        [shown] = [layer.name for layer in viewer.layers if layer.visible]
        assert shown == f"{filled.session.gene} · {quantity.value}"
        assert [q for q, b in filled.maps.buttons.items() if b.isChecked()] == [quantity]


def test_a_prediction_alone_is_described(dock, qtbot):
    dock.session.set_prediction(fake_prediction(36, n_genes=6, measured=False))
    qtbot.waitUntil(lambda: dock.agreement is not None, timeout=10_000)
    assert dock.scores.isHidden()
    assert "choose the counts" in dock.messages.texts[0]
    assert dock.table.table.rowCount() == 6
    assert not dock.maps.buttons[Quantity.DIFFERENCE].isEnabled()
    assert dock.maps.buttons[Quantity.SPREAD].isEnabled()


def test_counts_of_another_slide_are_refused_in_a_sentence(dock, qtbot, tmp_path):
    dock.session.set_prediction(fake_prediction(36, n_genes=6, measured=False))
    other = AnnData(np.ones((4, 6), np.float32))
    other.obs_names, other.var_names = list("abcd"), dock.session.adata.var_names
    other.write_h5ad(tmp_path / "other.h5ad")
    qtbot.waitUntil(lambda: dock.agreement is not None, timeout=10_000)
    dock.read_counts(tmp_path / "other.h5ad")
    qtbot.waitUntil(lambda: any("another slide" in text for text in dock.messages.texts), timeout=10_000)
    assert keys.MEASURED not in dock.session.adata.layers


def test_counts_with_other_genes_are_compared_and_what_is_missing_is_said(dock, qtbot, tmp_path):
    dock.session.set_prediction(fake_prediction(36, n_genes=6, measured=False))
    adata = dock.session.adata
    counts = AnnData(np.random.default_rng(0).poisson(20, (36, 5)).astype(np.float32))
    counts.obs_names, counts.var_names = adata.obs_names, adata.var_names[:5]
    counts.write_h5ad(tmp_path / "counts.h5ad")
    dock.read_counts(tmp_path / "counts.h5ad")
    qtbot.waitUntil(lambda: bool(dock.agreement and dock.agreement.comparison), timeout=10_000)
    assert dock.agreement.comparison.genes == 5
    assert any("1 of 6 predicted genes were not measured" in text for text in dock.messages.texts)


@pytest.fixture
def slow(monkeypatch):
    """Comparing ends only with the test."""
    released = threading.Event()

    def agree(adata, measured, *, force):
        while not released.wait(0.05):
            yield Step("Scoring", 0, None)

    monkeypatch.setattr(compare_dock, "agree", agree)
    yield
    released.set()


def cancel(dock, qtbot):
    qtbot.waitUntil(dock.strip.isVisible, timeout=2_000)
    dock.strip.cancel.click()
    qtbot.waitUntil(dock.strip.isHidden, timeout=1_000)
    assert "cancelled" in dock.messages.texts[-1]


def test_cancel_frees_the_dock_and_keeps_the_scores_of_the_same_prediction(filled, qtbot, slow):
    before = filled.agreement
    filled.session.drawsChanged.emit()
    cancel(filled, qtbot)
    assert filled.agreement is before
    assert not filled.scores.isHidden()


def test_scores_of_another_prediction_do_not_stay_when_its_comparison_is_cancelled(filled, qtbot, slow):
    filled.session.set_prediction(with_counts(seed=1))
    cancel(filled, qtbot)
    assert filled.agreement is None
    assert filled.scores.isHidden()
    assert filled.table.table.rowCount() == 0


def reported(dock, folder, qtbot):
    """Return the place of the report of what is shown, once the report is written and said."""
    page = report_place(folder, output_name(dock.session.adata))
    qtbot.waitUntil(lambda: f"Wrote {page}" in dock.messages.texts, timeout=60_000)
    return page


def test_the_report_has_the_scores_of_prediction_and_counts(filled, qtbot, tmp_path):
    filled.write_report(tmp_path)
    page = reported(filled, tmp_path, qtbot).read_text("utf-8")
    values = filled.agreement.comparison.scores["X"].values
    assert "64 spots, 8 genes" in page
    assert f"{score(values['PCC'], 'PCC')}" in page


def test_without_draws_x_alone_is_scored_whatever_was_chosen_before(filled, qtbot):
    filled.values.value = "sample"
    alone = with_counts(seed=3)
    del alone.layers[keys.SAMPLE], alone.layers[keys.SPREAD]
    before = filled.agreement
    filled.session.set_prediction(alone)
    qtbot.waitUntil(lambda: filled.agreement is not before, timeout=10_000)
    scores = filled.agreement.comparison.scores["X"]
    assert filled.numbers["PCC"].text() == f"PCC <b>{score(scores.values['PCC'], 'PCC')}</b>"
    assert not filled.values.native.isEnabled()
    assert set(filled.agreement.tables) == {"X"}


def reading(monkeypatch, counts, released=None):
    """Have "Counts…" read these counts, once `released` is set."""

    def counts_for(adata, path, *, beside, slide):
        while released is not None and not released.wait(0.02):
            yield Step("Reading", 0, None)
        return counts, ()
        yield

    monkeypatch.setattr(compare_dock, "counts_for", counts_for)


def test_counts_that_are_still_read_go_to_the_prediction_they_were_chosen_for(filled, qtbot, monkeypatch):
    """Sections of one array name their spots alike, so that the counts of one would fit the other."""
    released, first = threading.Event(), filled.session.result
    chosen = counts_for(first.adata, seed=4)
    reading(monkeypatch, chosen, released)
    filled.read_counts(Path("chosen.h5ad"))
    other = with_counts(seed=1)
    other.uns[keys.PROVENANCE][keys.SLIDE_NAME] = "other"
    filled.session.set_prediction(other)
    before = other.layers[keys.MEASURED].copy()
    released.set()
    qtbot.waitUntil(lambda: first.measured is not None, timeout=10_000)
    assert filled.session.adata is other
    np.testing.assert_array_equal(other.layers[keys.MEASURED], before)
    np.testing.assert_allclose(first.adata.layers[keys.MEASURED], np.log2(chosen.X.toarray() + 1), rtol=1e-6)


@pytest.fixture
def in_window(monkeypatch):
    """Names of what of spots × genes was done in the window's thread."""
    done = []

    def watched(name):
        work = getattr(truth, name)

        def call(*given, **options):
            if threading.current_thread() is threading.main_thread():
                done.append(name)
            return work(*given, **options)

        monkeypatch.setattr(truth, name, call)

    for name in ("shared_counts", "extent_of", "measured_extent"):
        watched(name)
    return done


def test_counts_are_attached_by_a_job_and_the_window_only_takes_their_layer(
    filled, qtbot, monkeypatch, in_window
):
    result, agreement = filled.session.result, filled.agreement
    reading(monkeypatch, counts_for(result.adata, seed=4))
    filled.read_counts(Path("chosen.h5ad"))
    qtbot.waitUntil(lambda: result.measured is not None, timeout=10_000)
    qtbot.waitUntil(lambda: filled.agreement is not agreement, timeout=10_000)
    neighbours_of(result.adata, Quantity.MEASURED)  # of the map, made by the job too
    assert in_window == []


def test_the_truth_of_a_table_and_of_a_report_is_counted_by_their_jobs(dock, qtbot, tmp_path, in_window):
    opened = [with_counts(seed) for seed in (0, 1)]
    for adata in opened:
        finish(ahead.prepare(adata))  # as the jobs that open and predict do
    in_window.clear()
    for adata in opened:
        dock.session.set_prediction(adata)
    qtbot.waitUntil(lambda: dock.all.isEnabled(), timeout=10_000)
    dock.compare_all()
    qtbot.waitUntil(lambda: not dock.models.isHidden(), timeout=10_000)
    dock.write_report(tmp_path)
    assert "Predicted and measured" in reported(dock, tmp_path, qtbot).read_text("utf-8")
    assert in_window == []


def test_counts_that_look_scaled_are_compared_once_a_person_insists_and_said(filled, qtbot, monkeypatch):
    assert filled.anyway.isHidden()
    adata = filled.session.adata
    before, agreement = adata.layers[keys.MEASURED].copy(), filled.agreement
    scaled = counts_for(adata)
    scaled.X = scaled.X * 10
    reading(monkeypatch, scaled)
    filled.read_counts(Path("scaled.h5ad"))
    qtbot.waitUntil(lambda: not filled.anyway.isHidden(), timeout=10_000)
    assert any("were scaled" in text and "Compare anyway" in text for text in filled.messages.texts)
    np.testing.assert_array_equal(adata.layers[keys.MEASURED], before)
    filled.anyway.click()
    qtbot.waitUntil(lambda: filled.agreement is not agreement, timeout=10_000)
    assert filled.agreement.comparison is not None
    assert any("as was insisted on" in text for text in filled.messages.texts)
    assert not filled.anyway.isHidden()
    assert filled.anyway.isChecked()
    assert any("as was insisted on" in notice for notice in provenance(adata)[keys.NOTICES])
    filled.session.set_measured(counts_for(filled.session.adata))  # others are looked at anew
    assert not filled.anyway.isChecked()
    qtbot.waitUntil(
        lambda: not any("insisted" in text for text in filled.messages.texts) and not filled.jobs.active,
        timeout=10_000,
    )
    assert filled.anyway.isHidden()


def test_the_report_of_insisted_counts_has_their_scores(filled, tmp_path):
    scaled = counts_for(filled.session.adata)
    scaled.X = scaled.X * 10
    counts = truth_of(filled.session.adata, scaled, refused=False)
    page = finish(reporting(filled.session.adata, counts, tmp_path, force=True))
    assert "as was insisted on" in page.read_text("utf-8")


def test_a_prediction_whose_spots_are_mixed_up_is_compared_and_reported_once_it_is_insisted(
    dock, qtbot, tmp_path
):
    adata = fake_prediction()
    adata.obsm["spatial"] = np.random.default_rng(0).permutation(adata.obsm["spatial"])
    dock.session.set_prediction(adata)
    qtbot.waitUntil(lambda: dock.agreement is not None, timeout=10_000)
    assert dock.agreement.comparison is None
    assert "look wrong" in dock.agreement.why_not
    assert not dock.anyway.isHidden()
    with pytest.raises(Doubtful, match="insist: “Compare anyway” of the Compare page"):
        finish(reporting(adata, truth_of(adata, None, refused=True), tmp_path))
    dock.anyway.setChecked(True)
    qtbot.waitUntil(lambda: dock.agreement.comparison is not None and not dock.jobs.active, timeout=10_000)
    assert any("look wrong" in text for text in dock.messages.texts)


def test_a_report_is_not_named_after_a_patient_unless_a_person_keeps_the_name(filled, qtbot, tmp_path):
    filled.session.adata.uns[keys.PROVENANCE][keys.SLIDE_NAME] = "Smith_John"
    filled.write_report(tmp_path)
    qtbot.waitUntil(lambda: any(tmp_path.iterdir()) and not filled.jobs.active, timeout=60_000)
    (page,) = tmp_path.iterdir()
    assert page.name.startswith("anonymous-")
    assert "Smith" not in page.read_text("utf-8")
    assert any(page.name.removesuffix("_report.html") in text for text in filled.messages.texts)
    filled.write_report(tmp_path, keep_names=True)
    assert reported(filled, tmp_path, qtbot).name == "Smith_John_report.html"


@pytest.mark.parametrize("answer", [QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.No])
def test_a_report_that_is_there_is_replaced_only_where_a_person_says_so(
    filled, qtbot, monkeypatch, tmp_path, answer
):
    asked, earlier = [], "<!-- of another prediction of the slide -->"
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: str(tmp_path))
    monkeypatch.setattr(QMessageBox, "question", lambda *said: asked.append(said[-1]) or answer)
    filled.report.click()
    page = reported(filled, tmp_path, qtbot)
    assert asked == []
    of_no_digest = re.sub(f'<meta name="{keys.CONTENT_HASH}"[^>]*>', "", page.read_text("utf-8"))
    page.write_text(of_no_digest + earlier, "utf-8")  # as an earlier version wrote it
    filled.report.click()
    qtbot.waitUntil(lambda: not filled.jobs.active, timeout=60_000)
    assert asked == [f"{page.name} is there already, in {tmp_path}. Replace it?"]
    assert page.read_text("utf-8").endswith(earlier) == (answer is QMessageBox.StandardButton.No)
