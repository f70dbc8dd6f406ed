from dataclasses import replace

import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag.analysis.coexpression import correlate
from napari_flag.analysis.compare import section_of
from napari_flag.figures.heat_maps import draw_coexpression, draw_triangles
from napari_flag.formatting import score
from napari_flag.progress import finish


@pytest.fixture
def section():
    return section_of(fake_prediction())


def correlations(adata, **how):
    return finish(correlate(adata, adata.var_names, **how))


def test_the_triangles_are_prediction_below_and_truth_above():
    together = correlations(fake_prediction())
    figure = draw_triangles(together)
    shown = figure.axes[0].images[0].get_array()
    above, below = np.triu_indices(len(together.genes), 1), np.tril_indices(len(together.genes), -1)
    np.testing.assert_allclose(shown[above], together.measured[above])
    np.testing.assert_allclose(shown[below], together.predicted[below])
    assert np.isnan(np.diag(shown.filled(np.nan))).all()


@pytest.mark.parametrize(("depth", "word"), [(False, "depth removed"), (True, "with depth")])
def test_the_title_says_whether_depth_is_shown_and_that_gsc_has_it(depth, word):
    together = correlations(fake_prediction(), depth=depth)
    title = draw_triangles(together).axes[0].get_title(loc="left")
    assert title == f"{word} · GSC of X (with depth, as defined) {score(together.gsc, 'GSC')}"


def test_colours_reach_equally_far_to_both_sides_and_the_bar_says_how_far():
    together = correlations(fake_prediction())
    figure = draw_triangles(together)
    assert figure.axes[0].images[0].get_clim() == (-together.limit, together.limit)
    assert f"±{together.limit:.2f}" in figure.axes[1].get_ylabel()


def test_without_truth_there_is_one_symmetric_square():
    figure = draw_triangles(correlations(fake_prediction(measured=False)))
    shown = figure.axes[0].images[0].get_array().filled(0)
    np.testing.assert_allclose(shown, shown.T)


def test_truth_and_predictions_are_drawn_in_one_order(section):
    figure = draw_coexpression(replace(section, predicted=section.truth.copy()))
    truth, predicted, sample = (panel.images[0].get_array() for panel in figure.axes[:3])
    np.testing.assert_array_equal(truth, predicted)
    assert (truth != sample).any()
    assert figure.axes[0].get_ylabel().endswith("depth removed")
    assert "GSC 1.000" in figure.axes[4].get_title(loc="left")
