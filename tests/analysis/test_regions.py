import numpy as np
import pytest
import shapely
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.analysis.domains import domain_agreement, find, read_domains
from napari_flag.analysis.regions import AreaScale, Region, compare_regions
from napari_flag.analysis.truth import MEASURED, PREDICTED, sources
from napari_flag.errors import UserError
from napari_flag.progress import finish
from napari_flag.statistics.markers import differential_genes


@pytest.fixture
def adata():
    """Six of 20 genes are raised in the left half, in prediction and truth."""
    adata = fake_prediction(100, n_genes=20)
    rng = np.random.default_rng(3)
    left = adata.obsm[keys.SPATIAL][:, 0] < 2200
    for values in (adata.X, adata.layers[keys.MEASURED]):
        values[:] = rng.normal(3, 0.3, values.shape)
        values[left, :6] += 2
    adata.uns["left"] = left
    return adata


def test_raised_genes_come_first_in_both_and_agree(adata):
    numbers = finish(compare_regions(adata, adata.uns["left"], None))
    raised = set(adata.var_names[:6])
    assert set(numbers.rankings[PREDICTED][:6]) == set(numbers.rankings[MEASURED][:6]) == raised
    at_20 = numbers.overlaps[0]
    assert (at_20.shared, at_20.of, at_20.chance) == (20, 20, 20.0)
    first = numbers.genes.iloc[0]
    assert first.difference_predicted == pytest.approx(2, abs=0.3)
    assert first.inside_measured - first.outside_measured == pytest.approx(first.difference_measured)


def test_numbers_are_those_of_the_statistics(adata):
    numbers = finish(compare_regions(adata, adata.uns["left"], None))
    alone = differential_genes(adata.X, list(adata.var_names), adata.uns["left"]).set_index("gene")
    here = numbers.genes.set_index("gene").loc[alone.index]
    assert here.q_predicted.to_numpy() == pytest.approx(alone.q.to_numpy())
    assert here.score_predicted.to_numpy() == pytest.approx(alone.score.to_numpy())


def test_a_prediction_alone_is_enough(adata):
    del adata.layers[keys.MEASURED]
    assert sources(adata) == (PREDICTED,)
    numbers = finish(compare_regions(adata, adata.uns["left"], None))
    assert numbers.overlaps == ()
    assert "q_measured" not in numbers.genes


def test_a_measured_layer_without_values_is_no_measurement(adata):
    unmeasured = adata.copy()
    unmeasured.layers[keys.MEASURED][:] = np.nan
    assert sources(unmeasured) == (PREDICTED,)
    numbers = finish(compare_regions(unmeasured, adata.uns["left"], None))
    assert list(numbers.rankings) == [PREDICTED]
    assert numbers.overlaps == ()


def test_spots_and_genes_not_measured_are_left_out_of_the_truth_alone(adata):
    adata.layers[keys.MEASURED][:10] = np.nan
    adata.layers[keys.MEASURED][:, 19] = np.nan
    numbers = finish(compare_regions(adata, adata.uns["left"], None))
    assert sum(numbers.spots[PREDICTED]) == 100
    assert sum(numbers.spots[MEASURED]) == 90
    unmeasured = numbers.genes.set_index("gene").loc[adata.var_names[19]]
    assert np.isnan(unmeasured.q_measured)
    assert np.isfinite(unmeasured.q_predicted)


def test_shared_genes_are_counted_over_the_spots_that_were_measured():
    adata = fake_prediction(100, n_genes=80)
    rng = np.random.default_rng(3)
    left = adata.obsm[keys.SPATIAL][:, 0] < 2200
    unmeasured = np.arange(100) >= 50
    adata.X = rng.normal(3, 0.3, adata.shape).astype(np.float32)
    adata.X[left] += np.linspace(2, 0, 80, dtype=np.float32)
    adata.layers[keys.MEASURED] = adata.X + rng.normal(0, 0.05, adata.shape)
    adata.X[left & unmeasured] = adata.X[left & unmeasured][:, ::-1]  # raised in other genes there
    adata.layers[keys.MEASURED][unmeasured] = np.nan
    numbers = finish(compare_regions(adata, left, None))
    there = finish(compare_regions(adata[~unmeasured].copy(), left[~unmeasured], None))
    assert numbers.overlaps == there.overlaps
    assert numbers.overlaps[0].shared > 15
    assert len(set(numbers.rankings[PREDICTED][:20]) & set(numbers.rankings[MEASURED][:20])) < 5
    del adata.layers[keys.MEASURED]
    alone = finish(compare_regions(adata, left, None))
    assert numbers.rankings[PREDICTED] == alone.rankings[PREDICTED]


def test_two_regions_may_not_share_spots(adata):
    with pytest.raises(UserError, match="The regions share"):
        finish(compare_regions(adata, adata.uns["left"], np.ones(100, bool)))


@pytest.mark.parametrize("method", ["leiden", "k-means"])
def test_domains_are_written_as_scanpy_writes_clusters_and_read_back(adata, method, tmp_path):
    numbers = finish(find(adata, PREDICTED, method))
    assert numbers.min() == 1
    assert adata.obs[keys.DOMAIN].cat.categories[0] == "1"
    assert np.array_equal(read_domains(adata, PREDICTED), numbers)
    left = adata.uns["left"]
    assert not set(numbers[left]) & set(numbers[~left])
    del adata.uns["left"]
    adata.write_h5ad(tmp_path / "with_domains.h5ad")
    import anndata

    again = anndata.read_h5ad(tmp_path / "with_domains.h5ad")
    assert np.array_equal(read_domains(again, PREDICTED), numbers)


def test_domains_of_prediction_and_truth_are_compared_with_each_other(adata):
    assert domain_agreement(adata) is None
    adata.layers[keys.MEASURED][:5] = np.nan
    for source in (PREDICTED, MEASURED):
        finish(find(adata, source, "leiden"))
    assert (read_domains(adata, MEASURED)[:5] == 0).all()
    assert domain_agreement(adata).ari > 0.3


def test_an_area_is_that_of_the_outline_or_of_the_spots(adata):
    scale = AreaScale.of(adata, 0.5)
    assert scale.of_spots(10) == pytest.approx(10 * 0.2**2)  # 200 µm apart on a square array
    mask = np.arange(100) < 10
    outline = shapely.box(0, 0, 2000, 1000).difference(shapely.box(0, 0, 1000, 100))
    assert scale.of_region(Region("Found", mask)) == pytest.approx(0.4)
    assert scale.of_region(Region("Drawn", mask, outline)) == pytest.approx(0.5 - 0.025)


def test_on_a_hexagonal_array_a_spot_stands_for_less():
    rows, cols = (i.ravel() for i in np.mgrid[0:20, 0:40])
    kept = (rows + cols) % 2 == 0
    adata = fake_prediction(400)
    adata.obsm[keys.SPATIAL] = np.column_stack([cols[kept] * 50.0, rows[kept] * 50 * np.sqrt(3)])
    adata.obs[keys.ARRAY_ROW], adata.obs[keys.ARRAY_COL] = rows[kept], cols[kept]
    del adata.uns[keys.PROVENANCE][keys.LATTICE], adata.uns[keys.PROVENANCE][keys.SPOT_PITCH_UM]
    assert AreaScale.of(adata, 1.0).of_spots(1) == pytest.approx(0.1**2 * np.sqrt(3) / 2)


def test_without_a_resolution_there_is_no_area(adata):
    scale = AreaScale.of(adata, None)
    assert np.isnan(scale.of_spots(10))
    assert np.isnan(scale.of_region(Region("Drawn", np.ones(100, bool), shapely.box(0, 0, 9, 9))))
