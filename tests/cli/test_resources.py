"""``encoders``, ``weights``, ``doctor`` and what they list."""

import json
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.hub_server import FakeHub, serve

from napari_flag import doctor
from napari_flag.cli import main
from napari_flag.doctor import Finding
from napari_flag.encoders.foundation import hub as module
from napari_flag.encoders.foundation.hub import HuggingFace
from napari_flag.model import checkpoint


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A hub with UNI, and nothing on this computer."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NAPARI_FLAG_ENCODERS", str(tmp_path / "encoders"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with serve(FakeHub({("MahmoodLab/UNI", "pytorch_model.bin"): b"weights"})) as held:
        client = HuggingFace(endpoint=held.endpoint, cache=tmp_path / "cache")
        monkeypatch.setattr(module, "HuggingFace", lambda: client)
        yield held


def test_encoders_are_listed_with_what_they_need(server, capsys):
    assert main(["encoders", "list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "inside each weights file" in lines["embedded"]
    assert "1024 features" in lines["uni"]
    assert "must be asked for" in lines["uni"]
    assert "must be asked for" not in lines["midnight"]
    assert "not on this computer" in lines["uni"]
    assert server.asked == []
    assert main(["encoders", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["h-optimus-0"]["dim"] == 1536
    assert not any(row["remote_code"] for row in rows.values())


def test_one_encoder_is_shown_with_licence_tile_and_how_to_get_it(server, capsys):
    assert main(["encoders", "show", "prov-gigapath"]) == 0
    out = capsys.readouterr().out
    for part in ("huggingface.co/prov-gigapath", "256 px at 0.5 µm/px", "centre 224 px", "encoders download"):
        assert part in out
    assert main(["encoders", "show", "unicorn"]) == 2
    assert main(["encoders", "show", "embedded"]) == 0


def test_weights_in_the_local_folder_are_shown(server, tmp_path, capsys):
    place = tmp_path / "encoders" / "uni" / "pytorch_model.bin"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    assert main(["encoders", "show", "uni", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["where"], shown["path"]) == ("local folder", str(place))


def test_a_download_needs_consent(server, capsys, monkeypatch):
    assert main(["encoders", "download", "uni"]) == 2
    printed = capsys.readouterr()
    assert "CC-BY-NC-ND-4.0" in printed.out
    assert "--yes" in printed.err
    assert {method for method, *_ in server.asked} == {"HEAD"}
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    assert main(["encoders", "download", "uni"]) == 2
    assert {method for method, *_ in server.asked} == {"HEAD"}


class Terminal:
    def __init__(self, line):
        self.line = line

    def isatty(self):
        return True

    def readline(self):
        return self.line


def test_a_consent_downloads_once(server, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    assert main(["encoders", "download", "uni"]) == 0
    assert "Wrote" in capsys.readouterr().out
    asked = len(server.asked)
    assert main(["encoders", "download", "uni", "--yes"]) == 0
    assert "here already (Hugging Face cache" in capsys.readouterr().out
    assert len(server.asked) == asked


def test_the_embedded_encoder_cannot_be_downloaded(server, capsys):
    assert main(["encoders", "download", "embedded"]) == 2
    assert "inside each weights file" in capsys.readouterr().err


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """One good weights file (without a network) and one damaged, as the only ones there are."""
    header = {
        "format": checkpoint.FORMAT,
        "genes": ["ERBB2", "VIM"],
        "card": {
            "title": "Breast, two genes",
            "patients": ["B", "C"],
            "held_out_scores": {"seed 0": {"C5": {"PCC": -0.61234, "CRPS": 0.5, "cPCC": None}}},
        },
        "config": {},
        "encoder": "embedded",
    }
    good = tmp_path / "good.safetensors"
    save_file({"flag.a": np.zeros(2)}, good, metadata={"napari_flag": json.dumps(header)})
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(b"nothing")
    monkeypatch.setattr(checkpoint, "list_weights", lambda: [("good", good), ("bad", bad)])
    monkeypatch.setattr(checkpoint, "weights_folder", lambda: tmp_path / "imported")
    return tmp_path


def test_weights_are_listed_and_a_damaged_file_hides_none(weights, capsys):
    assert main(["weights", "list"]) == 0
    good, bad = capsys.readouterr().out.splitlines()
    assert good.split() == ["good", "FLAG", "2", "genes", "Breast,", "two", "genes"]
    assert "cannot be read as weights" in bad
    assert main(["weights", "list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows[0]["genes"] == 2
    assert "problem" in rows[1]


def test_weights_show_says_what_they_were_trained_on(weights, capsys):
    assert main(["weights", "show", "good"]) == 0
    out = capsys.readouterr().out
    assert "Research use only" in out
    assert "patients" in out
    assert "B, C" in out
    assert "PCC −0.612, CRPS 0.5000, cPCC –" in out
    assert main(["weights", "show", "good", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["genes"] == ["ERBB2", "VIM"]
    assert main(["weights", "show", "nobody"]) == 2


def test_import_copies_weights_to_where_they_are_found(weights, capsys):
    new = weights / "new.safetensors"
    new.write_bytes((weights / "good.safetensors").read_bytes())
    assert main(["weights", "import", str(new)]) == 0
    assert "--weights new" in capsys.readouterr().out
    assert (weights / "imported" / "new.safetensors").read_bytes() == new.read_bytes()
    assert main(["weights", "import", str(weights / "bad.safetensors")]) == 2


def test_imported_weights_replace_nothing_unasked_and_nothing_of_others(weights, capsys):
    (weights / "a.pt").touch()
    line = ["weights", "import", str(weights / "a.pt"), "--config", "c", "--genes", "g", "--mpp", "1"]
    line += ["--out"]
    for name, options, said in (
        ("good.safetensors", [], "already exists; choose another place"),
        ("bad.safetensors", ["--overwrite"], "was not written by napari-flag"),
        ("new.txt", [], "in .safetensors"),
    ):
        before = {path: path.read_bytes() for path in weights.iterdir() if path.is_file()}
        assert main([*line, str(weights / name), *options]) == 2
        assert said in capsys.readouterr().err
        assert {path: path.read_bytes() for path in weights.iterdir() if path.is_file()} == before
    assert main([*line[:-1], "--overwrite"]) == 2
    assert "give --out too" in capsys.readouterr().err


def test_weights_whose_ending_is_in_upper_case_are_imported(weights, capsys):
    new = weights / "NEW.SAFETENSORS"
    new.write_bytes((weights / "good.safetensors").read_bytes())
    assert main(["weights", "import", str(new)]) == 0
    assert "--weights NEW" in capsys.readouterr().out
    assert (weights / "imported" / "NEW.safetensors").read_bytes() == new.read_bytes()


@pytest.mark.parametrize(("state", "code"), [("good", 0), ("warning", 0), ("bad", 2)])
def test_the_exit_code_tells_whether_predictions_will_run(monkeypatch, capsys, state, code):
    monkeypatch.setattr(doctor, "examine", lambda _: iter([Finding("thing", state, "It is so.")]))
    assert main(["doctor"]) == code
    assert "It is so." in capsys.readouterr().out
    assert main(["doctor", "--json"]) == code
    assert json.loads(capsys.readouterr().out) == [{"what": "thing", "state": state, "sentence": "It is so."}]


@pytest.mark.parametrize(
    ("words", "asked"), [([], None), (["--gated"], []), (["--gated", "uni", "virchow2"], ["uni", "virchow2"])]
)
def test_the_hub_is_asked_only_on_request(monkeypatch, words, asked):
    got = []
    monkeypatch.setattr(doctor, "examine", lambda gated: got.append(gated) or iter([]))
    assert main(["doctor", *words]) == 0
    assert got == [asked]


def test_listing_weights_loads_no_torch():
    code = (
        "import sys; from napari_flag.cli import main; main(['weights', 'list']);"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    listed, *_, loaded = done.stdout.splitlines()
    assert listed.startswith("her2st (default)")
    assert loaded == "False"
