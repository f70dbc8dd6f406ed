import hashlib

import numpy as np
import pytest
from anndata import AnnData
from anndata.io import read_zarr
from scipy import sparse
from tests.fakes import add_draws, fake_prediction
from tests.foreign_files import (
    natural,
    plain,
    write_deepspot_like,
    write_hest_like,
    write_lazyslide_like,
)

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.foreign_prediction import (
    UNITS,
    UnitUnknown,
    holds_prediction,
    is_foreign,
    is_zarr_table,
    name_by_place,
    read_any_prediction,
    unit_read,
)
from napari_flag.prediction_doubts import doubts_of
from napari_flag.prediction_file import (
    find_fault,
    output_name,
    provenance,
    read_prediction,
    spot_diameter_px,
    spots_of,
    stated_lattice,
    with_storable_provenance,
    write_prediction,
)


@pytest.fixture
def prediction():
    return fake_prediction(n_spots=36, n_genes=6)


def written(prediction: AnnData, path, values, **uns) -> AnnData:
    adata = plain(prediction, values)
    adata.obsm[keys.SPATIAL] = prediction.obsm[keys.SPATIAL]
    adata.uns |= uns
    adata.write_h5ad(path)
    return path


def test_what_scanpy_says_of_the_logarithm_is_read_and_converted(prediction, tmp_path):
    read = read_any_prediction(write_deepspot_like(prediction, tmp_path / "deepspot.h5ad"))
    np.testing.assert_allclose(read.X, prediction.X, rtol=1e-6)
    np.testing.assert_array_equal(read.obsm[keys.SPATIAL], prediction.obsm[keys.SPATIAL])
    assert list(read.obs_names) == list(prediction.obs_names)
    assert list(read.var_names) == list(prediction.var_names)
    assert find_fault(read) is None
    assert is_foreign(read)
    assert unit_read(read) == "log1p"
    assert output_name(read) == "deepspot"


@pytest.mark.parametrize(
    ("uns", "said"),
    [
        ({"unit": "counts", "units": "log2(count + 1)"}, r'states counts in uns\["unit"\] and log2'),
        ({"model": {"unit": "counts"}, "log1p": {}}, r'counts in uns\["model"\]\["unit"\] and ln'),
        ({"unit": "log1p", "log1p": {"base": 10.0}}, r"ln\(count \+ 1\) in .* to the base 10 in"),
    ],
)
def test_a_file_that_states_two_units_is_refused(prediction, tmp_path, uns, said):
    path = written(prediction, tmp_path / "other.h5ad", prediction.X + 0.25, **uns)
    for unit in (None, "counts"):
        with pytest.raises(UserError, match=said):
            read_any_prediction(path, unit)


def test_a_unit_that_is_stated_twice_alike_is_taken(prediction, tmp_path):
    uns = {"unit": "log1p", "units": "ln(count + 1)", "log1p": {"base": np.float32(np.e)}}
    path = written(prediction, tmp_path / "other.h5ad", prediction.X + 0.25, **uns)
    assert unit_read(read_any_prediction(path)) == "log1p"


@pytest.mark.parametrize("base", [1 + 1e-12, 1.0, -2.0, np.inf, np.nan])
def test_a_base_that_no_logarithm_is_taken_to_states_nothing(prediction, tmp_path, base):
    path = written(prediction, tmp_path / "other.h5ad", prediction.X + 0.25, log1p={"base": base})
    with pytest.raises(UnitUnknown):
        read_any_prediction(path)


def test_a_file_without_a_unit_is_asked_for_it_and_read_with_the_answer(prediction, tmp_path):
    path = write_hest_like(prediction, tmp_path / "stpath.h5ad")
    with pytest.raises(UnitUnknown, match=r"stpath\.h5ad does not state the unit .* --unit") as asked:
        read_any_prediction(path)
    assert asked.value.path == path
    read = read_any_prediction(path, "log1p")
    np.testing.assert_allclose(read.X, prediction.X, rtol=1e-6)
    assert stated_lattice(read) == "square"
    assert spot_diameter_px(read) == 200.0
    assert output_name(read) == "stpath", "a library called ST is no name of a slide"


@pytest.mark.parametrize(
    ("unit", "of"),
    [("log2p1", lambda x: x), ("log1p", lambda x: x * np.log(2)), ("counts", lambda x: np.exp2(x) - 1)],
)
def test_each_unit_comes_out_as_log2_of_count_plus_one(prediction, tmp_path, unit, of):
    path = written(prediction, tmp_path / "other.h5ad", of(prediction.X.astype(np.float64)))
    np.testing.assert_allclose(read_any_prediction(path, unit).X, prediction.X, atol=1e-5)


def test_a_sparse_matrix_stays_sparse_and_has_the_values_of_a_dense_one(prediction, tmp_path):
    counts = np.maximum(np.rint(np.exp2(prediction.X) - 3), 0)
    path = tmp_path / "sparse.h5ad"
    adata = plain(prediction, counts)
    adata.X = sparse.csr_matrix(adata.X)
    adata.obsm[keys.SPATIAL] = prediction.obsm[keys.SPATIAL]
    adata.write_h5ad(path)
    read = read_any_prediction(path)
    assert sparse.issparse(read.X)
    np.testing.assert_allclose(read.X.toarray(), np.log2(counts + 1), rtol=1e-6)
    assert unit_read(read) == "counts"


@pytest.mark.parametrize(
    ("uns", "unit"),
    [
        ({"log1p": {"base": 2}}, "log2p1"),
        ({"units": "log2(count + 1)"}, "log2p1"),
        ({"model": {"unit": "log1p"}}, "log1p"),
        ({"expression_unit": "Counts"}, "counts"),
    ],
)
def test_a_unit_written_in_the_file_needs_no_answer_and_another_one_is_refused(
    prediction, tmp_path, uns, unit
):
    path = written(prediction, tmp_path / "other.h5ad", prediction.X + 0.25, **uns)
    assert unit_read(read_any_prediction(path)) == unit
    assert unit_read(read_any_prediction(path, unit)) == unit
    other = "counts" if unit != "counts" else "log1p"
    with pytest.raises(UserError) as refused:
        read_any_prediction(path, other)
    assert f"states {UNITS[unit]} in uns" in str(refused.value)
    assert f"given as {UNITS[other]}" in str(refused.value)


def test_the_unit_given_is_believed_of_whole_numbers_which_state_nothing(prediction, tmp_path):
    path = written(prediction, tmp_path / "other.h5ad", np.rint(prediction.X) + 1)
    assert unit_read(read_any_prediction(path)) == "counts"
    read = read_any_prediction(path, "log2p1")
    assert unit_read(read) == "log2p1"
    np.testing.assert_array_equal(read.X, np.rint(prediction.X) + 1)


def test_a_word_that_is_no_unit_is_refused_by_name_and_the_file_not_called_damaged(prediction, tmp_path):
    path = written(prediction, tmp_path / "other.h5ad", prediction.X)
    with pytest.raises(UserError, match=r"'log2' is no unit of expression; give log2p1"):
        read_any_prediction(path, "log2")


def test_what_is_left_of_a_prediction_of_ours_without_its_provenance_states_its_unit(prediction, tmp_path):
    stored = with_storable_provenance(prediction)
    del stored.uns[keys.PROVENANCE]
    stored.write_h5ad(tmp_path / "stripped.h5ad")
    read = read_any_prediction(tmp_path / "stripped.h5ad")
    assert unit_read(read) == "log2p1"
    np.testing.assert_array_equal(read.X, prediction.X)


def test_a_unit_is_not_guessed_from_how_large_the_values_are(prediction, tmp_path):
    for values in (prediction.X * 0.01, prediction.X * 100):
        path = written(prediction, tmp_path / "other.h5ad", values)
        with pytest.raises(UnitUnknown):
            read_any_prediction(path)


def test_negative_counts_are_refused_and_negative_logarithms_said(prediction, tmp_path):
    path = written(prediction, tmp_path / "other.h5ad", prediction.X - 3)
    with pytest.raises(UserError, match="no count"):
        read_any_prediction(path, "counts")
    read = read_any_prediction(path, "log2p1")
    assert read.X.min() < 0
    assert any("are negative" in said for said in doubts_of(read))


def test_what_is_missing_is_said_once_and_nothing_of_ours_is(prediction, tmp_path):
    said = doubts_of(read_any_prediction(write_deepspot_like(prediction, tmp_path / "deepspot.h5ad")))
    [missing] = [sentence for sentence in said if "holds no" in sentence]
    assert missing.startswith("deepspot.h5ad holds no draws and no standard deviation")
    write_prediction(prediction, tmp_path / "ours.h5ad")
    ours = read_any_prediction(tmp_path / "ours.h5ad", "counts")
    assert doubts_of(ours) == ()
    assert not is_foreign(ours)
    np.testing.assert_array_equal(ours.X, prediction.X)


def test_draws_and_spread_in_our_layers_are_converted_with_x(prediction, tmp_path):
    add_draws(prediction, 3)
    adata = plain(prediction, natural(prediction))
    adata.obsm[keys.SPATIAL] = prediction.obsm[keys.SPATIAL]
    adata.uns["log1p"] = {}
    layers = (keys.SAMPLE, "sample_2", "sample_3", keys.SPREAD)
    for name in layers:
        adata.layers[name] = prediction.layers[name] * np.float32(np.log(2))
    adata.layers["other"] = adata.X
    adata.write_h5ad(tmp_path / "draws.h5ad")
    read = read_any_prediction(tmp_path / "draws.h5ad")
    assert set(read.layers) == set(layers)
    for name in layers:
        np.testing.assert_allclose(read.layers[name], prediction.layers[name], atol=1e-5)


def test_reading_and_saving_leaves_the_file_as_it_was(prediction, tmp_path):
    path = write_hest_like(prediction, tmp_path / "stpath.h5ad")
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    read = read_any_prediction(path, "log1p")
    write_prediction(read, tmp_path / "saved.h5ad")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    again = read_prediction(tmp_path / "saved.h5ad")
    np.testing.assert_array_equal(again.X, read.X)
    assert doubts_of(again) == doubts_of(read), "what was doubtful stays known"


def test_saving_over_the_file_it_was_read_from_is_refused(prediction, tmp_path):
    path = write_hest_like(prediction, tmp_path / "stpath.h5ad")
    before = path.read_bytes()
    with pytest.raises(UserError, match="was not written by napari-flag"):
        write_prediction(read_any_prediction(path, "log1p"), path)
    assert path.read_bytes() == before


def test_a_table_of_a_zarr_lies_where_its_shapes_lie(prediction, tmp_path):
    path = write_lazyslide_like(prediction, tmp_path / "C5.zarr")
    for place in (path, path / "tables" / "stpath_tiles"):
        assert is_zarr_table(place)
        read = read_any_prediction(place, "log1p")
        np.testing.assert_allclose(read.X, prediction.X, rtol=1e-6)
        np.testing.assert_allclose(read.obsm[keys.SPATIAL], prediction.obsm[keys.SPATIAL])


def test_shapes_whose_columns_are_genes_are_a_prediction(prediction, tmp_path):
    path = write_lazyslide_like(prediction, tmp_path / "C5.zarr", in_shapes=True)
    read = read_any_prediction(path / "shapes" / "tiles", "log1p")
    assert list(read.var_names) == list(prediction.var_names)
    np.testing.assert_allclose(read.X, prediction.X, rtol=1e-6)
    np.testing.assert_allclose(read.obsm[keys.SPATIAL], prediction.obsm[keys.SPATIAL])
    with pytest.raises(UserError, match="no SpatialData zarr with a table"):
        read_any_prediction(path, "log1p")


def second_table(path, name, change):
    """A further table of the tiles, changed."""
    first = path / "tables" / "stpath_tiles"
    adata = read_zarr(first)
    change(adata)
    adata.write_zarr(path / "tables" / name)


def as_counts(adata):
    adata.X = np.rint(adata.X * 10)


def as_features(adata):
    adata.var_names = [str(k) for k in range(adata.n_vars)]


def test_of_several_predictions_none_is_guessed(prediction, tmp_path):
    path = write_lazyslide_like(prediction, tmp_path / "C5.zarr")
    second_table(path, "deepspot_tiles", lambda adata: None)
    with pytest.raises(UserError, match=r"2 tables \(deepspot_tiles, stpath_tiles\)"):
        read_any_prediction(path, "log1p")


def test_of_several_tables_the_only_prediction_is_taken(prediction, tmp_path):
    path = write_lazyslide_like(prediction, tmp_path / "C5.zarr")
    for name, change in (("counts", as_counts), ("uni_tiles", as_features)):
        second_table(path, name, change)
        assert not holds_prediction(path / "tables" / name)
    assert holds_prediction(path / "tables" / "stpath_tiles")
    np.testing.assert_allclose(read_any_prediction(path, "log1p").X, prediction.X, rtol=1e-6)


def test_a_prediction_of_ours_in_a_zarr_is_read_as_ours(prediction, tmp_path):
    path = write_lazyslide_like(prediction, tmp_path / "C5.zarr")
    with_storable_provenance(prediction).write_zarr(path / "tables" / "predicted")
    read = read_any_prediction(path / "tables" / "predicted")
    assert not is_foreign(read)
    np.testing.assert_array_equal(read.X, prediction.X)
    assert provenance(read) == provenance(prediction)


def test_shapes_with_a_few_properties_are_spots_and_with_many_a_prediction(tmp_path):
    wide = write_lazyslide_like(fake_prediction(36, 12), tmp_path / "wide.zarr", in_shapes=True)
    few = write_lazyslide_like(fake_prediction(36, 6), tmp_path / "few.zarr", in_shapes=True)
    assert [holds_prediction(store / "shapes" / "tiles") for store in (wide, few)] == [True, False]


@pytest.mark.filterwarnings("ignore:.*not unique")
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda a: a.obsm.pop(keys.SPATIAL), "has no positions"),
        (lambda a: a.X.__setitem__((0, 0), np.nan), "missing or not numbers"),
        (lambda a: setattr(a, "obs_names", ["twice"] * a.n_obs), "names a spot or a gene twice"),
        (lambda a: a.obs.insert(0, "library_id", ["a", "b"] * (a.n_obs // 2)), "holds 2 slides"),
    ],
)
def test_what_cannot_be_shown_is_one_sentence(prediction, tmp_path, spoil, said):
    adata = plain(prediction, prediction.X)
    adata.obsm[keys.SPATIAL] = prediction.obsm[keys.SPATIAL]
    spoil(adata)
    adata.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(UserError, match=said):
        read_any_prediction(tmp_path / "other.h5ad", "log2p1")


def test_a_table_of_counts_is_a_measurement_and_fractions_with_places_a_prediction(prediction, tmp_path):
    counts = written(prediction, tmp_path / "counts.h5ad", np.rint(prediction.X * 10))
    fractions = written(prediction, tmp_path / "fractions.h5ad", prediction.X)
    nowhere = tmp_path / "nowhere.h5ad"
    plain(prediction, prediction.X).write_h5ad(nowhere)
    assert [holds_prediction(path) for path in (counts, fractions, nowhere)] == [False, True, False]


def test_numbered_tiles_are_named_after_the_spots_they_lie_on(prediction, tmp_path):
    spots = spots_of(prediction)
    pitch = 400.0
    moved = prediction.copy()
    moved.obsm[keys.SPATIAL] = moved.obsm[keys.SPATIAL] + 0.05 * pitch
    moved.obsm[keys.SPATIAL][0] += 0.2 * pitch
    moved = moved[::-1].copy()
    read = read_any_prediction(write_lazyslide_like(moved, tmp_path / "C5.zarr"), "log1p")
    named = name_by_place(read, spots, "spots.tsv")
    assert list(named.obs_names) == list(spots.ids[:0:-1])
    np.testing.assert_allclose(named.X, prediction.X[:0:-1], rtol=1e-6)
    np.testing.assert_array_equal(named.obs[[keys.ARRAY_ROW, keys.ARRAY_COL]], spots.array[:0:-1])
    assert any("35 of 36 rows of stpath_tiles lie on spots of spots.tsv" in said for said in doubts_of(named))
    assert list(read.obs_names) == [str(k) for k in range(36)], "the given one is not changed"
    read.obsm[keys.SPATIAL] = read.obsm[keys.SPATIAL] + 0.5 * pitch
    with pytest.raises(UserError, match="No row of stpath_tiles lies on a spot"):
        name_by_place(read, spots, "spots.tsv")


def test_paths_of_whoever_made_a_file_are_not_taken_over(prediction, tmp_path):
    library = {
        "images": {"hires": np.zeros((4, 4, 3), np.uint8)},
        "scalefactors": {"tissue_hires_scalef": 0.1},
        "metadata": {"source_image_path": "/home/jdoe/slides/C5.tif"},
    }
    path = written(prediction, tmp_path / "m.h5ad", prediction.X, spatial={"C5": library}, log1p={"base": 2})
    read = read_any_prediction(path)
    assert set(read.uns[keys.SPATIAL]["C5"]) == {"images", "scalefactors"}
    write_prediction(read, tmp_path / "saved.h5ad")
    assert b"jdoe" not in (tmp_path / "saved.h5ad").read_bytes()


def test_a_picture_of_another_program_that_is_none_is_left_out_and_said(prediction, tmp_path):
    libraries = {"C5": {"images": {"hires": np.zeros(5)}, "scalefactors": {"tissue_hires_scalef": 0.5}}}
    path = written(prediction, tmp_path / "a.h5ad", prediction.X, **{keys.SPATIAL: libraries})
    read = read_any_prediction(path, unit="log2p1")
    assert keys.SPATIAL not in read.uns
    assert any("its pictures are left out" in notice for notice in doubts_of(read))
