import csv

import numpy as np
import pytest
from qtpy.QtCore import Qt
from tests.fakes import fake_prediction
from tests.layers.overlay_texts import lines_on

from napari_flag.formatting import score
from napari_flag.gui.session import Session
from napari_flag.gui.spatial_dock import SpatialDock
from napari_flag.layers.local_map import CLASS_MEANINGS, MapKind


@pytest.fixture
def dock(viewer, qtbot):
    dock = SpatialDock(viewer)
    qtbot.addWidget(dock)
    dock.resize(320, 700)
    dock.show()
    yield dock
    qtbot.waitUntil(lambda: not any(dock.jobs.running(p) for p in ("scores", "classes")))


def fill(dock, qtbot, **how):
    dock.session.set_prediction(fake_prediction(64, n_genes=12, **how))
    qtbot.waitUntil(lambda: dock.scores is not None and not dock.jobs.running("scores"))
    return dock


@pytest.fixture
def filled(dock, qtbot):
    return fill(dock, qtbot)


def headings(dock):
    table = dock.table.table
    return [table.headerData(c, Qt.Orientation.Horizontal) for c in range(table.columnCount())]


def visible(viewer):
    return [la.name for la in viewer.layers if la.visible]


def test_without_a_prediction_the_dock_says_what_to_do(dock):
    assert "No prediction yet" in dock.scatter.message
    assert not dock.table.isEnabled()


def test_genes_are_ranked_by_moran_with_q_and_truth_beside(filled):
    assert headings(filled) == ["Gene", "I pred.", "I true", "q"]
    numbers = [float(filled.table.table.index(r, 1).data()) for r in range(12)]
    assert numbers == sorted(numbers, reverse=True)
    assert f"SSC of X {score(filled.scores.ssc, 'SSC')}" in filled.heading.text()


def test_on_predictions_alone_the_dock_says_so_and_stays_useful(dock, qtbot, viewer):
    fill(dock, qtbot, measured=False)
    assert "no measured expression" in dock.heading.text()
    assert dock.scatter.x_axis.label.startswith("mean predicted")
    place = dock.scatter.position_of("VIM").toPoint()
    qtbot.mouseClick(dock.scatter, Qt.MouseButton.LeftButton, pos=place)
    assert dock.session.gene == "VIM"
    assert headings(dock) == ["Gene", "I pred.", "q"]
    dock.table.setCurrentIndex(dock.table.table.index(4, 0))
    dock.choice.buttons[MapKind.LOCAL].click()
    assert visible(viewer) == [f"{dock.table.table.name(4)} · local Moran's I (predicted)"]


def test_a_row_and_a_point_select_the_gene_everywhere(filled, qtbot):
    filled.table.setCurrentIndex(filled.table.table.index(3, 0))
    assert filled.session.gene == filled.table.table.name(3)
    other = filled.table.table.name(7)
    qtbot.mouseClick(
        filled.scatter, Qt.MouseButton.LeftButton, pos=filled.scatter.position_of(other).toPoint()
    )
    assert filled.session.gene == other
    assert filled.table.currentIndex().row() == 7


def test_clusters_are_painted_when_they_are_computed_and_counted_in_the_legend(filled, qtbot, viewer):
    filled.choice.buttons[MapKind.CLASSES].click()
    local = filled.session.local_map
    qtbot.waitUntil(lambda: local.classes(local.key) is not None, timeout=10_000)
    classes = local.classes(local.key)
    assert {(row.name, row.spots) for row in local.legend.rows} == {
        (name, (classes == number).sum()) for number, name in enumerate(CLASS_MEANINGS)
    }
    assert np.isfinite(local.layer.data).any()
    assert visible(viewer) == [f"{filled.session.gene} · clusters (predicted)"]


def test_clusters_can_be_held_to_all_spots_together(filled, qtbot):
    filled.choice.buttons[MapKind.CLASSES].click()
    local = filled.session.local_map
    qtbot.waitUntil(lambda: local.classes(local.key) is not None, timeout=10_000)
    alone = np.count_nonzero(local.classes(local.key))
    filled.choice.significance.value = True
    together = np.count_nonzero(local.classes(local.key))
    assert together < alone
    last = local.legend.rows[-1]
    assert (last.name, last.spots) == ("not significant", 64 - together)


def test_the_next_gene_gets_its_clusters_too_and_the_gene_itself_comes_back(filled, qtbot, viewer):
    filled.choice.buttons[MapKind.CLASSES].click()
    filled.session.select_gene("VIM")
    local = filled.session.local_map
    qtbot.waitUntil(lambda: local.classes(local.key) is not None, timeout=10_000)
    assert local.key[0] == "VIM"
    filled.choice.buttons[MapKind.EXPRESSION].click()
    assert visible(viewer) == ["VIM · predicted"]
    assert lines_on(viewer) == []


def test_cancelling_the_search_for_clusters_goes_back_to_the_gene(filled, qtbot, viewer):
    filled.choice.buttons[MapKind.CLASSES].click()
    filled._walk.stop()
    filled._find_classes()
    filled.strip.stop()
    qtbot.waitUntil(lambda: not filled.jobs.running("classes"))
    qtbot.waitUntil(lambda: filled.session.local_map.kind is MapKind.EXPRESSION)
    assert visible(viewer) == [f"{filled.session.gene} · predicted"]
    assert filled.choice.buttons[MapKind.EXPRESSION].isChecked()


def test_searching_an_alias_narrows_the_table_and_enter_takes_the_first(filled, qtbot):
    qtbot.keyClicks(filled.search, "her2")
    assert filled.table.table.shown == ["ERBB2"]
    qtbot.keyClick(filled.search, Qt.Key.Key_Return)
    assert filled.session.gene == "ERBB2"
    filled.search.clear()
    assert filled.table.table.rowCount() == 12
    qtbot.keyClicks(filled.search, "PAX8")
    assert filled.found.isVisible()
    assert filled.table.table.rowCount() == 0


def test_q_can_come_from_permutations(filled, qtbot):
    filled.permutations.value = 99
    filled.permutations.native.activated.emit(1)
    qtbot.waitUntil(lambda: filled.scores.permutations == 99, timeout=10_000)
    assert filled.scores.q.min() >= 0.01


def test_cancelling_the_permutations_keeps_what_was_there(filled, qtbot):
    before = filled.scores
    filled.permutations.value = 999
    filled.permutations.native.activated.emit(2)
    assert filled.strip.isVisible()
    filled.strip.stop()
    qtbot.waitUntil(lambda: not filled.jobs.running("scores"))
    qtbot.waitUntil(lambda: filled.permutations.value == 0)
    assert filled.scores is before


def test_scores_of_another_prediction_do_not_stay_when_its_own_are_cancelled(filled, qtbot, tmp_path):
    filled.session.set_prediction(fake_prediction(64, n_genes=9, seed=5))
    assert filled.jobs.running("scores")
    filled.write(tmp_path / "moran.csv")  # those shown are of the prediction before
    assert "not computed yet" in filled.messages.texts[-1]
    filled.strip.stop()
    qtbot.waitUntil(lambda: filled.scores is None, timeout=5_000)
    assert filled.table.table.rowCount() == 0
    assert not (tmp_path / "moran.csv").exists()


def test_scatter_and_table_are_saved_and_a_failure_is_one_sentence(filled, tmp_path):
    filled.write(tmp_path / "moran.svg")
    assert "Moran" in (tmp_path / "moran.svg").read_text()
    filled.write(tmp_path / "moran.csv")
    rows = list(csv.DictReader((tmp_path / "moran.csv").open()))
    assert len(rows) == 12
    assert set(rows[0]) == {"gene", "moran_predicted", "q_predicted", "moran_measured"}
    filled.write(tmp_path / "no" / "moran.png")
    assert len(filled.messages.texts) == 1
    assert "cannot be written" in filled.messages.texts[0]


@pytest.mark.slow
def test_the_map_that_is_shown_is_saved(filled, tmp_path):
    filled.write_map(tmp_path / "gene.svg")
    assert f"{filled.session.gene}, predicted" in (tmp_path / "gene.svg").read_text()
    filled.choice.buttons[MapKind.LOCAL].click()
    filled.write_map(tmp_path / "local.svg")
    assert "local Moran" in (tmp_path / "local.svg").read_text()
    filled.write_map(tmp_path / "no" / "local.svg")
    assert "cannot be written" in filled.messages.texts[0]


def test_too_few_spots_are_said_in_the_dock(dock, qtbot):
    dock.session.set_prediction(fake_prediction(3, n_genes=4))
    qtbot.waitUntil(lambda: bool(dock.messages.texts))
    assert "spots" in dock.messages.texts[0]


def test_the_gene_set_stands_out_in_the_scatter(filled):
    filled.session.set_gene_set("two", ["VIM", "CDH1"])
    assert filled.scatter._chosen.sum() == 2


def test_two_docks_of_one_viewer_share_the_gene(filled, viewer, qtbot):
    other = SpatialDock(viewer)
    qtbot.addWidget(other)
    qtbot.waitUntil(lambda: other.scores is not None)
    other.table.setCurrentIndex(other.table.table.index(5, 0))
    assert filled.table.currentIndex().row() == 5
    assert Session.of(viewer).gene == other.table.table.name(5)


def test_closing_the_dock_paints_the_gene_itself_again(viewer, undock, qapp):
    dock = SpatialDock(viewer)
    session = dock.session
    session.set_prediction(fake_prediction(36))
    dock.choice.buttons[MapKind.LOCAL].click()
    assert visible(viewer) == [f"{session.gene} · local Moran's I (predicted)"]
    undock(dock)
    assert session.local_map.kind is MapKind.EXPRESSION
    assert visible(viewer) == [f"{session.gene} · predicted"]
