import numpy as np
import pytest
from napari.components import ViewerModel
from tests.fakes import fake_prediction
from tests.layers.overlay_texts import lines_on

from napari_flag import keys
from napari_flag.analysis.spatial import CLASSES, find_classes
from napari_flag.formatting import probability
from napari_flag.layers.gene_map import GeneMap
from napari_flag.layers.gene_values import Quantity
from napari_flag.layers.legend import overlays_of
from napari_flag.layers.local_map import (
    CLASS_COLOURS,
    CLASS_MEANINGS,
    LocalMap,
    MapKind,
)
from napari_flag.progress import finish
from napari_flag.statistics.local_moran import local_moran


class Maps:
    """A viewer with both maps, joined as `Session` joins them."""

    def __init__(self, adata):
        self.viewer = ViewerModel()
        self.gene_map = GeneMap(self.viewer, self.changed)
        self.local = LocalMap(self.viewer, self.gene_map)
        self.gene_map.set_prediction(adata)
        self.gene_map.show([adata.var_names[0]])

    def changed(self):
        if hasattr(self, "local"):
            self.local.refresh()

    @property
    def adata(self):
        return self.gene_map.values.adata

    @property
    def names(self):
        return [layer.name for layer in self.viewer.layers if layer.visible]

    def painted(self, spot):
        lookup = self.gene_map.raster.lookup
        return float(self.local.layer.data[lookup == spot + 1][0])


@pytest.fixture
def maps():
    return Maps(fake_prediction(64, n_genes=6))


def test_every_class_has_a_colour_and_a_meaning():
    assert len(CLASSES) == len(CLASS_COLOURS) == len(CLASS_MEANINGS)
    assert len(set(CLASS_COLOURS)) == len(CLASSES)


def test_local_moran_takes_the_place_of_the_gene_and_gives_it_back(maps):
    maps.local.set_kind(MapKind.LOCAL)
    assert maps.names == ["ERBB2 · local Moran's I (predicted)"]
    maps.gene_map.show(["ESR1"])
    assert maps.names == ["ESR1 · local Moran's I (predicted)"]
    maps.local.set_kind(MapKind.EXPRESSION)
    assert maps.names == ["ESR1 · predicted"]
    assert len(maps.viewer.layers) == 2


def test_the_gene_stays_in_sight_until_the_layer_of_its_clusters_is_there(maps):
    turns = []
    maps.local.later = turns.append
    gene = maps.names
    maps.local.set_kind(MapKind.LOCAL)
    assert maps.names == gene
    turns.pop(0)()
    assert maps.names == ["ERBB2 · local Moran's I (predicted)"]


def test_its_values_are_those_of_the_statistic(maps):
    maps.local.set_kind(MapKind.LOCAL)
    key = ("ERBB2", Quantity.PREDICTED)
    _, graph = maps.local.neighbours(Quantity.PREDICTED)
    found = finish(local_moran(maps.local.values(key), graph.weights, permutations=9))
    assert [maps.painted(spot) for spot in (0, 20, 63)] == pytest.approx(found.I[[0, 20, 63]], rel=1e-5)
    low, high = maps.local.layer.contrast_limits
    assert low == -high


def test_classes_are_blank_until_they_are_computed_and_never_of_another_gene(maps):
    maps.local.set_kind(MapKind.CLASSES)
    assert np.isnan(maps.local.layer.data).all()
    key = maps.local.key
    _, graph = maps.local.neighbours(key[1])
    found = finish(local_moran(maps.local.values(key), graph.weights, permutations=999))
    maps.local.set_found({key: found}, maps.adata)
    shown = [int(maps.painted(spot)) for spot in range(64)]
    assert shown == np.where(found.p <= 0.05, found.quadrants, 0).tolist()
    assert any(shown)
    maps.gene_map.show(["ESR1"])
    assert np.isnan(maps.local.layer.data).all()
    maps.gene_map.show(["ERBB2"])
    assert [int(maps.painted(spot)) for spot in range(64)] == shown
    maps.local.set_corrected(True)
    assert [int(maps.painted(spot)) for spot in range(64)] == np.where(
        found.q <= 0.05, found.quadrants, 0
    ).tolist()


def test_hover_text_names_the_class_of_the_spot(maps):
    maps.local.set_kind(MapKind.CLASSES)
    key = maps.local.key
    _, graph = maps.local.neighbours(key[1])
    found = finish(local_moran(maps.local.values(key), graph.weights, permutations=999))
    maps.local.set_found({key: found}, maps.adata)
    y_x = maps.gene_map.values.adata.obsm[keys.SPATIAL][9][::-1] * 0.5
    text = maps.gene_map.hover_text(y_x)
    number = maps.local.classes(key)[9]
    assert f"{CLASSES[number]}, {CLASS_MEANINGS[number]} (p {probability(found.p[9])}" in text


def test_measured_spots_alone_count_for_the_measured_map():
    adata = fake_prediction(64, n_genes=6)
    adata.layers[keys.MEASURED][:10] = np.nan
    maps = Maps(adata)
    maps.gene_map.set_quantity(Quantity.MEASURED)
    maps.local.set_kind(MapKind.LOCAL)
    seen, graph = maps.local.neighbours(Quantity.MEASURED)
    assert (seen.sum(), graph.weights.shape[0]) == (54, 54)
    assert np.isnan(maps.painted(3))
    assert np.isfinite(maps.painted(30))


def test_a_gene_that_was_not_measured_does_not_empty_the_maps_of_the_others():
    """The spots of the measured map used to be those of the gene shown first."""
    adata = fake_prediction(64, n_genes=6)
    adata.layers[keys.MEASURED][:10] = np.nan
    adata.layers[keys.MEASURED][:, 0] = np.nan
    maps = Maps(adata)
    maps.gene_map.set_quantity(Quantity.MEASURED)
    assert maps.gene_map.genes[0] == adata.var_names[0]
    seen, _ = maps.local.neighbours(Quantity.MEASURED)
    assert seen.sum() == 54
    maps.gene_map.show([adata.var_names[1]])
    maps.local.set_kind(MapKind.LOCAL)
    assert np.isfinite(maps.painted(30))


def test_another_prediction_forgets_the_classes_of_the_one_before(maps):
    maps.local.set_kind(MapKind.CLASSES)
    key = maps.local.key
    _, graph = maps.local.neighbours(key[1])
    maps.local.set_found(
        {key: finish(local_moran(maps.local.values(key), graph.weights, permutations=9))}, maps.adata
    )
    maps.gene_map.set_prediction(fake_prediction(64, n_genes=6, seed=5))
    assert maps.local.found(key) is None
    assert maps.names == ["ERBB2 · clusters (predicted)"]


def test_a_layer_the_user_deleted_is_drawn_again(maps):
    maps.local.set_kind(MapKind.LOCAL)
    maps.viewer.layers.remove(maps.local.layer)
    maps.gene_map.show(["ESR1"])
    assert maps.names == ["ESR1 · local Moran's I (predicted)"]


def test_what_is_missing_is_computed_once(maps):
    assert maps.local.missing() == []
    maps.local.set_kind(MapKind.CLASSES)
    found = finish(find_classes(maps.local.missing()))
    assert set(found) == {("ERBB2", Quantity.PREDICTED)}
    maps.local.set_found(found, maps.adata)
    assert maps.local.missing() == []
    assert np.isfinite(maps.painted(0))


def test_classes_of_a_prediction_that_is_left_meanwhile_are_not_painted(maps):
    maps.local.set_kind(MapKind.CLASSES)
    before, found = maps.adata, finish(find_classes(maps.local.missing()))
    maps.gene_map.set_prediction(fake_prediction(25, n_genes=6))
    maps.local.set_found(found, before)
    assert np.isnan(maps.local.layer.data).all()
    assert [key for key, _, _ in maps.local.missing()] == [("ERBB2", Quantity.PREDICTED)]


def test_the_classes_are_named_and_counted_on_the_canvas_while_they_are_shown(maps):
    overlay = overlays_of(maps.viewer)["text"]
    overlay.text, overlay.visible = "mine", True
    maps.local.set_kind(MapKind.CLASSES)
    assert lines_on(maps.viewer)[0] == "high among high  …"
    assert not maps.local.layer.colorbar.visible, "it would number the classes"
    maps.local.set_found(finish(find_classes(maps.local.missing())), maps.adata)
    classes = maps.local.classes(maps.local.key)
    assert lines_on(maps.viewer) == [
        f"{CLASS_MEANINGS[n]}  {np.count_nonzero(classes == n)}" for n in (1, 3, 4, 2, 0)
    ]
    maps.local.set_kind(MapKind.LOCAL)
    assert lines_on(maps.viewer) == []
    assert maps.local.layer.colorbar.visible
    assert (overlay.text, overlay.visible) == ("mine", True)


def test_the_layer_controls_are_those_of_the_map_shown(maps):
    selection = maps.viewer.layers.selection
    maps.local.set_kind(MapKind.LOCAL)
    maps.gene_map.show(["ESR1"])
    assert selection.active is maps.local.layer
    maps.local.set_kind(MapKind.EXPRESSION)
    assert selection.active is maps.gene_map.layer(Quantity.PREDICTED)
