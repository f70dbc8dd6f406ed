import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, QSize, Qt
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPalette
from qtpy.QtWidgets import QApplication

from napari_flag.errors import UserError
from napari_flag.gui.controls.plots import Axis, Histogram, ScatterPlot, axis_over, bin_edges, ticks

NAMES = ("A", "B", "C", "D")
X, Y = np.array([0.1, 0.2, 0.5, np.nan]), np.array([0.2, 0.1, 0.6, 0.3])


@pytest.fixture
def scatter(qtbot):
    plot = ScatterPlot()
    qtbot.addWidget(plot)
    plot.resize(300, 240)
    plot.set_points(X, Y, NAMES, "measured", "predicted", identity=True)
    plot.show()
    return plot


def move(plot, place):
    """Move the mouse without the display's own cursor, which other windows may hold."""
    where, none = QPointF(place), Qt.MouseButton.NoButton
    event = QMouseEvent(QEvent.Type.MouseMove, where, where, none, none, Qt.KeyboardModifier.NoModifier)
    QApplication.sendEvent(plot, event)


def pixels(plot):
    image = plot.grab().toImage().convertToFormat(QImage.Format.Format_RGB32)
    memory = image.constBits()
    memory.setsize(image.sizeInBytes())
    return np.frombuffer(memory, np.uint8).reshape(image.height(), image.width(), 4)[..., :3].copy()


def test_hovering_names_the_point_and_a_click_chooses_it(scatter, qtbot):
    clicked = []
    scatter.nameClicked.connect(clicked.append)
    place = scatter.position_of("B").toPoint()
    plain = pixels(scatter)
    move(scatter, place)
    assert scatter.cursor().shape() == Qt.CursorShape.PointingHandCursor
    assert (pixels(scatter) != plain).any()
    qtbot.mouseClick(scatter, Qt.MouseButton.LeftButton, pos=place + QPoint(2, -2))
    assert clicked == ["B"]
    qtbot.mouseClick(scatter, Qt.MouseButton.LeftButton, pos=QPoint(60, 20))
    assert clicked == ["B"]


def test_a_point_without_a_number_is_left_out_and_both_axes_are_alike(scatter):
    with pytest.raises(KeyError):
        scatter.position_of("D")
    assert (scatter.x_axis.low, scatter.x_axis.high) == (scatter.y_axis.low, scatter.y_axis.high)


def test_marking_and_choosing_change_the_picture_and_an_unknown_name_does_not(scatter):
    plain = pixels(scatter)
    scatter.mark("C")
    marked = pixels(scatter)
    assert (marked != plain).any()
    scatter.mark("nothing of the kind")
    assert (pixels(scatter) == plain).all()
    scatter.choose(["A"])
    assert (pixels(scatter) != plain).any()


def test_a_sentence_stands_where_there_is_nothing_to_show(scatter):
    scatter.show_message("There is no measured expression.")
    assert scatter.name_at(scatter.frame().center()) == ""
    assert scatter.accessibleDescription() == "There is no measured expression."


def test_another_theme_is_drawn_in_its_own_colours(scatter):
    seen = []
    for ground in ("#ffffff", "#262930"):
        palette = QPalette()
        palette.setColor(QPalette.ColorRole.Window, QColor(ground))
        scatter.setPalette(palette)
        seen.append(pixels(scatter).astype(int).mean())
    assert seen[0] > 200 > 90 > seen[1]


@pytest.mark.parametrize("kind", [".png", ".svg"])
def test_a_plot_is_saved_on_white(scatter, tmp_path, kind):
    path = scatter.save(tmp_path / f"plot{kind}", QSize(320, 240))
    if kind == ".svg":
        text = path.read_text()
        assert "<svg" in text
        assert ">predicted</text>" in text
    else:
        image = QImage(str(path))
        assert (image.width(), image.height()) == (960, 720)
        assert image.pixelColor(0, 0) == QColor("white")


def test_a_figure_of_another_format_or_place_is_refused_in_one_sentence(scatter, tmp_path):
    for path in (tmp_path / "plot.pdf", tmp_path / "no" / "plot.png", tmp_path / "no" / "plot.svg"):
        with pytest.raises(UserError, match="figure"):
            scatter.save(path)


def test_a_histogram_counts_all_genes_and_marks_the_one_selected(qtbot):
    plot = Histogram()
    qtbot.addWidget(plot)
    plot.resize(300, 200)
    values = np.random.default_rng(0).normal(size=200)
    plot.set_values(values, [f"G{i}" for i in range(200)], "PCC")
    plot.show()
    assert plot.y_axis.high >= plot._counts.max()
    assert plot._counts.sum() == 200
    plain = pixels(plot)
    plot.mark("G7")
    assert (pixels(plot) != plain).any()


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.13, 0.72), (0, 4321), (2.001, 2.004), (-5e-7, 3e-7)])
def test_ticks_are_few_inside_and_evenly_spaced(low, high):
    marks = [value for value, _ in ticks(low, high, 5)]
    assert 2 <= len(marks) <= 6
    assert low - 1e-12 <= marks[0]
    assert marks[-1] <= high + 1e-12
    assert np.allclose(np.diff(marks), np.diff(marks)[0])


def test_ticks_are_written_as_what_they_are():
    for value, text in (*ticks(-0.1, 0.4), *ticks(0, 0.5, 2), *ticks(0, 30_000)):
        assert float(text.replace(",", "").replace("−", "-")) == pytest.approx(value)
    assert ("−0.1") in [text for _, text in ticks(-0.1, 0.4)]


def test_an_axis_has_room_for_all_values_and_knows_their_place():
    axis = axis_over(np.array([1.0, np.nan, 3.0]))
    assert axis.low < 1 < 3 < axis.high
    assert Axis(0, 4).fraction([0, 1, 4]).tolist() == [0, 0.25, 1]


@pytest.mark.parametrize("values", [np.full(4, 2.0), np.array([np.nan]), np.array([])])
def test_an_axis_over_nothing_or_one_value_still_has_a_length(values):
    axis = axis_over(values)
    assert axis.high > axis.low
    assert len(bin_edges(values)) >= 2


def test_bins_hold_every_value_once():
    values = np.random.default_rng(0).normal(size=500)
    counts, _ = np.histogram(values, bin_edges(values))
    assert counts.sum() == 500
    assert len(counts) <= 31
