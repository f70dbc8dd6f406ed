"""The genes of a set averaged over regions, predicted and measured."""

import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.analysis.pathways import bundled
from napari_flag.analysis.set_maps import find_set, first_set, map_set, named_apart, regions_of_domains
from napari_flag.analysis.truth import MEASURED, PREDICTED
from napari_flag.errors import UserError
from napari_flag.progress import finish


@pytest.fixture
def adata():
    return fake_prediction(100, n_genes=20)


@pytest.fixture
def halves(adata):
    left = adata.obsm[keys.SPATIAL][:, 0] < 2200
    return {"left": left, "right": ~left}


def test_values_are_means_of_the_region_less_the_section_s_without_depth(adata, halves):
    names = [str(gene) for gene in adata.var_names]
    found = finish(map_set(adata, "Mine", [*names[3:6], "ABSENT"], halves))
    assert (found.size, set(found.genes), found.regions) == (4, set(names[3:6]), ("left", "right"))
    for source, matrix in ((PREDICTED, adata.X), (MEASURED, adata.layers[keys.MEASURED])):
        alone = matrix - matrix.mean(axis=1, keepdims=True)
        for row, gene in enumerate(found.genes):
            column = names.index(gene)
            expected = alone[halves["left"], column].mean() - alone[:, column].mean()
            assert found.values[source][row, 0] == pytest.approx(expected, abs=1e-5)
    assert found.limit == pytest.approx(np.abs(np.stack(list(found.values.values()))).max())


def test_depth_alone_draws_no_pattern(adata, halves):
    adata.X[:] = 3.0 + 2.0 * halves["left"][:, None]
    found = finish(map_set(adata, "Mine", list(adata.var_names[:5]), halves))
    assert np.abs(found.values[PREDICTED]).max() < 1e-6


def test_genes_stand_by_the_region_of_the_truth_where_they_are_highest(adata, halves):
    adata.layers[keys.MEASURED][:] = 3.0
    adata.layers[keys.MEASURED][:, 5] += 2.0 * halves["right"]
    adata.layers[keys.MEASURED][:, 6] += 1.0 * halves["left"]
    adata.layers[keys.MEASURED][:, 7] += 2.0 * halves["left"]
    names = [str(gene) for gene in adata.var_names]
    found = finish(map_set(adata, "Mine", names[5:8], halves))
    assert list(found.genes) == [names[7], names[6], names[5]]


def test_what_was_not_measured_is_unknown_and_stays_in_the_prediction(adata, halves):
    adata.layers[keys.MEASURED][:, 2] = np.nan
    names = [str(gene) for gene in adata.var_names]
    found = finish(map_set(adata, "Mine", names[:4], halves))
    row = found.genes.index(names[2])
    assert np.isnan(found.values[MEASURED][row]).all()
    assert np.isfinite(found.values[PREDICTED]).all()
    table = found.table()
    assert len(table) == 8
    assert table.measured.isna().sum() == 2


def test_without_truth_the_prediction_stands_alone(adata, halves):
    del adata.layers[keys.MEASURED]
    assert list(finish(map_set(adata, "Mine", list(adata.var_names[:4]), halves)).values) == [PREDICTED]


def test_a_set_or_regions_that_are_not_there_are_refused_in_one_sentence(adata, halves):
    with pytest.raises(UserError, match="None of the 2 genes of Mine"):
        finish(map_set(adata, "Mine", ["A", "B"], halves))
    with pytest.raises(UserError, match="There is no region"):
        finish(map_set(adata, "Mine", list(adata.var_names[:4]), {}))
    with pytest.raises(UserError, match=r"no gene set Other among the 1 at hand \(Mine …\)"):
        find_set({"Mine": ("A",)}, "Other")


def test_the_first_set_with_two_genes_here_is_shown_where_none_was_chosen(adata):
    names = [str(gene) for gene in adata.var_names]
    sets = {"none": ("A", "B"), "one": ("A", names[0]), "two": (names[0], names[1])}
    assert first_set(sets, adata) == ("two", (names[0], names[1]))
    assert first_set({"none": ("A", "B")}, adata)[0] == "none"


def test_a_set_is_found_by_its_letters_and_by_its_very_name_first():
    assert find_set({"Mine": ("A",)}, "mine") == ("Mine", ("A",))
    assert find_set({"MY_SET": ("A",), "my set": ("B",)}, "my set") == ("my set", ("B",))
    with pytest.raises(UserError, match="no gene set"):
        find_set({"Mine": ("A",)}, "…")


def test_the_bundled_set_of_early_estrogen_response_is_mapped_under_the_name_the_field_knows(adata, halves):
    name, genes = find_set(bundled(), "Estrogen Response Early")
    assert name == "Estrogen response, early"
    adata.var_names = [*genes[:6], *adata.var_names[6:]]
    found = finish(map_set(adata, name, genes, halves))
    assert np.isfinite(found.values[PREDICTED]).all()
    assert set(genes[:6]) <= set(found.table().gene) <= set(genes)


def test_regions_of_one_name_get_a_number_and_domains_have_theirs():
    masks = [np.array([True, False]), np.array([False, True])]
    assert list(named_apart(zip(["Stroma", "Stroma"], masks, strict=True))) == ["Stroma", "Stroma (2)"]
    found = regions_of_domains(np.array([2, 0, 1, 2]), ("1", "2"))
    assert list(found) == ["domain 1", "domain 2"]
    assert found["domain 2"].tolist() == [True, False, False, True]
    assert list(regions_of_domains(np.array([2, 0, 1, 2]), ("fat", "tumour"))) == ["fat", "tumour"]
