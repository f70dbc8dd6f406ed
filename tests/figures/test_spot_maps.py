import io

import matplotlib
import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.figures.spot_maps import draw_gene_maps, draw_labels, draw_overview


def test_prediction_and_truth_of_a_gene_share_their_colours():
    adata = fake_prediction()
    adata.layers[keys.MEASURED][0, 0] = np.nan
    adata.X[:, 0] = 2.0  # flat
    figure = draw_gene_maps(adata, ["ERBB2", "ESR1"])
    predicted, _, measured, _ = figure.axes
    assert len(np.unique(predicted.collections[0].get_facecolor(), axis=0)) == 1
    assert len(np.unique(measured.collections[0].get_facecolor(), axis=0)) > 30
    assert len(measured.collections[0].get_offsets()) == 63, "what was not measured is not drawn"


def test_a_layer_in_which_no_spot_was_measured_is_not_drawn():
    adata = fake_prediction()
    adata.layers[keys.MEASURED][:] = np.nan
    assert [panel.get_ylabel() for panel in draw_gene_maps(adata, ["ERBB2"]).axes] == ["predicted"]


def test_spots_without_a_label_are_not_drawn_and_labels_keep_their_colours():
    adata = fake_prediction(9)
    labels = np.array([0, 1, 2, 0, 1, 2, 0, 1, -1])
    spots = draw_labels(adata, {"domains": labels}, ["red", "green", "blue"]).axes[0].collections[0]
    assert len(spots.get_offsets()) == 8
    np.testing.assert_array_equal(spots.get_facecolor()[0], spots.get_facecolor()[3])
    np.testing.assert_array_equal(spots.get_facecolor()[0], (1, 0, 0, 1))


def test_the_overview_shows_what_is_known():
    adata = fake_prediction()
    assert [panel.get_title(loc="left") for panel in draw_overview(adata).axes] == ["H&E and spots"]
    adata.obs[keys.DISTANCE] = np.float32(0.5)
    assert "distance" in draw_overview(adata).axes[1].get_title(loc="left")
    del adata.obs[keys.DISTANCE], adata.uns[keys.SPATIAL]
    assert draw_overview(adata) is None


def test_a_picture_of_fractions_is_shown_as_one_of_whole_numbers():
    adata = fake_prediction()
    [library] = adata.uns[keys.SPATIAL].values()
    shown = []
    for picture in (np.full((8, 8, 3), 0.8), np.full((8, 8, 3), 204, np.int64)):
        library["images"]["hires"] = picture
        shown.append(draw_overview(adata).axes[0].images[0].get_array())
    np.testing.assert_array_equal(*shown)
    assert shown[0].dtype == np.uint8
    assert (shown[0] == 204).all()


@pytest.mark.parametrize("gene", [r"$\frac{a$", "A$B$C"])
def test_a_dollar_in_a_name_is_drawn_as_it_is(gene):
    prediction = fake_prediction()
    prediction.var_names = [gene, *prediction.var_names[1:]]
    figure = draw_gene_maps(prediction, [gene])
    for panel in figure.axes:
        panel.set_ylabel(gene)
    place = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(place, format="svg")
    assert gene in place.getvalue()
