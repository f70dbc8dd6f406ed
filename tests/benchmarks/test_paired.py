"""The benchmark of paired differences takes prediction files, as that of domains does."""

import numpy as np
import pytest
from benchmarks.domains import FLAG
from tests.fakes import fake_prediction

from benchmarks import paired
from flag_training.scoring import COMPARED, SCORED
from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.prediction_file import layer_of, write_prediction


def prediction_of(method, away, draws=True):
    """A prediction that lies `away` from the truth, with draws that spread as far."""
    adata = fake_prediction(100, n_genes=12, seed=0, measured=True)
    rng, truth = np.random.default_rng(1), np.asarray(adata.layers[keys.MEASURED], np.float32)
    del adata.layers[keys.SAMPLE]

    def noise():
        return rng.normal(0, away, truth.shape).astype(np.float32)

    adata.X = truth + noise()
    if draws:
        for number, _ in enumerate(SCORED, start=1):
            adata.layers[layer_of(number)] = np.maximum(truth + noise(), 0)
    adata.uns[keys.PROVENANCE] |= {keys.METHOD: method, keys.DRAWS: len(SCORED) if draws else 0}
    return adata


@pytest.fixture
def folder(tmp_path):
    for method, away, draws in ((FLAG, 0.5, True), ("Stem", 1.5, True), ("ridge", 0.5, False)):
        write_prediction(prediction_of(method, away, draws), tmp_path / f"{method}.h5ad")
    return tmp_path


def test_flag_is_better_than_what_lies_farther_from_the_truth_and_level_with_what_lies_as_far(folder):
    (found,) = paired.measure([folder])["sections"].values()
    assert set(found) == {"Stem", "ridge"}
    for metric in (paired.ERROR, *COMPARED):
        value, low, high = found["Stem"][metric]
        assert low <= value <= high < 0, metric
    assert found["Stem"][paired.ERROR][0] == pytest.approx(0.5**2 - 1.5**2, rel=0.1)
    assert set(found["ridge"]) == {paired.ERROR}, "it does not draw"
    assert found["ridge"][paired.ERROR] == (0, 0, 0), "its X is the same"


def test_scores_of_the_files_are_those_of_the_evaluation_that_wrote_them(folder):
    """The difference is that of the means, of the very draws that are scored."""
    predictions = paired.read_sections([folder])
    ((_, of),) = predictions.items()
    section = paired.section_of(of[FLAG])
    ours, theirs = (paired.draws_of(section, of[name]) for name in (FLAG, "Stem"))
    found = paired.pairs_of(of)["Stem"]
    for metric in ("CRPS", "ES"):
        assert found[metric][0] == pytest.approx(ours.scores[metric] - theirs.scores[metric], abs=1e-6)


def test_a_page_says_in_how_many_sections_flag_is_better(folder, tmp_path):
    out = tmp_path / "out" / "paired.json"
    assert paired.main([str(folder), "--out", str(out)]) == 0
    page = out.with_suffix(".md").read_text("utf-8")
    assert f"Written by `python -m benchmarks.paired {folder} --out {out}`" in page
    (row,) = (line for line in page.splitlines() if line.startswith("| Stem |"))
    assert row.count("(better in 1 of 1)") == len(paired.SHOWN)
    (row,) = (line for line in page.splitlines() if line.startswith("| ridge |"))
    assert row.count(" – ") == len(paired.SHOWN) - 1


def test_without_flag_there_is_nothing_to_pair(folder):
    (folder / "FLAG.h5ad").unlink()
    with pytest.raises(UserError, match="no prediction of FLAG beside"):
        paired.measure([folder])
