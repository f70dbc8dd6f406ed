import numpy as np
import pytest
from napari.components import ViewerModel
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.layers.frame import frame_of
from napari_flag.layers.overlays import COLOURS, DomainMap, Paint, colour_of


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
    assert np.rint(seen).astype(int).tolist() == [list(COLOURS[0]), list(COLOURS[1])]
    assert colour_of(1) == colour_of(11) == COLOURS[0]


def test_rings_leave_the_gene_inside_in_sight(drawn, adata):
    filled = np.isfinite(drawn.layer.data).sum()
    drawn.show(adata, drawn.numbers, Paint.RINGS)
    assert 0 < np.isfinite(drawn.layer.data).sum() < 0.7 * filled


def test_the_domain_under_a_point_is_told(drawn, adata):
    world = adata.obsm[keys.SPATIAL][:, ::-1] * frame_of(adata).um_per_px
    assert [drawn.number_at(world[i]) for i in range(4)] == [0, 1, 2, 0]
    assert drawn.number_at((-50.0, -50.0)) == 0
    drawn.show(adata, drawn.numbers, Paint.HIDDEN)
    assert drawn.number_at(world[1]) == 0


def test_one_layer_for_all_domains_which_goes_with_them(drawn, adata):
    layer = drawn.layer
    drawn.show(adata, np.ones(36, np.int64), Paint.FILLED)
    assert drawn.layer is layer
    drawn.show(adata, None, Paint.FILLED)
    assert drawn.layer is None
    drawn.show(fake_prediction(16), np.ones(16, np.int64), Paint.RINGS)
    assert drawn.layer is not None
