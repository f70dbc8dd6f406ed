import gc

import numpy as np
from tests.fakes import counts_for, fake_prediction

from napari_flag import keys
from napari_flag.analysis.truth import MEASURED, PREDICTED, sources
from napari_flag.layers import ahead
from napari_flag.layers.gene_values import GeneValues, Quantity, sources_of
from napari_flag.layers.kept import _KEPT
from napari_flag.layers.local_map import neighbours_of
from napari_flag.layers.raster import Thumbnails, raster_of
from napari_flag.progress import finish


def test_what_was_prepared_is_what_the_maps_use():
    adata = fake_prediction(25)
    finish(ahead.prepare(adata))
    kept = dict(_KEPT[id(adata)])
    raster, small, (mean, _) = raster_of(adata), Thumbnails.of(adata), GeneValues(adata).summary()
    assert GeneValues(adata).why_not(Quantity.MEASURED) is None
    assert _KEPT[id(adata)] == kept
    assert raster is raster_of(adata)
    assert small is Thumbnails.of(adata)
    np.testing.assert_allclose(mean, adata.X.mean(axis=0), rtol=1e-5)


def test_counts_are_made_ready_without_a_change_and_what_maps_share_of_them_is_kept():
    adata = fake_prediction(25)
    counts = counts_for(adata)[3:].copy()
    del adata.layers[keys.MEASURED]
    neighbours_of(adata, Quantity.PREDICTED)
    layer = finish(ahead.attaching(adata, counts))
    assert keys.MEASURED not in adata.layers
    layer.put_into(adata)
    np.testing.assert_allclose(adata.layers[keys.MEASURED][3:], np.log2(counts.X.toarray() + 1), rtol=1e-6)
    assert np.isnan(adata.layers[keys.MEASURED][:3]).all()
    kept = dict(_KEPT[id(adata)])
    seen, graph = neighbours_of(adata, Quantity.MEASURED)
    neighbours_of(adata, Quantity.PREDICTED)
    assert sources_of(adata) == sources(adata) == (PREDICTED, MEASURED)
    assert _KEPT[id(adata)] == kept, "neither graph was made again"
    assert (int(seen.sum()), graph.weights.shape) == (22, (22, 22))


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
