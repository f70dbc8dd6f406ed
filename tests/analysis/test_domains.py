import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.analysis.domains import (
    COLUMNS,
    LABELS,
    MEASURED,
    PREDICTED,
    describe_labels,
    domain_names,
    find,
    find_all,
    find_missing,
    learned_on,
    read_domains,
    read_for,
    write_labels,
)
from napari_flag.errors import UserError
from napari_flag.layers.gene_map import GeneMap
from napari_flag.layers.region_shapes import collect
from napari_flag.progress import finish
from napari_flag.statistics import domains
from napari_flag.statistics.domains import agreement


@pytest.fixture
def adata():
    return fake_prediction(100, n_genes=20)


def write(path, labels):
    path.write_text("\n".join(["spot\tlabel", *(f"{spot}\t{label}" for spot, label in labels.items())]))
    return path


def test_reading_changes_nothing_and_refuses_the_labels_of_another_slide(adata, tmp_path):
    path = write(tmp_path / "labels.tsv", {adata.obs_names[0]: "fat"})
    assert finish(read_for(adata, path)).by_spot == {adata.obs_names[0]: "fat"}
    assert keys.LABEL not in adata.obs
    with pytest.raises(UserError, match="None of the spots"):
        finish(read_for(adata, write(tmp_path / "other.tsv", {"elsewhere": "fat"})))


def test_labels_are_numbered_by_name_and_clusters_by_number(adata, tmp_path):
    named = dict(zip(adata.obs_names, ["tumour", "fat", "connective tissue"], strict=False))
    write_labels(adata, finish(read_for(adata, write(tmp_path / "labels.tsv", named))))
    assert domain_names(adata, LABELS) == ("connective tissue", "fat", "tumour")
    assert read_domains(adata, LABELS)[:4].tolist() == [3, 2, 1, 0]
    adata.obs[keys.LABEL] = pd.Categorical(np.resize(["2", "10", "1"], 100))
    assert domain_names(adata, LABELS) == ("1", "2", "10")
    names = [entry.region.name for entry in collect([], GeneMap(ViewerModel()), adata, LABELS)]
    assert names == ["Label 1", "Label 2", "Label 10"]
    assert read_domains(adata, LABELS)[:3].tolist() == [2, 3, 1]


def test_domains_that_are_missing_are_found_and_those_there_keep_their_spots(adata, tmp_path):
    assert describe_labels(adata) == ""
    mine = pd.Categorical(np.resize(["1", "2"], 100))
    adata.obs[keys.DOMAIN] = mine
    same = dict(zip(adata.obs_names, ["a" if number == "1" else "b" for number in mine], strict=True))
    write_labels(adata, finish(read_for(adata, write(tmp_path / "labels.tsv", same))))
    sentence = describe_labels(adata)
    assert sentence == "100 of 100 spots are labelled. Domains to labels: prediction ARI 1.000, NMI 1.000."
    finish(find_missing(adata, "leiden"))
    assert agreement(adata.obs[keys.DOMAIN].to_numpy(), np.asarray(mine)).ari == 1.0
    assert read_domains(adata, MEASURED) is not None
    assert "; truth ARI" in describe_labels(adata)


@pytest.mark.parametrize("spots", [0, 1, 5, 9])
def test_where_too_few_spots_were_measured_only_the_prediction_gets_domains(adata, spots):
    adata.layers[keys.MEASURED][spots:] = np.nan
    finish(find_missing(adata, "leiden"))
    assert read_domains(adata, PREDICTED) is not None
    assert read_domains(adata, MEASURED) is None


def test_domains_that_are_missing_are_found_by_the_method_asked_for_or_of_those_there(adata):
    fresh = adata.copy()
    finish(find_missing(fresh, "k-means"))
    assert [fresh.uns[keys.DOMAIN_METHOD + end] for end in ("", keys.OF_MEASURED)] == ["k-means", "k-means"]
    finish(find(adata, PREDICTED, "k-means"))
    expected = finish(find_all(adata))
    finish(find_missing(adata, "leiden"))
    assert adata.uns[keys.DOMAIN_METHOD + keys.OF_MEASURED] == "k-means"
    for source in (PREDICTED, MEASURED):
        np.testing.assert_array_equal(read_domains(adata, source), expected[source])


def test_domains_that_others_named_keep_their_names_where_none_is_missing(adata):
    adata.obs[keys.DOMAIN] = pd.Categorical(np.resize(["tumour", "fat"], 100))
    adata.layers[keys.MEASURED][5:] = np.nan
    finish(find_missing(adata, "leiden"))
    assert list(adata.obs[keys.DOMAIN].cat.categories) == ["fat", "tumour"]


def test_domains_named_by_words_keep_them_where_the_truth_gets_domains(adata):
    words = np.resize(["tumour", "fat"], 100)
    for work in (find_missing(adata, "leiden"), find(adata, MEASURED, "leiden")):
        adata.obs[keys.DOMAIN] = pd.Categorical(words)
        finish(work)
        assert read_domains(adata, MEASURED) is not None
        assert adata.obs[keys.DOMAIN].tolist() == words.tolist()
        assert domain_names(adata, PREDICTED) == ("fat", "tumour")
        del adata.obs[COLUMNS[MEASURED]]
    numbers = read_domains(adata, PREDICTED)
    assert domain_names(adata, PREDICTED, numbers) == ("fat", "tumour")
    assert domain_names(adata, PREDICTED, 3 - numbers) == ("1", "2")
    assert domain_names(adata, MEASURED, numbers) == ("1", "2")
    finish(find(adata, PREDICTED, "leiden"))
    assert domain_names(adata, PREDICTED)[0] == "1"


def test_a_blank_name_is_no_domain_and_a_whole_float_is_its_number(adata):
    adata.obs[keys.DOMAIN] = pd.Categorical(np.resize(["fat", "", " "], 100))
    assert domain_names(adata, PREDICTED) == ("fat",)
    assert read_domains(adata, PREDICTED)[:3].tolist() == [1, 0, 0]
    adata.obs[keys.DOMAIN] = np.resize([2.0, 10.0, np.nan], 100)
    assert read_domains(adata, PREDICTED)[:3].tolist() == [2, 10, 0]


def test_domains_learned_on_a_part_of_the_spots_are_said_to_be_where_we_found_them(adata, monkeypatch):
    finish(find(adata, PREDICTED, "leiden"))
    assert learned_on(adata, PREDICTED) == ""
    monkeypatch.setattr(domains, "MOST_SPOTS", 40)
    assert learned_on(adata, PREDICTED).startswith("Domains were learned on 40 of 100 spots drawn at random;")
    del adata.uns[keys.DOMAIN_METHOD]
    assert learned_on(adata, PREDICTED) == "", "nothing says who found these"
    assert (finish(find(adata, PREDICTED, "k-means")) > 0).all()
    assert learned_on(adata, PREDICTED)
