import json
from pathlib import Path

import numpy as np
import pytest
from tests.cohort_files import MPP, hest_cohort, hest_folder, st_folder, visium
from tests.tiny_weights import write_tiny_weights

from flag_training.store.building import build_store
from flag_training.store.hest import choose_ids
from flag_training.store.plan import read_cohort
from flag_training.store.store import open_store, read_weights
from napari_flag.cli import main
from napari_flag.encoders.registry import build_encoder
from napari_flag.errors import UserError

COHORTS = Path(__file__).resolve().parents[3] / "training" / "cohorts"


@pytest.fixture(scope="module")
def hest(tmp_path_factory):
    return hest_folder(tmp_path_factory.mktemp("hest"))


def prepare(*words):
    return main(["prepare", *map(str, words)])


def test_a_cohort_of_hest_becomes_a_store(hest, tmp_path, capsys):
    cohort = hest_cohort(tmp_path / "tiny.toml")
    assert prepare(cohort, "--hest", hest, "--out", tmp_path / "store", "--genes", 5) == 0
    said = capsys.readouterr().out
    assert "tiny, 6 slides, 150 spots" in said
    assert "panel hmhvg5-exact: 5 genes" in said
    assert prepare(tmp_path / "store", "--check", "--json") == 0
    stated = json.loads(capsys.readouterr().out)
    assert stated["files_checked"] == 6 * 4
    assert [slide["um_per_px"] for slide in stated["slides"]] == [MPP] * 6
    assert stated["splits"]["slides"]["unmade"] == ""


def test_a_folder_of_legacy_st_is_encoded_with_the_encoder_of_a_weights_file(tmp_path):
    folder = st_folder(tmp_path / "data", names=("A1",), side=2)
    weights = write_tiny_weights(tmp_path / "tiny.safetensors")
    words = (folder, "--out", tmp_path / "store", "--mpp", 1.0, "--views", 1)
    assert prepare(*words, "--encoder", "embedded", "--weights", weights, "--device", "cpu") == 0
    store = open_store(tmp_path / "store")
    slide = store.slide("A1")
    net = build_encoder("embedded", read_weights(store.path, "embedded"), "cpu")
    assert net.fingerprint == slide.feature_settings("embedded")["fingerprint"]
    assert read_weights(store.path, "uni") == {}
    assert slide.features("embedded").shape == (1, 3, 1016)
    assert np.isfinite(slide.features("embedded")).all()
    assert set(slide.labels) == {"cancer"}


def test_a_cancelled_store_says_what_is_kept_and_the_same_command_goes_on(tmp_path, monkeypatch, capsys):
    def cancelled(*words):
        work = build_store(*words)
        while not list((tmp_path / "store").rglob("*.json")):
            yield next(work)
        work.close()
        raise KeyboardInterrupt

    words = (
        st_folder(tmp_path / "data", names=("A1", "B1"), side=2),
        "--out",
        tmp_path / "store",
        "--mpp",
        1.0,
    )
    with monkeypatch.context() as patch:
        patch.setattr("flag_training.store.building.build_store", cancelled)
        assert prepare(*words) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.endswith(f"is kept in {tmp_path / 'store'}, and the same command goes on from there")
    assert prepare(*words) == 0


def test_a_trained_tile_encoder_gives_the_features_of_the_weights_it_went_into(tmp_path):
    import torch
    from safetensors.torch import load_file

    from flag_training.engine.checkpointing import save_state
    from flag_training.store.building import open_prepared
    from napari_flag.encoders.embedded import TileNet

    weights, net = write_tiny_weights(tmp_path / "tiny.safetensors"), TileNet()
    inside = load_file(weights).items()
    net.load_state_dict({k.removeprefix("encoder."): v for k, v in inside if k.startswith("encoder.")})
    save_state(tmp_path / "tile_encoder_A1.pt", {"net": net}, {}, 1)
    cpu = torch.device("cpu")
    one, other = (
        open_prepared("embedded", cpu, path, False) for path in (tmp_path / "tile_encoder_A1.pt", weights)
    )
    assert one.encoder.fingerprint == other.encoder.fingerprint
    (tmp_path / "bad.pt").write_bytes(b"bad")
    with pytest.raises(UserError, match="no trained tile encoder"):
        open_prepared("embedded", cpu, tmp_path / "bad.pt", False)


def test_a_space_ranger_folder_becomes_a_store_of_one(tmp_path, capsys):
    outs = visium(tmp_path / "S7" / "outs")
    words = (outs, "--image", outs / "full.png", "--mpp", MPP, "--patient", "P3")
    assert prepare(*words, "--out", tmp_path / "store") == 0
    assert "1 slides cannot be split" in capsys.readouterr().out
    slide = open_store(tmp_path / "store").slide("S7")
    assert (slide.patient, slide.spots.lattice) == ("P3", "hex")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["COHORT", "--out", "OUT"], "name its folder with --hest"),
        (["COHORT", "--hest", "HEST"], "needs --out"),
        (["COHORT", "--hest", "OUT", "--out", "OUT"], "no HEST metadata"),
        (["COHORT", "--hest", "HEST", "--out", "OUT", "--encoder", "none"], "no encoder called"),
        (["COHORT", "--hest", "HEST", "--out", "OUT", "--encoder", "uni"], "uni"),
        (["COHORT", "--hest", "HEST", "--out", "OUT", "--rebuild", "X1"], "no slide X1 to rebuild"),
        (["NOTHING", "--out", "OUT"], "no folder or cohort file"),
        (["OUT", "--list"], "There is no"),
        (["OUT", "--check", "--rebuild", "C2"], "--rebuild is for making a store"),
        (
            ["COHORT", "--hest", "HEST", "--out", "OUT", "--mpp", "1"],
            "--mpp is for a folder, and of tiny.toml",
        ),
        (["COHORT", "--hest", "HEST", "--out", "OUT", "--data", "HEST"], "--data is of other cohorts"),
        (["COHORT", "--hest", "HEST", "--out", "OUT", "--weights", "w.pt"], "none is named with --encoder"),
        (["HEST", "--out", "OUT", "--panel-sees-all"], "--panel-sees-all is for a cohort file, and"),
        (["LEGACY", "--out", "OUT", "--mpp", "1", "--image", "a.tif"], "--image is of a Space Ranger folder"),
    ],
)
def test_what_a_user_can_put_right_is_a_sentence(hest, tmp_path, capsys, monkeypatch, words, sentence):
    monkeypatch.setenv("NAPARI_FLAG_ENCODERS", str(tmp_path / "encoders"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    cohort = hest_cohort(tmp_path / "tiny.toml")
    places = {"COHORT": cohort, "HEST": hest, "OUT": tmp_path / "out", "NOTHING": tmp_path / "nothing"}
    places["LEGACY"] = st_folder(tmp_path / "data", names=("A1",), side=2)
    assert prepare(*(places.get(word, word) for word in words)) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert "Traceback" not in err


def test_the_papers_cohorts_are_those_of_the_metadata():
    """Counts as on the paper's setup slide; ids are taken from the metadata, here made up."""
    for name, prefix, first, last, samples in (
        ("her2st", "SPA", 119, 154, 36),
        ("kidney", "NCBI", 692, 714, 23),
        ("prad", "MEND", 139, 162, 23),
    ):
        cohort = read_cohort(COHORTS / f"{name}.toml")
        numbers = [n for n in range(first - 5, last + 5) if f"{prefix}{n}" != "MEND155"]
        ids = choose_ids(cohort.hest, {f"{prefix}{n}": {} for n in numbers})
        assert (ids[0], ids[-1], len(ids)) == (f"{prefix}{first}", f"{prefix}{last}", samples)
        assert cohort.split.shares == (7, 2, 1)
        assert (cohort.panel.genes, cohort.panel.exact, cohort.panel.variable_genes) == (200, False, 4096)


def test_the_dlpfc_cohort_lists_twelve_labelled_sections_of_three_donors(tmp_path):
    cohort = read_cohort(COHORTS / "dlpfc.toml")
    sources = [row.source(tmp_path) for row in cohort.slides]
    assert [s.name for s in sources] == [*map(str, (*range(151507, 151511), *range(151669, 151677)))]
    assert len({s.patient for s in sources}) == 3
    assert all(s.labels == tmp_path / "barcode_level_layer_map.tsv" for s in sources)


@pytest.mark.parametrize(
    "text",
    ['name = "a"', 'name = "a"\n[hest]\nfirst = "A1"\nlast = "A2"\n[split]\nshares = [7, 3]\n',
     'name = "a"\n[[slides]]\nname = "b"\n', "name = ",
     'name = "a"\ngene_ids = "g\\u0000.tsv"\n[[slides]]\nname = "b"\nimage = "i"\nspots = "s"\n',
     'name = "a"\nmode = 1\n[hest]\n'],
)  # fmt: skip
def test_a_cohort_file_that_describes_none_is_a_sentence(tmp_path, text):
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UserError, match="does not describe a cohort"):
        read_cohort(tmp_path / "bad.toml")
