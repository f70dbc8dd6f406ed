import numpy as np
import pytest
import torch

from napari_flag.model.config import FlagConfig
from napari_flag.model.flag import LEAST, QUANTILES, Flag
from napari_flag.model.graph import GraphTensors, Places, build_graph
from napari_flag.model.normalization import SlideNormalization

FORMS = {"residual": {}, "proper": {"mean_head": False, "covariance": False, "attention": "channels"}}


def tiny(**sizes):
    torch.manual_seed(0)
    config = FlagConfig(
        features=12,
        genes=7,
        slides=2,
        components=12,
        landmarks=20,
        members=2,
        mean_width=16,
        context_width=16,
        width=16,
        blocks=2,
        **sizes,
    )
    network = Flag(config).eval()
    for parameter in network.parameters():  # no layer may be silent in these tests
        torch.nn.init.normal_(parameter, std=0.1)
    network.get_buffer("axes").copy_(torch.eye(12))
    network.get_buffer("slide_location").fill_(2.0)
    network.get_buffer("prior_location").fill_(5.0)
    if network.mean_head is not None:
        kernel = network.mean_head.kernel
        torch.nn.init.normal_(kernel.get_buffer("landmarks"))
        torch.nn.init.normal_(kernel.get_buffer("weights"), std=0.3)
        kernel.get_buffer("bandwidth").fill_(10.0)
        kernel.get_buffer("length").fill_(50.0)
    return network


@pytest.fixture(params=sorted(FORMS))
def network(request):
    return tiny(**FORMS[request.param])


@pytest.fixture(scope="module")
def slide():
    rows, columns = np.divmod(np.arange(49), 7)
    features = np.random.default_rng(1).normal(size=(49, 12)).astype(np.float32)
    return np.stack([columns, rows], 1) * 200.0, features - features.mean(0)  # as the training slides lie


def encode(network, xy, features):
    graph = build_graph(Places(xy, 200.0), features)
    with torch.inference_mode():
        return network.encode(torch.from_numpy(features), GraphTensors.of(graph))


def assert_same(here, there):
    torch.testing.assert_close(here.spatial, there.spatial, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(here.latent, there.latent, atol=1e-4, rtol=1e-4)


def test_context_does_not_depend_on_the_order_of_spots(network, slide):
    xy, features = slide
    order = np.random.default_rng(2).permutation(49)
    here, there = encode(network, xy, features), encode(network, xy[order], features[order])
    torch.testing.assert_close(there.spatial, here.spatial[order], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(there.latent, here.latent[order], atol=1e-4, rtol=1e-4)


def test_context_does_not_know_where_the_slide_lies_or_how_it_is_turned(network, slide):
    xy, features = slide
    turned = encode(network, xy[:, ::-1] * [-1, 1] + 12_345, features)
    assert_same(turned, encode(network, xy, features))


def test_context_of_spots_depends_on_their_neighbours(network, slide):
    xy, features = slide
    moved = np.random.default_rng(3).permutation(49)
    assert not torch.allclose(
        encode(network, xy[moved], features).spatial, encode(network, xy, features).spatial, atol=1e-3
    )


@pytest.mark.parametrize("form", sorted(FORMS))
def test_without_the_graph_nothing_depends_on_where_spots_lie(form, slide):
    network, (xy, features) = tiny(spatial_graph=False, **FORMS[form]), slide
    moved = np.random.default_rng(3).permutation(49)
    assert_same(encode(network, xy[moved], features), encode(network, xy, features))


def test_the_latent_has_the_expectation_under_the_residuals(slide):
    network = tiny()
    network.get_buffer("spread").fill_(0.7)
    network.get_buffer("depth").copy_(torch.linspace(-1, 1, QUANTILES))
    context = encode(network, *slide)
    np.testing.assert_allclose(context.observation.variance, 0.49, rtol=1e-6)
    np.testing.assert_allclose(
        context.observation.expected(context.latent.double().numpy()), context.expected, rtol=1e-4
    )
    assert context.expected.std() > 0.05


def test_the_depth_of_spots_varies_as_on_the_training_slide_that_looks_alike(slide):
    network = tiny()
    network.get_buffer("depth").copy_(torch.tensor([[0.1], [1.0]]) * torch.linspace(-1, 1, QUANTILES))
    xy, features = slide
    centre = torch.from_numpy(features).mean(0)
    network.get_buffer("slide_centres").copy_(torch.stack([centre, centre + 5]))
    assert abs(encode(network, xy, features).observation.depth).max() < 0.11
    network.get_buffer("slide_centres").copy_(torch.stack([centre + 5, centre]))
    assert abs(encode(network, xy, features).observation.depth).max() > 0.9


def test_nothing_is_expected_to_be_less_than_next_to_nothing(slide):
    network = tiny()
    network.get_buffer("slide_location").fill_(-50.0)
    np.testing.assert_allclose(encode(network, *slide).expected, LEAST, rtol=1e-6)


def test_without_a_mean_head_the_latent_is_the_level_of_the_slide(slide):
    context = encode(tiny(**FORMS["proper"]), *slide)
    np.testing.assert_allclose(context.latent.exp(), 3, rtol=1e-4)  # log2(3 + 1) = 2
    assert context.expected is None


def test_without_a_mean_head_the_network_holds_none_and_no_covariance():
    parts = {name.split(".")[0] for name in tiny(**FORMS["proper"]).state_dict()}
    assert not parts & {"mean_head", "eigenvalues", "eigenvectors"}
    assert {"mean_head", "eigenvalues", "eigenvectors"} <= {
        name.split(".")[0] for name in tiny().state_dict()
    }


def test_an_untrained_transformer_leaves_the_gaussian_denoiser():
    torch.manual_seed(0)
    network = Flag(FlagConfig(features=12, genes=7, slides=2, members=2)).eval()
    network.get_buffer("eigenvalues").copy_(torch.linspace(0.1, 3, 7))
    x, sigma = torch.randn(3, 7), torch.tensor([0.1, 1.0, 9.0])
    condition = network.gene_dit.condition(torch.randn(3, 64), torch.randn(3))
    found = network.denoise(x, sigma, condition, torch.randn(3, 7))
    torch.testing.assert_close(found, network.preconditioner.skip(x, sigma))
    loss, _ = network.score_loss(torch.zeros(3, 7), torch.zeros(3, 7), sigma, condition, torch.randn(3, 7))
    assert loss == 0


def test_half_precision_of_the_transformer_leaves_the_gaussian_denoiser_exact():
    torch.manual_seed(0)
    network = Flag(FlagConfig(features=12, genes=7, slides=2, members=2)).eval()
    network.get_buffer("eigenvalues").copy_(torch.linspace(0.1, 3, 7))
    network.get_buffer("eigenvectors").copy_(torch.linalg.qr(torch.randn(7, 7))[0])
    x, sigma = torch.randn(3, 7), torch.tensor([0.1, 1.0, 9.0])
    condition = network.gene_dit.condition(torch.randn(3, 64), torch.randn(3))
    kinds = []
    for part in network.gene_dit.modules():
        if isinstance(part, torch.nn.Linear):
            part.register_forward_hook(lambda module, given, found: kinds.append(found.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        found = network.denoise(x, sigma, condition, torch.randn(3, 7))
        blurred = network.preconditioner.skip(x, sigma)
    exact = network.preconditioner.skip(x, sigma)
    assert torch.equal(found, exact)
    assert not torch.allclose(blurred.float(), exact, atol=1e-3)
    assert torch.bfloat16 in kinds


def test_the_loss_of_saying_nothing_is_one_whatever_the_noise():
    torch.manual_seed(0)
    network = Flag(FlagConfig(features=12, genes=7, slides=2, members=2)).eval()
    values = torch.linspace(0.1, 3, 7)
    network.get_buffer("eigenvalues").copy_(values)
    n = 1000
    clean, noise = torch.randn(n, 7) * values.sqrt(), torch.randn(n, 7)
    condition = network.gene_dit.condition(torch.zeros(n, 64), torch.zeros(n))
    for sigma in (0.05, 1.0, 10.0):
        loss, _ = network.score_loss(clean, noise, torch.full((n,), sigma), condition, torch.zeros(n, 7))
        assert loss.item() == pytest.approx(1, abs=0.06)


def test_without_diffusion_the_noise_changes_nothing(slide):
    network = tiny(diffusion=False)
    context = encode(network, *slide)
    noise = torch.randn(49, 7, generator=torch.Generator().manual_seed(0))
    condition = network.gene_dit.condition(context.spatial, torch.zeros(49))
    with torch.inference_mode():
        drawn = [
            network.denoise(x, torch.full((49,), sigma), condition, context.latent)
            for x, sigma in ((noise, 20.0), (-noise, 0.02))
        ]
    assert torch.equal(*drawn)
    assert drawn[0].std() > 0.01


def test_only_the_kernel_branch_contributes_on_a_slide_unlike_the_training_slides(slide):
    network, (xy, features) = tiny(), slide
    graph = GraphTensors.of(build_graph(Places(xy, 200.0), features))
    raw = torch.from_numpy(features)
    with torch.inference_mode():
        kernel = network.mean_head.kernel(raw, graph)
        near, far = (network.mean_head(raw, raw, graph, torch.tensor(x)) for x in (0.0, 1.0))
    torch.testing.assert_close(far, kernel)
    assert (near - kernel).abs().max() > 0.1


def test_a_slide_unlike_the_training_slides_is_expected_at_the_level_of_all_patients(slide):
    network, (xy, features) = tiny(patients=3), slide
    network.get_buffer("patients").copy_(torch.randn(3, 7, generator=torch.Generator().manual_seed(0)))
    near, far = encode(network, xy, features), encode(network, xy, features + 9)
    assert far.expected.mean() - near.expected.mean() == pytest.approx(3, abs=0.2)
    assert near.factors.abs().max() < 1e-3
    torch.testing.assert_close(far.factors, network.get_buffer("patients"))
    own = network.get_buffer("spread").numpy() ** 2
    np.testing.assert_allclose(
        far.observation.variance, own + (network.get_buffer("patients").numpy() ** 2).sum(0), rtol=1e-5
    )


def test_the_features_of_a_slide_are_averaged_once(network, slide, monkeypatch):
    taken, centre = [], SlideNormalization.centre

    def counted(self, features):
        taken.append(len(features))
        return centre(self, features)

    monkeypatch.setattr(SlideNormalization, "centre", counted)
    encode(network, *slide)
    assert taken == [len(slide[1])]
