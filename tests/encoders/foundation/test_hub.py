"""Finding, asking for and downloading weights, with huggingface_hub against a server of our own."""

import threading
from pathlib import Path

import pytest
import torch
from tests.hub_server import FakeHub, serve
from tests.small_encoders import FOUNDATION, random_network, random_tiles, shrink, write_published

from napari_flag.encoders import registry
from napari_flag.encoders.foundation import hub as module
from napari_flag.encoders.foundation.hub import (
    FOLDER_VARIABLE,
    HuggingFace,
    check_access,
    download,
    find_weights,
    how_to_get,
)
from napari_flag.encoders.registry import open_encoder
from napari_flag.errors import UserError
from napari_flag.progress import finish

ROW = {row.name: shrink(row) for row in FOUNDATION}
UNI, PHIKON = ROW["uni"], ROW["phikon"]
SECRET = "hf_secretsecretsecret"


@pytest.fixture(autouse=True)
def nothing_of_the_users(tmp_path, monkeypatch):
    """No folder, cache or token of whoever runs the tests, and no way out to the network."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no_token"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "encoders"))


@pytest.fixture
def content(tmp_path):
    """The bytes of a small UNI as published."""
    return write_published(UNI, tmp_path / "made", random_network(UNI)).read_bytes()


def client(server: FakeHub, tmp_path: Path) -> HuggingFace:
    return HuggingFace(endpoint=server.endpoint, cache=tmp_path / "cache")


def test_given_weights_come_first_then_the_local_folder_then_the_cache(tmp_path, content):
    with serve(FakeHub({("MahmoodLab/UNI", "pytorch_model.bin"): content})) as server:
        hub = client(server, tmp_path)
        assert find_weights(UNI, hub=hub) is None
        cached = finish(download(UNI, hub))
        assert find_weights(UNI, hub=hub) == module.Found(cached, "Hugging Face cache")
        local = write_published(UNI, tmp_path / "encoders" / "uni", random_network(UNI))
        assert find_weights(UNI, hub=hub) == module.Found(local, "local folder")
        given = write_published(UNI, tmp_path / "mine", random_network(UNI))
        for place in (given, given.parent):
            assert find_weights(UNI, place, hub=hub) == module.Found(given, "given")


def test_given_weights_that_are_not_there_never_become_others(tmp_path):
    write_published(UNI, tmp_path / "encoders" / "uni", random_network(UNI))
    with pytest.raises(UserError, match=r"no weights of UNI at .*nowhere"):
        find_weights(UNI, tmp_path / "nowhere")


def test_no_request_is_sent_to_the_hub_without_consent(tmp_path, content, monkeypatch):
    with serve(FakeHub({("MahmoodLab/UNI", "pytorch_model.bin"): content})) as server:
        monkeypatch.setattr(module, "HuggingFace", lambda: client(server, tmp_path))
        monkeypatch.setattr(registry, "ROWS", (UNI,))
        with pytest.raises(UserError, match="run: napari-flag encoders download uni"):
            open_encoder("uni", "cpu")
        assert server.asked == []
        encoder = open_encoder("uni", "cpu", download=True)
        assert encoder.encode(random_tiles(UNI, 1)).shape == (1, UNI.dim)
        asked = len(server.asked)
        assert open_encoder("uni", "cpu", download=True).fingerprint == encoder.fingerprint
        assert len(server.asked) == asked


def test_what_is_downloaded_is_the_file_and_its_bytes_are_counted(tmp_path, content):
    steps = []
    with serve(FakeHub({("MahmoodLab/UNI", "pytorch_model.bin"): content})) as server:
        path = finish(download(UNI, client(server, tmp_path)), steps.append)
    assert path.read_bytes() == content
    assert (steps[-1].done, steps[-1].total, steps[-1].unit) == (len(content), len(content), "bytes")
    assert torch.load(path, weights_only=True)


def test_the_other_file_name_is_tried_when_the_first_is_not_there(tmp_path):
    made = write_published(PHIKON, tmp_path / "made", random_network(PHIKON), "pytorch_model.bin")
    with serve(FakeHub({("owkin/phikon", "pytorch_model.bin"): made.read_bytes()})) as server:
        assert check_access(PHIKON, client(server, tmp_path)) == ("pytorch_model.bin", made.stat().st_size)
        assert finish(download(PHIKON, client(server, tmp_path))).read_bytes() == made.read_bytes()


def test_a_hub_without_the_file_says_so(tmp_path):
    with (
        serve(FakeHub({("owkin/phikon", "README.md"): b"moved"})) as server,
        pytest.raises(UserError, match=r"no longer has model\.safetensors or pytorch_model\.bin"),
    ):
        check_access(PHIKON, client(server, tmp_path))


def gated(**more):
    return FakeHub({("MahmoodLab/UNI", "pytorch_model.bin"): b"weights"}, gated={"MahmoodLab/UNI"}, **more)


def test_a_gate_without_login_says_how_to_ask_and_to_log_in(tmp_path):
    with serve(gated()) as server, pytest.raises(UserError, match=r"must be asked for.*hf auth login"):
        finish(download(UNI, client(server, tmp_path)))


def test_a_gate_not_yet_opened_says_where_to_ask(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with serve(gated(known={SECRET})) as server, pytest.raises(UserError, match="no access to UNI yet"):
        check_access(UNI, client(server, tmp_path))


def test_a_wrong_token_is_distinguished_from_a_closed_gate(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with serve(gated()) as server, pytest.raises(UserError, match="no longer valid"):
        check_access(UNI, client(server, tmp_path))


def test_a_server_error_of_the_hub_is_reported(tmp_path, monkeypatch):
    with serve(gated()) as server:
        monkeypatch.setattr(server, "answer", lambda *_: (503, "", b""))
        with pytest.raises(UserError, match=r"answers with an error \(503\).*try again"):
            check_access(UNI, client(server, tmp_path))


def test_an_open_gate_lets_the_download_through_by_a_head_request_first(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with serve(gated(granted={SECRET})) as server:
        hub = client(server, tmp_path)
        assert check_access(UNI, hub) == ("pytorch_model.bin", 7)
        assert [(method, token) for method, _, token in server.asked] == [("HEAD", SECRET)]
        assert finish(download(UNI, hub)).read_bytes() == b"weights"


@pytest.mark.parametrize("state", [{}, {"known": {SECRET}}])
def test_a_token_is_never_shown_or_stored(tmp_path, monkeypatch, state, caplog, capfd):
    caplog.set_level("DEBUG")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with serve(gated(**state)) as server:
        hub = client(server, tmp_path)
        with pytest.raises(UserError) as caught:
            finish(download(UNI, hub))
        texts = [
            str(caught.value),
            repr(caught.value),
            repr(caught.value.__cause__),
            str(caught.value.__cause__),
        ]
    streams = capfd.readouterr()
    for text in (*texts, repr(hub), caplog.text, streams.out, streams.err):
        assert SECRET not in text
    kept = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]


def test_a_server_that_is_not_there_is_no_missing_model(tmp_path):
    hub = HuggingFace(endpoint="http://127.0.0.1:9", cache=tmp_path / "cache")
    with pytest.raises(UserError, match=r"cannot be reached.*put pytorch_model.bin into"):
        check_access(UNI, hub)


def test_a_closed_download_stops_and_keeps_nothing(tmp_path):
    server = FakeHub({("MahmoodLab/UNI", "pytorch_model.bin"): bytes(40_000_000)}, slow=threading.Event())
    with serve(server):
        steps = download(UNI, client(server, tmp_path))
        next(steps)
        assert next(steps).unit == "bytes"
        steps.close()
        server.slow.set()
        for thread in threading.enumerate():
            if thread.name.startswith("download"):
                thread.join(10)
    kept = [p for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.stat().st_size > 1000]
    assert kept == []


def test_how_to_get_weights_names_the_gate_only_where_there_is_one():
    assert "ask for access" in how_to_get(UNI)
    assert "ask for access" not in how_to_get(PHIKON)


def test_the_embedded_encoder_is_opened_from_a_weights_file(tmp_path):
    from tests.tiny_weights import write_tiny_weights

    path = write_tiny_weights(tmp_path / "tiny.safetensors")
    assert open_encoder("embedded", "cpu", weights=path).name == "embedded"
    with pytest.raises(UserError, match="inside each weights file"):
        open_encoder("embedded", "cpu")
