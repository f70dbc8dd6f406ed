"""The landmarks of evaluation.md that need no model, on her2st C2–C5, prove the definitions."""

from itertools import combinations

import numpy as np
import pytest

from napari_flag.statistics import accuracy, coexpression, moran, neighbours

NOBODY = np.zeros(200, bool)


def others(sections, name):
    return np.vstack([sections[other].y for other in sections if other != name])


def average(sections, score):
    return np.mean([score(name) for name in sections])


def true_depth(sections, name):
    """One factor: each gene's line over the *true* mean of the panel, learnt on the others."""
    train = others(sections, name)
    known = np.column_stack([np.ones(len(train)), train.mean(axis=1)])
    lines = np.linalg.lstsq(known, train, rcond=None)[0]
    y = sections[name].y
    return (np.column_stack([np.ones(len(y)), y.mean(axis=1)]) @ lines).astype(np.float32)


def test_slide_mean_has_the_landmark_error_and_scores_zero(sections):
    def mean_of_others(name):
        y = sections[name].y
        return np.tile(others(sections, name).mean(axis=0), (len(y), 1)), y

    mse = average(sections, lambda name: accuracy.gene_mse(*mean_of_others(name)).mean())
    pcc = average(sections, lambda name: accuracy.gene_pearson(*mean_of_others(name)).mean())
    assert mse == pytest.approx(1.574, abs=5e-4)
    assert pcc == 0.0


def test_true_depth_has_the_landmark_accuracy_and_composition(sections):
    def pcc(name):
        return accuracy.gene_pearson(true_depth(sections, name), sections[name].y).mean()

    def mse(name):
        return accuracy.gene_mse(true_depth(sections, name), sections[name].y).mean()

    def cpcc(name):
        return accuracy.gene_pearson(
            accuracy.composition(true_depth(sections, name)),
            accuracy.composition(sections[name].y),
        ).mean()

    assert average(sections, pcc) == pytest.approx(0.814, abs=5e-4)
    assert average(sections, mse) == pytest.approx(0.520, abs=5e-4)
    assert average(sections, cpcc) == pytest.approx(0.201, abs=5e-4)


def test_true_depth_has_no_structure_and_the_landmark_gsc_of_it_is_rounding(sections):
    """All its genes are one curve.  Correlating 1 ± 1e-12 with truth gives the table's .40."""
    for name, section in sections.items():
        predicted = true_depth(sections, name)
        p = coexpression.gene_correlations(predicted)
        m = coexpression.gene_correlations(section.y)
        assert np.ptp(coexpression.upper_triangle(p)) < 1e-9
        assert coexpression.gene_structure_correlation(p, m, NOBODY) == 0.0
        weights = neighbours.nearest_graph(section.xy, 4)
        ssc = moran.spatial_structure_correlation(
            moran.moran_i(predicted, weights),
            moran.moran_i(section.y, weights),
            NOBODY,
        )
        assert ssc == 0.0


def test_replicate_sections_agree_as_in_the_landmarks(sections):
    correlations = {n: coexpression.gene_correlations(s.y) for n, s in sections.items()}
    clustered = {n: moran.moran_i(s.y, neighbours.nearest_graph(s.xy, 4)) for n, s in sections.items()}
    pairs = list(combinations(sections, 2))
    gsc = [
        coexpression.gene_structure_correlation(correlations[a], correlations[b], NOBODY) for a, b in pairs
    ]
    ssc = [moran.spatial_structure_correlation(clustered[a], clustered[b], NOBODY) for a, b in pairs]
    assert np.mean(gsc) == pytest.approx(0.902, abs=5e-4)
    assert np.mean(ssc) == pytest.approx(0.658, abs=5e-4)
