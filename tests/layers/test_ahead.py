import gc

import numpy as np
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.layers import ahead
from napari_flag.layers.gene_values import GeneValues
from napari_flag.layers.kept import _KEPT
from napari_flag.layers.raster import Thumbnails, raster_of
from napari_flag.progress import finish


def test_what_was_prepared_is_what_the_maps_use():
    adata = fake_prediction(25)
    finish(ahead.prepare(adata))
    kept = dict(_KEPT[id(adata)])
    raster, small, (mean, _) = raster_of(adata), Thumbnails.of(adata), GeneValues(adata).summary()
    assert _KEPT[id(adata)] == kept
    assert raster is raster_of(adata)
    assert small is Thumbnails.of(adata)
    np.testing.assert_allclose(mean, adata.X.mean(axis=0), rtol=1e-5)


def test_spots_that_were_moved_get_another_raster():
    adata = fake_prediction(25)
    before = raster_of(adata)
    adata.obsm[keys.SPATIAL] = adata.obsm[keys.SPATIAL] * 2 + 7
    assert not np.array_equal(raster_of(adata).matrix, before.matrix)


def test_nothing_is_kept_of_a_prediction_that_is_gone():
    adata = fake_prediction(25)
    raster_of(adata)
    key = id(adata)
    del adata
    gc.collect()
    assert key not in _KEPT


def test_napari_can_be_warmed_up():
    assert finish(ahead.warm_up()) is None
