import csv
import threading
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtGui import QImage
from tests.fakes import fake_prediction

from napari_flag.formatting import score
from napari_flag.gui import coexpression_dock
from napari_flag.gui import dock as dock_module
from napari_flag.gui.area import open_area
from napari_flag.gui.coexpression_dock import BESIDE, CoexpressionDock
from napari_flag.gui.side_by_side_dock import SideBySideDock


@pytest.fixture
def dock(viewer, qtbot):
    dock = CoexpressionDock(viewer)
    qtbot.addWidget(dock)
    dock.resize(360, 640)
    dock.show()
    yield dock
    qtbot.waitUntil(lambda: not dock.jobs.running("correlate"))


def fill(dock, qtbot, genes=16, **how):
    dock.session.set_prediction(fake_prediction(64, n_genes=genes, **how))
    settle(dock, qtbot)
    return dock


def settle(dock, qtbot):
    qtbot.waitUntil(lambda: not dock.jobs.active, timeout=10_000)


@pytest.fixture
def filled(dock, qtbot):
    return fill(dock, qtbot)


def test_without_a_prediction_the_dock_says_what_to_do(dock):
    assert "No prediction yet" in dock.map.message
    assert not dock.choice.isEnabled()


def test_all_genes_of_a_small_prediction_are_shown_with_gsc(filled):
    assert set(filled.together.genes) == set(filled.session.adata.var_names)
    assert f"GSC of X (with depth, as defined) {score(filled.together.gsc, 'GSC')}" in filled.heading.text()
    assert filled.choice.box.value == "all 16 genes"


def test_the_most_variable_genes_of_a_larger_one_are_shown_first(dock, qtbot):
    fill(dock, qtbot, genes=80)
    assert dock.choice.box.value == "50 most variable genes"
    variance = dock.session.adata.X.var(axis=0)
    most = set(dock.session.adata.var_names[np.argsort(-variance)[:50]])
    assert set(dock.together.genes) == most
    assert f"{score(dock.together.gsc_all, 'GSC')} for all" in dock.heading.text()


def test_a_set_chosen_here_is_the_set_of_all_docks(filled, qtbot):
    name = "Luminal epithelium"
    filled.choice.box.value = name
    assert filled.session.gene_set_name == name
    settle(filled, qtbot)
    assert set(filled.together.genes) == set(filled.session.gene_set)
    assert {"ESR1", "KRT19", "KRT8"} <= set(filled.together.genes)


def test_a_set_chosen_elsewhere_is_shown_here(filled, qtbot):
    filled.session.set_gene_set("mine", ["VIM", "CDH1", "ERBB2"])
    settle(filled, qtbot)
    assert filled.choice.box.value == "mine"
    assert set(filled.together.genes) == {"VIM", "CDH1", "ERBB2"}


def test_a_set_with_too_few_genes_here_is_said_in_one_sentence(filled, qtbot):
    filled.session.set_gene_set("lonely", ["VIM", "NOT_HERE"])
    settle(filled, qtbot)
    assert "needs two" in filled.messages.texts[0]
    filled.write(Path("unused.csv"))
    assert "no correlations" in filled.messages.texts[0]


def test_gene_sets_of_a_file_are_offered_and_a_bad_file_is_explained(filled, qtbot, tmp_path):
    good, bad = tmp_path / "mine.gmt", tmp_path / "bad.gmt"
    good.write_text("PAIR\tnote\tVIM\tCDH1\nELSEWHERE\tnote\tX1\tX2\n")
    bad.write_text("PAIR\n")
    filled.read_sets(good)
    settle(filled, qtbot)
    assert "PAIR" in filled.choice.offered
    assert "ELSEWHERE" not in filled.choice.offered
    assert filled.messages.texts == ("1 sets of mine.gmt have two or more genes here.",)
    filled.read_sets(bad)
    settle(filled, qtbot)
    assert "bad.gmt" in filled.messages.texts[0]
    assert "PAIR" in filled.choice.offered


def test_gene_sets_read_on_another_page_are_offered(filled, qtbot, tmp_path):
    filled.session.set_gene_sets({"PAIR": ("VIM", "CDH1")}, tmp_path / "theirs.gmt")
    settle(filled, qtbot)
    assert "PAIR" in filled.choice.offered
    assert filled.messages.texts == ("1 sets of theirs.gmt have two or more genes here.",)


def test_gene_sets_are_read_and_looked_for_by_jobs_again_for_every_prediction(
    filled, qtbot, tmp_path, monkeypatch
):
    threads = []

    def watched(name, module=coexpression_dock):
        work = getattr(module, name)

        def call(*given):
            threads.append((name, threading.current_thread() is threading.main_thread()))
            return work(*given)

        monkeypatch.setattr(module, name, call)

    watched("read_gmt", dock_module)
    watched("sets_within")
    (tmp_path / "mine.gmt").write_text("PAIR\tnote\tVIM\tCDH1\nWIDE\tnote\tVIM\tG20\n")
    filled.read_sets(tmp_path / "mine.gmt")
    settle(filled, qtbot)
    filled.choice.box.value = "PAIR"
    assert "WIDE" not in filled.choice.offered
    fill(filled, qtbot, genes=40)
    assert threads == [("read_gmt", False), ("sets_within", False), ("sets_within", False)]
    assert filled.choice.box.value == "PAIR"
    assert "PAIR" in filled.choice.offered


def test_a_click_shows_both_genes_and_the_next_gene_ends_the_pair(filled, qtbot):
    place = filled.map.position_of("VIM", "CDH1").toPoint()
    qtbot.mouseClick(filled.map, Qt.MouseButton.LeftButton, pos=place)
    assert (filled.session.gene, filled.session.gene_beside) == ("VIM", "CDH1")
    filled.session.select_gene("ESR1")
    assert filled.session.gene_beside is None
    assert filled.map._marked == (filled.together.genes.index("ESR1"),) * 2


def test_on_predictions_alone_both_triangles_are_predicted_and_that_is_said(dock, qtbot):
    fill(dock, qtbot, measured=False)
    assert "both triangles show the prediction" in dock.heading.text()
    assert not dock.arrangement.enabled
    shown = dock.map._matrix
    assert np.allclose(shown, shown.T, equal_nan=True)


def test_truth_can_stand_beside_the_prediction(filled):
    assert filled.other.isHidden()
    filled.arrangement.value = BESIDE
    assert filled.other.isVisible()
    off = ~np.eye(16, dtype=bool)
    assert np.array_equal(filled.other._matrix[off], filled.together.measured[off])
    assert np.array_equal(filled.map._matrix[off], filled.together.predicted[off])


def test_map_and_table_are_saved(filled, tmp_path):
    filled.write(tmp_path / "map.png")
    one = QImage(str(tmp_path / "map.png")).width()
    filled.arrangement.value = BESIDE
    filled.write(tmp_path / "map.png")
    assert QImage(str(tmp_path / "map.png")).width() >= 1.5 * one
    filled.write(tmp_path / "map.svg")
    assert ">measured, depth removed</text>" in (tmp_path / "map.svg").read_text()
    filled.write(tmp_path / "pairs.csv")
    rows = list(csv.DictReader((tmp_path / "pairs.csv").open()))
    assert len(rows) == 16 * 15 // 2
    filled.write(tmp_path / "no" / "map.png")
    assert "cannot be written" in filled.messages.texts[0]


def test_correlations_of_another_prediction_are_not_saved_and_go_when_its_own_are_cancelled(
    filled, qtbot, tmp_path
):
    filled.session.set_prediction(fake_prediction(64, n_genes=9, seed=5))
    assert filled.jobs.running("correlate")
    filled.write(tmp_path / "pairs.csv")  # those shown are of the prediction before
    assert "no correlations to save yet" in filled.messages.texts[-1]
    filled.strip.stop()
    qtbot.waitUntil(lambda: filled.together is None, timeout=5_000)
    assert "Cancelled" in filled.map.message
    filled.write(tmp_path / "pairs.csv")
    assert not (tmp_path / "pairs.csv").exists()
    filled.with_depth.value = not filled.with_depth.value  # as the message says, it starts again
    settle(filled, qtbot)
    assert set(filled.together.genes) == set(filled.session.adata.var_names)


def test_cancelled_correlations_leave_those_shown_with_their_set_and_depth(filled, qtbot, tmp_path):
    before, name, depth = filled.together, filled.choice.box.value, filled.with_depth.value
    filled.session.set_gene_set("mine", ["VIM", "CDH1", "ERBB2"])
    filled.with_depth.value = not depth
    filled.strip.stop()
    qtbot.waitUntil(lambda: filled.choice.box.value == name, timeout=5_000)
    assert (filled.together, filled.with_depth.value) == (before, depth)
    filled.write(tmp_path / "pairs.csv")
    assert len((tmp_path / "pairs.csv").read_text().splitlines()) == 1 + 16 * 15 // 2
    filled.choice.box.value = "mine"  # the set of all docks already
    settle(filled, qtbot)
    assert set(filled.together.genes) == {"VIM", "CDH1", "ERBB2"}


@pytest.mark.slow
def test_in_a_window_a_click_opens_the_second_canvas_once(make_napari_viewer, qtbot):
    viewer = make_napari_viewer()
    dock = open_area(viewer, "Co-expression").pages["Co-expression"]
    fill(dock, qtbot)
    for second in ("CDH1", "ESR1"):
        dock.show_pair("VIM", second)
    found = viewer.window._qt_window.findChildren(SideBySideDock)
    assert len(found) == 1
    model = found[0].canvas.model
    qtbot.waitUntil(lambda: [la.name for la in model.layers if la.visible] == ["ESR1 · predicted"])
    found[0].close()


def test_partners_of_the_gene_are_listed_and_a_row_shows_the_pair(filled):
    filled.session.select_gene("VIM")
    together, table = filled.together, filled.partners.table
    assert "VIM" not in table.shown
    best = table.name(0)
    row = together.predicted[together.genes.index("VIM")].copy()
    row[together.genes.index("VIM")] = -2
    assert best == together.genes[int(row.argmax())]
    filled.partners.setCurrentIndex(table.index(0, 0))
    assert (filled.session.gene, filled.session.gene_beside) == ("VIM", best)


def test_a_gene_that_is_not_shown_has_no_partners(filled, qtbot):
    filled.session.set_gene_set("mine", ["VIM", "CDH1", "ERBB2"])
    settle(filled, qtbot)
    filled.session.select_gene("ESR1")
    assert filled.partners.isHidden()
    filled.session.select_gene("CDH1")
    assert filled.partners.isVisible()


def test_depth_is_removed_from_what_is_shown_unless_asked_for_and_gsc_always_has_it(filled, qtbot):
    before = filled.together
    assert not before.depth
    assert filled.heading.text().startswith("Depth removed · GSC of X (with depth, as defined)")
    filled.with_depth.value = True
    settle(filled, qtbot)
    assert filled.together.depth
    assert filled.together.predicted.mean() > before.predicted.mean()
    assert filled.together.gsc == pytest.approx(before.gsc)
    assert filled.together.gsc_all == pytest.approx(before.gsc_all)
    assert filled.heading.text().startswith("With depth · GSC of X (with depth, as defined)")


def test_colours_end_where_the_data_does_and_the_table_says_whether_depth_is_in(filled, tmp_path):
    assert filled.map._limit == filled.together.limit < 1
    filled.write(tmp_path / "pairs.csv")
    assert {row["depth"] for row in csv.DictReader((tmp_path / "pairs.csv").open())} == {"removed"}
