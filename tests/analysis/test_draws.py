from pathlib import Path

import numpy as np
import pytest
from shapely.geometry import box
from tests.fakes import FakeSlide, add_draws, fake_prediction
from tests.tiny_weights import GENES, write_tiny_weights

from napari_flag import keys
from napari_flag.analysis import draws
from napari_flag.analysis.draws import (
    Draw,
    DrawRequest,
    compare_draws,
    count,
    draw_more,
    gene_between,
    keep,
    why_not,
)
from napari_flag.errors import UserError
from napari_flag.layers.gene_map import GeneMap
from napari_flag.layers.gene_values import Quantity
from napari_flag.model import checkpoint
from napari_flag.prediction import predict_slide
from napari_flag.prediction_file import layer_of, read_prediction, spots_of
from napari_flag.progress import finish
from napari_flag.slide_identity import without_personal_names
from napari_flag.statistics.accuracy import gene_pearson
from napari_flag.statistics.coexpression import gene_correlations, gene_structure_correlation
from napari_flag.statistics.moran import spatial_structure_correlation
from napari_flag.statistics.scoring_rules import NAMES

EARLIER_FILE = Path(__file__).parents[1] / "golden" / "earlier_prediction.h5ad"


@pytest.fixture
def adata():
    """Four draws: the same smooth pattern under noise of their own."""
    adata = fake_prediction(144, n_genes=12)
    rng = np.random.default_rng(0)
    for number in range(1, 5):
        noise = rng.normal(0, 1.0, adata.shape)
        adata.layers[layer_of(number)] = (adata.X + noise).astype(np.float32)
    return adata


def test_draws_are_compared_with_the_truth_and_with_each_other(adata):
    numbers = finish(compare_draws(adata))
    assert numbers.scores.number == 4
    truth = adata.layers[keys.MEASURED].astype(np.float64)
    second = gene_pearson(adata.layers["sample_2"].astype(np.float64), truth).mean()
    assert numbers.scores.by_draw["PCC"][1] == pytest.approx(second)
    pairs = [(i, j) for i in range(1, 5) for j in range(i + 1, 5)]
    between = [
        gene_pearson(*(adata.layers[layer_of(k)].astype(np.float64) for k in (j, i))).mean() for i, j in pairs
    ]
    assert numbers.between["PCC"] == pytest.approx(np.mean(between))
    together = [gene_correlations(adata.layers[layer_of(k)]) for k in range(1, 5)]
    none = np.zeros(adata.n_vars, bool)
    gsc = [gene_structure_correlation(together[j - 1], together[i - 1], none) for i, j in pairs]
    assert numbers.between["GSC"] == pytest.approx(np.mean(gsc))
    ssc = [spatial_structure_correlation(numbers.moran[j - 1], numbers.moran[i - 1], none) for i, j in pairs]
    assert numbers.between["SSC"] == pytest.approx(np.mean(ssc))
    assert numbers.moran.shape == (4, 12)


def test_without_truth_draws_are_compared_with_one_another_only(adata):
    before = finish(compare_draws(adata))
    del adata.layers[keys.MEASURED]
    adata.X[:] = 0  # never read
    numbers = finish(compare_draws(adata))
    assert numbers.scores is None
    assert numbers.between == before.between


def test_scores_of_draws_never_read_the_expectation(adata):
    add_draws(adata, 8)
    before = finish(compare_draws(adata)).scores
    adata.X[:] = 0
    after = finish(compare_draws(adata)).scores
    assert after.to_dict() == before.to_dict()
    assert set(before.proper) == set(NAMES)


def test_one_draw_has_nothing_to_be_compared_with(adata):
    for number in (2, 3, 4):
        del adata.layers[layer_of(number)]
    assert finish(compare_draws(adata)).between == {}
    assert np.isnan(gene_between(adata, "VIM"))


def test_genes_and_spots_never_measured_are_left_out_of_the_comparison_with_the_truth_only(adata):
    before = finish(compare_draws(adata))
    adata.layers[keys.MEASURED][:20] = np.nan
    adata.layers[keys.MEASURED][:, 3] = np.nan
    numbers = finish(compare_draws(adata))
    np.testing.assert_array_equal(numbers.moran, before.moran)
    assert numbers.between == before.between
    assert (numbers.scores.by_draw["PCC"] != before.scores.by_draw["PCC"]).all()
    assert np.isfinite(list(numbers.scores.by_draw.values())).all()


def test_a_gene_that_moves_little_correlates_between_draws(adata):
    column = list(adata.var_names).index("VIM")
    for number in range(1, 5):
        adata.layers[layer_of(number)][:, column] = adata.X[:, column]
    assert gene_between(adata, "VIM") == pytest.approx(1.0)
    assert gene_between(adata, "ESR1") < 0.98


@pytest.fixture(scope="module")
def predict(tiny_checkpoint, tiny_slide, tiny_spots, feature_cache):
    def run(slide=tiny_slide, **options):
        work = predict_slide(slide, tiny_spots, tiny_checkpoint, device="cpu", cache=feature_cache, **options)
        return finish(work)

    return run


@pytest.fixture(scope="module")
def predicted(predict):
    return predict(seed=3, genes=GENES[:3])


@pytest.fixture
def prediction(predicted):
    return predicted.copy()


@pytest.fixture
def request_draws(prediction, tiny_slide, tiny_weights, feature_cache):
    """Return a function that asks for draws of `prediction`, or of another."""

    def ask(upto, adata=prediction, weights=tiny_weights):
        return DrawRequest(adata, tiny_slide, upto, "cpu", weights, feature_cache)

    return ask


def drawn(request):
    for step in draw_more(request):
        if step.partial is not None:
            keep(request.adata, step.partial)


def test_the_spots_of_a_prediction_come_back(prediction, tiny_spots):
    back = spots_of(prediction)
    assert (back.ids, back.diameter_um, back.pitch_um, back.lattice) == (
        tiny_spots.ids,
        100.0,
        200.0,
        "square",
    )
    assert np.array_equal(back.xy, tiny_spots.xy)
    assert np.array_equal(back.array, tiny_spots.array)


def test_more_draws_have_the_seed_of_the_prediction_and_the_next_numbers(prediction, request_draws, predict):
    drawn(request_draws(3))
    assert count(prediction) == 3
    three = predict(seed=3, draws=3, genes=GENES[:3])
    for number in (2, 3):
        apart = np.abs(prediction.layers[layer_of(number)] - three.layers[layer_of(number)])
        assert (apart > draws.SAME).sum() <= 1  # of 27 counts, one may round to another
    assert (prediction.layers["sample_2"] != prediction.layers["sample_3"]).mean() > 0.1


def test_drawing_goes_on_where_it_stopped(prediction, request_draws):
    drawn(request_draws(2))
    second = prediction.layers["sample_2"]
    drawn(request_draws(3))
    assert count(prediction) == 3
    assert prediction.layers["sample_2"] is second


def test_a_prediction_of_a_region_is_refused_as_its_draws_would_be_others(predict, request_draws):
    part = predict(seed=3, region=[box(0, 0, 400, 1200)])
    with pytest.raises(UserError, match="predict the whole tissue"):
        drawn(request_draws(2, part))


def test_a_draw_made_again_may_differ_in_one_value_of_a_thousand_and_no_more():
    made = fake_prediction(100, n_genes=20)
    again = made.copy()
    again.layers[keys.SAMPLE][0, :2] += 1
    draws._check_same(made, again)
    again.layers[keys.SAMPLE][0, 2:4] += 1
    with pytest.raises(UserError, match=r"differs from the one in the file in 0\.2 % of its values"):
        draws._check_same(made, again)


def test_draws_around_another_expectation_are_refused_even_where_the_first_happens_to_be_the_same():
    made = fake_prediction(9, n_genes=2)
    again = made.copy()
    again.X = again.X + np.float32(0.04)
    draws._check_same(made, again)
    again.X[0, 0] += 0.02
    with pytest.raises(UserError, match=r"X made again differs .* by up to 0\.06, so more draws"):
        draws._check_same(made, again)


def test_of_few_values_one_may_differ():
    made = fake_prediction(9, n_genes=2)
    again = made.copy()
    again.layers[keys.SAMPLE][0, 0] += 1
    draws._check_same(made, again)
    again.layers[keys.SAMPLE][0, 1] += 1
    with pytest.raises(UserError, match="differs from the one in the file"):
        draws._check_same(made, again)


def test_draws_of_an_earlier_version_are_shown_and_not_continued(tiny_slide):
    earlier = read_prediction(EARLIER_FILE)
    assert count(earlier) == 1
    reason = why_not(earlier, tiny_slide)
    assert "earlier version" in reason
    assert "predict again" in reason
    with pytest.raises(UserError) as refused:
        drawn(DrawRequest(earlier, tiny_slide, 2))
    assert str(refused.value) == reason


def test_more_draws_than_a_prediction_holds_are_refused_before_any_work(prediction, tiny_slide):
    with pytest.raises(UserError, match="at most 32 draws, but 33"):
        next(draw_more(DrawRequest(prediction, tiny_slide, 33)))


def test_more_draws_see_the_colours_of_the_prediction(predict, tiny_slide, tiny_weights, feature_cache):
    slide = tiny_slide.with_mpp(tiny_slide.mpp, tiny_slide.mpp_source)
    slide.profile, slide.reader = b"of this scanner", slide
    converted = predict(slide=slide, seed=3, colours="srgb")
    drawn(DrawRequest(converted, slide, 2, device="cpu", weights=tiny_weights, cache=feature_cache))
    assert count(converted) == 2
    del converted.uns[keys.PROVENANCE][keys.COLOURS]  # as scanned, draw 1 is another
    with pytest.raises(UserError, match="differs from"):
        drawn(DrawRequest(converted, slide, 3, device="cpu", weights=tiny_weights, cache=feature_cache))


def test_other_weights_are_refused(request_draws, tmp_path):
    other = write_tiny_weights(tmp_path / "other.safetensors", pitch_um=150.0)
    with pytest.raises(UserError, match="not those of this prediction"):
        drawn(request_draws(2, weights=other))


def test_weights_that_a_prediction_calls_by_a_neutral_name_are_found(
    prediction, request_draws, tiny_weights, tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoint, "weights_folder", lambda: tmp_path)
    (tmp_path / "Smith_John.safetensors").write_bytes(tiny_weights.read_bytes())
    adata = prediction.copy()
    adata.uns[keys.PROVENANCE][keys.WEIGHTS_NAME] = "Smith_John"
    renamed, _ = without_personal_names(adata)
    assert "Smith" not in renamed.uns[keys.PROVENANCE][keys.WEIGHTS_NAME]
    drawn(request_draws(2, adata=renamed, weights=None))
    assert layer_of(2) in renamed.layers


def test_weights_that_are_not_here_are_one_sentence(prediction, tiny_slide):
    prediction.uns[keys.PROVENANCE][keys.WEIGHTS_NAME] = "gone"
    with pytest.raises(UserError, match='no weights called "gone"'):
        drawn(DrawRequest(prediction, tiny_slide, 2))


def test_a_draw_is_kept_only_as_the_next(prediction):
    keep(prediction, Draw(5, prediction.X))
    assert count(prediction) == 1
    keep(prediction, Draw(2, prediction.X))
    assert count(prediction) == 2


def test_what_is_missing_for_drawing_is_said():
    prediction = fake_prediction(9)
    assert "no prediction" in why_not(None, None)
    assert "open it" in why_not(prediction, None)
    assert why_not(prediction, FakeSlide()) is None
    del prediction.layers[keys.SAMPLE]
    assert "not predicted by napari-flag" in why_not(prediction, FakeSlide())


def test_the_gene_map_shows_the_draw_that_is_asked_for():
    from napari.components import ViewerModel

    prediction = fake_prediction(16)
    prediction.layers[layer_of(2)] = prediction.layers[keys.SAMPLE] + 1
    viewer = ViewerModel()
    gene_map = GeneMap(viewer)
    gene_map.set_prediction(prediction)
    gene_map.show([prediction.var_names[0]])
    gene_map.set_quantity(Quantity.SAMPLE)
    before = gene_map.layer(Quantity.SAMPLE).data.copy()
    gene_map.set_sample(layer_of(2))
    assert np.nanmax(np.abs(gene_map.layer(Quantity.SAMPLE).data - before - 1)) < 1e-5
    assert gene_map.layer(Quantity.SAMPLE).name.endswith("draw 2")
    assert len(viewer.layers) == 1
    assert draws.count(prediction) == 2
