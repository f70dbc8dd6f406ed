"""How far a slide lies from the training tissue, from the weights file to the prediction file."""

import dataclasses
import json

import anndata
import numpy as np
import pytest
import torch
from shapely.geometry import box
from tests.fakes import FakeSlide
from tests.tiny_weights import GENES, tiny_network, write_tiny_weights

from napari_flag import keys, prediction_file
from napari_flag.encoders.embedded import EmbeddedEncoder, TileNet
from napari_flag.model.checkpoint import Checkpoint, describe_entries, save_checkpoint
from napari_flag.model.out_of_distribution import FAR, OutOfDistributionScore
from napari_flag.prediction import COMPARING, predict_slide
from napari_flag.progress import Step, finish
from napari_flag.slides.spots import Spots
from napari_flag.slides.tiles import read_tiles

SIZE = {"width": 1500, "height": 1200, "mpp": 0.683}


def spots():
    rows, columns = np.divmod(np.arange(12), 4)
    ids = tuple(f"{c}x{r}" for r, c in zip(rows, columns, strict=True))
    return Spots(ids, np.stack([columns, rows], 1) * 293.0 + 200, 100.0, 200.0, "square")


def score_fitted_on(slides):
    """Describe these slides, calibrated on their own spots."""
    encoder = EmbeddedEncoder(net())

    def encode(slide):
        tiles = read_tiles(slide, spots().xy, size_px=600, mpp=0.683, batch_size=4)
        return np.concatenate([encoder.encode(batch) for batch in tiles])

    seen = [encode(slide) for slide in slides]
    rows = torch.from_numpy(np.concatenate(seen))
    half = OutOfDistributionScore(
        spread=rows.std(0) + 0.01,
        centres=torch.stack([torch.from_numpy(s).mean(0) for s in seen]),
        axes=torch.eye(rows.shape[1])[:2],
        variances=torch.ones(2),
        rest=torch.tensor(float(rows.shape[1])),
        reach=torch.ones(1),
        reach_aligned=torch.ones(1),
    )
    reach, aligned = (f(rows).sort().values.float() for f in (half.distances, half.aligned_distances))
    return dataclasses.replace(half, reach=reach, reach_aligned=aligned)


def net():
    torch.manual_seed(1)
    return TileNet()


@pytest.fixture(scope="module")
def scorer():
    return score_fitted_on([FakeSlide(**SIZE, seed=seed) for seed in (1, 2)])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, scorer):
    path = tmp_path_factory.mktemp("w") / "scoring.safetensors"
    card = {keys.CARD_SCORE: {"calibrated_on": "two slides"}, "sampler": {"samples": 2}}
    tensors = net().state_dict()
    save_checkpoint(
        path, tiny_network(), tensors, encoder="embedded", genes=GENES, card=card, out_of_distribution=scorer
    )
    return Checkpoint.load(path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def predict(checkpoint, cache):
    def run(slide, checkpoint=checkpoint, on_step=None, **options):
        work = predict_slide(slide, spots(), checkpoint, device="cpu", cache=cache, steps=2, **options)
        return finish(work, on_step)

    return run


@pytest.fixture(scope="module")
def inverted(tmp_path_factory):
    """With a file, so that its features are computed once for all tests and then read from the cache."""
    slide = FakeSlide(**SIZE, seed=3)
    slide.pixels = 255 - slide.pixels
    slide.path = tmp_path_factory.mktemp("slide") / "fake.svs"
    slide.path.touch()
    return slide


def test_weights_give_back_the_score_and_the_card_states_its_calibration(checkpoint, scorer):
    again = checkpoint.build_out_of_distribution_score().tensors()
    for name, tensor in scorer.tensors().items():
        torch.testing.assert_close(again[name], tensor)
    card = dict(describe_entries(checkpoint.card))
    assert "two slides" in card[keys.CARD_SCORE.replace("_", " ")]


def test_a_slide_like_the_training_slides_is_scored_without_a_warning(predict):
    notices = []
    adata = predict(FakeSlide(**SIZE, seed=9), on_step=lambda step: notices.append(step.notice))
    score = adata.uns[keys.PROVENANCE][keys.FAMILIARITY]
    assert score[keys.UNLIKE_FROM] == FAR
    assert score[keys.SHARE_UNLIKE] <= 0.5
    assert keys.UNLIKE_WARNING not in score
    assert adata.obs[keys.DISTANCE].dtype == adata.obs[keys.UNLIKE].dtype == np.float32
    assert adata.obs[keys.UNLIKE].between(0, 1).all()
    assert not any("look unlike" in notice for notice in notices if notice)


def test_a_slide_unlike_them_is_predicted_with_a_warning(predict, inverted):
    notices = []
    adata = predict(inverted, on_step=lambda step: step.notice and notices.append((step.stage, step.notice)))
    made = adata.uns[keys.PROVENANCE]
    warning = made[keys.FAMILIARITY][keys.UNLIKE_WARNING]
    assert "look unlike the tissue this model was trained on" in warning
    assert (COMPARING, warning) in notices
    assert warning in made[keys.NOTICES]
    assert (adata.obs[keys.DISTANCE] > 1).mean() > 0.5
    assert np.isfinite(adata.X).all()


def test_a_region_keeps_the_score_of_the_whole_slide(predict, inverted):
    whole = predict(inverted)
    part = predict(inverted, region=[box(0, 0, 700, 1200)])
    assert 0 < part.n_obs < whole.n_obs
    for column in (keys.DISTANCE, keys.UNLIKE):
        np.testing.assert_array_equal(part.obs[column], whole[part.obs_names].obs[column])
    one, other = (a.uns[keys.PROVENANCE][keys.FAMILIARITY] for a in (part, whole))
    assert one == other


def test_the_score_is_written_to_the_file(predict, inverted, tmp_path):
    adata = predict(inverted)
    prediction_file.write_prediction(adata, tmp_path / "a.h5ad")
    again = prediction_file.read_prediction(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.obs[keys.DISTANCE], adata.obs[keys.DISTANCE])
    assert again.uns[keys.PROVENANCE][keys.FAMILIARITY] == adata.uns[keys.PROVENANCE][keys.FAMILIARITY]
    assert keys.UNLIKE in anndata.read_h5ad(tmp_path / "a.h5ad").obs


def test_weights_without_a_score_predict_without_and_their_card_says_so(predict, inverted, tmp_path):
    plain = Checkpoint.load(write_tiny_weights(tmp_path / "plain.safetensors"))
    assert plain.build_out_of_distribution_score() is None
    assert plain.card[keys.CARD_SCORE].startswith("none")
    notices = []
    adata = predict(inverted, plain, on_step=lambda step: notices.append(step.notice))
    assert keys.DISTANCE not in adata.obs
    assert keys.UNLIKE not in adata.obs
    assert keys.FAMILIARITY not in adata.uns[keys.PROVENANCE]
    assert not any("look unlike" in notice for notice in notices if notice)


def test_the_command_line_reports_it_on_stderr_and_in_json(
    checkpoint, inverted, cache, tmp_path, monkeypatch, capsys
):
    from napari_flag import inputs, prediction
    from napari_flag.cli import main

    def prepare(*_, **__):
        yield Step("Opening slide", 0)
        return inputs.Inputs(inverted, spots())

    def predict_now(slide, where, weights, **_):
        return predict_slide(slide, where, weights, device="cpu", cache=cache, steps=2)

    monkeypatch.setattr(Checkpoint, "load", lambda _: checkpoint)
    monkeypatch.setattr(inputs, "prepare", prepare)
    monkeypatch.setattr(prediction, "predict_slide", predict_now)
    assert main(["predict", "any.png", "--out", str(tmp_path / "out.h5ad"), "--json"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report[keys.SHARE_UNLIKE] > 0.5
    warning = next(notice for notice in report["notices"] if "look unlike" in notice)
    assert f"Note: {warning}" in said.err
