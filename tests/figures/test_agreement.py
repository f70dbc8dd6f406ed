from dataclasses import replace

import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag.analysis.compare import section_of
from napari_flag.figures.agreement import draw_calibration, draw_moran, draw_named_moran, draw_overlaps
from napari_flag.figures.style import house_style
from napari_flag.formatting import score
from napari_flag.statistics.markers import Overlap


@pytest.fixture
def section():
    return section_of(fake_prediction())


def test_names_in_the_scatter_do_not_cover_each_other(section):
    figure = draw_named_moran(section)
    figure.canvas.draw()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert len(boxes) >= 3
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])


def test_bars_are_shares_and_lines_are_chance():
    found = [Overlap(10, 20, 2.0, ()), Overlap(5, 20, 2.0, ())]
    panel = draw_overlaps({20: found}, ["a", "b"]).axes[0]
    assert [bar.get_height() for bar in panel.patches] == [50, 25]
    assert [text.get_text() for text in panel.texts] == ["10", "5"]
    lines = panel.collections[0].get_segments()
    assert all(line[0][1] == line[1][1] == 10 for line in lines)


def test_ink_colours_all_text_and_axes(section):
    with house_style(ink="#123456"):
        panel = draw_named_moran(section).axes[0]
    assert panel.xaxis.label.get_color() == panel.title.get_color() == "#123456"
    assert panel.texts[0].get_color() == "#123456"


def test_the_moran_scatter_has_every_gene_and_the_identity(section):
    figure = draw_moran([section])
    panel = figure.axes[0]
    np.testing.assert_allclose(
        panel.collections[0].get_offsets(),
        np.stack([section.moran_truth, section.moran_sample], 1),
    )
    line = panel.lines[0]
    np.testing.assert_allclose(line.get_xdata(), line.get_ydata())
    assert f"SSC {score(section.sample_scores['SSC'], 'SSC')}" in panel.get_title(loc="left")


def test_an_honest_spread_lies_on_the_diagonal(section):
    rng = np.random.default_rng(0)
    shape = (400, 50)
    mean, spread = np.full(shape, 20.0), np.full(shape, 2.0)
    honest = replace(section, predicted=mean, spread=spread, truth=mean + spread * rng.normal(size=shape))
    curve = draw_calibration([honest]).axes[0].lines[1]
    np.testing.assert_allclose(curve.get_ydata(), curve.get_xdata(), atol=0.02)
