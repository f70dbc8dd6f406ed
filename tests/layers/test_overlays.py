import numpy as np
import pytest
from napari.components import ViewerModel
from tests.fakes import MPP, fake_prediction
from tests.layers.overlay_texts import lines_on

from napari_flag import keys
from napari_flag.analysis.domains import PALETTE, colour_of
from napari_flag.layers.frame import Frame, frame_of
from napari_flag.layers.gene_map import GeneMap
from napari_flag.layers.legend import KEY, contrast, overlays_of
from napari_flag.layers.overlays import (
    LIMITS,
    UNLIKE_NAME,
    DomainMap,
    Paint,
    UnlikeMap,
    hover_part,
    paint_rings,
)
from napari_flag.layers.raster import raster_of
from napari_flag.prediction_file import unlike_warning

WARNING = "80 % of the spots look unlike the tissue this model was trained on."


def judged(n_spots=25, warning=WARNING):
    adata = fake_prediction(n_spots)
    adata.obs[keys.DISTANCE] = np.linspace(0.2, 1.8, n_spots, dtype=np.float32)
    adata.obs[keys.UNLIKE] = np.linspace(0.0, 0.999, n_spots, dtype=np.float32)
    recorded = {keys.UNLIKE_FROM: 0.95, keys.SHARE_UNLIKE: 0.8}
    adata.uns[keys.PROVENANCE][keys.FAMILIARITY] = recorded | (
        {keys.UNLIKE_WARNING: warning} if warning else {}
    )
    return adata


@pytest.fixture
def viewer():
    return ViewerModel()


def test_a_slide_mostly_unlike_is_ringed_from_the_start_and_any_other_on_demand(viewer):
    unlike = UnlikeMap(viewer)
    unlike.set_prediction(judged())
    assert unlike.layer.visible
    unlike.set_prediction(judged(warning=None))
    assert not unlike.layer.visible
    assert [layer.name for layer in viewer.layers] == [UNLIKE_NAME]


def test_rings_that_a_person_hid_or_showed_stay_so_while_the_prediction_is_drawn_again(viewer):
    unlike, adata = UnlikeMap(viewer), judged()
    unlike.set_prediction(adata)
    unlike.layer.visible = False
    unlike.set_prediction(adata, Frame(0.25))
    assert not unlike.layer.visible
    familiar = judged(warning=None)
    unlike.set_prediction(familiar)
    unlike.layer.visible = True
    unlike.set_prediction(familiar)
    assert unlike.layer.visible


def test_a_prediction_that_was_not_judged_gets_no_layer_no_warning_and_no_hover(viewer):
    unlike = UnlikeMap(viewer)
    unlike.set_prediction(judged())
    unlike.set_prediction(fake_prediction(25))
    assert unlike.layer is None
    assert len(viewer.layers) == 0
    assert unlike_warning(fake_prediction(25)) is None
    assert unlike_warning(None) is None
    assert hover_part(fake_prediction(25), 3) is None
    unlike.set_prediction(None)


def test_no_spot_is_said_to_be_farther_than_all_of_the_training_tissue_that_is_not():
    adata = judged()
    assert hover_part(adata, 24) == "farther from the training tissue than 99 % of it"


def test_a_ring_carries_the_spots_distance_and_leaves_its_gene_visible():
    adata = judged()
    raster = raster_of(adata)
    values = adata.obs[keys.DISTANCE].to_numpy()
    picture = paint_rings(raster, values)
    for spot in (0, 12, 24):
        disc = raster.index == spot
        seen = picture[disc]
        ring = np.isfinite(seen)
        np.testing.assert_allclose(seen[ring], values[spot], rtol=1e-6)
        assert 0.3 < ring.mean() < 0.7
        rows, cols = np.nonzero(disc)
        assert np.isnan(picture[round(rows.mean()), round(cols.mean())])
    assert np.isnan(picture[raster.index < 0]).all()


def test_the_middle_of_the_colours_is_where_unlike_begins(viewer):
    unlike = UnlikeMap(viewer)
    unlike.set_prediction(judged())
    assert tuple(unlike.layer.contrast_limits) == LIMITS
    near, just, far = unlike.layer.colormap.map(np.array([0.45, 0.51, 1.0]))
    assert near[3] < 0.5 < just[3]
    assert just[1] > far[1]


def test_it_lies_where_the_genes_lie_and_leaves_the_selection_alone(viewer):
    adata = judged()
    genes, unlike = GeneMap(viewer), UnlikeMap(viewer)
    genes.set_prediction(adata)
    genes.show(["ERBB2"])
    chosen = viewer.layers.selection.active
    unlike.set_prediction(adata)
    assert viewer.layers.selection.active is chosen
    gene = viewer.layers[0]
    np.testing.assert_allclose(unlike.layer.scale, gene.scale)
    np.testing.assert_allclose(unlike.layer.translate, gene.translate)
    assert unlike.layer.units == gene.units


def test_hover_text_says_how_far_a_spot_lies_from_training_tissue(viewer):
    adata = judged()
    genes = GeneMap(viewer)
    genes.set_prediction(adata)
    genes.show(["ERBB2"])
    text = genes.hover_text(adata.obsm[keys.SPATIAL][24][::-1] * MPP)
    assert text.endswith("farther from the training tissue than 99 % of it")
    assert "predicted" in text


def test_a_layer_the_user_deleted_stays_away_until_the_next_prediction(viewer):
    unlike = UnlikeMap(viewer)
    unlike.set_prediction(judged())
    viewer.layers.clear()
    assert unlike.layer is None
    unlike.set_prediction(judged())
    assert unlike.layer is not None


@pytest.fixture
def adata():
    return fake_prediction(36)


@pytest.fixture
def drawn(adata):
    drawn = DomainMap(ViewerModel())
    drawn.show(adata, np.arange(36) % 3, Paint.FILLED)
    return drawn


def test_each_domain_has_its_colour_and_no_domain_none(drawn, adata):
    shades = drawn.layer.data[np.isfinite(drawn.layer.data)]
    assert set(shades.tolist()) == {0.0, 1.0}
    low, high = drawn.layer.contrast_limits
    seen = drawn.layer.colormap.map((np.array([0.0, 1.0]) - low) / (high - low))[:, :3] * 255
    assert np.rint(seen).astype(int).tolist() == [list(PALETTE[0]), list(PALETTE[1])]
    assert colour_of(1) == colour_of(11) == PALETTE[0]


@pytest.mark.parametrize("deleted", [True, False])
def test_domains_drawn_again_lie_where_their_slide_lies_by_now(drawn, adata, deleted):
    if deleted:
        drawn._viewer.layers.remove(drawn.layer)
    drawn.show(adata, drawn.numbers, Paint.FILLED, Frame(2 * MPP))
    world = adata.obsm[keys.SPATIAL][:, ::-1] * 2 * MPP
    assert [drawn.number_at(place) for place in world] == drawn.numbers.tolist()


def test_rings_leave_the_gene_inside_in_sight(drawn, adata):
    filled = np.isfinite(drawn.layer.data).sum()
    drawn.show(adata, drawn.numbers, Paint.RINGS)
    assert 0 < np.isfinite(drawn.layer.data).sum() < 0.7 * filled


def test_the_domain_under_a_point_is_found(drawn, adata):
    world = adata.obsm[keys.SPATIAL][:, ::-1] * frame_of(adata).um_per_px
    assert [drawn.number_at(world[i]) for i in range(4)] == [0, 1, 2, 0]
    assert drawn.number_at((-50.0, -50.0)) == 0
    drawn.show(adata, drawn.numbers, Paint.HIDDEN)
    assert drawn.number_at(world[1]) == 0


def test_one_layer_for_all_domains_which_is_removed_with_them(drawn, adata):
    layer = drawn.layer
    drawn.show(adata, np.ones(36, np.int64), Paint.FILLED)
    assert drawn.layer is layer
    drawn.show(adata, None, Paint.FILLED)
    assert drawn.layer is None
    drawn.show(fake_prediction(16), np.ones(16, np.int64), Paint.RINGS)
    assert drawn.layer is not None


def test_domains_of_another_prediction_are_drawn_in_the_same_layer_on_its_own_spots(drawn):
    layer, other = drawn.layer, fake_prediction(16)
    drawn.show(other, np.ones(16, np.int64), Paint.FILLED)
    assert drawn.layer is layer
    assert layer.metadata[keys.LAYER_ADATA] is other
    world = other.obsm[keys.SPATIAL][:, ::-1] * frame_of(other).um_per_px
    assert [drawn.number_at(place) for place in world] == [1] * 16
    assert layer.data.shape == raster_of(other).lookup.shape


def test_hidden_domains_show_nothing_of_the_prediction_before(drawn):
    drawn.show(fake_prediction(16), np.ones(16, np.int64), Paint.HIDDEN)
    assert not drawn.layer.visible
    assert np.isnan(drawn.layer.data).all()


def test_a_map_that_comes_after_the_regions_lies_under_them_and_over_the_picture(viewer, adata):
    picture = viewer.add_image(np.zeros((8, 8)), name="slide")
    regions = viewer.add_shapes([np.array([[0, 0], [0, 5], [5, 5], [5, 0]])], name="Regions")
    gene_map, drawn = GeneMap(viewer), DomainMap(viewer)
    gene_map.set_prediction(adata, frame_of(adata))
    gene_map.show(["ERBB2"])
    drawn.show(adata, np.ones(36, np.int64), Paint.FILLED)
    order = list(viewer.layers)
    assert len(order) == 4
    assert order[0] is picture
    assert order[-1] is regions


def test_the_legend_has_colour_name_and_count_of_each_domain_painted(drawn, adata):
    viewer = drawn._viewer
    assert lines_on(viewer) == ["Domain 1  12", "Domain 2  12"]
    colours = [overlays_of(viewer)[f"{KEY} domains {i}"].box_color[:3] for i in range(2)]
    assert np.rint(np.array(colours) * 255).astype(int).tolist() == [list(c) for c in PALETTE[:2]]
    drawn.show(adata, np.where(np.arange(36) < 30, 2, 0), Paint.RINGS, names=["fat", "tumour"])
    assert lines_on(viewer) == ["tumour  30"]


def test_every_line_of_a_legend_is_legible_on_the_colour_of_its_class(adata):
    drawn = DomainMap(ViewerModel())
    drawn.show(adata, np.arange(1, 37), Paint.FILLED)
    overlays = overlays_of(drawn._viewer)
    lines = [overlay for name, overlay in overlays.items() if name.startswith(KEY)]
    assert len(lines) == 17
    contrasts = [contrast(_hex(line.color), _hex(line.box_color)) for line in lines]
    assert min(contrasts) > 4.5, "what WCAG asks of small text"


def _hex(colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*np.rint(np.asarray(colour[:3]) * 255).astype(int))


def test_the_legend_goes_and_comes_with_its_layer(drawn, adata):
    viewer = drawn._viewer
    drawn.layer.visible = False
    assert lines_on(viewer) == []
    drawn.layer.visible = True
    assert len(lines_on(viewer)) == 2
    drawn.show(adata, drawn.numbers, Paint.HIDDEN)
    assert lines_on(viewer) == []
    drawn.show(adata, drawn.numbers, Paint.FILLED)
    viewer.layers.remove(drawn.layer)
    assert lines_on(viewer) == []


def test_a_legend_of_very_many_labels_says_how_many_it_leaves_out(adata):
    drawn = DomainMap(ViewerModel())
    drawn.show(adata, np.arange(1, 37), Paint.FILLED)
    assert len(lines_on(drawn._viewer)) == 17
    assert lines_on(drawn._viewer)[-1] == "and 20 more, listed in the dock"


def test_a_legend_in_sight_again_is_not_made_anew(drawn, adata):
    made = overlays_of(drawn._viewer)[f"{KEY} domains 1"]
    drawn.show(adata, np.ones(36, np.int64), Paint.FILLED)
    assert lines_on(drawn._viewer) == ["Domain 1  36"]
    drawn.show(adata, np.arange(36) % 3, Paint.FILLED)
    assert lines_on(drawn._viewer) == ["Domain 1  12", "Domain 2  12"]
    assert overlays_of(drawn._viewer)[f"{KEY} domains 1"] is made
