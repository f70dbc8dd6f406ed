import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel

from flag_training.config import FitConfig
from flag_training.stages.expectation import fit_kernel
from flag_training.stages.frames import FramedCohort
from napari_flag.model.config import FlagConfig
from napari_flag.model.graph import GraphTensors, Places, build_graph
from napari_flag.model.mean_head import MeanHead, surroundings

SIDE = 14


@pytest.fixture(scope="module")
def array():
    return np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).reshape(-1, 2)


@pytest.fixture(scope="module")
def graph(array):
    features = np.random.default_rng(0).normal(size=(len(array), 3)).astype(np.float32)
    return GraphTensors.of(build_graph(Places(array * 200.0, 200.0), features))


@pytest.fixture(scope="module")
def smooth(array):
    """Genes that rise and fall over the array at different lengths, with a little noise."""
    generator = np.random.default_rng(1)
    waves = [
        np.sin(array @ generator.normal(0, f, 2) + generator.uniform(0, 6)) for f in (0.2, 0.3, 0.5, 0.4)
    ]
    noisy = np.stack(waves, 1) + generator.normal(0, 0.5, (len(array), 4))
    return torch.from_numpy(noisy.astype(np.float32))


def test_a_spots_surroundings_are_its_first_ring_and_all_its_neighbours(graph, smooth):
    inner = 5 * SIDE + 5
    own, ring, all_of_them = surroundings(smooth, graph)[inner].view(3, 4)
    first = [inner + step for step in (-SIDE - 1, -SIDE, 1 - SIDE, -1, 1, SIDE - 1, SIDE, SIDE + 1)]
    both = [*first, inner - 2 * SIDE, inner - 2, inner + 2, inner + 2 * SIDE]
    torch.testing.assert_close(own, smooth[inner])
    torch.testing.assert_close(ring, smooth[first].mean(0))
    torch.testing.assert_close(all_of_them, smooth[both].mean(0))


def test_parts_of_a_slide_are_expected_as_the_whole(graph, monkeypatch):
    torch.manual_seed(0)
    config = FlagConfig(features=4, genes=3, slides=1, components=4, landmarks=9, members=2, mean_width=8)
    head = MeanHead(config).eval()
    for tensor in (*head.parameters(), *head.kernel.buffers()):
        torch.nn.init.normal_(tensor, std=0.3)
    features = torch.randn(len(graph.neighbours), 4)
    with torch.inference_mode():
        whole = head(features, 2 * features, graph, torch.tensor(0.3))
        parts = torch.stack([branch(2 * features, graph) for branch in head.branches]).mean(0)
        kernel = head.kernel(features, graph)
        torch.testing.assert_close(whole, kernel + config.graph_share * 0.7 * (parts - kernel))
        monkeypatch.setattr("napari_flag.model.mean_head._ROWS", 50)
        blocks = list(head.blocks(features, 2 * features, graph, torch.tensor(0.3)))
    assert [rows.stop - rows.start for rows, _ in blocks] == [50, 50, 50, 46]
    torch.testing.assert_close(torch.cat([part for _, part in blocks]), whole)


def make_cohort(graph, smooth, features):
    n = len(features)
    return FramedCohort(
        features=(features,),
        graphs=(graph,),
        targets=smooth,
        folds=torch.arange(n) % 3,
        slides=torch.zeros(n, dtype=torch.int64),
    )


def test_the_kernel_branch_is_kernel_ridge_regression_when_every_spot_is_a_landmark(graph, smooth):
    n = len(smooth)
    features = torch.randn(n, 5, generator=torch.Generator().manual_seed(0))
    cohort = make_cohort(graph, smooth, features)
    sizes = FlagConfig(features=5, components=5, genes=4, slides=1, landmarks=n)
    values = FitConfig(kernel_penalty=0.3, kernel_penalty_growth=0.0)
    branch = fit_kernel(cohort, torch.ones(n, dtype=torch.bool), sizes, values)
    seen = surroundings(features, graph).double().numpy()
    near = rbf_kernel(seen, gamma=1 / float(branch.get_buffer("bandwidth")))
    linear = linear_kernel(seen) * values.kernel_linear / np.square(seen).sum(1).mean()
    peer = KernelRidge(alpha=0.3, kernel="precomputed").fit(near + linear, smooth.double().numpy())
    np.testing.assert_allclose(branch(features, graph).numpy(), peer.predict(near + linear), atol=2e-3)


def test_what_is_linear_in_the_features_is_expected_far_from_all_landmarks_too(graph):
    features = torch.randn(graph.neighbours.shape[0], 5, generator=torch.Generator().manual_seed(0))
    targets = features @ torch.ones(5, 4)
    sizes = FlagConfig(features=5, components=5, genes=4, slides=1, landmarks=len(features))
    everything = torch.ones(len(features), dtype=torch.bool)
    branch = fit_kernel(make_cohort(graph, targets, features), everything, sizes, FitConfig())
    far = 20 * features
    slope = (branch(far, graph) * targets).sum() / (20 * targets.square().sum())
    assert 0.5 < slope < 1.1


def test_fewer_landmarks_come_close(graph, smooth, array):
    features = torch.from_numpy(array.astype(np.float32) / SIDE)
    cohort = make_cohort(graph, smooth, features)
    everything = torch.ones(len(smooth), dtype=torch.bool)
    whole, some = (
        fit_kernel(
            cohort,
            everything,
            FlagConfig(features=2, components=2, genes=4, slides=1, landmarks=m),
            FitConfig(),
        )(features, graph)
        for m in (len(smooth), 80)
    )
    assert (whole - some).pow(2).mean() < 0.02 * whole.var()
