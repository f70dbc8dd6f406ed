from dataclasses import replace

import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.analysis.compare import section_of
from napari_flag.figures.agreement import draw_calibration, draw_moran
from napari_flag.figures.heat_maps import draw_coexpression


@pytest.fixture
def section():
    return section_of(fake_prediction())


def test_the_moran_scatter_has_every_gene_and_the_identity(section):
    figure = draw_moran([section])
    panel = figure.axes[0]
    np.testing.assert_allclose(
        panel.collections[0].get_offsets(),
        np.stack([section.moran_truth, section.moran_predicted], 1),
    )
    line = panel.lines[0]
    np.testing.assert_allclose(line.get_xdata(), line.get_ydata())
    assert f"SSC {section.scores['SSC']:.2f}" in panel.get_title(loc="left")


def test_truth_and_predictions_are_drawn_in_one_order(section):
    figure = draw_coexpression(replace(section, predicted=section.truth.copy()))
    truth, predicted, sample = (panel.images[0].get_array() for panel in figure.axes[:3])
    np.testing.assert_array_equal(truth, predicted)
    assert (truth != sample).any()
    assert "GSC 1.00" in figure.axes[1].get_title(loc="left")


def test_an_honest_spread_lies_on_the_diagonal(section):
    rng = np.random.default_rng(0)
    shape = (400, 50)
    mean, spread = np.full(shape, 20.0), np.full(shape, 2.0)
    honest = replace(section, predicted=mean, spread=spread, truth=mean + spread * rng.normal(size=shape))
    curve = draw_calibration([honest]).axes[0].lines[1]
    np.testing.assert_allclose(curve.get_ydata(), curve.get_xdata(), atol=0.02)


def test_spots_that_were_not_measured_are_left_out():
    adata = fake_prediction()
    adata.layers[keys.MEASURED][:5] = np.nan
    assert section_of(adata).truth.shape == (59, 10)
