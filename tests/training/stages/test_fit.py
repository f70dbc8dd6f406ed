import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.section_files import write_section
from tests.training.conftest import PROPER, make_config, share_of_the_means_error

from flag_training.cohort import Cohort
from flag_training.config import SlideEntry
from flag_training.methods import blinded
from flag_training.methods.method import expectation
from flag_training.stages.fit import fit, make_card, tile_encoder, write_weights
from flag_training.stages.frames import assign_folds
from flag_training.stages.tile_encoder import TileEncoderConfig
from napari_flag import keys
from napari_flag.encoders.embedded import EmbeddedEncoder, TileNet
from napari_flag.errors import UserError
from napari_flag.gui.predict.model_step import describe_card
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model import gene_dit
from napari_flag.model.checkpoint import Checkpoint, label_of, trained_array
from napari_flag.model.graph import GraphTensors
from napari_flag.model.samplers import SamplerSettings
from napari_flag.progress import finish
from napari_flag.slides.file_identity import content_hash


def stopped_after(count, work):
    """Stop a fit after `count` batches of the score stage, as a killed process would."""
    seen = 0
    for step in work:
        seen += step.stage == "Training the gene transformer"
        if seen == count:
            work.close()
            return


def rows_of(folder):
    """Return the log of the score stage without the seconds it took."""
    with (folder / "score.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


class EncoderRun:
    """A run whose tile encoder takes two steps on the image of one section."""

    def __init__(self, folder):
        self.folder, self.run = folder, folder / "run"
        self.write(seed=0)
        short = TileEncoderConfig(steps=2, schedule_steps=2, batch_size=2)
        entry = SlideEntry("C2", "C", "C2.tif", "C2.h5ad", None, 0.683)
        self.config = replace(make_config(), slides=(entry,), encoder=short)

    def write(self, seed):
        write_section(self.folder, "C2", seed)

    def train(self):
        """Return the fingerprint of the encoder, what was said, and whether it was trained."""
        steps = []
        net = finish(tile_encoder(self.config, self.folder, self.run), steps.append)
        trained = any(step.stage == "Training the tile encoder" for step in steps)
        return EmbeddedEncoder(net).fingerprint, [step.notice for step in steps if step.notice], trained

    def kept(self):
        return sorted(path.name for path in self.run.iterdir())

    def keep_as_an_earlier_version(self):
        """Name the state as it was once named."""
        [state] = self.run.glob("*.pt")
        state.rename(self.run / "tile_encoder_C2.pt")


@pytest.fixture
def encoder_run(tmp_path):
    return EncoderRun(tmp_path)


def test_a_tile_encoder_is_taken_again_for_the_image_it_was_trained_on_and_for_no_other(encoder_run):
    first, said, trained = encoder_run.train()
    assert (said, trained) == ([], True)
    assert encoder_run.train() == (first, [], False)
    [name] = encoder_run.kept()
    assert name.startswith("tile_encoder_C2-")
    encoder_run.write(seed=1)
    other, [notice], trained = encoder_run.train()
    assert notice.startswith(f"The tile encoder {name} was trained on other images of the same names")
    assert trained
    assert other != first
    assert encoder_run.train() == (other, [], False)
    encoder_run.write(seed=0)
    assert encoder_run.train() == (first, [], False), "what took long is not replaced"


def test_a_tile_encoder_is_trained_anew_where_the_image_has_other_um_per_px(encoder_run):
    first, _, _ = encoder_run.train()
    [entry] = encoder_run.config.slides
    encoder_run.config = replace(encoder_run.config, slides=(replace(entry, mpp=1.0),))
    other, [notice], trained = encoder_run.train()
    assert "or at other µm per pixel" in notice
    assert trained
    assert other != first


def test_a_tile_encoder_of_an_earlier_version_is_taken_with_a_notice_and_never_for_another_image(encoder_run):
    first, _, _ = encoder_run.train()
    encoder_run.keep_as_an_earlier_version()
    found, [notice], trained = encoder_run.train()
    assert (found, trained) == (first, False)
    assert notice.startswith(
        f"{encoder_run.run / 'tile_encoder_C2.pt'} is of an earlier version and does not say"
    )
    assert encoder_run.train() == (first, [], False)
    assert encoder_run.kept() == ["tile_encoder_C2.pt", "tile_encoder_C2.txt"]
    encoder_run.write(seed=1)
    other, [notice], trained = encoder_run.train()
    assert notice.startswith("The tile encoder tile_encoder_C2.pt was trained on other images")
    assert trained
    assert other != first


@pytest.fixture
def finished(fitted, tmp_path):
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(fitted.folder, tmp_path / "run"))


def test_the_card_states_the_content_of_the_sections_that_can_be_read(cohort, tmp_path):
    (tmp_path / "C2.jpg").write_bytes(b"pixels")
    assert keys.CARD_HASHES not in make_card(make_config(), cohort, tmp_path), "no image is named"
    images = ("B4.jpg", "C2.jpg", "C3.jpg", "")
    slides = [
        replace(slide, entry=replace(slide.entry, image=image))
        for slide, image in zip(cohort.slides, images, strict=True)
    ]
    card = make_card(make_config(), replace(cohort, slides=tuple(slides)), tmp_path)
    assert card[keys.CARD_HASHES] == [content_hash(tmp_path / "C2.jpg")]


def test_the_card_states_the_arrays_of_all_sections_and_not_of_the_first_alone(cohort):
    alike = make_card(make_config(), cohort, Path())
    first, *others = cohort.slides
    spots = replace(first.spots, pitch_um=100.0, diameter_um=55.0, lattice="hex")
    mixed = replace(cohort, slides=(replace(first, mpp=0.25, spots=spots), *others))
    card = make_card(make_config(), mixed, Path())
    stated, known = trained_array(card), trained_array(alike)
    assert alike["array"]["pitch_um"] == others[0].spots.pitch_um, "one number where all are alike"
    assert stated.pitches_um == (100.0, *known.pitches_um)
    assert stated.diameters_um == (55.0, *known.diameters_um)
    assert stated.mpps == (0.25, *known.mpps)
    assert stated.lattices == ("hex", *known.lattices)
    assert trained_array(json.loads(json.dumps(card))) == stated


def test_sections_of_a_patient_are_left_out_whole_and_a_lone_one_in_strips(cohort):
    lone, *others = assign_folds(cohort.slides)
    assert sorted(np.bincount(lone).tolist()) == [12, 12, 12]
    assert [set(fold) for fold in others] == [{0}, {1}, {2}]


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_the_same_losses(cohort, fitted, tmp_path):
    stopped_after(4, fit(cohort, make_config(), tmp_path))
    losses = []
    finish(fit(cohort, make_config(), tmp_path), lambda step: losses.append(step.partial))
    rest = [loss for loss in losses if loss is not None]
    assert rest == pytest.approx(fitted.losses[-len(rest) :], rel=1e-4)
    assert 0 < len(rest) < len(fitted.losses)
    assert [row["loss"] for row in rows_of(tmp_path)] == [row["loss"] for row in rows_of(fitted.folder)]


@pytest.mark.slow
def test_a_run_stopped_within_an_epoch_goes_on_with_the_same_rows(cohort, tmp_path):
    """Four slides: an epoch is a step of three batches and a step of one."""
    config = make_config(save_every=3, slides_per_batch=1, accumulate=3, score_steps=8)
    config = replace(config, network=config.network | PROPER)
    finish(fit(cohort, config, tmp_path / "whole"))
    whole = rows_of(tmp_path / "whole")
    assert [row["epoch"] for row in whole] == list("11223344")
    stopped_after(11, fit(cohort, config, tmp_path / "stopped"))  # in the sixth step; saved at the third
    assert rows_of(tmp_path / "stopped") == whole[:5]
    finish(fit(cohort, config, tmp_path / "stopped"))
    assert rows_of(tmp_path / "stopped") == whole


@pytest.mark.slow
def test_a_damaged_state_is_refused_with_a_sentence(cohort, finished):
    (finished / "score.pt").write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged"):
        finish(fit(cohort, make_config(), finished))


def test_a_state_of_other_settings_is_refused(cohort, finished):
    with pytest.raises(UserError, match="other settings"):
        finish(fit(cohort, make_config(score_rate=1e-4), finished))


@pytest.mark.slow
def test_the_same_seed_trains_the_same_network(cohort, fitted, tmp_path):
    again = finish(fit(cohort, make_config(), tmp_path))
    for (name, a), b in zip(fitted.network.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.slow
def test_the_mean_head_predicts_an_unseen_section_from_its_features(learnt, unseen):
    slide, views = unseen
    with torch.inference_mode():
        guess = learnt.encode(views[0], GraphTensors.of(slide.graph(views[0].numpy()))).expected
    r = [np.corrcoef(guess[:, g], slide.expression[:, g])[0, 1] for g in range(5)]
    assert np.mean(r) > 0.6


@pytest.mark.slow
@pytest.mark.parametrize(("diffusion", "left"), [(True, 0.87), (False, 0.15)])
def test_flag_overfits_a_tiny_set(tiny, tmp_path, diffusion, left):
    """X comes near the counts it was shown, and the gene transformer near the latents.

    The loss is 1 where nothing is learnt.  With diffusion it does not tend to 0: its noise stays unknown.
    """
    slide, features = blinded(tiny.slides[0]), tiny.features[0][0].numpy()
    values = {"branch_steps": 150, "score_steps": 200, "score_rate": 5e-3, "warm_steps": 10, "ema": 0.9}
    config = make_config(branch_decay=0.0, score_decay=0.0, **values)
    config = replace(config, network=config.network | {"context_dropout": 0.0, "diffusion": diffusion})
    network = finish(fit(tiny, config, tmp_path)).eval()
    predictor = FlagPredictor(network, tiny.genes)
    found = expectation(predictor, predictor.encode(features, slide.graph(features)), slide)
    assert share_of_the_means_error(found, tiny) < 0.2
    score = [float(row["loss"]) for row in rows_of(tmp_path)]
    assert np.mean(score[-50:]) < left


@pytest.mark.slow
def test_residuals_are_those_of_spots_the_head_did_not_see(cohort, learnt, tmp_path):
    """With features that say nothing, what is left must be all of the expression's spread."""
    rng = np.random.default_rng(0)
    silent = Cohort(
        cohort.slides,
        tuple(torch.from_numpy(rng.normal(size=f.shape).astype(np.float32)) for f in cohort.features),
        cohort.genes,
    )
    finish(fit(silent, make_config(branch_steps=30, score_steps=1), tmp_path))
    truth = np.concatenate([slide.expression - slide.expression.mean(0) for slide in cohort.slides])
    left = (np.load(tmp_path / "crossfit.npy") ** 2).mean(0)
    assert (left > 0.9 * truth.var(0)).all()


def test_cross_fitted_residuals_are_small_where_features_say_much(cohort, fitted):
    truth = np.concatenate([slide.expression for slide in cohort.slides])
    left = np.load(fitted.folder / "crossfit.npy")
    assert left.shape == truth.shape
    assert ((left**2).mean(0) / truth.var(0)).mean() < 0.75


def test_cross_fitted_residuals_that_lie_there_are_never_believed_but_written_anew(cohort, fitted, finished):
    right = np.load(fitted.folder / "crossfit.npy")
    np.save(finished / "crossfit.npy", np.zeros_like(right))
    finish(fit(cohort, make_config(), finished))
    np.testing.assert_array_equal(np.load(finished / "crossfit.npy"), right)


def test_what_was_chosen_is_written_beside_the_states_and_stored_in_the_network(fitted):
    stated = json.loads((fitted.folder / "spread.json").read_text())
    assert float(fitted.network.get_buffer("sd_factor")) == pytest.approx(stated["sd_factor"])
    assert stated["scores"]["1.0"] == 1.0
    assert stated["scores"][str(stated["composition"])] == min(stated["scores"].values())


def test_what_is_denoised_has_the_covariance_that_the_network_stores(fitted):
    """Of unit variance: an eigenvalue is a share of what five genes vary by."""
    assert float(fitted.network.get_buffer("eigenvalues").sum()) == pytest.approx(5, rel=0.25)


def test_weights_of_an_ablation_say_which_form_of_flag_they_hold(cohort, fitted, tmp_path):
    path, card = tmp_path / "here.safetensors", {"title": "tumour", "method": "FLAG without graph"}
    config = replace(make_config(), name="without_graph", card=card)
    finish(write_weights(path, fitted.network, TileNet().state_dict(), "embedded", cohort, config))
    weights = Checkpoint.look(path)
    assert weights.method_name == "FLAG without graph"
    assert weights.card["title"] == "tumour (without_graph)"
    assert label_of("here", path) == "here · FLAG without graph"
    assert describe_card(weights.card, 5)[0] == "Method FLAG without graph"
    finish(
        write_weights(
            path, fitted.network, TileNet().state_dict(), "embedded", cohort, replace(config, card={})
        )
    )
    assert label_of("here", path) == "here"


@pytest.fixture(scope="module")
def proper(cohort, tmp_path_factory):
    """FLAG proper: no mean head, no covariance, channelwise attention."""
    config = make_config(score_steps=6)
    folder = tmp_path_factory.mktemp("proper")
    return finish(fit(cohort, replace(config, network=config.network | PROPER), folder)), folder


def test_flag_proper_is_fitted_without_mean_head_and_covariance(cohort, proper):
    network, folder = proper
    assert network.mean_head is None
    assert "eigenvalues" not in dict(network.named_buffers())
    assert not (folder / "branch0.pt").exists()
    assert len(rows_of(folder)) == 6
    location = np.concatenate([slide.expression for slide in cohort.slides]) - np.load(
        folder / "crossfit.npy"
    )
    for n in range(1, 4):  # what is left is relative to a level: the same in all spots of a section
        of_section = location[36 * n : 36 * (n + 1)]
        assert of_section.std(0).max() < 1e-4


def test_what_flag_proper_diffuses_spreads_as_expression_does(cohort, proper, unseen):
    """Draws of the Gaussian it starts from are about as wide as the expression of a section."""
    slide, views = unseen
    encoded = FlagPredictor(proper[0], cohort.genes).encode(views[0].numpy(), slide.graph(views[0].numpy()))
    drawn = finish(encoded.silenced().draw(np.arange(36), slide.spots.ids, SamplerSettings(draws=8)))
    assert float(drawn.std() / slide.expression.std()) == pytest.approx(1, abs=0.35)
    moments = finish(encoded.expectation(np.arange(36), slide.spots.ids))
    assert np.isfinite(moments.mean).all()
    assert (moments.sd > 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("switch", [{"summaries": 2}, {"attention": "channels"}, {"covariance": False}])
def test_every_choice_of_form_can_be_fitted(cohort, tmp_path, switch, monkeypatch):
    monkeypatch.setattr(gene_dit, "MOST_GENES", 4)
    config = make_config(branch_steps=1, score_steps=2)
    network = finish(fit(cohort, replace(config, network=config.network | switch), tmp_path))
    assert all(value.isfinite().all() for value in network.state_dict().values())
    assert network.gene_dit.blocks[0].summaries is not None
