import re

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse
from tests.fakes import counts_for, fake_prediction

from napari_flag import keys
from napari_flag.analysis import truth
from napari_flag.errors import Doubtful, UserError
from napari_flag.progress import finish
from napari_flag.slides.formats.counts import RESOLUTIONS
from napari_flag.slides.spot_tables import read_measured


@pytest.fixture
def prediction():
    return fake_prediction(n_spots=36, n_genes=6)


def test_spots_match_by_id_and_genes_by_symbol_in_any_order(prediction):
    measured = counts_for(prediction)
    expected = measured.X.toarray()
    shuffled = measured[np.random.default_rng(1).permutation(36)].copy()
    shuffled = shuffled[:, list(measured.var_names[::-1])].copy()
    match = truth.match_names(prediction, shuffled)
    np.testing.assert_array_equal(truth.shared_counts(shuffled, match), expected)


def test_what_is_on_one_side_only_is_listed(prediction):
    measured = counts_for(prediction)[1:, :5].copy()
    measured.obs_names = [*measured.obs_names[:-1], "elsewhere"]
    left = truth.find_unmatched(prediction, measured)
    assert left.spots_only_predicted == ("0_0", "5_5")
    assert left.spots_only_measured == ("elsewhere",)
    assert left.genes_only_predicted == (prediction.var_names[5],)
    assert left.genes_only_measured == ()


def test_no_common_spot_says_the_slide_is_likely_wrong_and_shows_both_namings(prediction):
    measured = counts_for(prediction)
    measured.obs_names = [f"AAAC{i}-1" for i in range(36)]
    with pytest.raises(UserError, match=r"'0_0'.*'AAAC0-1'.*another slide"):
        truth.match_names(prediction, measured)


def test_counts_with_genes_in_their_rows_are_called_so_and_not_of_another_slide(prediction):
    turned = counts_for(prediction).T
    elsewhere = turned.copy()
    elsewhere.var_names = [f"other{k}" for k in range(elsewhere.n_vars)]
    for measured in (turned, elsewhere):
        with pytest.raises(
            UserError, match=r"genes \(such as ERBB2\) in its rows .* transpose it"
        ) as refused:
            truth.match_names(prediction, measured)
        assert "another slide" not in str(refused.value)


def test_barcodes_that_differ_in_their_suffix_are_called_so(prediction):
    measured = counts_for(prediction)
    bare = ["".join("ACGT"[k >> 2 * i & 3] for i in range(8)) for k in range(prediction.n_obs)]
    measured.obs_names = bare
    prediction.obs_names = [f"{name}-1" for name in bare]
    with pytest.raises(UserError, match=r"another suffix \('AAAAAAAA', where the spot is 'AAAAAAAA-1'\)"):
        truth.match_names(prediction, measured)


def test_two_common_spots_are_too_few(prediction):
    with pytest.raises(UserError, match="Only 2 of 36"):
        truth.match_names(prediction, counts_for(prediction)[:2].copy())


def test_no_common_gene_shows_both_namings(prediction):
    measured = counts_for(prediction)
    measured.var_names = [f"ENSG{i}" for i in range(6)]
    with pytest.raises(UserError, match=r"ERBB2.*ENSG0.*gene symbols"):
        truth.match_names(prediction, measured)


def test_counts_that_name_spots_twice_are_refused_as_any_table_of_spots_is(prediction):
    measured = counts_for(prediction)
    measured.obs_names = ["0_0", "0_0", "0_0", "0_1", "0_1", *measured.obs_names[5:]]
    said = (
        "The measured table names 2 spots more than once (such as 0_0), so it is not clear which row "
        "is meant; make the spot ids unique."
    )
    with pytest.raises(UserError, match=f"^{re.escape(said)}$"):
        truth.match_names(prediction, measured)


def test_a_prediction_given_as_measured_is_refused(prediction):
    with pytest.raises(UserError, match="itself a prediction"):
        truth.match_names(prediction, prediction)


def test_a_gene_listed_twice_counts_where_it_stands_first(prediction):
    measured = counts_for(prediction)
    twice = AnnData(sparse.hstack([measured.X, measured.X[:, :1] * 7]).tocsr())
    twice.obs_names = measured.obs_names
    twice.var_names = [*measured.var_names, measured.var_names[0]]
    match = truth.match_names(prediction, twice)
    np.testing.assert_array_equal(truth.shared_counts(twice, match), measured.X.toarray())
    assert "1 gene is listed more than once" in truth.repeated_genes(twice, match)


def test_a_gene_over_two_columns_of_a_table_of_text_is_said(prediction, tmp_path):
    frame = counts_for(prediction).to_df().astype(int)
    gene = str(prediction.var_names[1])
    path = tmp_path / "counts.tsv"
    for added, said in (("OTHER", None), (gene, f"such as {gene}")):
        frame.assign(added=0).rename(columns={"added": added}).to_csv(path, sep="\t")
        measured = read_measured(path)
        found = truth.repeated_genes(measured, truth.match_names(prediction, measured))
        assert (found is None) if said is None else (said in found)


def test_a_gene_over_two_columns_of_an_h5ad_is_said(prediction, tmp_path):
    counts = counts_for(prediction)
    gene = str(prediction.var_names[1])
    for added, said in (("OTHER", None), (gene, f"such as {gene}")):
        twice = AnnData(sparse.hstack([counts.X, counts.X[:, :1]]).tocsr())
        twice.obs_names, twice.var_names = counts.obs_names, [*counts.var_names, added]
        twice.write_h5ad(tmp_path / "counts.h5ad")
        measured = read_measured(tmp_path / "counts.h5ad")
        found = truth.repeated_genes(measured, truth.match_names(prediction, measured))
        assert (found is None) if said is None else (said in found)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2.32, "2.32.*normalised"),
        (1e30, "1e\\+30.*more than a spot has"),
        (-1.0, "-1.*not a whole"),
        (np.nan, "empty cells where counts should be"),
    ],
)
def test_values_that_are_no_counts_are_refused(prediction, value, said):
    measured = counts_for(prediction)
    measured.X = measured.X.toarray()
    measured.X[3, 2] = value
    match = truth.match_names(prediction, measured)
    with pytest.raises(UserError, match=said):
        truth.shared_counts(measured, match)


def test_measured_is_laid_beside_with_gaps_where_nothing_was_measured(prediction):
    measured = counts_for(prediction)[1:, :5].copy()
    truth.attach_measured(prediction, measured)
    layer = prediction.layers[keys.MEASURED]
    np.testing.assert_allclose(layer[1:, :5], np.log2(measured.X.toarray() + 1), rtol=1e-6)
    assert np.isnan(layer[0]).all()
    assert np.isnan(layer[:, 5]).all()


# --- well-formed and wrong ------------------------------------------------------------------------


def placed(prediction):
    """Counts that know where their spots lie, in pixels of another image."""
    measured = counts_for(prediction)
    measured.obsm[keys.SPATIAL] = prediction.obsm[keys.SPATIAL] * 0.2 + 0.5
    return measured


def doubts(prediction, measured):
    return truth.doubts_about(prediction, measured, truth.match_names(prediction, measured))


def test_true_counts_raise_no_doubt(prediction):
    assert doubts(prediction, placed(prediction)) == ()
    assert doubts(prediction, placed(prediction)[::-1].copy()) == ()
    assert doubts(prediction, placed(prediction)[:24].copy()) == ()
    jittered = placed(prediction)
    pitch = np.ptp(jittered.obsm[keys.SPATIAL]) / 5
    jittered.obsm[keys.SPATIAL] += np.random.default_rng(0).normal(0, 0.1 * pitch, (36, 2))
    assert doubts(prediction, jittered) == ()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda xy, pitch: xy @ np.array([[0, -1.0], [1, 0]]), "turned by 90°"),
        (lambda xy, pitch: -xy, "turned by 180°"),
        (lambda xy, pitch: xy * (-1, 1), "mirrored"),
        (lambda xy, pitch: xy + np.array([pitch, 0]), r"the same way \(x 1.0 and y 0.0 spots\)"),
        (lambda xy, pitch: 0.1 * (xy - (0, 2 * pitch)), r"the same way \(x 0.0 and y −2.0 spots\)"),
    ],
)
def test_ids_that_lie_elsewhere_all_alike_are_noticed_by_their_places(prediction, change, said):
    measured = counts_for(prediction)
    xy = prediction.obsm[keys.SPATIAL]
    measured.obsm[keys.SPATIAL] = change(xy, np.ptp(xy[:, 0]) / 5)
    [doubt] = doubts(prediction, measured)
    assert re.search(said, doubt)


def test_ids_counted_from_another_number_are_noticed_where_that_finds_more_spots(prediction):
    prediction.obs_names = [f"{c + 4}x{r + 4}" for r in range(6) for c in range(6)]
    measured = counts_for(prediction)
    measured.obs_names = [f"{c + 3}x{r + 4}" for r in range(6) for c in range(6)]
    [doubt] = doubts(prediction, measured)
    assert "has 36 of the predicted spots if its ids are moved by 1 and 0, and 30 as they are" in doubt
    measured.obs_names = prediction.obs_names
    assert doubts(prediction, measured[6:].copy()) == ()
    assert doubts(prediction[6:].copy(), measured) == ()


def remarks(prediction, measured):
    return truth.remarks_on(prediction, measured, truth.match_names(prediction, measured))


def test_places_that_say_nothing_of_the_spots_are_said(prediction):
    measured = counts_for(prediction)
    assert remarks(prediction, measured) == ()
    xy = prediction.obsm[keys.SPATIAL]
    measured.obsm[keys.SPATIAL] = np.where(np.arange(36)[:, None] < 12, np.nan, xy)
    [said] = remarks(prediction, measured)
    assert said.startswith("12 of 36 matched spots have no position in the measured table")
    measured.obsm[keys.SPATIAL] = np.full((36, 2), np.nan)
    assert remarks(prediction, measured)[0].startswith("36 of 36 matched spots")
    measured.obsm[keys.SPATIAL] = xy * 0
    assert "all in one place or on one line" in remarks(prediction, measured)[0]
    measured.obsm[keys.SPATIAL] = xy + np.array([0, np.ptp(xy[:, 1]) / 5])
    measured.obsm[keys.SPATIAL][:6] = np.nan
    assert "the same way" in doubts(prediction, measured)[0]


def test_places_at_another_scale_are_said_unless_the_measured_table_states_it(prediction):
    measured = placed(prediction)
    [said] = remarks(prediction, measured)
    assert said.startswith("Positions in the measured table are 0.2 times those of the prediction")
    measured.uns[RESOLUTIONS] = [5.0]
    assert remarks(prediction, measured) == ()


def test_barcodes_of_several_libraries_are_said(prediction):
    bare = ["".join("ACGT"[k >> 2 * i & 3] for i in range(8)) for k in range(prediction.n_obs)]
    prediction.obs_names = [f"{name}-1" for name in bare]
    measured = counts_for(prediction)
    assert remarks(prediction, measured) == ()
    both = AnnData(sparse.vstack([measured.X, measured.X]).tocsr())
    both.obs_names = [*measured.obs_names, *(f"{name}-2" for name in bare)]
    both.var_names = measured.var_names
    [said] = remarks(prediction, both)
    assert "2 libraries (-1 (36), -2 (36))" in said


def test_ids_shuffled_among_counts_are_noticed_by_their_places(prediction):
    measured = placed(prediction)
    measured.obs_names = np.random.default_rng(0).permutation(measured.obs_names)
    [doubt] = doubts(prediction, measured)
    assert "lie elsewhere in the measured table" in doubt


@pytest.mark.parametrize("measured_spots", [36, 24])
def test_ids_written_row_by_column_are_noticed_also_where_not_all_spots_were_measured(
    prediction, measured_spots
):
    prediction.obs_names = [f"{c}x{r + 3}" for r in range(6) for c in range(6)]
    measured = counts_for(prediction)
    measured.obs_names = [f"{r + 3}x{c}" for r in range(6) for c in range(6)]
    measured = measured[:measured_spots].copy()
    [doubt] = doubts(prediction, measured)
    assert "row × column" in doubt


def test_ids_of_which_few_fit_either_way_are_not_called_exchanged(prediction):
    """As of another section, whose outline is another."""
    prediction.obs_names = [f"{c}x{r + 3}" for r in range(6) for c in range(6)]
    measured = counts_for(prediction)
    measured.obs_names = [f"{r + 5}x{c}" for r in range(6) for c in range(6)]
    assert not any("row × column" in doubt for doubt in doubts(prediction, measured))


def test_ids_turned_on_a_square_are_noticed_by_their_places(prediction):
    measured = counts_for(prediction)
    measured.obsm[keys.SPATIAL] = prediction.obsm[keys.SPATIAL]
    assert doubts(prediction, measured) == ()
    measured.obs_names = ["_".join(name.split("_")[::-1]) for name in measured.obs_names]
    [doubt] = doubts(prediction, measured)
    assert "with x and y exchanged in the measured table" in doubt


@pytest.mark.parametrize("factor", [10, 100, 7])
def test_counts_that_were_scaled_are_noticed(prediction, factor):
    measured = counts_for(prediction)
    measured.X = measured.X * factor
    assert f"multiples of {factor}" in doubts(prediction, measured)[0]


@pytest.mark.parametrize("empty", [0, 3])
def test_counts_of_one_total_are_noticed_also_where_spots_are_empty(prediction, empty):
    measured = counts_for(prediction)
    values = measured.X.toarray()
    values = np.rint(values / values.sum(1, keepdims=True) * 1e4).astype(np.float32)
    values[:empty] = 0
    measured.X = sparse.csr_matrix(values)
    assert "same total (10,000)" in doubts(prediction, measured)[0]


def test_doubts_are_refused_unless_insisted_on(prediction):
    measured = counts_for(prediction)
    measured.X = measured.X * 10
    match = truth.match_names(prediction, measured)
    with pytest.raises(
        UserError,
        match=r"scaled; give the raw counts of this section, or insist: “Compare anyway”.* \(.*\)\.$",
    ):
        truth.refuse_doubts(prediction, measured, match, force=False)
    [notice] = truth.refuse_doubts(prediction, measured, match, force=True)
    assert "as was insisted on" in notice


def test_doubtful_counts_are_attached_only_on_insistence_which_the_prediction_records(prediction):
    measured = counts_for(prediction)
    before = prediction.layers[keys.MEASURED].copy()
    scaled = measured.copy()
    scaled.X = scaled.X * 10
    with pytest.raises(Doubtful, match="were scaled"):
        truth.attach_measured(prediction, scaled)
    np.testing.assert_array_equal(prediction.layers[keys.MEASURED], before)
    said = truth.attach_measured(prediction, scaled, force=True)
    assert truth.insisted_on(prediction) == said
    assert "as was insisted on" in said[0]
    attached = finish(truth.truth_of(prediction))
    match = truth.match_names(prediction, attached)
    assert truth.refuse_doubts(prediction, attached, match, force=False) == said
    assert truth.attach_measured(prediction, measured) == ()
    assert truth.insisted_on(prediction) == ()


def test_the_truth_is_what_was_attached_else_what_the_layer_holds_unless_it_was_refused(prediction):
    attached = counts_for(prediction)
    assert finish(truth.truth_of(prediction, attached, refused=True)) is attached
    found = finish(truth.truth_of(prediction))
    np.testing.assert_array_equal(found.X, np.rint(np.exp2(prediction.layers[keys.MEASURED]) - 1))
    assert finish(truth.truth_of(prediction, refused=True)) is None
    prediction.layers[keys.MEASURED] = np.full(prediction.shape, np.nan, np.float32)
    assert finish(truth.truth_of(prediction)) is None
    del prediction.layers[keys.MEASURED]
    assert finish(truth.truth_of(prediction)) is None


def test_counts_that_are_all_zero_are_refused(prediction):
    measured = counts_for(prediction)
    measured.X = measured.X * 0
    with pytest.raises(UserError, match="only zeros"):
        truth.attach_measured(prediction, measured)


def test_a_table_without_genes_is_refused(prediction):
    with pytest.raises(UserError, match="has no genes"):
        truth.match_names(prediction, counts_for(prediction)[:, []].copy())


def test_genes_in_other_letters_are_named_as_either_table_spells_them(prediction):
    measured = counts_for(prediction)
    measured.var_names = ["Xkr4", "Erbb2", *measured.var_names[2:]]
    assert truth.other_letters(prediction, measured) == (
        "The measured table has 1 predicted gene in other letters (such as Erbb2 for ERBB2), left out of the "
        "comparison; write symbols alike to compare them."
    )
    measured.var_names = ["Xkr4", "Erbb2", "Cd274", *measured.var_names[3:]]
    assert "has 2 predicted genes in other letters (such as Erbb2 for" in truth.other_letters(
        prediction, measured
    )


def test_genes_that_are_all_in_other_letters_are_refused_with_either_spelling(prediction):
    measured = counts_for(prediction)[:, :2].copy()
    measured.var_names = ["Xkr4", "Erbb2"]
    with pytest.raises(UserError, match=r"\(such as ERBB2\) are .* letters \(such as Erbb2\), which"):
        truth.match_names(prediction, measured)
    measured.var_names = ["Xkr4", "Sox17"]
    assert truth.other_letters(prediction, measured) is None


@pytest.mark.parametrize("sparsely", [False, True])
def test_an_extent_is_cut_in_parts_as_whole_and_a_slice_of_it_as_its_places(prediction, sparsely):
    matrix = sparse.csc_array(prediction.X) if sparsely else prediction.X
    gapped = np.array([0, 2, 3, 9, 20])
    for spots, genes in (
        (np.arange(36), np.arange(6)),
        (gapped, np.array([4, 1])),
        (gapped, np.arange(2, 5)),
    ):
        extent = truth.Extent(spots, genes)
        known = prediction.X[np.ix_(spots, genes)].astype(np.float64)
        np.testing.assert_array_equal(extent.cut(matrix), known)
        parts = extent.parts_of(matrix)
        assert parts.shape == known.shape
        np.testing.assert_array_equal(np.concatenate([parts[:3], parts[3 : len(spots)]]), known)


def test_cutting_a_whole_matrix_copies_it_once_and_cutting_parts_never():
    import tracemalloc

    matrix = np.ones((2000, 500))
    extent = truth.Extent(np.arange(2000), np.arange(500))
    for work, most in ((lambda: extent.cut(matrix), 1.1), (lambda: extent.parts_of(matrix)[:100], 0.1)):
        tracemalloc.start()
        work()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < most * matrix.nbytes
