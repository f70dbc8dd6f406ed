"""What is written into an AnnData is found by squidpy and scanpy, and says what they would."""

import anndata
import numpy as np
import pandas as pd
import pytest
from tests.fakes import counts_for, fake_prediction

from napari_flag import keys
from napari_flag.analysis.domains import COLUMNS, ENDS, find, label_agreement, read_domains, write_labels
from napari_flag.analysis.structure import rank_domains, write_structure
from napari_flag.analysis.truth import (
    MEASURED,
    PREDICTED,
    attach_measured,
    detach_measured,
    truth_of,
)
from napari_flag.exports.contents import with_structure
from napari_flag.progress import finish
from napari_flag.slides.formats.labels import SpotLabels
from napari_flag.statistics import gene_sets
from napari_flag.statistics.domains import Agreement, agreement


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> anndata.AnnData:
    """A prediction with its structure, as it comes back from a file."""
    adata = fake_prediction(144, 60, seed=1)
    finish(write_structure(adata))
    path = tmp_path_factory.mktemp("structure") / "prediction.h5ad"
    adata.write_h5ad(path)
    return anndata.read_h5ad(path)


@pytest.mark.slow
def test_squidpy_finds_the_graph_and_computes_the_same_table(written):
    """Slow for squidpy's import."""
    squidpy = pytest.importorskip("squidpy")
    ours = written.uns[keys.MORAN]
    known = squidpy.gr.spatial_autocorr(written, copy=True, n_jobs=1, show_progress_bar=False)
    assert list(known.columns) == ["I", "pval_norm", "var_norm", "pval_norm_fdr_bh"]
    np.testing.assert_allclose(ours[known.columns].loc[known.index], known, atol=1e-6)


def test_the_table_of_moran_ranks_every_gene(written):
    for name in (keys.MORAN, keys.MORAN + keys.OF_MEASURED):
        table = written.uns[name]
        assert set(table.index) == set(written.var_names)
        assert (np.diff(table.I) <= 0).all()


def test_scanpy_reads_the_markers_of_each_domain(written):
    scanpy = pytest.importorskip("scanpy")
    for end in ("", keys.OF_MEASURED):
        domain = written.obs[keys.DOMAIN + end].astype(str).to_numpy()
        key = keys.MARKERS + end
        first = sorted(set(written.uns[key]["names"].dtype.names))[0]
        table = scanpy.get.rank_genes_groups_df(written, first, key=key)
        assert len(table) == written.n_vars
        values = written.layers[keys.MEASURED] if end else written.X
        inside = domain == first
        gene = list(written.var_names).index(table.names[0])
        difference = values[inside, gene].mean() - values[~inside, gene].mean()
        assert table.logfoldchanges[0] == pytest.approx(difference, abs=1e-5)
        assert difference > 0


def test_the_graph_is_the_arrays_first_ring_with_its_distances(written):
    joined, apart = written.obsp["spatial_connectivities"], written.obsp["spatial_distances"]
    assert joined.sum(axis=1).max() == 4
    assert abs(joined - joined.T).max() == 0
    assert np.unique(np.round(apart.data, 6)).size == 1
    described = written.uns["spatial_neighbors"]["params"]["description"]
    assert described == written.uns[keys.STRUCTURE]["neighbours"]
    assert "first-ring" in described


def test_gene_sets_with_enough_genes_are_scored_and_one_that_is_everything_is_left_out():
    adata = fake_prediction(100, 30, measured=False)
    sets = gene_sets.bundled()
    few, *others = sorted(sets, key=lambda name: len(sets[name]))
    enough = next(name for name in others if set(sets[name]).isdisjoint(sets[few]))
    members = [*sets[enough][:5], *sets[few][:2]]
    adata.var_names = [*members, *adata.var_names[len(members) :]]
    finish(write_structure(adata))
    scored = set(adata.obsm[keys.GENE_SETS].columns)
    assert enough in scored
    assert few not in scored
    whole = fake_prediction(100, 5, measured=False)
    whole.var_names = sets[enough][:5]
    finish(write_structure(whole))
    assert enough not in whole.obsm[keys.GENE_SETS]


def test_predicted_domains_take_the_numbers_of_measured_ones(written):
    ours = written.obs[keys.DOMAIN].astype(str)
    theirs = written.obs[keys.DOMAIN + keys.OF_MEASURED].astype(str)
    assert (ours == theirs).mean() > 0.6
    sizes = theirs.value_counts()
    assert sizes.index[0] == "1"


def test_spots_that_were_not_measured_have_no_measured_domain():
    adata = fake_prediction(144, 12)
    adata.layers[keys.MEASURED][:30] = np.nan
    adata.layers[keys.MEASURED][:, 3] = np.nan
    finish(write_structure(adata))
    assert adata.obs[keys.DOMAIN + keys.OF_MEASURED].isna().to_numpy()[:30].all()
    assert not adata.obs[keys.DOMAIN + keys.OF_MEASURED].isna().to_numpy()[30:].any()
    assert not adata.obs[keys.DOMAIN].isna().any()
    assert len(adata.uns[keys.MORAN + keys.OF_MEASURED]) == 11


@pytest.mark.parametrize("measured", [0, 1, 3])
def test_an_export_leaves_out_morans_i_of_a_measurement_that_is_too_small_and_says_so(measured):
    adata = fake_prediction(144, 12)
    adata.layers[keys.MEASURED][measured:] = np.nan
    steps = []
    complete = finish(with_structure(adata), steps.append)
    assert keys.MORAN in complete.uns
    assert not of_measurement(complete)
    notices = [step.notice for step in steps if step.notice]
    said = f"The measurement has {measured} spot{'s' * (measured > 1)}, too few for Moran's I (at least 4)"
    assert notices == [f"{said}, which is left out."] * (measured > 0)


# --- what is there already ---------------------------------------------------------------------------


def of_measurement(adata):
    return {key for key in (*adata.uns, *adata.obs) if key.endswith(keys.OF_MEASURED)}


def groups(adata, source):
    """The marker genes of each domain in the order of `find`'s numbers, as ranked now."""
    ranked = finish(rank_domains(adata, source, read_domains(adata, source)))
    return {str(number): list(table.gene) for number, table in ranked.items()}


def groups_written(adata, source):
    names = adata.uns[keys.MARKERS + ENDS[source]]["names"]
    return {name: list(names[name]) for name in names.dtype.names}


def test_other_counts_remove_what_was_computed_of_those_before():
    adata, others = fake_prediction(100, 12, seed=1), counts_for(fake_prediction(100, 12, seed=5))
    finish(write_structure(adata))
    assert len(of_measurement(adata)) == 4
    attach_measured(adata, others)
    assert of_measurement(adata) == set()
    complete, fresh = finish(with_structure(adata)), fake_prediction(100, 12, seed=1, measured=False)
    attach_measured(fresh, others)
    finish(write_structure(fresh))
    moran = keys.MORAN + keys.OF_MEASURED
    pd.testing.assert_frame_equal(complete.uns[moran], fresh.uns[moran])
    for source in (PREDICTED, MEASURED):
        np.testing.assert_array_equal(read_domains(complete, source), read_domains(fresh, source))
        assert groups_written(complete, source) == groups_written(fresh, source)
    detach_measured(complete)
    assert of_measurement(complete) == set()
    assert {keys.MEASURED, keys.STRUCTURE}.isdisjoint({*complete.layers, *complete.uns})


def test_counts_attached_to_a_prediction_with_structure_get_theirs():
    adata = fake_prediction(100, 12, measured=False)
    finish(write_structure(adata))
    attach_measured(adata, counts_for(fake_prediction(100, 12)))
    complete = finish(with_structure(adata))
    assert of_measurement(complete) == {
        key + keys.OF_MEASURED for key in (keys.MORAN, keys.MARKERS, keys.DOMAIN, keys.DOMAIN_METHOD)
    }


def test_the_same_counts_again_leave_what_was_computed_of_them():
    adata = fake_prediction(100, 12, measured=False)
    counts = counts_for(fake_prediction(100, 12))[10:].copy()
    attach_measured(adata, counts)
    finish(write_structure(adata))
    for again in (counts, finish(truth_of(adata))):
        attach_measured(adata, again, force=True)
        assert len(of_measurement(adata)) == 4
        assert keys.STRUCTURE in adata.uns


@pytest.mark.parametrize("sources", [(PREDICTED,), (MEASURED,), (PREDICTED, MEASURED)])
def test_domains_that_were_found_are_kept_and_their_genes_ranked(sources):
    adata = fake_prediction(144, 20, seed=2)
    for source in sources:
        finish(find(adata, source, "k-means"))
    before = adata.obs[[COLUMNS[source] for source in sources]].copy()
    complete = finish(with_structure(adata))
    for source in sources:
        kept = agreement(read_domains(complete, source), read_domains(adata, source))
        assert kept.ari == 1.0
    if len(sources) == 2:
        pd.testing.assert_frame_equal(complete.obs[before.columns], before)
    for source in (PREDICTED, MEASURED):
        assert complete.uns[keys.DOMAIN_METHOD + ENDS[source]] == "k-means"  # the other one's too
        assert groups_written(complete, source) == groups(complete, source)


def test_domains_found_after_an_export_replace_its_markers():
    adata = fake_prediction(144, 20, seed=2)
    finish(write_structure(adata))
    markers = groups_written(adata, PREDICTED)
    finish(find(adata, PREDICTED, "k-means"))
    assert {keys.MARKERS, keys.STRUCTURE}.isdisjoint(adata.uns)
    assert keys.MARKERS + keys.OF_MEASURED in adata.uns
    complete = finish(with_structure(adata))
    assert groups_written(complete, PREDICTED) == groups(adata, PREDICTED) != markers
    assert complete.uns[keys.DOMAIN_METHOD] == "k-means"
    assert complete.uns[keys.DOMAIN_METHOD + keys.OF_MEASURED] == "leiden"


def test_domains_named_by_words_keep_them_in_obs_and_markers_and_their_method_is_not_known():
    adata = fake_prediction(100, 12, measured=False)
    names = np.where(adata.obsm[keys.SPATIAL][:, 0] < 2200, "tumour", "fat")
    adata.obs[keys.DOMAIN] = pd.Categorical(names)
    finish(write_structure(adata))
    assert adata.obs[keys.DOMAIN].tolist() == names.tolist()
    assert adata.uns[keys.MARKERS]["names"].dtype.names == ("fat", "tumour")
    assert keys.DOMAIN_METHOD not in adata.uns


def test_labels_stand_beside_the_domains_and_say_how_far_they_agree(written):
    adata = written.copy()
    names = list(adata.obs_names)
    theirs = adata.obs[keys.DOMAIN].astype(str)
    labels = SpotLabels({name: f"tissue {theirs[name]}" for name in names[10:]}, "label")
    write_labels(adata, labels)
    found = label_agreement(adata)
    assert found[keys.DOMAIN] == Agreement(1.0, 1.0)
    assert 0 < found[keys.DOMAIN + keys.OF_MEASURED].ari < 1
    assert adata.obs[keys.LABEL].isna().sum() == 10
    del adata.obs[keys.DOMAIN]
    assert set(label_agreement(adata)) == {keys.DOMAIN + keys.OF_MEASURED}


def test_cancelling_leaves_the_prediction_as_it_was():
    adata = fake_prediction(144, 12)
    before = (set(adata.uns), set(adata.obs), set(adata.obsm), set(adata.obsp))
    steps = write_structure(adata)
    for _ in range(4):
        next(steps)
    steps.close()
    assert (set(adata.uns), set(adata.obs), set(adata.obsm), set(adata.obsp)) == before


def test_gene_sets_given_are_scored_also_where_others_were_and_else_those_there_are_kept(written):
    first, second, third = (str(gene) for gene in written.var_names[:3])
    own = {"OWN": (first, second, third), "SMALL": (first, "NOWHERE")}
    fresh = written.copy()
    del fresh.uns[keys.STRUCTURE]
    for start in (written, fresh):
        scores = finish(with_structure(start, own)).obsm[keys.GENE_SETS]
        assert list(scores.columns) == ["OWN"]
        np.testing.assert_allclose(
            scores["OWN"], gene_sets.score(written.X, list(written.var_names), own["OWN"]), atol=1e-5
        )
    kept = finish(with_structure(written)).obsm[keys.GENE_SETS]
    assert list(kept.columns) == list(written.obsm[keys.GENE_SETS].columns)
