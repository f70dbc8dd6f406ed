"""Gene sets of regions and domains, predicted and measured."""

import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.analysis.domains import find_domains
from napari_flag.analysis.pathways import (
    describe_sets,
    describe_skipped,
    find_region_sets,
    recover_domains,
    recover_in_truth,
)
from napari_flag.analysis.truth import MEASURED, PREDICTED
from napari_flag.progress import finish
from napari_flag.statistics.pathways import Recovery


@pytest.fixture
def adata():
    """Eight of 30 genes are raised in the left half, in prediction and truth."""
    adata = fake_prediction(100, n_genes=30)
    rng = np.random.default_rng(3)
    left = adata.obsm[keys.SPATIAL][:, 0] < 2200
    for values in (adata.X, adata.layers[keys.MEASURED]):
        values[:] = rng.normal(3, 0.6, values.shape)
        values[left, :8] += 2
    adata.uns["left"] = left
    return adata


@pytest.fixture
def sets(adata):
    names = [str(gene) for gene in adata.var_names]
    return {"raised": names[:8], "other": names[10:18], "few": names[20:22]}


def test_a_region_s_sets_are_found_in_both_sources_and_recovered(adata, sets):
    found = finish(find_region_sets(adata, adata.uns["left"], None, sets))
    assert list(found.enriched) == [PREDICTED, MEASURED]
    for source in found.enriched.values():
        assert source.raised() == ("raised",)
        assert source.skipped == {"few": 2}
    assert found.recovery.shared == ("raised",)
    assert found.described().startswith(
        "Of 2 pairs of gene set and domain 1 raised in the truth, 1 in the prediction, 1 in both"
    )


def test_without_a_truth_the_prediction_alone_is_tested(adata, sets):
    del adata.layers[keys.MEASURED]
    found = finish(find_region_sets(adata, adata.uns["left"], None, sets))
    assert found.enriched[PREDICTED].raised() == ("raised",)
    assert found.recovery is None
    assert found.described() == ""


def test_what_was_measured_cuts_the_recovery_and_not_the_prediction(adata, sets):
    before = finish(find_region_sets(adata, adata.uns["left"], None, sets))
    adata.layers[keys.MEASURED][:, :4] = np.nan
    adata.layers[keys.MEASURED][:7] = np.nan
    after = finish(find_region_sets(adata, adata.uns["left"], None, sets))
    assert after.enriched[PREDICTED].table.equals(before.enriched[PREDICTED].table)
    assert after.enriched[MEASURED].skipped == {"few": 2, "raised": 4}
    assert after.recovery.tested == 1


def test_domains_are_recovered_each_and_as_one(adata, sets):
    numbers = np.where(adata.uns["left"], 1, 2)
    found = finish(recover_domains(adata, numbers, sets))
    assert {domain: sets.shared for domain, sets in found.domains.items()} == {1: ("raised",), 2: ()}
    assert found.whole.shared == ("1: raised",)
    assert "few (2)" in found.described()
    assert found.to_dict()["whole"]["tested"] == 4


def test_there_is_nothing_to_recover_without_truth_or_domains(adata, sets):
    assert finish(recover_domains(adata, np.zeros(100, int), sets)) is None
    del adata.layers[keys.MEASURED]
    assert finish(recover_domains(adata, np.where(adata.uns["left"], 1, 2), sets)) is None


def test_the_truth_s_own_domains_are_those_of_its_leiden_domains(adata, sets):
    found = finish(recover_in_truth(adata, sets))
    same = finish(recover_domains(adata, finish(find_domains(adata, MEASURED)), sets))
    assert found.to_dict() == same.to_dict()
    assert "raised" in describe_sets(found.whole).removeprefix("In both: ")


def test_too_few_measured_spots_have_no_domains_and_no_sets(adata, sets):
    adata.layers[keys.MEASURED][9:] = np.nan
    assert finish(recover_in_truth(adata, sets)) is None
    del adata.layers[keys.MEASURED]
    assert finish(recover_in_truth(adata, sets)) is None


def test_sets_are_named_by_who_has_raised_them():
    found = Recovery(("a", "b"), ("b", "c"), ("b",), 4, np.zeros(3, np.int64))
    said = "In both: b. In the truth alone: c. In the prediction alone: a."
    assert describe_sets(found) == said
    assert describe_sets(Recovery((), (), (), 4, np.zeros(3, np.int64))) == ""


def test_many_skipped_sets_are_named_in_part():
    said = describe_skipped({f"S{number}": 1 for number in range(20)})
    assert said.endswith("S11 (1) and 8 more.")
    assert describe_skipped({}) == ""
