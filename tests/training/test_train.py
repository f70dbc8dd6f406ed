"""``train`` from a store to a weights file, and from a damaged state to the one before it."""

import argparse
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.cohort_files import TinyEncoder, hest_folder
from tests.training.conftest import make_config
from tests.training.engine.test_checkpointing import flip_a_bit, saved_twice
from tests.training.methods.test_published import CONFIGS, SMALL
from tests.training.test_own_sections import write_section

from flag_training.cli import add_run_arguments, run_folder
from flag_training.cohort import SectionLevel, fingerprint, held_out, load_cohort, with_store
from flag_training.config import PriorConfig, SlideEntry, StoreConfig, read_config
from flag_training.methods.floors import LEARNED_FLOORS
from flag_training.methods.learning import Descent
from flag_training.methods.weights import train_method
from flag_training.run_folders import earlier_features_file, states_folder
from flag_training.stages.fit import tile_encoder, train, write_weights
from flag_training.stages.tile_encoder import TileEncoderConfig
from flag_training.store.building import Encoding, build_store
from flag_training.store.hest import find_metadata, hest_sources, read_metadata
from flag_training.store.panels import PanelRule
from flag_training.store.plan import StorePlan
from flag_training.store.sources import HUMAN
from napari_flag import keys
from napari_flag.cli.main import main
from napari_flag.errors import UserError
from napari_flag.methods.flag import FlagPredictor
from napari_flag.methods.predictor import open_method
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.prediction_file import read_prediction
from napari_flag.progress import finish


class NamedEncoder(TinyEncoder):
    name = "phikon"  # the card states the licence of a name that is known


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    hest = hest_folder(folder / "hest")
    sources = hest_sources([f"TST{i}" for i in range(1, 7)], read_metadata(find_metadata(hest)), hest, HUMAN)
    plan = StorePlan("tiny", HUMAN, sources, hest, panel=PanelRule("top8", 8, exact=True, variable_genes=0))
    finish(build_store(plan, folder / "tiny", Encoding(NamedEncoder(), views=1)))
    return folder


@pytest.fixture(scope="module")
def config(data):
    stated = with_store(replace(make_config(views=1), store=StoreConfig("tiny", "phikon", "top8")), data)
    return stated.without(held_out(stated, data))


@pytest.fixture(scope="module")
def trained(config, data, tmp_path_factory):
    """The folder of a finished run with its weights file, not to be changed."""
    folder = tmp_path_factory.mktemp("run")
    finish(train(config, data, folder, folder / "weights.safetensors"))
    return folder


@pytest.mark.slow
def test_weights_of_a_store_name_their_encoder_and_who_they_were_trained_on(config, data, trained):
    weights = Checkpoint.load(trained / "weights.safetensors")
    assert weights.encoder == "phikon"
    assert weights.card["encoder"]["fingerprint"] == "f" * 64
    assert weights.card["encoder"]["licence"].startswith("Owkin")
    assert not any(name.startswith("encoder.") for name in weights.tensors)
    trained, watched = set(weights.card["sections"]), set(weights.card["validation"])
    assert trained | watched == {entry.name for entry in config.slides}
    assert not trained & watched
    assert not {*trained, *watched} & set(held_out(config, data))
    assert len(FlagPredictor.open(weights).network.get_buffer("slide_location")) == len(trained)


@pytest.mark.parametrize(
    ("name", "method"),
    [("ridge", "ridge"), ("BLEEP", "bleep"), ("Stem", "stem"), ("joint diffusion", "joint")],
)
def test_weights_of_another_method_have_the_card_of_their_run(name, method, config, data, tmp_path):
    out = tmp_path / "other.safetensors"
    values = LEARNED_FLOORS["ridge"] if name == "ridge" else SMALL[name]
    if name != "ridge":
        values = replace(values, training=Descent(2, 1e-3))
    finish(train_method(config, data, tmp_path, out, name, values))
    weights = Checkpoint.load(out)
    assert (weights.method, weights.method_name, weights.encoder) == (method, name, "phikon")
    assert weights.card["encoder"]["fingerprint"] == "f" * 64
    assert not {*weights.card["sections"], *weights.card["validation"]} & set(held_out(config, data))
    assert weights.build_out_of_distribution_score() is not None
    sampler = open_method(weights).sampler
    assert weights.card.get("sampler") == (
        None if sampler is None else {"solver": sampler.name, "steps": sampler.steps}
    )
    assert (keys.CARD_BANK in weights.card) == (name == "BLEEP")


def test_the_card_names_the_sections_whose_counts_alone_were_read(fitted, cohort, tmp_path):
    others = tuple(
        SectionLevel.of(name, name[0], np.ones((4, 5), np.float32)) for name in ("A1", "A2", "B1", "C2")
    )
    config = replace(make_config(), slides=tuple(slide.entry for slide in cohort.slides))
    out, tiles = tmp_path / "weights.safetensors", {"weight": torch.zeros(1)}
    finish(write_weights(out, fitted.network, tiles, "embedded", replace(cohort, others=others), config))
    assert Checkpoint.load(out).card["levels"] == {"patients": ["A", "B"], "sections": ["A1", "A2", "B1"]}
    finish(write_weights(out, fitted.network, tiles, "embedded", cohort, config))
    assert "levels" not in Checkpoint.load(out).card


def test_levels_of_further_patients_are_not_read_for_another_method(config, data, tmp_path):
    """Reading them takes longer than fitting a floor; here there are none to read."""
    config = replace(config, prior=PriorConfig("nowhere/*.tsv", 1))
    out = tmp_path / "ridge.safetensors"
    assert finish(train_method(config, data, tmp_path, out, "ridge", LEARNED_FLOORS["ridge"])) == out


def test_a_method_given_as_a_run_is_refused_with_the_command_that_trains_it():
    with pytest.raises(UserError, match=r"napari-flag train RUN\.toml --method"):
        read_config(Path(__file__).parents[2] / "training" / "configs" / "baselines" / "bleep.toml")


def said_before_the_fit(config, data, run):
    """Return what `train` says before it fits anything, and leave it there."""
    said = []
    for step in train(config, data, run, run / "weights.safetensors"):
        if step.notice:
            said.append(step.notice)
        if step.stage.startswith("Fitting"):
            break
    return said


def test_a_fit_of_an_earlier_version_on_a_store_is_not_gone_on_with_and_train_says_so(config, data, tmp_path):
    earlier = states_folder(tmp_path, config)
    earlier.mkdir()
    [said] = [each for each in said_before_the_fit(config, data, tmp_path) if "earlier version" in each]
    assert said.startswith(f"The fit of an earlier version in {earlier.name} does not say")
    assert list(earlier.iterdir()) == []


def test_train_goes_on_with_a_fit_of_an_earlier_version_on_the_features_kept_with_it_alone(tmp_path):
    write_section(tmp_path, "S1", 11)
    write_section(tmp_path, "S2", 12)
    entries = tuple(SlideEntry(name, "P", f"{name}.tif", f"{name}.h5ad") for name in ("S1", "S2"))
    encoder = TileEncoderConfig(steps=1, schedule_steps=1, batch_size=8)
    config = replace(make_config(views=1), slides=entries, encoder=encoder)
    run = tmp_path / "run"
    net = finish(tile_encoder(config, tmp_path, run))
    weights = b"".join(v.numpy().tobytes() for v in net.state_dict().values())
    cohort = finish(load_cohort(config, tmp_path, run, net))
    kept = [earlier_features_file(run, entry, 1, weights, config.colours) for entry in entries]
    earlier = states_folder(run, config)
    earlier.mkdir()
    for place, views in zip(kept, (cohort.features[0], torch.zeros_like(cohort.features[1])), strict=True):
        np.save(place, views.numpy())
    assert any("is begun in" in said for said in said_before_the_fit(config, tmp_path, run))
    assert list(earlier.iterdir()) == []
    np.save(kept[1], cohort.features[1].numpy())
    assert not any("is begun in" in said for said in said_before_the_fit(config, tmp_path, run))
    assert (earlier / "features.txt").read_text().strip() == fingerprint(cohort)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "called"),
    [
        ("kNN, k = 10", "kNN, k = 10"),
        ("stflow.toml", "STFlow"),
        ("joint_diffusion.toml", "joint diffusion"),
    ],
)
def test_a_method_is_trained_and_predicts_on_the_command_line(method, called, tmp_path, monkeypatch):
    for seed in (11, 12):
        write_section(tmp_path, f"S{seed}", seed)
    sections = "".join(
        f'[[slides]]\nname = "S{seed}"\npatient = "P"\nimage = "S{seed}.tif"\nspots = "S{seed}.h5ad"\n'
        for seed in (11, 12)
    )
    run, draws = tmp_path / "run.toml", method.endswith(".toml")
    run.write_text(f'name = "made"\n{sections}[encoder]\nsteps = 2\nschedule_steps = 2\n[fit]\nviews = 2\n')
    if draws:
        stated = re.sub(r"(?m)^steps = .*", "steps = 2", (CONFIGS / method).read_text())
        (tmp_path / method).write_text(stated)
    monkeypatch.chdir(tmp_path)
    words = ["train", "run.toml", "--data", ".", "--run", "run", "--method", method]
    assert main([*words, "--out", "made.safetensors"]) == 0
    predicting = ["predict", "S11.tif", "--spots", "S11.h5ad", "--weights", "made.safetensors"]
    assert main([*predicting, "--out", "out.h5ad", "--device", "cpu"]) == 0
    found = read_prediction(tmp_path / "out.h5ad")
    assert (keys.SAMPLE in found.layers) == draws
    assert found.uns[keys.PROVENANCE][keys.METHOD] == called
    assert main([*predicting, "--out", "more.h5ad", "--draws", "2"]) == (0 if draws else 2)


@pytest.mark.slow
def test_a_damaged_state_gives_way_to_the_previous_one_only_when_asked(config, data, trained, tmp_path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    out = run / "weights.safetensors"
    whole = Checkpoint.load(out).tensors
    out.unlink()
    (state,) = run.rglob("score.pt")
    flip_a_bit(state)
    with pytest.raises(UserError, match="add --use-previous"):
        finish(train(config, data, run, out))
    steps = []
    finish(train(config, data, run, out, use_previous=True), steps.append)
    assert any("resuming from the state before it" in (step.notice or "") for step in steps)
    again = Checkpoint.load(out).tensors
    assert again.keys() == whole.keys()
    assert all((again[name] == tensor).all() for name, tensor in whole.items())


def test_every_command_that_trains_takes_the_previous_state_when_asked(tmp_path, capsys):
    state = saved_twice(tmp_path)
    flip_a_bit(state)
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    words = ["run.toml", "--data", "data", "--run", str(tmp_path)]
    assert run_folder(parser.parse_args(words), "run") == tmp_path
    assert not state.with_suffix(".damaged").exists()
    run_folder(parser.parse_args([*words, "--use-previous"]), "run")
    assert state.with_suffix(".damaged").exists()
    assert "score.pt was damaged; resuming from the state before it" in capsys.readouterr().err
