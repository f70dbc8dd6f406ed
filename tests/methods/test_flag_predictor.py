"""Expectation, spread and draws of FLAG on a slide, in its residual form and as FLAG proper."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.tiny_weights import GENES, tiny_network, write_tiny_weights

from napari_flag.errors import UserError
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.model.graph import Places, build_graph
from napari_flag.model.samplers import SamplerSettings
from napari_flag.prediction import at_depth
from napari_flag.progress import finish
from napari_flag.sampling import sample_expression

SIDE, WIDTH = 20, 12
ROWS = np.arange(SIDE * SIDE)
IDS = tuple(f"{row % SIDE}x{row // SIDE}" for row in ROWS)
FEW = ROWS[:40]
PROPER = {"mean_head": False, "covariance": False, "attention": "channels", "averaged": 8}


def encode(network, away=0.0):
    """A slide of 400 spots that look by so much unlike the training slides."""
    y, x = np.divmod(ROWS, SIDE)
    features = np.random.default_rng(1).normal(size=(len(ROWS), WIDTH)).astype(np.float32) + np.float32(away)
    graph = build_graph(Places(np.stack([x, y], 1) * 200.0, 200.0), features)
    return FlagPredictor(network, GENES).encode(features, graph)


def draw(slide, rows=ROWS, **settings):
    return finish(slide.draw(rows, [IDS[row] for row in rows], SamplerSettings(**settings)))


def expect(slide, rows=ROWS):
    return finish(slide.expectation(rows, [IDS[row] for row in rows]))


def loud_network(**sizes):
    """A network whose gene transformer moves every draw."""
    network = tiny_network(WIDTH, **sizes)
    with torch.no_grad():
        for parameter in network.gene_dit.parameters():
            parameter.mul_(5)
    return network


@pytest.fixture(scope="module")
def slide():
    return encode(loud_network())


@pytest.fixture(scope="module")
def proper():
    return encode(loud_network(**PROPER))


@pytest.fixture(scope="module")
def eight(slide):
    return draw(slide, draws=8)


def assert_redrawn(found, wanted):
    """Rounding may move one count in 10,000."""
    assert found.shape == wanted.shape
    assert (found != wanted).mean() <= 1e-4


def assert_counts(drawn):
    counts = np.exp2(drawn.astype(np.float64)) - 1
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-4)
    assert counts.min() >= 0
    assert len(np.unique(np.rint(counts))) > 5


def test_draws_are_log2_of_an_integer_plus_one(eight):
    assert_counts(eight)
    assert eight.dtype == np.float32


def test_a_draw_is_the_same_whether_it_is_drawn_with_others_or_alone(slide, eight):
    alone = np.concatenate([draw(slide, first=number) for number in range(1, 9)])
    assert_redrawn(alone, eight)


def test_a_draw_is_the_same_in_another_order_of_spots_and_in_chunks(slide, eight):
    order = np.random.default_rng(0).permutation(len(ROWS))
    parts = [draw(slide, rows, draws=8) for rows in np.split(order, [30, 31])]
    assert_redrawn(np.concatenate(parts, 1), eight[:, order])


def test_seed_and_number_each_change_a_draw(slide, eight):
    for other in (draw(slide, FEW, seed=1)[0], draw(slide, FEW, first=9)[0], eight[1, FEW]):
        assert (other != eight[0, FEW]).mean() > 0.5


@pytest.mark.parametrize("form", ["slide", "proper"])
def test_expectation_and_spread_do_not_depend_on_the_settings(form, request):
    encoded = request.getfixturevalue(form)
    predictor, ids = FlagPredictor(encoded.network, GENES), [IDS[row] for row in FEW]
    one, other = (
        finish(sample_expression(predictor, encoded, ids, FEW, settings))
        for settings in (SamplerSettings(), SamplerSettings(draws=2, first=3, seed=7, steps=4))
    )
    np.testing.assert_array_equal(one.mean, other.mean)
    np.testing.assert_array_equal(one.spread, other.spread)
    assert one.spread.min() > 0


@pytest.mark.parametrize("form", ["slide", "proper"])
def test_expectation_and_spread_do_not_depend_on_the_other_spots(form, request):
    encoded = request.getfixturevalue(form)
    whole, part = expect(encoded, FEW), expect(encoded, FEW[[9, 3]])
    np.testing.assert_allclose(part.mean, whole.mean[[9, 3]], atol=1e-5)
    np.testing.assert_allclose(part.sd, whole.sd[[9, 3]], atol=1e-5)


def assert_moments(drawn, moments):
    """Mean and mean square deviation of (K, n, G) draws about those stated, gene by gene over all spots."""
    away = (drawn - moments.mean).astype(np.float64)
    values = away[:, :, 0].size
    deviation = np.sqrt((moments.sd**2).mean(0))
    np.testing.assert_array_less(np.abs(away.mean((0, 1))), 4 * deviation / values**0.5)
    np.testing.assert_allclose((away**2).mean((0, 1)) / deviation**2, 1, atol=5 * (2 / values) ** 0.5)


@pytest.mark.slow
def test_many_draws_have_the_expectation_and_the_spread_stated(slide):
    """Of the Gaussian that the transformer starts from, which is what the closed form is of."""
    silenced = slide.silenced()
    assert_moments(draw(silenced, draws=24), expect(silenced))


@pytest.mark.slow
def test_draws_around_another_expectation_have_it(slide):
    other = np.random.default_rng(2).uniform(0.5, 6, (len(ROWS), len(GENES))).astype(np.float32)
    around = slide.silenced().around(other)
    moments = expect(around)
    np.testing.assert_allclose(moments.mean, other, rtol=1e-6)
    assert_moments(draw(around, draws=24), moments)


def test_nothing_is_drawn_where_nothing_is_expected(slide):
    around = slide.around(np.zeros((len(ROWS), len(GENES)), np.float32))
    assert (draw(around) > 0).mean() < 0.05
    assert expect(around).mean.max() == 0


def counts_of(drawn):
    return np.exp2(drawn.astype(np.float64)) - 1


@pytest.mark.parametrize("form", ["slide", "proper"])
def test_the_total_expected_is_that_of_many_draws(form, request):
    silenced = request.getfixturevalue(form).silenced()
    columns = np.array([0, 3])
    drawn = counts_of(draw(silenced, draws=16))[:, :, columns].sum(2)
    assert silenced.total(ROWS, columns) == pytest.approx(drawn.mean(), rel=0.04)


@pytest.mark.parametrize("form", ["slide", "proper"])
def test_a_slide_known_to_be_deeper_has_more_counts_and_an_expectation_that_follows(form, request):
    silenced = request.getfixturevalue(form).silenced()
    deeper = silenced.shifted(np.log(3.0))
    columns = np.arange(len(GENES))
    assert deeper.total(ROWS, columns) == pytest.approx(3 * silenced.total(ROWS, columns), rel=1e-4)
    assert expect(deeper).mean.mean() > expect(silenced).mean.mean() + 0.5
    if form == "slide":
        assert_moments(draw(deeper, draws=24), expect(deeper))


@pytest.fixture
def stranger():
    """A slide unlike the training slides, of which patients differ; two genes hold most of the counts."""
    network = tiny_network(WIDTH, patients=2)
    network.get_buffer("patients").copy_(torch.tensor([[0.9], [-0.9]]) + 0.6 * torch.eye(2, 5))
    encoded = encode(network, away=5.0)
    latent = encoded.context.latent + torch.tensor([3.0, 2.5, 0.0, 0.0, 0.0])
    return replace(encoded, context=replace(encoded.context, latent=latent))


def test_once_the_depth_is_known_patients_differ_in_composition_alone(stranger):
    known = stranger.shifted(0.0)
    assert (expect(known, FEW).sd < 0.9 * expect(stranger, FEW).sd).all()
    assert known.context.factors.abs().max() > 0.1


def test_a_depth_that_is_known_is_the_total_of_an_unlike_slide_too(stranger):
    known = at_depth(stranger, 200.0, len(ROWS), len(GENES))
    total = known.total(ROWS, np.arange(len(GENES)))
    assert total == pytest.approx(200.0, rel=1e-4)
    np.testing.assert_allclose(
        expect(at_depth(stranger, total, len(ROWS), len(GENES))).mean, expect(known).mean, rtol=1e-5
    )


def test_draws_of_an_unlike_slide_of_known_depth_agree_in_their_totals(stranger):
    """To first order: patients' levels move genes against each other, weighted as they count."""
    unknown, known = (
        np.log(counts_of(draw(slide.silenced(), draws=16)).sum(2).mean(1))
        for slide in (stranger, stranger.shifted(0.0))
    )
    assert known.std() < 0.25 * unknown.std()


@pytest.mark.parametrize("spots", [3, 47])
def test_the_share_done_rises_to_one(proper, spots):
    rows = ROWS[:spots]
    for work in (
        proper.expectation(rows, IDS[:spots]),
        proper.draw(rows, IDS[:spots], SamplerSettings(draws=2)),
    ):
        shares = list(work)
        assert shares == sorted(shares)
        assert shares[-1] == pytest.approx(1)


def test_silencing_the_transformer_changes_draws_and_not_the_expectation(slide, eight):
    silenced = slide.silenced()
    np.testing.assert_array_equal(expect(silenced).mean, expect(slide).mean)
    np.testing.assert_array_equal(expect(silenced).sd, expect(slide).sd)
    assert (draw(silenced, draws=8) != eight).mean() > 0.01


def test_the_spread_stated_is_widened_by_its_factor_and_draws_are_not(slide):
    wider = loud_network()
    wider.get_buffer("sd_factor").fill_(1.5)
    other = encode(wider)
    np.testing.assert_allclose(expect(other).sd, 1.5 * expect(slide).sd, rtol=1e-6)
    np.testing.assert_array_equal(draw(other, FEW), draw(slide, FEW))


def test_genes_of_a_spot_vary_together_as_the_covariance_says():
    network = tiny_network(WIDTH)
    covariance = 0.8 * torch.ones(5, 5) + 0.2 * torch.eye(5)
    values, vectors = torch.linalg.eigh(covariance)
    network.get_buffer("eigenvalues").copy_(values)
    network.get_buffer("eigenvectors").copy_(vectors)
    network.get_buffer("depth").zero_()
    network.get_buffer("spread").fill_(1.0)
    slide = encode(network).silenced().around(np.full((len(ROWS), len(GENES)), 6.0))
    found = np.corrcoef(draw(slide, draws=4).reshape(-1, len(GENES)).T)
    assert found[np.triu_indices(5, 1)].mean() == pytest.approx(0.8, abs=0.06)


def test_the_level_of_a_slide_is_drawn_as_a_whole_where_it_is_not_known():
    network = tiny_network(WIDTH, patients=3)
    network.get_buffer("prior_location").fill_(4.0)
    network.get_buffer("patients").copy_(torch.tensor([[0.9], [-0.6], [-0.3]]).expand(3, 5))
    like, unlike = encode(network), encode(network, away=5.0)
    assert float(like.context.factors.abs().max()) < 0.02 < 0.5 < float(unlike.context.factors.abs().max())
    levels = {
        name: draw(each.silenced(), draws=8).mean((1, 2)).std()
        for name, each in (("like", like), ("unlike", unlike))
    }
    assert levels["unlike"] > 0.5 > 0.1 > levels["like"]
    assert_redrawn(draw(unlike, ROWS[350:], first=5), draw(unlike, first=5)[:, 350:])


def test_not_knowing_the_level_widens_the_spread_stated():
    network = tiny_network(WIDTH, patients=2)
    network.get_buffer("prior_location").fill_(4.0)
    known = expect(encode(network, away=5.0), FEW)
    network.get_buffer("patients").copy_(torch.tensor([[0.7], [-0.7]]).expand(2, 5))
    unknown = expect(encode(network, away=5.0), FEW)
    np.testing.assert_allclose(unknown.mean, known.mean, atol=1e-5)
    assert (unknown.sd > 1.2 * known.sd).all()


def test_without_a_mean_head_expression_itself_is_drawn_as_counts(proper):
    assert proper.context.expected is None
    drawn = draw(proper, draws=3)
    assert_counts(drawn)
    assert_redrawn(draw(proper, ROWS[::-1].copy(), first=2)[0, ::-1], drawn[1])


def test_without_a_mean_head_the_expectation_is_that_of_draws(proper):
    """Eight draws are averaged, each as the expected log2(count + 1) of its rates."""
    rows = ROWS[:200]
    drawn, moments = draw(proper, rows, draws=8, seed=3), expect(proper, rows)
    deviation = float(moments.sd.mean())
    assert float(drawn.mean() - moments.mean.mean()) == pytest.approx(0, abs=0.02 * deviation)
    assert float((drawn.mean(0) - moments.mean).std()) < 0.3 * deviation  # 0.5, were draws not spread evenly
    assert float(drawn.var(0).mean()) == pytest.approx(float((moments.sd**2).mean()), rel=0.05)


def test_the_context_reaches_the_draws_without_a_mean_head(proper):
    other = replace(proper, context=replace(proper.context, spatial=proper.context.spatial + 5))
    assert (draw(other, FEW) != draw(proper, FEW)).mean() > 0.01


def test_tensors_that_do_not_fit_the_network_are_refused(tmp_path):
    checkpoint = Checkpoint.load(write_tiny_weights(tmp_path / "tiny.safetensors"))
    del checkpoint.tensors["flag.spread"]
    with pytest.raises(UserError, match="do not fit the network"):
        FlagPredictor.open(checkpoint)


def test_weights_of_either_form_give_back_their_network(tmp_path):
    for stated in ({}, {"mean_head": False, "covariance": False, "attention": "channels"}):
        path = write_tiny_weights(tmp_path / f"tiny{len(stated)}.safetensors", **stated)
        network = FlagPredictor.open(Checkpoint.load(path)).network
        assert (network.mean_head is None) == bool(stated)
        assert network.config.attention == stated.get("attention", "heads")
