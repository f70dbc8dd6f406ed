"""``train`` from a store to a weights file, and from a damaged state to the one before it."""

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cohort_files import TinyEncoder, hest_folder
from tests.training.conftest import make_config
from tests.training.engine.test_checkpointing import flip_a_bit, saved_twice

from flag_training.cli import add_run_arguments, run_folder
from flag_training.cohort import held_out, with_store
from flag_training.config import StoreConfig
from flag_training.stages.fit import train
from flag_training.store.building import Encoding, build_store
from flag_training.store.hest import find_metadata, hest_sources, read_metadata
from flag_training.store.panels import PanelRule
from flag_training.store.plan import StorePlan
from flag_training.store.sources import HUMAN
from napari_flag.errors import UserError
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model.checkpoint import Checkpoint
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
    told = with_store(replace(make_config(views=1), store=StoreConfig("tiny", "phikon", "top8")), data)
    return told.without(held_out(told, data))


@pytest.fixture(scope="module")
def trained(config, data, tmp_path_factory):
    """The folder of a finished run with its weights file, not to be changed."""
    folder = tmp_path_factory.mktemp("run")
    finish(train(config, data, folder, folder / "weights.safetensors"))
    return folder


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
