import numpy as np
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import linear_kernel, rbf_kernel

from flag_training.config import FitConfig
from flag_training.stages.expectation import FramedCohort, fit_kernel
from napari_flag.model.config import FlagConfig
from napari_flag.model.graph import GraphTensors, build_graph
from napari_flag.model.mean_head import Sharpening, moran
from napari_flag.statistics.moran import moran_i
from napari_flag.statistics.neighbours import array_graph

SIDE = 14


@pytest.fixture(scope="module")
def array():
    return np.stack(np.meshgrid(np.arange(SIDE), np.arange(SIDE)), -1).reshape(-1, 2)


@pytest.fixture(scope="module")
def graph(array):
    features = np.random.default_rng(0).normal(size=(len(array), 3)).astype(np.float32)
    return GraphTensors.of(build_graph(array * 200.0, features, 200.0))


@pytest.fixture(scope="module")
def smooth(array):
    """Genes that rise and fall over the array at different lengths, with a little noise."""
    generator = np.random.default_rng(1)
    waves = [
        np.sin(array @ generator.normal(0, f, 2) + generator.uniform(0, 6)) for f in (0.2, 0.3, 0.5, 0.4)
    ]
    noisy = np.stack(waves, 1) + generator.normal(0, 0.5, (len(array), 4))
    return torch.from_numpy(noisy.astype(np.float32))


def test_morans_i_is_the_one_the_statistics_report(array, graph, smooth):
    expected = moran_i(smooth.double().numpy(), array_graph(array, "square"))
    np.testing.assert_allclose(moran(smooth, graph).numpy(), expected, atol=1e-5)


def test_sharpening_gives_a_gene_the_roughness_aimed_at_and_keeps_its_spread(graph, smooth):
    target = torch.tensor([0.2, 0.3, 0.25, 0.3])
    out, noise = Sharpening(target, 2.0, 0.0).apply(smooth, graph)
    np.testing.assert_allclose(moran(out, graph)[:3], 2 * target[:3], atol=0.02)
    assert moran(smooth, graph)[3] < 2 * target[3]  # already rough enough, so left alone
    torch.testing.assert_close(out[:, 3], smooth[:, 3], atol=1e-4, rtol=1e-4)
    np.testing.assert_allclose(out.std(0), smooth.std(0), rtol=1e-4)
    np.testing.assert_allclose(out.mean(0), smooth.mean(0), atol=1e-5)
    assert not noise.any()


def test_a_gene_already_rough_enough_is_left_alone(graph, smooth):
    out, _ = Sharpening(torch.full((4,), 0.9), 2.0, 0.0).apply(smooth, graph)
    torch.testing.assert_close(out, smooth, atol=1e-4, rtol=1e-4)


def test_the_noise_asked_for_makes_a_gene_as_rough_as_wanted(graph, smooth):
    target = torch.tensor([0.2, 0.3, 0.25, 0.9])
    out, variance = Sharpening(target, 3.0, 1.5).apply(smooth, graph)
    assert variance[3] == 0
    noisy = [
        moran(
            out + torch.randn(out.shape, generator=torch.Generator().manual_seed(s)) * variance.sqrt(), graph
        )
        for s in range(60)
    ]
    np.testing.assert_allclose(torch.stack(noisy).mean(0)[:3], 1.5 * target[:3], atol=0.03)


def test_too_few_spots_are_left_as_they_are(graph, smooth):
    few = graph.rows(torch.arange(SIDE))
    out, noise = Sharpening(torch.zeros(4), 2.0, 1.5).apply(smooth[:SIDE], few)
    assert out is not None
    torch.testing.assert_close(out, smooth[:SIDE])
    assert not noise.any()


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
    both = torch.cat([features, graph.ring_mean(features)], 1).double().numpy()
    near = rbf_kernel(both, gamma=1 / float(branch.get_buffer("bandwidth")))
    linear = linear_kernel(both) / np.square(both).sum(1).mean()
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
