"""Training over windows: its log, its state, what it is validated on, and alignment."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.training.methods.test_graph_diffusion import FORMS, small

from flag_training.cohort import Cohort
from flag_training.gene_targets.gene_table import GeneTable, write_table
from flag_training.methods.learning import Descent
from flag_training.methods.method import pooled
from flag_training.methods.window_training import train, untrained, windows_of
from napari_flag.progress import finish

pytest.importorskip("torch_geometric")


def rows_of(folder):
    with (folder / "train.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", FORMS)
def test_a_training_logs_its_parts_and_goes_on_from_its_state(name, cohort, tmp_path):
    form = small(name)
    rest = Cohort(cohort.slides[:3], cohort.features[:3], cohort.genes)
    held = Cohort(cohort.slides[3:], cohort.features[3:], cohort.genes)
    network = finish(train(form, rest, 0, tmp_path, held, check_every=2))
    rows = rows_of(tmp_path)
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert all(math.isfinite(float(row["node"])) for row in rows)
    assert [bool(row["validation"]) for row in rows] == [False, True, False, True]
    steps = []
    again = finish(train(form, rest, 0, tmp_path, held, check_every=2), steps.append)
    assert not steps  # all were taken
    for ours, theirs in zip(again.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def test_networks_are_scaled_by_the_training_spots(cohort):
    network = untrained(small("joint"), cohort, 0)
    features, expression = pooled(cohort)
    torch.testing.assert_close(network.spots.mean, torch.from_numpy(expression.mean(0)))
    assert network.spots.spread.item() == pytest.approx((expression - expression.mean(0)).std(), rel=1e-3)
    seen = network.standard(torch.from_numpy(features))
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-4)
    found = [each.expression for each in windows_of(small("joint"), network, cohort)]
    assert sum(int(each.shape[0]) for each in found) == 4 * len(cohort.slides)  # 2 × 2 windows a slide


@pytest.mark.parametrize("centre", ["mean", "sum"])
def test_edges_are_scaled_by_the_pairs_that_have_a_correlation(cohort, centre):
    """One 0 among edges that are all near 1, as published, would be their whole spread."""
    slides = [replace(slide, expression=slide.expression.copy()) for slide in cohort.slides]
    slides[0].expression[3] = 0
    few = replace(cohort, slides=tuple(slides))
    form = small("joint", centre=centre)
    network = untrained(form, few, 0)
    windows = windows_of(form, network, few)
    pairs = [
        (window[i], window[j])
        for each in windows
        for window, here in zip(each.expression.double().numpy(), each.present, strict=True)
        for i in range(int(here.sum()))
        for j in range(int(here.sum()))
        if i != j and window[i].any() and window[j].any()
    ]
    assert len(pairs) < sum(int(each.pairs.sum()) for each in windows)

    def correlation(x, y):
        a, b = (v - (v.sum() if centre == "sum" else v.mean()) for v in (x, y))
        return a @ b / np.sqrt((a @ a) * (b @ b))

    exact = np.array([correlation(x, y) for x, y in pairs])
    assert network.edges.mean.item() == pytest.approx(exact.mean(), rel=1e-4)
    assert network.edges.spread.item() == pytest.approx(exact.std(ddof=1), rel=1e-4)


def test_a_spot_without_counts_teaches_the_edges_nothing(cohort):
    form = small("joint")
    network = untrained(form, cohort, 0)
    (windows, *_) = windows_of(form, network, cohort)
    windows.expression[:, 2] = 0
    assert windows.correlated.sum() < windows.pairs.sum()
    assert not windows.correlated[:, 2].any()
    assert not windows.correlated[:, :, 2].any()


def test_flag_is_aligned_to_the_vectors_of_a_table(cohort, tmp_path):
    vectors = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    table = tmp_path / "genes.safetensors"
    write_table(table, GeneTable(tuple("ABCD"), vectors, ("E",), {"model": "drawn"}))
    form = replace(small("FLAG"), alignment_targets=str(table), training=Descent(30, 5e-3, clip=1.0))
    rest = Cohort(cohort.slides[:1], cohort.features[:1], cohort.genes)
    finish(train(form, rest, 0, tmp_path / "run"))
    aligned = [float(row["alignment"]) for row in rows_of(tmp_path / "run")]
    assert aligned[-1] < aligned[0] - 0.2
    assert min(aligned) >= -1
