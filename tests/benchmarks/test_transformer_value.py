"""What the transformer is worth is judged over patients, not over slides of the same ones."""

import json

import numpy as np
import pytest

from benchmarks import transformer_value as bench
from flag_training.simulated import CohortModel
from napari_flag.simulation.expression import generated_genes

MODEL = CohortModel(generated_genes(6), spots=40, slides_per_patient=4, width=12)


def test_every_slide_scored_is_of_another_patient_none_of_them_trained_on():
    scored = [MODEL.slide(number).slide.entry.patient for number in bench.scored_slides(MODEL, 5)]
    trained = {MODEL.slide(number).slide.entry.patient for number in range(8)}
    assert len(set(scored)) == 5
    assert not trained & set(scored)


def test_slides_of_one_patient_count_as_one_in_mean_and_error():
    slides = np.array([[1.0], [3.0], [2.0], [2.0], [8.0]])
    mean, half = bench.over_patients(slides, ["a", "a", "a", "a", "b"])
    np.testing.assert_allclose(mean, [5.0])
    np.testing.assert_allclose(half, [12.7062 * 3.0], rtol=1e-5)  # t(1) times the error of 2 and 8
    one_each = bench.over_patients(slides, list("abcde"))
    np.testing.assert_allclose(one_each[1], 2.77645 * slides.std(ddof=1) / 5**0.5, rtol=1e-5)


def test_of_one_patient_no_error_is_stated():
    mean, half = bench.over_patients([[1.0], [3.0]], ["a", "a"])
    assert mean == [2.0]
    assert np.isnan(half).all()


def test_results_of_other_genes_slides_steps_or_patients_are_not_taken_for_each_other(tmp_path):
    more = CohortModel(generated_genes(7))
    asked = [(MODEL, 4, 2, 10), (more, 4, 2, 10), (MODEL, 8, 2, 10), (MODEL, 4, 3, 10), (MODEL, 4, 2, 11)]
    assert len({bench.result_file(tmp_path, *each) for each in asked}) == len(asked)


@pytest.mark.slow
def test_a_cohort_is_fitted_and_scored_patient_by_patient_once(tmp_path):
    result = bench.measure(MODEL, 4, 2, 2, tmp_path)
    assert result["patients"] == ["patient250", "patient251"]
    assert {name: np.shape(scores) for name, scores in result["scores"].items()} == dict.fromkeys(
        ("transformer", "silenced", "exact"), (2, len(bench.JUDGED))
    )
    place = bench.result_file(tmp_path, MODEL, 4, 2, 2)
    place.write_text(json.dumps(result | {"seconds": -1}))
    assert bench.measure(MODEL, 4, 2, 2, tmp_path)["seconds"] == -1
    assert "| 4 | 160 |" in bench.table([result])
