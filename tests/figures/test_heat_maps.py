from dataclasses import replace

import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag.analysis.coexpression import correlate
from napari_flag.analysis.compare import section_of
from napari_flag.figures.heat_maps import draw_coexpression, draw_triangles
from napari_flag.progress import finish


@pytest.fixture
def section():
    return section_of(fake_prediction())


def correlations(adata):
    return [finish(correlate(adata, adata.var_names, depth=depth)) for depth in (True, False)]


def test_the_triangles_are_prediction_below_and_truth_above():
    together, pure = correlations(fake_prediction())
    figure = draw_triangles(together, pure)
    shown = figure.axes[0].images[0].get_array()
    above, below = np.triu_indices(len(together.genes), 1), np.tril_indices(len(together.genes), -1)
    np.testing.assert_allclose(shown[above], together.measured[above])
    np.testing.assert_allclose(shown[below], together.predicted[below])
    assert np.isnan(np.diag(shown.filled(np.nan))).all()
    assert f"GSC {together.gsc:.2f}" in figure.axes[0].get_title(loc="left")


def test_without_truth_there_is_one_symmetric_square():
    figure = draw_triangles(*correlations(fake_prediction(measured=False)))
    shown = figure.axes[0].images[0].get_array().filled(0)
    np.testing.assert_allclose(shown, shown.T)


def test_truth_and_predictions_are_drawn_in_one_order(section):
    figure = draw_coexpression(replace(section, predicted=section.truth.copy()))
    truth, predicted, sample = (panel.images[0].get_array() for panel in figure.axes[:3])
    np.testing.assert_array_equal(truth, predicted)
    assert (truth != sample).any()
    assert "GSC 1.00" in figure.axes[1].get_title(loc="left")
