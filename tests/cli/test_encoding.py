import json

import pytest
from tests.hub_server import FakeHub, serve

from napari_flag.cli import main
from napari_flag.encoders.foundation import hub as module
from napari_flag.encoders.foundation.hub import HuggingFace


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
    told = json.loads(capsys.readouterr().out)
    assert (told["where"], told["path"]) == ("local folder", str(place))


def test_a_download_needs_consent(server, capsys, monkeypatch):
    assert main(["encoders", "download", "uni"]) == 2
    said = capsys.readouterr()
    assert "CC-BY-NC-ND-4.0" in said.out
    assert "--yes" in said.err
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
