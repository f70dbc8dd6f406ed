"""A store: what is read back is what went in, what is finished is kept, what is damaged is refused."""

import json
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.cohort_files import MPP, SYMBOLS, TinyEncoder, hest_folder, tree

from flag_training.store import writing
from flag_training.store.building import Encoding, build_store
from flag_training.store.hest import HestSamples, choose_ids, find_metadata, hest_sources, read_metadata
from flag_training.store.panels import PanelRule
from flag_training.store.plan import SplitRule, StorePlan
from flag_training.store.sources import HUMAN
from flag_training.store.store import open_store
from flag_training.store.writing import forget
from napari_flag.errors import UserError
from napari_flag.model.graph import Places, build_graph
from napari_flag.progress import finish
from napari_flag.slides.colours import SRGB
from napari_flag.slides.spot_tables import read_spots

RULE = PanelRule("top8", 8, variable_genes=0)


@pytest.fixture(scope="module")
def hest(tmp_path_factory):
    return hest_folder(tmp_path_factory.mktemp("hest"))


def plan_of(hest, **changes):
    metadata = read_metadata(find_metadata(hest))
    ids = choose_ids(HestSamples("TST1", "TST6"), metadata)
    sources = hest_sources(ids, metadata, hest, HUMAN)
    return replace(StorePlan("tiny", HUMAN, sources, hest, panel=RULE), **changes)


def encoding(**changes):
    return replace(Encoding(TinyEncoder(), views=2), **changes)


@pytest.fixture(scope="module")
def made(hest, tmp_path_factory):
    """A finished store, not to be changed."""
    out = tmp_path_factory.mktemp("made") / "store"
    return finish(build_store(plan_of(hest), out, encoding()))


@pytest.fixture
def store(made, tmp_path):
    """A copy of it, to be damaged."""
    shutil.copytree(made.path, tmp_path / "store")
    return open_store(tmp_path / "store")


def flip(path, at=-40):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(bytes(content))


def test_slides_come_back_as_they_were_measured(made, hest):
    assert made.names == tuple(f"TST{i}" for i in range(1, 7))
    slide = made.slide("TST2")
    table = read_spots(hest / "st" / "TST2.h5ad")
    assert slide.spots.ids == table.spots.ids
    np.testing.assert_array_equal(slide.spots.xy, table.spots.xy)
    np.testing.assert_array_equal(slide.spots.array, table.spots.array)
    assert (slide.mpp, slide.pitch_um, slide.patient, slide.labels) == (MPP, 200.0, "Patient 0", None)
    counts = slide.counts()
    assert list(counts.var_names) == SYMBOLS
    assert (counts.X != table.measured.X).nnz == 0


def test_the_graph_is_that_of_the_spots_with_likeness_under_any_features(made):
    slide = made.slide("TST1")
    features = np.array(slide.features("tiny")[1])
    expected = build_graph(Places(slide.spots.xy * MPP, 200.0), features)
    found = slide.graph(features)
    for part in ("neighbours", "present", "distance", "likeness"):
        np.testing.assert_array_equal(getattr(found, part), getattr(expected, part))


def test_weights_of_an_encoder_are_stated_whatever_its_device_computed_in(made, hest, tmp_path):
    encoder = TinyEncoder()
    encoder.fingerprint = "a" * 64  # as on a GPU
    one = plan_of(hest, panel=None)
    one = replace(one, sources=one.sources[:1])
    slide = finish(build_store(one, tmp_path / "gpu", encoding(encoder=encoder))).slide("TST1")
    assert slide.feature_settings("tiny")["fingerprint"] == "a" * 64
    assert slide.encoder_weights("tiny") == made.slide("TST1").encoder_weights("tiny") == "f" * 64
    del slide.record["stages"]["features-tiny"]["weights"]  # as earlier versions wrote it
    assert slide.encoder_weights("tiny") == "a" * 64


def test_features_of_a_slide_depend_on_nothing_but_it_and_the_encoder(made, hest, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "CHUNK", 3)
    one = plan_of(hest, panel=None)
    one = replace(one, sources=one.sources[3:4])
    alone = finish(build_store(one, tmp_path / "alone", encoding(batch_size=2)))
    features = made.slide("TST4").features("tiny")
    assert features.shape == (2, 25, 6)
    np.testing.assert_allclose(alone.slide("TST4").features("tiny"), features, rtol=1e-5)
    assert not np.allclose(features[0], features[1])


def test_sources_are_stated_with_their_hashes_and_no_path_of_this_machine(made, hest):
    record = json.loads((made.path / "slides" / "TST1" / "slide.json").read_text())
    assert [entry["path"] for entry in record["sources"]] == ["wsis/TST1.tif", "st/TST1.h5ad"]
    assert all(len(entry["sha256"]) == 64 for entry in record["sources"])
    assert record["facts"]["organ"] == "Breast"
    texts = [p.read_text() for p in made.path.rglob("*.json")]
    assert not any(str(hest) in text or str(made.path) in text for text in texts)


def test_splits_are_written_down_and_share_no_slide_or_patient(made):
    for by in ("slides", "patients"):
        split = made.split(by)
        parts = [set(split.part(name)) for name in ("train", "validation", "test")]
        assert all(parts)
        assert set.union(*parts) == set(made.names)
        assert sum(map(len, parts)) == len(made.names)
    patients = [{made.slide(n).patient for n in made.split("patients").part(p)} for p in ("train", "test")]
    assert not patients[0] & patients[1]


def test_genes_are_chosen_on_training_slides_unless_all_are_asked_for(made, hest, tmp_path):
    record = made.panel_record("top8")
    assert record["seen"] == sorted({*made.split().train} & {*made.split("patients").train}) != []
    for by in ("slides", "patients"):
        assert not {*record["seen"]} & {*made.split(by).validation, *made.split(by).test}
    assert record["seen_beyond_training"] == []
    assert tuple((made.path / "panels" / "top8.txt").read_text().split()) == made.panel("top8")
    every = finish(build_store(plan_of(hest, panel_sees_all=True), tmp_path / "all"))
    record = every.panel_record("top8")
    assert record["seen"] == list(every.names)
    assert record["seen_beyond_training"] == sorted({*every.names} - {*made.panel_record("top8")["seen"]})


def test_genes_are_chosen_by_the_split_of_slides_where_the_splits_train_on_different_ones(
    made, hest, tmp_path
):
    plan = plan_of(hest)
    plan = replace(plan, sources=plan.sources[:5:2], split=SplitRule(seed=1))
    store = finish(build_store(plan, tmp_path / "three"))
    assert not {*store.split().train} & {*store.split("patients").train}
    record = store.panel_record("top8")
    assert record["seen"] == record["seen_beyond_training"] == list(store.split().train)


def test_a_slide_held_for_testing_is_never_looked_at_for_genes(hest, tmp_path):
    plan = plan_of(hest, split=SplitRule(for_test=("TST3",)), panel_sees_all=True)
    held = finish(build_store(plan, tmp_path / "held"))
    record = held.panel_record("top8")
    assert "TST3" in held.split().test
    assert "TST3" not in record["seen"]
    assert "TST3" not in record["names_from"]


def test_a_finished_store_is_kept_as_it_is_and_nothing_is_encoded_again(store, made, hest):
    encoder = TinyEncoder()
    finish(build_store(plan_of(hest), store.path, encoding(encoder=encoder)))
    assert encoder.tiles == 0
    assert tree(store.path) == tree(made.path)


def test_a_store_made_twice_is_the_same_byte_by_byte(made, hest, tmp_path):
    finish(build_store(plan_of(hest), tmp_path / "again", encoding()))
    assert tree(tmp_path / "again") == tree(made.path)


SCRIPT = """
import sys
from pathlib import Path
from tests.cohort_files import TinyEncoder
from tests.training.store.test_store import encoding, plan_of
from flag_training.store import writing
from flag_training.store.building import build_store
from napari_flag.progress import finish
writing.CHUNK = 4
encoder = TinyEncoder(stall_after=2 * 25 + 2 * 8)  # a slide and two chunks of the next, in two views
finish(build_store(plan_of(Path(sys.argv[1])), Path(sys.argv[2]), encoding(encoder=encoder)))
"""


def killed_when(out, hest, ready):
    """Run the script, kill it (SIGKILL) once `ready` says so, and make sure it was not done."""
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(hest), str(out)], cwd=root)
    try:
        while not ready():
            assert process.poll() is None, "it ended before it could be killed"
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()


def stopped_when(out, hest, ready):
    """Stop the same run within this process, between two of its steps."""
    work = build_store(plan_of(hest), out, encoding())
    for _ in work:
        if ready():
            break
    work.close()


@pytest.mark.parametrize(
    "stop", [stopped_when, pytest.param(killed_when, marks=pytest.mark.slow)], ids=["stopped", "killed"]
)
def test_a_run_stopped_within_a_slide_goes_on_to_the_same_bytes(stop, made, hest, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "CHUNK", 4)
    out = tmp_path / "stopped"
    parts = out / "slides" / "TST2" / "features-tiny.parts"
    stop(out, hest, lambda: len(list(parts.glob("[0-9]*.npy"))) >= 2)
    finished = out / "slides" / "TST1" / "features-tiny.npy"
    written = finished.stat().st_mtime_ns
    assert not (out / "slides" / "TST2" / "features-tiny.npy").exists()
    encoder = TinyEncoder()
    finish(build_store(plan_of(hest), out, encoding(encoder=encoder)))
    assert tree(out) == tree(made.path)
    assert finished.stat().st_mtime_ns == written
    assert encoder.tiles == 2 * (5 * 25 - 8)  # two views; a slide and two chunks were kept


@pytest.mark.parametrize("name", ["counts.npz", "spots.csv", "graph.npz", "features-tiny.npy"])
def test_a_flipped_byte_is_refused_and_that_entry_alone_rebuilt(store, made, hest, name):
    stage = "features-tiny" if name.startswith("features") else "tables"
    path = store.path / "slides" / "TST3" / name
    flip(path)
    for act in (
        lambda: finish(build_store(plan_of(hest), store.path, encoding())),
        lambda: finish(store.check()),
    ):
        with pytest.raises(UserError, match=f"{stage} of TST3.*{name}.*damaged.*--rebuild TST3/{stage}"):
            act()
    encoder = TinyEncoder()
    finish(build_store(plan_of(hest), store.path, encoding(encoder=encoder), [f"TST3/{stage}"]))
    assert encoder.tiles == (2 * 25 if stage == "features-tiny" else 0)
    assert tree(store.path) == tree(made.path)


def test_damaged_entries_are_refused_when_they_are_read(store):
    slide = store.slide("TST3")
    flip(store.path / "slides" / "TST3" / "counts.npz")
    flip(store.path / "slides" / "TST3" / "features-tiny.npy")
    with pytest.raises(UserError, match=r"counts\.npz"):
        slide.counts()
    with pytest.raises(UserError, match=r"features-tiny\.npy"):
        slide.features("tiny")


@pytest.mark.parametrize("name", ["store.json", "splits.json", "panels/top8.json", "slides/TST1/slide.json"])
def test_a_changed_record_is_refused(store, name):
    path = store.path / name
    path.write_text(path.read_text().replace("TST1", "TST9").replace("Breast", "Brain"))
    with pytest.raises(UserError, match="damaged"):
        finish(open_store(store.path).check())


def test_a_missing_file_and_a_changed_list_of_genes_are_found(store):
    (store.path / "panels" / "top8.txt").write_text("ERBB2\n")
    with pytest.raises(UserError, match=r"top8\.txt is damaged"):
        finish(store.check())
    (store.path / "slides" / "TST5" / "genes.csv").unlink()
    with pytest.raises(UserError, match=r"genes\.csv .* is missing"):
        store.slide("TST5").counts()


def test_a_damaged_chunk_of_an_unfinished_slide_is_refused(hest, tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "CHUNK", 4)
    work = build_store(plan_of(hest), tmp_path / "s", encoding())
    parts = tmp_path / "s" / "slides" / "TST1" / "features-tiny.parts"
    while len(list(parts.glob("[0-9]*.npy"))) < 2:
        next(work)
    work.close()
    flip(sorted(parts.glob("[0-9]*.npy"))[0])
    with pytest.raises(UserError, match=r"chunk .* of TST1 is damaged.*--rebuild TST1/features-tiny"):
        finish(build_store(plan_of(hest), tmp_path / "s", encoding()))
    finish(build_store(plan_of(hest), tmp_path / "s", encoding(), ["TST1/features-tiny"]))


def test_features_of_converted_colours_say_so(hest, tmp_path):
    store = finish(build_store(plan_of(hest), tmp_path / "s", encoding(colours=SRGB)))
    assert store.slide("TST1").feature_settings("tiny")["colours"] == SRGB


def test_other_weights_views_colours_or_seed_never_mix_with_what_is_there(store, hest):
    for changes in ({"encoder": TinyEncoder("0" * 64)}, {"views": 3}, {"seed": 1}, {"colours": SRGB}):
        with pytest.raises(UserError, match="other settings"):
            finish(build_store(plan_of(hest), store.path, encoding(**changes)))


def test_slides_too_coarse_for_the_encoder_are_refused_at_once_and_enlarged_only_if_agreed(hest, tmp_path):
    fine = TinyEncoder()
    fine.mpp = MPP / 1.9
    with pytest.raises(
        UserError, match=r"6 slides .* too coarse for the 2\.105 µm/px of tiny; .* --enlarge (1\.9|2),"
    ):
        finish(build_store(plan_of(hest), tmp_path / "s", encoding(encoder=fine)))
    assert fine.tiles == 0
    enlarged = finish(build_store(plan_of(hest), tmp_path / "s", encoding(encoder=fine, coarsest=2.0)))
    assert enlarged.slide("TST1").feature_settings("tiny")["um_per_px"] == fine.mpp


def test_a_gpu_that_runs_out_of_memory_continues_with_fewer_tiles_and_says_so(made, hest, tmp_path):
    class Small(TinyEncoder):
        def encode(self, tiles):
            if len(tiles) > 2:
                raise torch.cuda.OutOfMemoryError
            return super().encode(tiles)

    steps = list(build_store(plan_of(hest), tmp_path / "s", encoding(encoder=Small())))
    assert any("continuing with 2 tiles" in (step.notice or "") for step in steps)
    features = open_store(tmp_path / "s").slide("TST5").features("tiny")
    np.testing.assert_allclose(features, made.slide("TST5").features("tiny"), rtol=1e-5)


def test_a_slide_that_is_being_rebuilt_is_not_taken_for_finished(store, hest):
    forget(store.path / "slides" / "TST2", store.slide("TST2").record, "tables")
    with pytest.raises(UserError, match=r"TST2 .* is not finished"):
        store.slide("TST2")


def test_another_cohort_another_split_and_another_panel_never_overwrite(store, hest):
    plan = plan_of(hest)
    with pytest.raises(UserError, match="another cohort"):
        finish(build_store(replace(plan, sources=plan.sources[:5]), store.path))
    with pytest.raises(UserError, match="splits these slides otherwise"):
        finish(build_store(replace(plan, split=SplitRule(seed=5)), store.path))
    with pytest.raises(UserError, match="chosen otherwise"):
        finish(build_store(replace(plan, panel_sees_all=True), store.path))
    finish(build_store(replace(plan, panel=replace(RULE, name="top5", genes=5)), store.path))
    assert len(store.panel("top5")) <= 5 < len(SYMBOLS)


def test_a_source_that_changed_is_noticed(store, hest, tmp_path):
    moved = tmp_path / "hest"
    shutil.copytree(hest, moved)
    with (moved / "st" / "TST2.h5ad").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(UserError, match=r"TST2 was prepared from other files \(st/TST2\.h5ad"):
        finish(build_store(plan_of(moved), store.path))


def test_what_is_not_there_is_asked_for_with_a_sentence(made, tmp_path):
    for act, match in (
        (lambda: open_store(tmp_path), r"There is no .*store\.json"),
        (lambda: made.slide("TST9"), 'no slide "TST9"'),
        (lambda: made.slide("TST1").features("uni"), r'no features of the encoder "uni" \(there are: tiny\)'),
        (lambda: made.panel("top9"), r'no panel "top9" \(there are: top8\)'),
        (lambda: made.split("organs"), 'no split by "organs"'),
    ):
        with pytest.raises(UserError, match=match):
            act()
