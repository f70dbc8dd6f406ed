import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.analysis.coexpression import correlate
from napari_flag.analysis.compare import section_of
from napari_flag.figures.agreement import draw_named_moran, draw_overlaps
from napari_flag.figures.heat_maps import draw_triangles
from napari_flag.figures.spot_maps import draw_gene_maps, draw_labels, draw_overview
from napari_flag.figures.style import house_style
from napari_flag.progress import finish
from napari_flag.statistics.markers import Overlap


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


def test_prediction_and_truth_of_a_gene_share_their_colours():
    adata = fake_prediction()
    adata.layers[keys.MEASURED][0, 0] = np.nan
    adata.X[:, 0] = 2.0  # flat
    figure = draw_gene_maps(adata, ["ERBB2", "ESR1"])
    predicted, _, measured, _ = figure.axes
    assert len(np.unique(predicted.collections[0].get_facecolor(), axis=0)) == 1
    assert len(np.unique(measured.collections[0].get_facecolor(), axis=0)) > 30
    assert len(measured.collections[0].get_offsets()) == 63, "what was not measured is not drawn"


def test_spots_without_a_label_are_not_drawn_and_labels_keep_their_colours():
    adata = fake_prediction(9)
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, -1])
    spots = draw_labels(adata, {"domains": labels}, ["red", "green", "blue"]).axes[0].collections[0]
    assert len(spots.get_offsets()) == 8
    np.testing.assert_array_equal(spots.get_facecolor()[0], spots.get_facecolor()[3])
    np.testing.assert_array_equal(spots.get_facecolor()[0], (1, 0, 0, 1))


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


def test_the_overview_shows_what_is_known():
    adata = fake_prediction()
    assert [panel.get_title(loc="left") for panel in draw_overview(adata).axes] == ["H&E and spots"]
    adata.obs[keys.DISTANCE] = np.float32(0.5)
    assert "distance" in draw_overview(adata).axes[1].get_title(loc="left")
    del adata.obs[keys.DISTANCE], adata.uns[keys.SPATIAL]
    assert draw_overview(adata) is None


def test_ink_colours_all_text_and_axes(section):
    with house_style(ink="#123456"):
        panel = draw_named_moran(section).axes[0]
    assert panel.xaxis.label.get_color() == panel.title.get_color() == "#123456"
    assert panel.texts[0].get_color() == "#123456"
