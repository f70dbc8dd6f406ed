import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import anndata
import numpy as np
import psutil
import pytest
import torch
from shapely.geometry import box
from tests.dask_workers import threads
from tests.fakes import FakeSlide
from tests.tiny_weights import GENES, tiny_network, write_weights_on_uni

from napari_flag import inputs, keys, prediction, prediction_file, scratch
from napari_flag.cli import main
from napari_flag.cluster import GPU
from napari_flag.encoders.features import extract_features
from napari_flag.errors import UserError
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model.checkpoint import Checkpoint, describe_entries, save_checkpoint
from napari_flag.model.out_of_distribution import FAR, OutOfDistributionScore
from napari_flag.prediction import COMPARING, compare_with_training, predict_slide
from napari_flag.preflight import check
from napari_flag.progress import Step, finish
from napari_flag.sampling import Preview
from napari_flag.slides.file_identity import content_hash

SIZE = {"width": 1500, "height": 1200, "mpp": 0.683}


@pytest.fixture(scope="module")
def predict(tiny_slide, tiny_checkpoint, tiny_spots, feature_cache):
    def run(slide=tiny_slide, spots=tiny_spots, checkpoint=tiny_checkpoint, on_step=None, **options):
        work = predict_slide(slide, spots, checkpoint, device="cpu", cache=feature_cache, **options)
        return finish(work, on_step)

    return run


@pytest.fixture(scope="module")
def whole(predict):
    return predict(seed=3)


def test_the_prediction_keeps_the_contract(whole, tiny_spots):
    assert tuple(whole.obs_names) == tiny_spots.ids
    assert tuple(whole.var_names) == GENES
    assert whole.X.dtype == np.float32
    assert (whole.X >= 0).all()
    assert whole.layers[keys.SAMPLE].shape == whole.layers[keys.SPREAD].shape == whole.shape
    counts = np.exp2(whole.layers[keys.SAMPLE].astype(float)) - 1
    np.testing.assert_allclose(counts, counts.round(), atol=1e-3)
    np.testing.assert_array_equal(whole.obsm[keys.SPATIAL], tiny_spots.xy)
    np.testing.assert_array_equal(whole.obs[keys.ARRAY_ROW], tiny_spots.array[:, 0])
    made = whole.uns[keys.PROVENANCE]
    assert made[keys.DRAWS] == 1
    assert made[keys.MPP] == 0.683
    assert made[keys.NOT_FOR_DIAGNOSIS] == keys.RESEARCH_USE_ONLY


def assert_same(one, other):
    """Expectation and spread to 1e-4; a count may round to another, of these few values one."""
    np.testing.assert_allclose(one.X, other.X, atol=1e-4)
    np.testing.assert_allclose(one.layers[keys.SPREAD], other.layers[keys.SPREAD], atol=1e-4)
    apart = np.abs(one.layers[keys.SAMPLE] - other.layers[keys.SAMPLE]) > 1e-4
    assert apart.sum() <= 1


def test_the_expectation_and_its_spread_depend_on_neither_seed_nor_draws(predict, whole):
    other = predict(seed=4, draws=3)
    assert set(other.layers) == {"sample", "sample_2", "sample_3", keys.SPREAD}
    np.testing.assert_array_equal(other.X, whole.X)
    np.testing.assert_array_equal(other.layers[keys.SPREAD], whole.layers[keys.SPREAD])


def test_the_same_seed_gives_the_same_draws_and_another_does_not(predict, whole):
    np.testing.assert_array_equal(predict(seed=3).layers[keys.SAMPLE], whole.layers[keys.SAMPLE])
    assert (predict(seed=4).layers[keys.SAMPLE] != whole.layers[keys.SAMPLE]).mean() > 0.1


def panel_total(adata):
    return float((np.exp2(adata.layers[keys.SAMPLE].astype(float)) - 1).sum(1).mean())


def test_a_depth_that_is_known_sets_the_level_of_expectation_and_draws(predict, whole, tiny_spots):
    usual = panel_total(whole)
    deep = predict(seed=3, depth=5 * usual)
    assert deep.uns[keys.PROVENANCE][keys.DEPTH] == pytest.approx(5 * usual, rel=1e-3)
    assert 3.5 * usual < panel_total(deep) < 6.5 * usual
    assert (deep.X > whole.X).all()
    assert keys.DEPTH not in whole.uns[keys.PROVENANCE]


def test_counts_of_some_spots_say_the_depth_as_a_number_does(predict, whole, tiny_spots):
    some = anndata.AnnData(np.full((3, 2), 40.0))
    some.obs_names, some.var_names = list(tiny_spots.ids[:3]), list(GENES[1:3])
    by_spots = predict(seed=3, depth=inputs.known_depth(some, tiny_spots, GENES))
    by_number = predict(seed=3, depth=float(by_spots.uns[keys.PROVENANCE][keys.DEPTH]))
    np.testing.assert_allclose(by_number.X, by_spots.X, atol=1e-4)
    low = predict(seed=3, depth=inputs.known_depth(_scaled(some, 0.1), tiny_spots, GENES))
    assert (low.X < by_spots.X).all()


def _scaled(counts, factor):
    scaled = counts.copy()
    scaled.X = scaled.X * factor
    return scaled


def test_counts_of_other_spots_or_no_counts_at_all_do_not_say_the_depth(predict, tiny_spots):
    other = anndata.AnnData(np.ones((1, len(GENES))))
    other.obs_names, other.var_names = ["elsewhere"], list(GENES)
    with pytest.raises(UserError, match=r"do not say how deep this slide is: No spot"):
        inputs.known_depth(other, tiny_spots, GENES)
    with pytest.raises(UserError, match="must be above 0"):
        predict(depth=0.0)


def test_a_draw_is_the_same_alone_and_among_others(predict, whole):
    three = predict(seed=3, draws=3)
    assert_same(three, whole)
    third = predict(seed=3, first_draw=3).layers["sample_3"]
    assert (np.abs(third - three.layers["sample_3"]) > 1e-4).sum() <= 1
    assert (three.layers["sample_2"] != three.layers["sample_3"]).mean() > 0.1


def test_the_order_of_spots_does_not_change_their_numbers(predict, whole, tiny_spots):
    order = np.random.default_rng(0).permutation(len(tiny_spots))
    shuffled = predict(spots=tiny_spots.take(order), seed=3)
    assert_same(shuffled[whole.obs_names], whole)


def test_a_region_gives_the_numbers_of_the_whole(predict, whole, tiny_spots):
    part = predict(region=[box(0, 0, 700, 1200)], seed=3)
    assert 0 < part.n_obs < len(tiny_spots)
    assert_same(part, whole[part.obs_names])


def test_chosen_genes_have_the_numbers_of_the_panel(predict, whole):
    part = predict(genes=["CD74", "ERBB2"], seed=3)
    assert list(part.var_names) == ["CD74", "ERBB2"]
    assert_same(part, whole[:, ["CD74", "ERBB2"]])


def test_the_size_of_chunks_does_not_change_numbers(predict, whole, monkeypatch):
    monkeypatch.setattr("napari_flag.sampling._TOKENS_CPU", 20)
    assert_same(predict(seed=3), whole)


def test_previews_arrive_and_add_up_to_the_result(predict, whole, monkeypatch):
    monkeypatch.setattr("napari_flag.sampling._TOKENS_CPU", 20)
    seen = np.full(whole.shape, np.nan, np.float32)

    def show(step):
        if isinstance(step.partial, Preview):
            seen[step.partial.rows] = step.partial.values[step.partial.rows]

    predict(seed=3, on_step=show)
    np.testing.assert_allclose(seen, whole.X, atol=1e-4)


def test_unknown_resolution_is_asked_for_not_guessed(predict):
    slide = FakeSlide(mpp=None)
    with pytest.raises(UserError, match=r"--mpp 0\.5 on the command line, mpp=0\.5 in Python") as refused:
        predict(slide=slide)
    assert check(slide).blocking == (str(refused.value),), "the docks and the chain say the same"


def test_a_slide_too_coarse_for_the_encoder_is_refused(predict):
    with pytest.raises(UserError, match=r"1\.5|coarse"):
        predict(slide=FakeSlide(width=1500, height=1200, mpp=1.5))


def test_no_spots_is_an_error(predict, tiny_spots):
    with pytest.raises(UserError, match="There are no spots to predict; choose another spot table"):
        predict(spots=tiny_spots.take(np.zeros(len(tiny_spots), bool)))


def test_unknown_genes_are_named(predict):
    with pytest.raises(UserError, match="NOSUCH1"):
        predict(genes=["ERBB2", "NOSUCH1"])


def test_a_region_beside_the_tissue_is_an_error(predict):
    with pytest.raises(UserError, match="No spot lies inside"):
        predict(region=[box(-50, -50, -10, -10)])


def test_a_run_that_would_not_fit_in_memory_is_refused_before_it_starts(predict, monkeypatch):
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(UserError, match=r"Predicting \d+ spots needs about .* choose a larger spot distance"):
        predict()


def test_half_a_million_bins_are_predicted_in_13_gb_and_not_in_5(monkeypatch):
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: SimpleNamespace(free=100 * 10**9))
    for free, refused in ((13, False), (5, True)):
        monkeypatch.setattr(
            psutil, "virtual_memory", lambda free=free: SimpleNamespace(available=free * 10**9)
        )
        with pytest.raises(UserError, match="Predicting 500,000 spots") if refused else nullcontext():
            prediction._check_memory(500_000, 500_000, 1016, 200, 1, 0)


def test_results_that_lie_in_files_are_those_that_lie_in_memory(predict, whole, monkeypatch, tmp_path):
    monkeypatch.setattr(scratch, "MOST_IN_MEMORY", 50)
    monkeypatch.setattr(scratch, "cache_folder", lambda: tmp_path)
    made = []
    empty = scratch.empty

    def noted(shape, kind):
        made.append(empty(shape, kind))
        return made[-1]

    monkeypatch.setattr(scratch, "empty", noted)
    kept = predict(seed=3)
    assert len(made) == 7  # features, standardised; expected, log-rates; mean, draws, standard deviation
    assert all(isinstance(array.base, np.memmap) for array in made)
    assert np.shares_memory(kept.X, made[4])
    assert np.shares_memory(kept.layers[keys.SAMPLE], made[5])
    np.testing.assert_array_equal(kept.X, whole.X)
    for layer in (keys.SAMPLE, keys.SPREAD):
        np.testing.assert_array_equal(kept.layers[layer], whole.layers[layer])
    prediction_file.write_prediction(kept, tmp_path / "kept.h5ad")
    read = prediction_file.read_prediction(tmp_path / "kept.h5ad")
    np.testing.assert_array_equal(read.layers[keys.SAMPLE], whole.layers[keys.SAMPLE])


def test_results_that_the_disk_has_no_room_for_are_refused_before_it_starts(predict, monkeypatch):
    monkeypatch.setattr(scratch, "MOST_IN_MEMORY", 50)
    monkeypatch.setattr(scratch.shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(UserError, match=r"do not fit in memory, and .* free; free space there"):
        predict()


def test_a_graph_that_a_gpu_has_no_memory_for_is_said_in_one_sentence(predict, monkeypatch):
    def exhausted(*_):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(FlagPredictor, "encode", exhausted)
    with pytest.raises(UserError, match="does not fit in the memory of the GPU; predict a region"):
        predict()


@pytest.mark.parametrize("part", ["flag.", "flag.axes"])
def test_weights_that_give_no_numbers_are_named(predict, tiny_checkpoint, part):
    tensors = {
        name: each * 1e30 if name.startswith(part) else each for name, each in tiny_checkpoint.tensors.items()
    }
    with pytest.raises(UserError, match='The weights "tiny" give values that are not numbers'):
        predict(checkpoint=replace(tiny_checkpoint, tensors=tensors))


def test_differences_from_the_training_array_are_stated(tiny_checkpoint, tiny_spots):
    same = compare_with_training(tiny_checkpoint, 0.683, tiny_spots)
    assert not any("µm" in sentence for sentence in same)
    visium = replace(tiny_spots, diameter_um=55.0, pitch_um=100.0)
    stated = " ".join(compare_with_training(tiny_checkpoint, 0.9, visium))
    assert "distance between spots is 100 µm" in stated
    assert "spot diameter is 55 µm" in stated
    assert "coarser" in stated


def test_a_training_slide_is_known_by_its_content_under_another_name(tiny_checkpoint, tiny_spots, tmp_path):
    renamed = SimpleNamespace(name="scan_1", path=tmp_path / "scan_1.svs")
    renamed.path.write_bytes(b"the pixels of C2")
    hashes = {keys.CARD_HASHES: [content_hash(renamed.path)]}
    for stated, seen in (({}, False), (hashes, True), ({keys.CARD_HASHES: ["00"]}, False)):
        weights = replace(tiny_checkpoint, card=tiny_checkpoint.card | stated)
        said = compare_with_training(weights, 0.683, tiny_spots, renamed)
        assert any("scan_1 is among the sections" in sentence for sentence in said) is seen


def test_a_gpu_of_workers_that_is_not_here_is_said_and_the_workers_refuse_what_they_do_not_have(
    tmp_path, monkeypatch, tiny_slide, tiny_spots, tiny_checkpoint
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    def run(cluster):
        steps = []
        work = predict_slide(
            tiny_slide, tiny_spots, tiny_checkpoint, device="cuda", cache=tmp_path, cluster=cluster
        )
        with pytest.raises(UserError) as error:
            finish(work, steps.append)
        return str(error.value), [step.notice for step in steps if step.notice]

    with threads({GPU: 1}) as workers:
        refusal, said = run(workers.scheduler_address)
    assert refusal.startswith("On the worker ")
    assert any(notice.startswith("Workers encode the tiles on cuda") for notice in said)
    assert run("local:1") == (refusal.split(": ", 1)[1], [])  # of this computer, so refused at once


def test_a_cancelled_run_stops_at_the_next_step(tiny_slide, tiny_spots, tiny_checkpoint, tmp_path):
    work = predict_slide(tiny_slide, tiny_spots, tiny_checkpoint, device="cpu", cache=tmp_path)
    for step in work:
        if step.stage == "Reading tiles":
            break
    work.close()
    assert all(
        "_" in file.name and file.suffix == ".npy" for file in tmp_path.iterdir()
    )  # parts that are whole


def test_a_slide_is_read_with_the_foundation_encoder_the_weights_name(
    tiny_slide, tiny_spots, tmp_path, monkeypatch
):
    trained = Checkpoint.load(write_weights_on_uni(tmp_path, monkeypatch))
    few = tiny_spots.take(np.arange(4))
    found = finish(predict_slide(tiny_slide, few, trained, device="cpu", cache=tmp_path / "cache"))
    made = found.uns[keys.PROVENANCE]
    assert (made[keys.ENCODER], made[keys.TILE_PX], made[keys.TILE_UM_PER_PX]) == ("uni", 256, 0.5)
    assert np.isfinite(found.X).all()
    (tmp_path / "encoders" / "uni" / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="UNI are not on this computer"):
        finish(predict_slide(tiny_slide, few, trained, device="cpu", cache=tmp_path / "cache"))


def test_a_prediction_names_its_method_as_the_card_of_the_weights_does(predict, tiny_checkpoint):
    ablation = replace(tiny_checkpoint, card=tiny_checkpoint.card | {"method": "FLAG without graph"})
    for checkpoint, called in ((tiny_checkpoint, "FLAG"), (ablation, "FLAG without graph")):
        assert predict(checkpoint=checkpoint).uns[keys.PROVENANCE][keys.METHOD] == called


# How far a slide lies from the training tissue, from the weights file to the prediction file.


@pytest.fixture(scope="module")
def scorer(tiny_slide, tiny_spots, tiny_checkpoint, feature_cache):
    """Describe `tiny_slide`, calibrated on its own spots."""
    encoder = tiny_checkpoint.build_encoder()
    fingerprint, cpu = encoder.fingerprint, torch.device("cpu")
    work = extract_features(
        tiny_slide, tiny_spots.xy, encoder, encoder_hash=fingerprint, device=cpu, cache=feature_cache
    )
    rows = torch.from_numpy(finish(work))
    half = OutOfDistributionScore(
        spread=rows.std(0) + 0.01,
        centres=rows.mean(0, keepdim=True),
        axes=torch.eye(rows.shape[1])[:2],
        variances=torch.ones(2),
        rest=torch.tensor(float(rows.shape[1])),
        reach=torch.ones(1),
        reach_aligned=torch.ones(1),
    )
    reach, aligned = (f(rows).sort().values.float() for f in (half.distances, half.aligned_distances))
    return replace(half, reach=reach, reach_aligned=aligned)


@pytest.fixture(scope="module")
def scoring(tmp_path_factory, scorer, tiny_checkpoint):
    """Weights with that score."""
    path = tmp_path_factory.mktemp("w") / "scoring.safetensors"
    card = {keys.CARD_SCORE: {"calibrated_on": "one slide"}}
    encoder = tiny_checkpoint.part("encoder.")
    save_checkpoint(
        path, tiny_network(), encoder, encoder="embedded", genes=GENES, card=card, out_of_distribution=scorer
    )
    return Checkpoint.load(path)


@pytest.fixture(scope="module")
def inverted(tmp_path_factory):
    """A slide unlike `tiny_slide`: its negative."""
    slide = FakeSlide(**SIZE, seed=3)
    slide.pixels = 255 - slide.pixels
    slide.path = tmp_path_factory.mktemp("inverted") / "fake.svs"
    slide.path.touch()
    return slide


@pytest.fixture(scope="module")
def six(tiny_spots):
    return tiny_spots.take(np.arange(6))


@pytest.fixture(scope="module")
def predict_scored(predict, scoring, six):
    def run(slide, checkpoint=scoring, on_step=None, **options):
        return predict(slide, six, checkpoint, on_step, steps=2, **options)

    return run


def test_weights_give_back_the_score_and_the_card_states_its_calibration(scoring, scorer):
    again = scoring.build_out_of_distribution_score().tensors()
    for name, tensor in scorer.tensors().items():
        torch.testing.assert_close(again[name], tensor)
    card = dict(describe_entries(scoring.card))
    assert "one slide" in card[keys.CARD_SCORE.replace("_", " ")]


def test_a_slide_like_the_training_slides_is_scored_without_a_warning(predict_scored):
    notices = []
    adata = predict_scored(FakeSlide(**SIZE, seed=9), on_step=lambda step: notices.append(step.notice))
    score = adata.uns[keys.PROVENANCE][keys.FAMILIARITY]
    assert score[keys.UNLIKE_FROM] == FAR
    assert score[keys.SHARE_UNLIKE] <= 0.5
    assert keys.UNLIKE_WARNING not in score
    assert adata.obs[keys.DISTANCE].dtype == adata.obs[keys.UNLIKE].dtype == np.float32
    assert adata.obs[keys.UNLIKE].between(0, 1).all()
    assert not any("look unlike" in notice for notice in notices if notice)


def test_a_slide_unlike_them_is_predicted_with_a_warning(predict_scored, inverted):
    notices = []
    adata = predict_scored(
        inverted, on_step=lambda step: step.notice and notices.append((step.stage, step.notice))
    )
    made = adata.uns[keys.PROVENANCE]
    warning = made[keys.FAMILIARITY][keys.UNLIKE_WARNING]
    assert "look unlike the tissue this model was trained on" in warning
    assert (COMPARING, warning) in notices
    assert warning in made[keys.NOTICES]
    assert (adata.obs[keys.DISTANCE] > 1).mean() > 0.5
    assert np.isfinite(adata.X).all()


def test_a_region_keeps_the_score_of_the_whole_slide(predict_scored, inverted):
    whole = predict_scored(inverted)
    part = predict_scored(inverted, region=[box(0, 0, 600, 1200)])
    assert 0 < part.n_obs < whole.n_obs
    for column in (keys.DISTANCE, keys.UNLIKE):
        np.testing.assert_array_equal(part.obs[column], whole[part.obs_names].obs[column])
    one, other = (a.uns[keys.PROVENANCE][keys.FAMILIARITY] for a in (part, whole))
    assert one == other


def test_the_score_is_written_to_the_file(predict_scored, inverted, tmp_path):
    adata = predict_scored(inverted)
    prediction_file.write_prediction(adata, tmp_path / "a.h5ad")
    again = prediction_file.read_prediction(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.obs[keys.DISTANCE], adata.obs[keys.DISTANCE])
    assert again.uns[keys.PROVENANCE][keys.FAMILIARITY] == adata.uns[keys.PROVENANCE][keys.FAMILIARITY]
    assert keys.UNLIKE in anndata.read_h5ad(tmp_path / "a.h5ad").obs


def test_weights_without_a_score_predict_without_and_their_card_says_so(
    predict_scored, inverted, tiny_checkpoint
):
    assert tiny_checkpoint.build_out_of_distribution_score() is None
    assert tiny_checkpoint.card[keys.CARD_SCORE].startswith("none")
    notices = []
    adata = predict_scored(inverted, tiny_checkpoint, on_step=lambda step: notices.append(step.notice))
    assert keys.DISTANCE not in adata.obs
    assert keys.UNLIKE not in adata.obs
    assert keys.FAMILIARITY not in adata.uns[keys.PROVENANCE]
    assert not any("look unlike" in notice for notice in notices if notice)


def test_the_command_line_reports_it_on_stderr_and_in_json(
    scoring, inverted, six, feature_cache, tmp_path, monkeypatch, capsys
):
    def prepare(*_, **__):
        yield Step("Opening slide", 0)
        return inputs.Inputs(inverted, six)

    def predict_now(slide, where, weights, **_):
        return predict_slide(slide, where, weights, device="cpu", cache=feature_cache, steps=2)

    monkeypatch.setattr(Checkpoint, "load", lambda _: scoring)
    monkeypatch.setattr(inputs, "prepare", prepare)
    monkeypatch.setattr(prediction, "predict_slide", predict_now)
    (tmp_path / "any.png").touch()
    assert main(["predict", str(tmp_path / "any.png"), "--out", str(tmp_path / "out.h5ad"), "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert report[keys.SHARE_UNLIKE] > 0.5
    warning = next(notice for notice in report["notices"] if "look unlike" in notice)
    assert f"Note: {warning}" in printed.err


@pytest.fixture(scope="module")
def profiled(tiny_slide):
    """`tiny_slide` with a colour profile; `FakeSlide` exchanges red and blue by it."""
    slide = tiny_slide.with_mpp(tiny_slide.mpp, tiny_slide.mpp_source)
    slide.profile = b"of this scanner"
    slide.reader = slide
    return slide


def test_colours_are_converted_where_asked_for_and_this_is_recorded(predict, profiled, whole):
    said = []
    converted = predict(profiled, seed=3, colours="srgb", on_step=lambda step: said.append(step.notice))
    assert np.abs(converted.X - whole.X).max() > 1e-3
    assert converted.uns[keys.PROVENANCE][keys.COLOURS] == "srgb"
    assert any(notice and "trained on colours as scanned" in notice for notice in said)
    as_scanned = predict(profiled, seed=3)  # nothing kept of converted colours is taken for it
    np.testing.assert_array_equal(as_scanned.X, whole.X)
    assert as_scanned.uns[keys.PROVENANCE][keys.COLOURS] == "scanned"


def test_weights_trained_on_converted_colours_get_these(predict, profiled, tiny_slide, tiny_checkpoint):
    trained = replace(tiny_checkpoint, card=tiny_checkpoint.card | {keys.COLOURS: "srgb"})
    asked = predict(profiled, seed=3, colours="srgb")
    np.testing.assert_array_equal(predict(profiled, checkpoint=trained, seed=3).X, asked.X)
    plain = predict(tiny_slide, checkpoint=trained)
    notices = plain.uns[keys.PROVENANCE][keys.NOTICES]
    assert any("has no colour profile" in notice for notice in notices)
    assert not any("trained on colours" in notice for notice in notices)


@pytest.mark.parametrize("depth", [-5.0, 0.0, float("nan"), float("inf")])
def test_a_depth_that_no_slide_has_is_refused_before_a_tile_is_read(
    depth, tiny_slide, tiny_spots, tiny_checkpoint, tmp_path
):
    work = predict_slide(tiny_slide, tiny_spots, tiny_checkpoint, depth=depth, device="cpu", cache=tmp_path)
    with pytest.raises(UserError, match="must be above 0"):
        next(work)
