import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QMouseEvent
from qtpy.QtWidgets import QApplication

from napari_flag.gui.controls.heat_map import HeatMap

NAMES = ("ERBB2", "VIM", "CD3E")


@pytest.fixture
def heat_map(qtbot):
    plot = HeatMap()
    qtbot.addWidget(plot)
    plot.resize(400, 360)
    matrix = np.array([[np.nan, 1.0, 0.0], [-1.0, np.nan, 0.5], [0.25, -0.5, np.nan]])
    plot.set_matrix(matrix, NAMES, "predicted", "measured")
    plot.show()
    return plot


def colour(plot, first, second):
    return QColor(plot.grab().toImage().pixel(plot.position_of(first, second).toPoint()))


def test_red_is_together_blue_is_apart_and_white_is_neither(heat_map):
    together, apart = colour(heat_map, "ERBB2", "VIM"), colour(heat_map, "VIM", "ERBB2")
    neither, itself = colour(heat_map, "ERBB2", "CD3E"), colour(heat_map, "VIM", "VIM")
    assert together.red() > together.blue() + 40
    assert apart.blue() > apart.red() + 40
    assert min(neither.red(), neither.green(), neither.blue()) > 235
    assert itself.red() == itself.blue() == 153


def test_a_click_chooses_the_pair_of_row_and_column(heat_map, qtbot):
    with qtbot.waitSignal(heat_map.pairClicked) as emitted:
        place = heat_map.position_of("CD3E", "VIM").toPoint()
        qtbot.mouseClick(heat_map, Qt.MouseButton.LeftButton, pos=place)
    assert emitted.args == ["CD3E", "VIM"]
    with qtbot.assertNotEmitted(heat_map.pairClicked):
        qtbot.mouseClick(heat_map, Qt.MouseButton.LeftButton, pos=QPoint(2, 2))


def test_pointing_at_a_cell_tells_pair_number_and_what_it_is_of(heat_map):
    emitted = []
    heat_map.pairHovered.connect(emitted.append)
    none = Qt.MouseButton.NoButton
    for first, second in (("CD3E", "VIM"), ("VIM", "CD3E"), ("VIM", "VIM")):
        where = QPointF(heat_map.position_of(first, second))
        event = QMouseEvent(QEvent.Type.MouseMove, where, where, none, none, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(heat_map, event)
    assert emitted == ["CD3E and VIM: −0.50 predicted", "VIM and CD3E: 0.50 measured", "VIM"]


def test_marking_a_pair_changes_the_picture(heat_map):
    plain = heat_map.grab().toImage()
    heat_map.mark("ERBB2", "VIM")
    assert heat_map.grab().toImage() != plain
    heat_map.mark("UNKNOWN")
    assert heat_map.grab().toImage() == plain


@pytest.mark.parametrize("genes", [2, 200, 600])
def test_any_number_of_genes_fits_and_every_cell_can_be_hit(qtbot, genes):
    plot = HeatMap()
    qtbot.addWidget(plot)
    plot.resize(300, 300)
    names = [f"G{i}" for i in range(genes)]
    plot.set_matrix(np.zeros((genes, genes)), names)
    assert plot.pair_at(plot.position_of(names[-1], names[0])) == (names[-1], names[0])
    frame = plot.frame()
    assert frame.left() >= 0
    assert frame.bottom() <= 300
    assert frame.right() <= 300


def test_a_heat_map_is_saved(heat_map, tmp_path):
    heat_map.save(tmp_path / "map.svg")
    text = (tmp_path / "map.svg").read_text()
    assert ">ERBB2</text>" in text
    assert ">measured</text>" in text
    heat_map.save(tmp_path / "map.png", QSize(400, 400))
    assert QImage(str(tmp_path / "map.png")).width() == 1200


def test_colours_end_at_the_limit_given(heat_map):
    heat_map.set_matrix(np.full((3, 3), 0.2), NAMES, "predicted", "measured", limit=0.2)
    whole = colour(heat_map, "ERBB2", "VIM")
    heat_map.set_matrix(np.full((3, 3), 0.9), NAMES, "predicted", "measured", limit=0.2)
    assert colour(heat_map, "ERBB2", "VIM") == whole
    heat_map.set_matrix(np.full((3, 3), 0.2), NAMES, "predicted", "measured")
    assert colour(heat_map, "ERBB2", "VIM") != whole


def test_the_bar_states_where_its_colours_end_and_has_room_for_it(heat_map, tmp_path):
    heat_map.set_matrix(np.full((3, 3), 0.2), NAMES, limit=0.42)
    heat_map.save(tmp_path / "map.svg")
    text = (tmp_path / "map.svg").read_text()
    assert ">≥ 0.42</text>" in text
    assert ">≤ −0.42</text>" in text
    needed = heat_map.fontMetrics().horizontalAdvance("≤ −0.42")
    assert heat_map.frame().right() + 23 + needed <= heat_map.width()
