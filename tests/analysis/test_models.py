import json

import numpy as np
import pytest
from scipy import sparse
from scipy.special import ndtri
from tests.fakes import add_draws, counts_for, fake_prediction
from tests.foreign_files import write_deepspot_like

from napari_flag import keys
from napari_flag.analysis.compare import comparing
from napari_flag.analysis.models import CONTROLS, comparing_models
from napari_flag.analysis.pathways import recover_in_truth
from napari_flag.analysis.scores import METRICS, PROPER
from napari_flag.analysis.truth import attach_measured
from napari_flag.errors import Doubtful, UserError
from napari_flag.foreign_prediction import read_any_prediction
from napari_flag.prediction_file import layer_of
from napari_flag.progress import finish


@pytest.fixture
def prediction():
    return fake_prediction(n_spots=64, n_genes=8)


@pytest.fixture
def measured(prediction):
    return counts_for(prediction)


@pytest.fixture
def foreign(prediction, tmp_path):
    worse = prediction.copy()
    worse.X = worse.X + np.random.default_rng(1).normal(0, 2, worse.shape).astype(np.float32)
    return read_any_prediction(write_deepspot_like(worse, tmp_path / "deepspot.h5ad"))


def together(measured, **predictions):
    return finish(comparing_models(predictions, measured))


def test_on_the_same_spots_and_genes_each_model_scores_as_it_does_alone(prediction, foreign, measured):
    found = together(measured, ours=prediction, deepspot=foreign)
    assert (found.spots, found.genes, found.slide) == (64, 8, "fake")
    assert len(found.notices) == 1, "one draw has no proper scores"
    alone = finish(comparing(prediction, measured))
    for name in ("X", "sample"):
        assert found.models["ours"].scores[name] == alone.scores[name]
    np.testing.assert_array_equal(found.models["ours"].draws.by_draw["SSC"], alone.draws.by_draw["SSC"])
    assert found.models["ours"].scores["X"].values["PCC"] > found.models["deepspot"].scores["X"].values["PCC"]
    assert set(found.models["deepspot"].scores) == {"X"}


def test_spots_and_genes_that_one_model_lacks_are_judged_in_none(prediction, foreign, measured):
    part = foreign[5:, ["ESR1", "ERBB2", "MKI67", "TP53"]].copy()
    found = together(measured, ours=prediction, part=part)
    assert (found.spots, found.genes) == (59, 4)
    said, _ = found.notices
    assert said.startswith("Of ours, 59 of 64 spots and 4 of 8 genes are judged")
    same = finish(comparing(prediction[5:, ["ERBB2", "ESR1", "MKI67", "TP53"]].copy(), measured))
    assert found.models["ours"].scores["X"].values["PCC"] == pytest.approx(same.scores["X"].values["PCC"])


def test_all_models_are_judged_on_one_graph_whatever_they_say_of_places(prediction, foreign, measured):
    foreign.obsm[keys.SPATIAL] = np.random.default_rng(0).uniform(0, 1000, (64, 2))
    for order in ({"ours": prediction, "deepspot": foreign}, {"deepspot": foreign, "ours": prediction}):
        found = together(measured, **order)
        graphs = {comparison.neighbours for comparison in found.models.values()}
        assert graphs == {"4 first-ring neighbours on the square array"}
        moran = [c.tables["X"].moran_measured.to_numpy() for c in found.models.values()]
        np.testing.assert_array_equal(*moran)


@pytest.mark.parametrize(
    "stated",
    [
        {keys.SLIDE_NAME: "other"},
        {keys.SLIDE_WIDTH: 999_999},
        {keys.SLIDE_NAME: "FAKE", keys.SLIDE_HEIGHT: 5000},
    ],
)
def test_predictions_that_state_different_slides_are_refused_unless_insisted_on(
    prediction, foreign, measured, stated
):
    other = prediction.copy()
    other.uns[keys.PROVENANCE] |= {**stated, keys.SLIDE_HASH: "1" * 64}
    models = {"deepspot": foreign, "ours": prediction, "other": other}
    with pytest.raises(Doubtful, match=r"ours and other state different slides .*--force"):
        together(measured, **models)
    found = finish(comparing_models(models, measured, force=True))
    assert "ours and other state different slides" in found.notices[0]
    assert "as was insisted on" in found.said()[0]
    other.uns[keys.PROVENANCE] |= dict.fromkeys([keys.SLIDE_HASH], "0" * 64)
    prediction.uns[keys.PROVENANCE] |= dict.fromkeys([keys.SLIDE_HASH], "0" * 64)
    assert not any("slides" in said for said in together(measured, **models).notices), "of one content"


def test_slides_of_one_name_and_size_and_different_contents_are_said(prediction, measured):
    prediction.uns[keys.PROVENANCE][keys.SLIDE_HASH] = "0" * 64
    other = prediction.copy()
    other.uns[keys.PROVENANCE][keys.SLIDE_HASH] = "1" * 64
    assert (
        together(measured, ours=prediction, other=other)
        .notices[0]
        .startswith("The slides of ours, other have")
    )


def test_controls_are_those_of_their_definitions(prediction, foreign, measured):
    found = together(measured, ours=prediction, deepspot=foreign).controls
    assert list(found) == list(CONTROLS)
    truth = np.log2(measured.X.toarray().astype(np.float64) + 1)
    assert found["control: gene means"].values["MSE"] == pytest.approx(truth.var(axis=0).mean())
    assert found["control: gene means"].values["PCC"] == 0
    guess = np.empty_like(truth)
    for spot in range(len(truth)):
        rest = np.arange(len(truth)) != spot
        for gene in range(truth.shape[1]):
            depth = np.delete(truth, gene, axis=1).mean(axis=1)
            guess[spot, gene] = np.polyval(np.polyfit(depth[rest], truth[rest, gene], 1), depth[spot])
    assert found["control: depth alone"].values["MSE"] == pytest.approx(((guess - truth) ** 2).mean())
    array = prediction.obs[[keys.ARRAY_ROW, keys.ARRAY_COL]].to_numpy()
    near = (np.abs(array[:, None] - array[None]).sum(-1) == 1).astype(float)
    around = (near / near.sum(1, keepdims=True)) @ truth
    assert found["control: neighbours"].values["MSE"] == pytest.approx(((around - truth) ** 2).mean())


def test_draws_are_scored_of_the_models_that_have_them(prediction, foreign, measured):
    add_draws(prediction, 16)
    found = together(measured, ours=prediction, deepspot=foreign)
    assert found.notices == ()
    table = found.table().set_index("model")
    assert table.loc["ours", ["draws", "draws_judged"]].tolist() == [16, 16]
    assert table.loc["deepspot", "draws"] == 0
    fair = [f"{name}_fair" for name in PROPER]
    assert table.loc["ours", fair].notna().all()
    assert table.loc[["deepspot", *CONTROLS], fair].isna().all(axis=None)
    assert table[list(METRICS)].loc[["ours", "deepspot"]].notna().all(axis=None)
    assert (table.PCC_low[:2] <= table.PCC[:2]).all()
    written = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert written["models"]["ours"]["X"]["PCC"] == table.loc["ours", "PCC"]
    assert written["models"]["deepspot"]["draws"]["proper_scores"] is None
    scored = written["models"]["ours"]["draws"]["proper_scores"]
    assert (scored["draws"], scored["fair"], scored["CRPS"]) == (16, True, table.loc["ours", "CRPS_fair"])
    assert written["controls"]["control: neighbours"]["PCC"] == table.loc["control: neighbours", "PCC"]


def spread_evenly(shape, random):
    """Sixteen sets of standard normal numbers; of each eight, every number takes every eighth once."""
    eighths = [random.random((8, *shape)).argsort(axis=0) for _ in range(2)]
    return ndtri((np.concatenate(eighths) + random.random((16, *shape))) / 8)


def drawing(prediction, noise):
    """A copy that draws 5 + `noise`, log2(count + 1)."""
    made = prediction.copy()
    for number, values in enumerate(noise, start=1):
        made.layers[layer_of(number)] = (5 + values).astype(np.float32)
    return made


def test_draws_of_one_distribution_are_level_however_evenly_their_noise_is_spread_and_narrow_ones_worse(
    tmp_path,
):
    random = np.random.default_rng(0)
    prediction = fake_prediction(n_spots=400, n_genes=8)
    measured = counts_for(prediction)
    measured.X = sparse.csr_matrix(np.round(np.exp2(5 + random.normal(size=prediction.shape)) - 1))
    foreign = read_any_prediction(write_deepspot_like(prediction, tmp_path / "deepspot.h5ad"))
    ours = drawing(prediction, spread_evenly(prediction.shape, random))
    theirs = drawing(foreign, random.normal(size=(16, *prediction.shape)))
    narrow = drawing(foreign, random.normal(0, 0.6, size=(16, *prediction.shape)))
    table = together(measured, ours=ours, theirs=theirs, narrow=narrow).table().set_index("model")
    plain = {
        name: finish(comparing(each, measured)).draws.proper
        for name, each in (("ours", ours), ("theirs", theirs))
    }
    for name in PROPER:
        scored = table[f"{name}_fair"]
        level = 0.015 * scored["ours"]
        assert scored["theirs"] == pytest.approx(scored["ours"], abs=level)
        assert scored["narrow"] > max(scored["ours"], scored["theirs"]) + 2 * level
    for name in ("CRPS", "ES", "ES-map"):
        assert plain["theirs"][name] > 1.05 * plain["ours"][name], "eight draws as they are"


@pytest.mark.parametrize(("number", "judged"), [(8, 0), (15, 0), (16, 16), (20, 16)])
def test_our_draws_are_judged_beside_other_models_from_sixteen_on(
    prediction, foreign, measured, number, judged
):
    found = together(
        measured, ours=add_draws(prediction, number), deepspot=drawing(foreign, foreign.X[None][[0] * 9])
    )
    assert found.models["ours"].draws.judged == judged
    assert bool(found.models["ours"].draws.proper) == bool(judged)
    assert found.models["deepspot"].draws.judged == 9
    if judged:
        assert found.notices == ()
    else:
        [said] = found.notices
        assert said.startswith("ours: The noise of draws 1–8 is spread evenly")
        assert "predict with --draws 16, or draw up to 16 on the Samples page" in said


def test_few_draws_of_another_model_are_not_judged_and_that_is_said(prediction, foreign, measured):
    found = together(measured, ours=add_draws(prediction, 16), few=drawing(foreign, foreign.X[None][[0] * 7]))
    assert found.notices == (
        "few: CRPS, energy and variogram scores need 8 joint draws and this file holds fewer, so they are "
        "left out; have its program write 8.",
    )


def test_models_recover_gene_sets_in_the_domains_of_one_measurement(prediction, foreign, measured):
    sets = {"first": tuple(prediction.var_names[:5])}
    models = {"ours": prediction, "deepspot": foreign}
    found = finish(comparing_models(models, measured, sets=sets))
    attached = prediction.copy()
    attach_measured(attached, measured)
    alone = finish(recover_in_truth(attached, sets))
    assert found.pathways["ours"].to_dict() == alone.to_dict()
    of_truth = [each.whole.measured for each in found.pathways.values()]
    assert of_truth[0] == of_truth[1]
    assert found.to_dict()["models"]["ours"]["gene_sets"] == alone.to_dict()
    few = {name: each[:9].copy() for name, each in models.items()}
    assert finish(comparing_models(few, measured, sets=sets)).pathways == {}


def test_models_of_different_spots_or_of_another_slide_are_refused(prediction, foreign, measured):
    with pytest.raises(UserError, match="2 spots and 8 genes in common"):
        together(measured, ours=prediction[:20].copy(), deepspot=foreign[18:].copy())
    foreign.obs_names = [f"other{k}" for k in range(64)]
    with pytest.raises(UserError, match="most likely of another slide"):
        together(measured, ours=prediction, deepspot=foreign)


def test_no_prediction_is_changed(prediction, foreign, measured):
    before = foreign.X.copy(), foreign.obsm[keys.SPATIAL].copy(), dict(foreign.uns[keys.PROVENANCE])
    together(measured, ours=prediction, deepspot=foreign)
    np.testing.assert_array_equal(foreign.X, before[0])
    np.testing.assert_array_equal(foreign.obsm[keys.SPATIAL], before[1])
    assert foreign.uns[keys.PROVENANCE] == before[2]
