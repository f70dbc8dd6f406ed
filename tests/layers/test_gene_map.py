import numpy as np
import pytest
from napari.components import ViewerModel
from tests.fakes import MPP, fake_prediction

from napari_flag import keys
from napari_flag.layers.gene_map import DIVERGING, OVERLAY, GeneMap
from napari_flag.layers.gene_values import Contrast, Quantity


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def gene_map(viewer):
    gene_map = GeneMap(viewer)
    gene_map.set_prediction(fake_prediction(25))
    gene_map.show(["ERBB2"])
    return gene_map


def world_of(gene_map, spot):
    return gene_map.values.adata.obsm[keys.SPATIAL][spot][::-1] * MPP


def test_switching_genes_repaints_one_layer(gene_map, viewer):
    before = viewer.layers[0].data
    gene_map.show(["ESR1"])
    assert [layer.name for layer in viewer.layers] == ["ESR1 · predicted"]
    assert not np.array_equal(viewer.layers[0].data, before, equal_nan=True)


def test_all_quantities_are_painted_in_one_layer(gene_map, viewer):
    before = list(viewer.layers)
    for quantity in Quantity:
        gene_map.set_quantity(quantity)
        assert [la.name for la in viewer.layers if la.visible] == [f"ERBB2 · {quantity.value}"]
        painted = viewer.layers[0].data
        values = gene_map.values.values("ERBB2", quantity)
        np.testing.assert_array_equal(painted, gene_map.raster.paint(values))
    assert list(viewer.layers) == before
    assert {str(la.units[0]) for la in viewer.layers} == {"micrometer"}


def test_a_hidden_layer_is_painted_when_the_user_turns_it_on(gene_map, viewer):
    gene_map.cover(True)
    gene_map.show(["ESR1"])
    hidden = gene_map.layer(Quantity.PREDICTED)
    assert hidden.name == "ERBB2 · predicted"
    hidden.visible = True
    assert hidden.name == "ESR1 · predicted"


def test_limits_dragged_on_the_prediction_carry_over_to_the_measurement_until_the_next_gene(gene_map):
    gene_map.layer(Quantity.PREDICTED).contrast_limits = (1.0, 2.0)
    gene_map.set_quantity(Quantity.SPREAD)
    assert list(gene_map.layer(Quantity.SPREAD).contrast_limits) != [1.0, 2.0]
    gene_map.set_quantity(Quantity.MEASURED)
    assert list(gene_map.layer(Quantity.MEASURED).contrast_limits) == [1.0, 2.0]
    gene_map.show(["ESR1"])
    assert list(gene_map.layer(Quantity.MEASURED).contrast_limits) != [1.0, 2.0]


def test_a_difference_is_drawn_diverging_whatever_map_is_chosen(gene_map):
    gene_map.set_colormap("magma")
    gene_map.set_quantity(Quantity.DIFFERENCE)
    assert gene_map.layer(Quantity.DIFFERENCE).colormap.name == DIVERGING
    gene_map.set_quantity(Quantity.PREDICTED)
    assert gene_map.layer(Quantity.PREDICTED).colormap.name == "magma"


def test_two_genes_are_overlaid_additively_and_separated_again(gene_map, viewer):
    gene_map.show(["ERBB2", "ESR1"])
    first, second = viewer.layers
    assert (first.colormap.name, second.colormap.name) == OVERLAY
    assert second.blending == "additive"
    gene_map.show(["ERBB2"])
    assert [la.name for la in viewer.layers] == ["ERBB2 · predicted"]
    assert viewer.layers[0].colormap.name == gene_map.colormap


def test_hover_names_spot_and_values_and_nothing_beside_the_spots(gene_map):
    text = gene_map.hover_text(world_of(gene_map, 7))
    adata = gene_map.values.adata
    value = adata[adata.obs_names[7], "ERBB2"].X.item()
    assert f"spot {adata.obs_names[7]}" in text
    assert f"predicted {value:.2f}" in text
    assert "measured" in text
    assert gene_map.hover_text(world_of(gene_map, 7) + 75) is None


def test_hover_follows_a_layer_that_was_rescaled(gene_map):
    layer = gene_map.layer(Quantity.PREDICTED)
    layer.scale, layer.translate = layer.scale * 2, layer.translate * 2
    assert "spot 1_2" in gene_map.hover_text(world_of(gene_map, 7) * 2)


def test_a_layer_the_user_deleted_comes_back_with_the_next_gene(gene_map, viewer):
    viewer.layers.clear()
    gene_map.show(["ESR1"])
    assert [la.name for la in viewer.layers] == ["ESR1 · predicted"]


def test_a_new_prediction_on_other_spots_replaces_the_old_one(gene_map, viewer):
    gene_map.set_quantity(Quantity.MEASURED)
    gene_map.set_prediction(fake_prediction(16, measured=False))
    assert [la.name for la in viewer.layers if la.visible] == ["ERBB2 · predicted"]
    assert gene_map.layer(Quantity.MEASURED) is None
    gene_map.set_prediction(None)
    assert len(viewer.layers) == 0


def test_fixed_limits_hold_for_the_next_gene(gene_map, viewer):
    gene_map.set_contrast(Contrast(fixed=(0.0, 9.0)))
    gene_map.show(["ESR1"])
    assert list(viewer.layers[0].contrast_limits) == [0.0, 9.0]


def test_a_quantity_that_is_not_there_is_refused():
    gene_map = GeneMap(ViewerModel())
    gene_map.set_prediction(fake_prediction(9, measured=False))
    with pytest.raises(ValueError, match="no measured expression"):
        gene_map.set_quantity(Quantity.MEASURED)


def test_a_colour_bar_is_shown_with_the_map(gene_map, viewer):
    assert viewer.layers[0].colorbar.visible


@pytest.mark.parametrize(("mode", "stays"), [("add_polygon", True), ("pan_zoom", False)])
def test_the_first_map_is_selected_unless_a_region_is_being_drawn(viewer, mode, stays):
    region = viewer.add_shapes(ndim=2)
    region.mode = mode
    gene_map = GeneMap(viewer)
    gene_map.set_prediction(fake_prediction(25))
    gene_map.show(["ERBB2"])
    assert (viewer.layers.selection.active is region) is stays
    assert region.mode == mode
    gene_map.show(["ESR1"])
    assert (viewer.layers.selection.active is region) is stays
