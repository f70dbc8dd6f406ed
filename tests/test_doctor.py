import errno
import hashlib
import subprocess

import pytest
from tests.hub_server import FakeHub, serve

from napari_flag import doctor
from napari_flag.encoders.foundation.hub import HuggingFace


def test_this_installation_can_predict():
    for check in (doctor.check_packages, doctor.check_device, doctor.check_slide_library):
        finding = check()
        assert finding.state == "good", finding.sentence


def test_weights_are_checked_against_their_published_hash(tmp_path):
    for name in ("good", "changed", "unknown"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    (tmp_path / doctor.SUMS).write_text(
        f"{hashlib.sha256(b'good').hexdigest()}  good.safetensors\n"
        f"{'0' * 64} *changed.safetensors\n"
        f"{'0' * 64}  gone.safetensors\n"
    )
    states = {f.sentence.split()[0].split(".")[0]: f.state for f in doctor.check_weights(tmp_path)}
    assert states == {"good": "good", "changed": "bad", "gone": "bad", "unknown": "warning"}


def test_no_weights_at_all_is_something_to_put_right(tmp_path):
    (finding,) = doctor.check_weights(tmp_path)
    assert finding.state == "bad"


def test_a_folder_that_cannot_be_written_says_how_to_move_it(tmp_path, monkeypatch):
    assert doctor.check_folder("cache", tmp_path / "not" / "yet").state == "good"
    assert list(tmp_path.iterdir()) == []

    def refuse(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "NamedTemporaryFile", refuse)
    finding = doctor.check_folder("cache", tmp_path)
    assert finding.state == "warning"
    assert "XDG_CACHE_HOME" in finding.sentence


def test_a_missing_toolkit_is_no_hindrance_to_predicting(monkeypatch):
    there = doctor.importlib.util.find_spec
    hidden = set(doctor.BINDINGS)
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name in hidden else there(name)
    )
    finding = doctor.check_window()
    assert finding.state == "warning"
    assert "napari-flag[all]" in finding.sentence


@pytest.mark.parametrize(
    ("stdout", "stderr", "state", "words"),
    [
        ("hello\nGL 4 5 True\n", "", "good", "OpenGL 4.5"),
        ("GL 2 0 False\n", "no driver\n", "warning", "no driver"),
        ("", "Aborted (core dumped)\n", "warning", "core dumped"),
    ],
)
def test_opengl_is_tried_in_a_process_of_its_own(monkeypatch, stdout, stderr, state, words):
    done = subprocess.CompletedProcess([], 0, stdout, stderr)
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: done)
    finding = doctor._try_gl("napari")
    assert finding.state == state
    assert words in finding.sentence


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on which UNI's gate is open to this account and Virchow2's is not."""
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("NAPARI_FLAG_ENCODERS", str(tmp_path / "encoders"))
    files = {(name, "pytorch_model.bin"): b"weights" for name in ("MahmoodLab/UNI", "paige-ai/Virchow2")}
    held = FakeHub(files, gated={"paige-ai/Virchow2"}, known={"hf_mine"})
    with serve(held) as server:
        yield HuggingFace(endpoint=server.endpoint, cache=tmp_path / "cache")


def test_an_open_and_a_closed_gate_are_distinguished_before_any_work(hub):
    uni, virchow = doctor.check_gates(["uni", "virchow2"], hub)
    assert uni.state == "good"
    assert "may be downloaded" in uni.sentence
    assert virchow.state == "bad"
    assert "no access to Virchow2" in virchow.sentence
    assert "hf_mine" not in virchow.sentence


def test_without_names_every_gate_is_tried_and_a_closed_one_is_only_noted(hub):
    findings = {finding.what: finding for finding in doctor.check_gates([], hub)}
    assert {"uni", "conch", "h-optimus-1", "prov-gigapath"} <= findings.keys()
    assert "phikon" not in findings
    assert findings["virchow2"].state == "warning"


def test_an_encoder_that_is_here_is_not_asked_for(hub, tmp_path):
    place = tmp_path / "encoders" / "virchow2" / "model.safetensors"
    place.parent.mkdir(parents=True)
    place.write_bytes(b"weights")
    (finding,) = doctor.check_gates(["virchow2"], hub)
    assert finding.state == "good"
    assert "local folder" in finding.sentence
