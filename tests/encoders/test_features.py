from copy import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from distributed import Client
from tests import slide_files
from tests.dask_workers import threads
from tests.fakes import FakeSlide
from tests.section_files import write_section
from tests.small_encoders import random_network, shrink

from napari_flag import cache
from napari_flag.cluster import GPU
from napari_flag.encoders import features as features_module
from napari_flag.encoders.features import (
    FEWEST_PARTS,
    TilePart,
    WantedEncoder,
    Workers,
    choose_beside_workers,
    choose_device,
    describe_encoder,
    encode_part,
    extract_features,
    halve,
    list_devices,
)
from napari_flag.encoders.foundation.loader import FoundationEncoder
from napari_flag.encoders.registry import find_encoder
from napari_flag.errors import UserError
from napari_flag.model.checkpoint import Checkpoint, encoder_of
from napari_flag.progress import finish
from napari_flag.slides.colours import SCANNED
from napari_flag.slides.slide import open_slide
from napari_flag.slides.spot_tables import read_spots


class MeanColour:
    """An encoder whose feature is a tile's mean colour; counts what it was asked."""

    name, dim, tile_px, mpp = "mean", 3, 32, 0.5

    def __init__(self, memory: int = 10**6) -> None:
        self.memory, self.batches = memory, []

    def encode(self, tiles):
        self.batches.append(len(tiles))
        if len(tiles) > self.memory:
            raise torch.cuda.OutOfMemoryError
        return tiles.mean((1, 2)).astype(np.float32)


XY = np.stack(np.meshgrid([200.0, 500.0, 800.0], [300.0, 600.0]), -1).reshape(-1, 2)


def features(encoder, tmp_path, slide=None, device="cpu", digest="a", on_step=None, xy=XY):
    work = extract_features(
        slide or FakeSlide(mpp=0.5),
        xy,
        encoder,
        encoder_hash=digest,
        device=torch.device(device),
        cache=tmp_path,
    )
    return finish(work, on_step)


def test_features_are_the_encoders_in_the_order_of_spots(tmp_path):
    slide = FakeSlide(mpp=0.5)
    found = features(MeanColour(), tmp_path, slide)
    tile = slide.read_region(800 - 16, 600 - 16, 32, 32)
    np.testing.assert_allclose(found[-1], tile.mean((0, 1)), atol=3)


def test_tiles_are_read_band_by_band_whatever_the_order_of_spots(tmp_path):
    class Watched(FakeSlide):
        read: list

        def read_level(self, x, y, width, height, level):
            self.read.append((y, x))
            return super().read_level(x, y, width, height, level)

    slide, shuffled = Watched(mpp=0.5), np.random.default_rng(1).permutation(len(XY))
    slide.read = []
    wanted = features(MeanColour(), tmp_path)
    found = finish(
        extract_features(
            slide, XY[shuffled], MeanColour(), encoder_hash="a", device=torch.device("cpu"), cache=tmp_path
        )
    )
    np.testing.assert_array_equal(found, wanted[shuffled])
    assert sorted(slide.read) == [(y - 16, x - 16) for y in (300, 600) for x in (200, 500, 800)]
    # two threads read ahead, so neighbours in this order may change places
    bands = [y for y, _ in slide.read]
    assert bands[:2] == [284, 284]
    assert bands[-2:] == [584, 584]


def test_a_second_run_on_the_same_file_reads_no_tiles(tmp_path):
    slide = FakeSlide(mpp=0.5)
    slide.path = tmp_path / "slide.tif"
    slide.path.write_bytes(b"pixels")
    first, again, other = MeanColour(), MeanColour(), MeanColour()
    np.testing.assert_array_equal(features(first, tmp_path, slide), features(again, tmp_path, slide))
    assert again.batches == []
    features(other, tmp_path, slide, digest="b")
    assert other.batches


def test_a_slide_in_a_folder_whose_pixels_were_written_anew_in_place_is_read_again(tmp_path):
    folder = tmp_path / "dicom"
    folder.mkdir()
    image = slide_files.picture(1000, 800)
    level = slide_files.dicom_slide(folder / "level0.dcm", image)
    with open_slide(folder, mpp=0.5) as slide:
        before = features(MeanColour(), tmp_path, slide)
    level.write_bytes(slide_files.dicom_slide(tmp_path / "other.dcm", 255 - image).read_bytes())
    with open_slide(folder, mpp=0.5) as slide:
        again = MeanColour()
        after = features(again, tmp_path, slide)
    assert again.batches
    assert abs(after - before).max() > 10


@pytest.mark.parametrize("damage", ["text", "zeros", "one bit", "nan", "inf"])
def test_a_damaged_cache_entry_is_computed_again_and_that_is_said(tmp_path, damage):
    slide = FakeSlide(mpp=0.5)
    slide.path = tmp_path / "slide.tif"
    slide.path.write_bytes(b"pixels")
    wanted = features(MeanColour(), tmp_path, slide)
    (entry,) = tmp_path.glob("*.npy")
    if damage == "text":
        entry.write_bytes(b"broken")
    elif damage == "zeros":  # a file that is whole in itself
        np.save(entry, np.zeros_like(wanted))
    elif damage in ("nan", "inf"):
        wrong = wanted.copy()
        wrong[-1, 0] = float(damage)
        finish(cache.keep_array(wrong, tmp_path, entry.stem.rpartition("-")[0], "Keeping"))
    else:
        stored = bytearray(entry.read_bytes())
        stored[-3] ^= 1
        entry.write_bytes(stored)
    steps = []
    np.testing.assert_array_equal(features(MeanColour(), tmp_path, slide, on_step=steps.append), wanted)
    said = [step.notice for step in steps if step.notice]
    assert said == [f"The kept features of {slide.name} were damaged and are computed again."]
    again = MeanColour()
    features(again, tmp_path, slide)
    assert again.batches == []


MANY = np.stack(np.meshgrid(np.linspace(100, 900, 6), np.linspace(100, 700, 5)), -1).reshape(-1, 2)
"""30 spots: eight parts of at most four."""


class Cancelled(Exception):
    pass


def cancel_at(done):
    def look(step):
        if step.stage == "Reading tiles" and step.done >= done:
            raise Cancelled

    return look


@pytest.fixture
def filed(tmp_path):
    """A slide with a file, so that its features are kept."""
    slide = FakeSlide(mpp=0.5)
    slide.path = tmp_path / "slide.tif"
    slide.path.write_bytes(b"pixels")
    return slide


def test_a_run_that_was_cancelled_continues_with_the_tiles_that_are_missing(filed, tmp_path, monkeypatch):
    monkeypatch.setattr(features_module, "FEWEST_PARTS", 3)  # of 12, 12 and 6 spots
    wanted = features(MeanColour(), tmp_path / "other", filed, xy=MANY)
    with pytest.raises(Cancelled):
        features(MeanColour(), tmp_path, filed, xy=MANY, on_step=cancel_at(18))
    assert len(list(tmp_path.glob("*.npy"))) == 1  # the second part was not whole
    encoder, steps = MeanColour(), []
    np.testing.assert_array_equal(features(encoder, tmp_path, filed, xy=MANY, on_step=steps.append), wanted)
    assert sum(encoder.batches) == 30 - 12
    reading = [step for step in steps if step.stage == "Reading tiles"]
    assert [(step.done, step.total) for step in (reading[0], reading[-1])] == [(16, 30), (30, 30)]
    assert len(list(tmp_path.glob("*.npy"))) == 1  # parts have given way to the whole
    again = MeanColour()
    np.testing.assert_array_equal(features(again, tmp_path, filed, xy=MANY), wanted)
    assert again.batches == []


def test_a_damaged_part_is_computed_again_and_that_is_said(filed, tmp_path):
    wanted = features(MeanColour(), tmp_path / "other", filed, xy=MANY)
    with pytest.raises(Cancelled):
        features(MeanColour(), tmp_path, filed, xy=MANY, on_step=cancel_at(18))
    part = min(tmp_path.glob("*.npy"))
    stored = bytearray(part.read_bytes())
    stored[-3] ^= 1
    part.write_bytes(stored)
    encoder, steps = MeanColour(), []
    np.testing.assert_array_equal(features(encoder, tmp_path, filed, xy=MANY, on_step=steps.append), wanted)
    assert sum(encoder.batches) == 30 - 16
    said = [step.notice for step in steps if step.notice]
    assert said == [f"A part of the kept features of {filed.name} was damaged and is computed again."]


def test_parts_of_a_slide_stay_and_features_of_others_give_way(filed, tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    features(MeanColour(), folder, filed, xy=MANY)
    (other,) = folder.glob("*.npy")
    monkeypatch.setenv("NAPARI_FLAG_FEATURES_GB", str(1.5 * (128 + 4 * 3 * 4) / 1e9))
    steps, cancel = [], cancel_at(18)
    with pytest.raises(Cancelled):
        features(
            MeanColour(), folder, filed, xy=MANY, digest="b", on_step=lambda s: (steps.append(s), cancel(s))
        )
    assert len(list(folder.glob("*.npy"))) == 5  # all that were done, more than may stay of all slides
    assert not other.exists()
    (said,) = [step.notice for step in steps if step.notice]
    assert "stay until those of the next slide are kept" in said
    assert "NAPARI_FLAG_FEATURES_GB=1" in said
    encoder = MeanColour()
    features(encoder, folder, filed, xy=MANY, digest="b")
    assert sum(encoder.batches) == 30 - 20


def test_room_is_made_before_the_first_part_and_after_the_last(filed, tmp_path, monkeypatch):
    made, make_room = [], features_module.kept.make_room

    def counted(*given, **named):
        made.append(len(list(tmp_path.glob("*.npy"))))
        make_room(*given, **named)

    monkeypatch.setattr(features_module.kept, "make_room", counted)
    features(MeanColour(), tmp_path, filed, xy=MANY)
    assert made == [0, 1]


def test_a_large_slide_has_no_more_parts_than_are_kept_quickly(filed, tmp_path, monkeypatch):
    monkeypatch.setattr(features_module, "BATCHES_OF_PART", 1)
    monkeypatch.setattr(features_module, "MOST_PARTS", 3)
    with pytest.raises(Cancelled):
        features(MeanColour(), tmp_path, filed, xy=MANY, on_step=cancel_at(30))
    assert len(list(tmp_path.glob("*.npy"))) == 2  # of 12, 12 and 6 spots


def test_parts_of_another_encoder_or_other_spots_are_not_taken(filed, tmp_path):
    with pytest.raises(Cancelled):
        features(MeanColour(), tmp_path, filed, xy=MANY, on_step=cancel_at(18))
    for other in ({"digest": "b", "xy": MANY}, {"xy": MANY[::-1]}):
        encoder = MeanColour()
        features(encoder, tmp_path, filed, **other)
        assert sum(encoder.batches) == 30


def test_a_part_with_features_that_are_no_numbers_is_not_kept(filed, tmp_path):
    with pytest.raises(Cancelled):
        features(Broken(), tmp_path, filed, xy=MANY, on_step=cancel_at(18))
    assert not list(tmp_path.glob("*.npy"))


class Broken(MeanColour):
    def encode(self, tiles):
        found = super().encode(tiles)
        found[0] = np.nan
        return found


def test_features_that_are_no_numbers_are_refused_and_not_kept(tmp_path):
    slide = FakeSlide(mpp=0.5)
    slide.path = tmp_path / "slide.tif"
    slide.path.write_bytes(b"pixels")
    with pytest.raises(UserError, match=r"no numbers for \d of 6 tiles"):
        features(Broken(), tmp_path, slide)
    assert not list(tmp_path.glob("*.npy"))


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path):
    slide = FakeSlide(mpp=0.5)
    slide.path = tmp_path / "slide.tif"
    slide.path.write_bytes(b"pixels")
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    steps = []
    assert features(MeanColour(), blocked, slide, on_step=steps.append).shape == (6, 3)
    assert features(MeanColour(), blocked, slide, xy=MANY, on_step=steps.append).shape == (30, 3)
    (said,) = {step.notice for step in steps if step.notice}
    assert "could not be kept" in said
    assert len([step for step in steps if step.notice == said]) == 2  # once a run


def test_exhausted_gpu_memory_halves_the_batch_says_so_and_loses_nothing(tmp_path):
    encoder, notices = MeanColour(memory=2), []
    found = features(encoder, tmp_path, device="cuda", on_step=lambda s: notices.append(s.notice))
    assert any("continuing with 2 tiles" in n for n in notices if n)
    np.testing.assert_array_equal(found, features(MeanColour(), tmp_path))


def test_memory_that_does_not_suffice_for_one_tile_is_an_error():
    with pytest.raises(UserError, match='device "cpu"'):
        halve(1, "tiles")


def test_no_device_is_taken_in_place_of_another():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(UserError, match="no device called"):
        choose_device("abacus")
    if not torch.cuda.is_available():
        assert choose_device("auto").type == "cpu"
        with pytest.raises(UserError, match="sees none"):
            choose_device("cuda")


def test_auto_takes_the_gpu_of_an_apple_computer_and_a_cuda_one_before_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"
    assert [name for name, _ in list_devices()] == ["mps", "cpu"]
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"
    with pytest.raises(UserError, match="Apple's GPU"):
        choose_device("mps")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda i: f"card {i}")
    assert choose_device("auto").type == "cuda"
    assert list_devices() == (("cuda", "CUDA: card 0"), ("cuda:1", "CUDA: card 1"), ("cpu", "CPU"))


def test_a_gpu_of_a_number_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="The GPU cuda:2 was requested, but the last one here is cuda:1;"):
        choose_device("cuda:2")


def test_a_foundation_encoder_is_cancelled_between_tiles_on_a_cpu(tmp_path):
    row = shrink(find_encoder("uni"))
    steps = extract_features(
        FakeSlide(mpp=0.5),
        XY[:3],
        FoundationEncoder(row, random_network(row)),
        encoder_hash="a",
        device=torch.device("cpu"),
        cache=tmp_path,
    )
    assert [next(steps).done for _ in range(3)] == [1, 2, 3]


@pytest.fixture(scope="module")
def section(tmp_path_factory):
    """A slide with 36 spots in a file, and the spots."""
    folder = tmp_path_factory.mktemp("section")
    write_section(folder, "S0", 0)
    return folder / "S0.tif", read_spots(folder / "S0.h5ad").spots.xy


@pytest.fixture(scope="module")
def client():
    with threads() as workers, Client(workers, set_as_default=False) as connected:
        yield connected


def opener(weights):
    return partial(encoder_of, weights)


def encoded(section, weights, cache, workers=None, on_step=None, sha256=None):
    encoder = Checkpoint.load(weights).build_encoder("cpu")
    if sha256 is not None:
        encoder.weights = sha256
    with open_slide(section[0]) as slide:
        work = extract_features(
            slide,
            section[1],
            encoder,
            encoder_hash=encoder.fingerprint,
            device=torch.device("cpu"),
            cache=cache,
            workers=workers,
        )
        return finish(work, on_step)


def test_tiles_spread_over_workers_give_the_same_features_part_by_part(
    section, tiny_weights, client, tmp_path
):
    steps = []
    spread = encoded(
        section, tiny_weights, tmp_path / "a", Workers(client, opener(tiny_weights)), steps.append
    )
    np.testing.assert_array_equal(spread, encoded(section, tiny_weights, tmp_path / "b"))
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert len(set(done)) > FEWEST_PARTS / 2
    assert {step.total for step in steps} == {len(spread)}
    assert any(step.detail == "1 worker" for step in steps)
    assert len(list((tmp_path / "a").glob("*.npy"))) == 1  # kept as if computed here


def test_what_workers_did_before_they_were_cancelled_is_kept(section, tiny_weights, client, tmp_path):
    wanted = encoded(section, tiny_weights, tmp_path / "b")
    with pytest.raises(Cancelled):
        encoded(
            section,
            tiny_weights,
            tmp_path / "a",
            Workers(client, opener(tiny_weights)),
            cancel_at(len(wanted) / 2),
        )
    kept = len(list((tmp_path / "a").glob("*.npy")))
    assert kept > 1
    steps = []
    np.testing.assert_array_equal(encoded(section, tiny_weights, tmp_path / "a", None, steps.append), wanted)
    read = [step.done for step in steps if step.stage == "Reading tiles"]
    assert read[0] >= 4 * kept


def other_arithmetic(weights, device):
    """The encoder as on a device that computes otherwise."""
    encoder = copy(encoder_of(weights, device))
    encoder.fingerprint = "of a GPU"
    return encoder


def test_features_of_workers_that_compute_otherwise_are_kept_apart(section, tiny_weights, client, tmp_path):
    workers = Workers(client, partial(other_arithmetic, tiny_weights))
    spread = encoded(section, tiny_weights, tmp_path, workers)
    steps = []
    np.testing.assert_array_equal(encoded(section, tiny_weights, tmp_path, None, steps.append), spread)
    assert len({step.done for step in steps}) > 2  # read here, and not taken from the cache
    assert len(list(tmp_path.glob("*.npy"))) == 2
    again = []
    encoded(section, tiny_weights, tmp_path, replace(workers, device="cpu"), again.append)
    assert {step.done for step in again} == {len(spread)}


def test_a_worker_without_the_slide_or_with_another_encoder_is_one_sentence(
    section, tiny_weights, client, tmp_path
):
    workers = Workers(client, opener(tiny_weights))
    with pytest.raises(UserError, match="other weights of the encoder"):
        encoded(section, tiny_weights, tmp_path, workers, sha256="of another")
    encoder = workers.open_encoder("cpu")
    wanted = WantedEncoder(workers.open_encoder, "cpu", encoder.weights)
    part = TilePart(tmp_path / "gone.tif", 0.5, SCANNED, section[1], wanted, encoder.fingerprint, "cpu")
    with pytest.raises(UserError, match=r"gone\.tif"):
        finish(encode_part(part))
    with pytest.raises(UserError, match="in different ways"):
        finish(encode_part(replace(part, fingerprint="of a GPU")))
    with pytest.raises(UserError, match="in different ways"):  # also in the same precision
        finish(encode_part(replace(part, kind="cuda")))
    with pytest.raises(UserError, match="install the same version"):
        finish(describe_encoder(replace(wanted, version="0.0.0")))


def test_each_worker_chooses_the_device_that_was_asked_for_and_says_where_it_has_none(
    section, tiny_weights, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    asked = []

    def opening(weights, device):
        asked.append(device)
        return encoder_of(weights, device)

    with threads({GPU: 1}) as cluster, Client(cluster, set_as_default=False) as connected:
        workers = Workers(connected, opener(tiny_weights), "cuda")
        with pytest.raises(UserError, match=r"^On the worker .*: A GPU was requested, but PyTorch sees none"):
            encoded(section, tiny_weights, tmp_path, workers)
    assert not list(tmp_path.glob("*"))
    finish(describe_encoder(WantedEncoder(partial(opening, tiny_weights), "auto", encoder_sha(tiny_weights))))
    assert asked == ["cpu"]


def encoder_sha(weights):
    return encoder_of(weights, "cpu").weights


def test_beside_workers_with_a_gpu_the_fastest_device_here_is_taken_and_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    device, said = choose_beside_workers("cuda")
    assert device == torch.device("cpu")
    assert said.startswith("Workers encode the tiles on cuda, which this computer does not have")
    assert "by the CPU" in said
    assert choose_beside_workers("auto") == choose_beside_workers("cpu") == (torch.device("cpu"), None)
    with pytest.raises(UserError, match="no device called"):
        choose_beside_workers("abacus")
