"""Names in a run folder depend on the values that results depend on, and on nothing else."""

from dataclasses import asdict, make_dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tests.training.conftest import make_config

from flag_training.config import MachineConfig, PriorConfig, SlideEntry
from flag_training.run_folders import (
    encoder_file,
    encoder_folder,
    features_key,
    states_folder,
    trained_folder,
)
from napari_flag.slides.colours import SCANNED, SRGB

RUN = Path("run")


@pytest.fixture
def config():
    slides = tuple(SlideEntry(name, name[0], "", "") for name in ("B4", "C2"))
    return replace(make_config(), slides=slides)


def test_names_depend_neither_on_the_name_of_a_class_nor_on_the_order_of_its_fields(config):
    values = asdict(config.fit)
    other = make_dataclass("OtherName", reversed(values))(**values)
    assert states_folder(RUN, replace(config, fit=other)) == states_folder(RUN, config)


def test_the_machine_and_the_card_do_not_count(config):
    other = replace(
        config, machine=MachineConfig(devices=2, save_every=7), card={"title": "other"}, name="other"
    )
    assert states_folder(RUN, other) == states_folder(RUN, config)


@pytest.mark.parametrize(
    "change",
    [
        {"slides": (SlideEntry("B4", "B", "", ""),)},
        {"network": {"mean_head": False}},
        {"prior": PriorConfig("counts/*.tsv.gz")},
        {"fit": make_config(seed=1).fit},
        {"colours": SRGB},
    ],
    ids=lambda change: next(iter(change)),
)
def test_fits_of_other_values_never_share_a_folder(config, change):
    assert states_folder(RUN, replace(config, **change)) != states_folder(RUN, config)


def test_fits_on_other_features_never_share_a_folder(config):
    plain = states_folder(RUN, config)
    assert states_folder(RUN, config, "0a1b2c3d") == plain.with_name(f"{plain.name}-0a1b2c3d")


ONE, OTHER = "0a1b2c3d", "ffffffff"
"""Hashes of features."""


@pytest.mark.parametrize("are_earlier", [True, False])
def test_the_folder_of_a_new_fit_names_its_features(are_earlier, config, tmp_path):
    for features in (ONE, OTHER):
        named = states_folder(tmp_path, config, features)
        assert trained_folder(tmp_path, config, features, are_earlier) == (named, None)


def test_a_fit_of_an_earlier_version_is_gone_on_with_its_features_and_never_with_others(config, tmp_path):
    earlier = states_folder(tmp_path, config)
    earlier.mkdir()
    assert trained_folder(tmp_path, config, ONE, are_earlier=True) == (earlier, None)
    for are_earlier in (True, False):
        assert trained_folder(tmp_path, config, ONE, are_earlier) == (earlier, None)
        other = states_folder(tmp_path, config, OTHER)
        assert trained_folder(tmp_path, config, OTHER, are_earlier) == (other, None)


def test_a_fit_of_an_earlier_version_on_features_that_are_not_known_is_not_gone_on_with(config, tmp_path):
    earlier, named = states_folder(tmp_path, config), states_folder(tmp_path, config, OTHER)
    earlier.mkdir()
    folder, notice = trained_folder(tmp_path, config, OTHER, are_earlier=False)
    assert folder == named
    assert notice.startswith(f"The fit of an earlier version in {earlier.name} does not say which features")
    assert f"a new one is begun in {named.name};" in notice
    assert list(earlier.iterdir()) == []
    assert trained_folder(tmp_path, config, ONE, are_earlier=True) == (earlier, None)
    earlier.rename(named)  # as the notice says
    assert trained_folder(tmp_path, config, OTHER, are_earlier=False) == (named, None)


def test_features_are_kept_under_all_that_they_are_made_of():
    made_of = {
        "name": "B4", "image": "a1", "xy": np.zeros((3, 2)), "mpp": 0.7, "views": 4, "seed": 0,
        "encoder": "e1", "colours": SCANNED,
    }  # fmt: skip
    others = {
        "image": "a2", "xy": np.ones((3, 2)), "mpp": 0.5, "views": 2, "seed": 1, "encoder": "e2",
        "colours": SRGB,
    }  # fmt: skip
    names = {features_key(**made_of | {what: other}) for what, other in others.items()}
    assert len({features_key(**made_of), *names}) == 1 + len(others)
    assert features_key(**made_of) == features_key(**made_of)
    assert features_key(**made_of).startswith("features_B4_")
    assert "/" not in features_key(**made_of | {"name": "../B4"})


def test_tile_encoders_of_other_images_or_colours_never_share_a_state():
    names, images = ("B4", "C2"), (("a1", 0.7), ("a2", 0.7))
    others = ((("a2", 0.7), ("a1", 0.7)), (("a1", 0.7), ("a2", 0.5)), (("a1", 0.7), ("a3", 0.7)))
    files = {encoder_file(RUN, names, other, SCANNED) for other in (images, *others)}
    assert len({*files, encoder_file(RUN, names, images, SRGB)}) == 5
    assert encoder_file(RUN, names, images, SCANNED) == encoder_file(RUN, list(names), list(images), SCANNED)


def test_a_tile_encoder_of_more_slides_is_not_taken_for_one_of_other_images(tmp_path):
    longer, _ = encoder_file(tmp_path, ("B4", "C2"), (("a1", 0.7), ("a2", 0.7)), SCANNED)
    longer.touch()
    assert encoder_file(tmp_path, ("B4",), (("a1", 0.7),), SCANNED)[1] is None


def test_another_tile_encoder_has_a_folder_of_its_own(config):
    assert encoder_folder(RUN, config.encoder) != encoder_folder(RUN, replace(config.encoder, steps=3))
