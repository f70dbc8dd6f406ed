"""In a dock of 365 × 700 px every word can be read, in napari's dark and in its light theme."""

import pytest
from napari.components import ViewerModel
from napari.qt import get_stylesheet
from qtpy.QtWidgets import (
    QAbstractButton,
    QComboBox,
    QHeaderView,
    QLabel,
    QStyle,
    QStyleOptionComboBox,
    QTableView,
)
from tests.fakes import add_draws, fake_prediction

from napari_flag.gui.coexpression_dock import BESIDE, CoexpressionDock
from napari_flag.gui.compare_dock import CompareDock
from napari_flag.gui.genes_dock import FIXED, GenesDock
from napari_flag.gui.samples_dock import SamplesDock

SIZE = (365, 700)
DOCKS = (CompareDock, SamplesDock, CoexpressionDock, GenesDock)


def cut_off(widget):
    """Name everything in `widget` whose text has less room than it needs."""
    found = []
    for box in widget.findChildren(QComboBox):
        option = QStyleOptionComboBox()
        box.initStyleOption(option)
        part = QStyle.SubControl.SC_ComboBoxEditField
        room = box.style().subControlRect(QStyle.ComplexControl.CC_ComboBox, option, part).width()
        if box.isVisible() and box.fontMetrics().horizontalAdvance(box.currentText()) > room:
            found.append(box.currentText())
    for button in widget.findChildren(QAbstractButton):
        needed = button.fontMetrics().horizontalAdvance(button.text())
        if button.isVisible() and button.text() and button.width() < needed:
            found.append(button.text())
    for label in widget.findChildren(QLabel):
        if not label.isVisible() or not label.text():
            continue
        low = label.wordWrap() and label.height() < label.heightForWidth(label.width())
        if low or (not label.wordWrap() and label.width() < label.sizeHint().width()):
            found.append(label.text())
    for table in widget.findChildren(QTableView):
        header: QHeaderView = table.horizontalHeader()
        for column in range(header.count() if table.isVisible() else 0):
            if header.sectionSize(column) < header.fontMetrics().horizontalAdvance(
                str(table.model().headerData(column, header.orientation()))
            ):
                found.append(f"heading {column}")
    return found


@pytest.fixture(params=["dark", "light"])
def show(request, qtbot):
    viewer = ViewerModel()

    def open_one(kind, draws=1):
        dock = kind(viewer)
        qtbot.addWidget(dock)
        dock.setStyleSheet(get_stylesheet(request.param))
        dock.resize(*SIZE)
        dock.show()
        dock.session.set_prediction(add_draws(fake_prediction(144, n_genes=60), draws))
        dock.session.select_gene("ERBB2")
        qtbot.wait(50)  # what a dock computes starts in a turn of its own
        qtbot.waitUntil(lambda: not dock.jobs.active, timeout=30_000)
        qtbot.wait(50)
        assert (dock.width(), dock.height()) == SIZE
        return dock

    return open_one


@pytest.mark.parametrize("kind", DOCKS)
def test_nothing_is_cut_off_in_a_narrow_dock(show, kind):
    assert cut_off(show(kind)) == []


def test_nothing_is_cut_off_with_every_choice_made(show, qtbot):
    genes = show(GenesDock)
    genes.range.value = FIXED
    genes.session.show_genes(["ERBB2", "ESR1"])
    both = show(CoexpressionDock)
    both.arrangement.value = BESIDE
    qtbot.wait(50)
    assert cut_off(genes) == cut_off(both) == []


def test_nothing_is_cut_off_where_draws_have_proper_scores(show, qtbot):
    scores, samples = show(CompareDock, draws=8), show(SamplesDock, draws=8)
    scores.values.value = "draws"
    qtbot.waitUntil(lambda: scores.numbers["VS-space"].isVisible() and bool(samples.proper.text()))
    qtbot.wait(50)
    assert cut_off(scores) == cut_off(samples) == []


def test_the_words_of_a_heat_map_lie_within_it(show):
    dock = show(CoexpressionDock)
    dock.arrangement.value = BESIDE
    frame, metrics = dock.map.frame(), dock.map.fontMetrics()
    assert metrics.horizontalAdvance("measured, depth removed") <= frame.right()
