import numpy as np
import pytest
from qtpy.QtCore import Qt

from napari_flag.formatting import probability, whole
from napari_flag.gui.controls.tables import Column, NumberView, score_column

COLUMNS = (Column("pcc", "PCC", "Correlation"), Column("q", "q", "False discovery rate", probability))
NUMBERS = {"pcc": np.array([0.2, np.nan, 0.9, -0.001]), "q": np.array([0.5, 0.004, 2e-7, 0.05])}


@pytest.fixture
def view(qtbot):
    view = NumberView("Gene")
    qtbot.addWidget(view)
    view.table.set_rows(["b", "A", "d", "c"], NUMBERS, COLUMNS)
    return view


def texts(view, column):
    return [view.table.index(row, column).data() for row in range(view.table.rowCount())]


def test_rows_are_sorted_by_the_first_number_and_what_is_unknown_comes_last(view):
    assert texts(view, 0) == ["d", "b", "c", "A"]
    assert texts(view, 1) == ["0.90", "0.20", "0.00", "–"]
    view.table.sort(1, Qt.SortOrder.AscendingOrder)
    assert texts(view, 0) == ["c", "b", "d", "A"]


def test_names_stay_readable_however_narrow_the_dock_is(view):
    view.show()
    view.resize(600, 200)
    assert view.columnWidth(0) > 400
    view.resize(120, 200)
    assert view.columnWidth(0) >= view.fontMetrics().horizontalAdvance("SCGB2A2")


def test_names_are_sorted_whatever_their_case(view):
    view.table.sort(0, Qt.SortOrder.AscendingOrder)
    assert view.table.shown == ["A", "b", "c", "d"]


def test_small_probabilities_stay_readable(view):
    assert texts(view, 2) == ["2e-07", "0.50", "0.05", "0.004"]
    assert whole(1204.0) == "1,204"


def test_a_column_of_a_score_has_the_decimals_of_that_score(qtbot):
    view = NumberView("Draw")
    qtbot.addWidget(view)
    columns = (score_column("SSC", "Alike in space"), score_column("CRPS", "Of a value", key="CRPS_fair"))
    view.table.set_rows(["1"], {"SSC": [0.5436], "CRPS_fair": [0.51336]}, columns)
    assert (texts(view, 1), texts(view, 2)) == (["0.544"], ["0.5134"])
    assert [column.heading for column in columns] == ["SSC", "CRPS"]


def test_choosing_a_row_tells_its_name_and_marking_does_not(view, qtbot):
    with qtbot.waitSignal(view.chosen) as emitted:
        view.setCurrentIndex(view.table.index(1, 0))
    assert emitted.args == ["b"]
    with qtbot.assertNotEmitted(view.chosen):
        view.mark("c")
    assert view.currentIndex().row() == 2
    view.mark("unknown")
    assert not view.currentIndex().isValid()


def test_the_chosen_order_is_kept_when_the_numbers_change(view):
    view.table.sort(2, Qt.SortOrder.AscendingOrder)
    view.table.set_rows(["x", "y"], {"pcc": np.zeros(2), "q": np.array([0.9, 0.1])}, COLUMNS)
    assert view.table.shown == ["y", "x"]
    assert view.horizontalHeader().sortIndicatorSection() == 2


def test_a_choice_of_rows_keeps_the_order_of_the_column_and_all_come_back(view):
    everything = view.table.shown
    view.table.limit(["d", "A", "unknown"])
    assert view.table.shown == [name for name in everything if name in "dA"]
    view.table.limit(None)
    assert view.table.shown == everything


def test_the_chosen_row_stays_in_sight_when_the_table_shrinks(qtbot):
    view = NumberView()
    qtbot.addWidget(view)
    names = [f"G{i}" for i in range(100)]
    view.table.set_rows(names, {"pcc": np.arange(100.0), "q": np.zeros(100)}, COLUMNS)
    view.resize(200, 600)
    view.show()
    view.mark("G80")
    view.resize(200, 120)
    row = view.table.index(view.table.row("G80"), 0)
    qtbot.waitUntil(lambda: view.viewport().rect().contains(view.visualRect(row)))


def test_a_row_marked_without_scrolling_leaves_the_first_rows_in_sight_in_another_size_too(view, qtbot):
    rows = [f"g{i:03}" for i in range(100)]
    view.table.set_rows(rows, {"pcc": -np.arange(100.0), "q": np.zeros(100)}, COLUMNS)
    view.show()
    view.mark("g090", scroll=False)
    view.resize(200, 120)
    qtbot.wait(20)
    assert view.rowAt(0) == 0
    assert view.table.name(view.currentIndex().row()) == "g090"
    view.mark("g091")
    view.resize(200, 140)
    qtbot.wait(20)
    assert view.rowAt(0) > 50
