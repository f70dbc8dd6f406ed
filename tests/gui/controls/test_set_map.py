import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QColor

from napari_flag.analysis.set_maps import SetMap
from napari_flag.analysis.truth import MEASURED, PREDICTED
from napari_flag.gui.controls.set_map import SetMapView


@pytest.fixture
def view(qtbot):
    plot = SetMapView()
    qtbot.addWidget(plot)
    plot.resize(420, 320)
    values = np.array([[1.0, -1.0], [0.0, 0.5], [-1.0, np.nan]])
    plot.set_map(
        SetMap(
            "Mine", ("ERBB2", "VIM", "CD3E"), 7, ("domain 1", "fat"), {PREDICTED: values, MEASURED: values}
        )
    )
    plot.show()
    return plot


def middle(view, source, row, column):
    frame = view.panels()[source]
    return QPoint(
        int(frame.left() + (column + 0.5) * frame.width() / 2),
        int(frame.top() + (row + 0.5) * frame.height() / 3),
    )


def colour(view, source, row, column):
    return QColor(view.grab().toImage().pixel(middle(view, source, row, column)))


@pytest.mark.parametrize("source", [PREDICTED, MEASURED])
def test_red_is_above_the_section_blue_below_and_grey_was_not_measured(view, source):
    high, low = colour(view, source, 0, 0), colour(view, source, 0, 1)
    same, unknown = colour(view, source, 1, 0), colour(view, source, 2, 1)
    assert high.red() > high.blue() + 40
    assert low.blue() > low.red() + 40
    assert min(same.red(), same.green(), same.blue()) > 235
    assert unknown.red() == unknown.green() == unknown.blue() == 153


def test_a_click_chooses_the_gene_of_its_row(view, qtbot):
    with qtbot.waitSignal(view.geneClicked) as emitted:
        qtbot.mouseClick(view, Qt.MouseButton.LeftButton, pos=middle(view, MEASURED, 1, 0))
    assert emitted.args == ["VIM"]


def test_the_cell_under_the_mouse_is_named_with_its_number(view, qtbot):
    with qtbot.waitSignal(view.cellHovered) as emitted:
        qtbot.mouseMove(view, middle(view, PREDICTED, 0, 1))
    assert emitted.args == ["ERBB2 in fat, predicted: −1.00"]
    assert "not measured" in view._describe(middle(view, MEASURED, 2, 1).toPointF())


def test_the_row_of_the_selected_gene_is_framed(view):
    before = view.grab().toImage()
    view.mark("VIM")
    assert view.grab().toImage() != before
    view.mark("not here")
    assert view.grab().toImage() == before
