import json

import pytest

from napari_flag.cli import main
from napari_flag.model import checkpoint


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """One good weights file (without a network) and one damaged, as the only ones there are."""
    import numpy as np
    from safetensors.numpy import save_file

    header = {
        "format": checkpoint.FORMAT,
        "genes": ["ERBB2", "VIM"],
        "card": {"title": "Breast, two genes", "patients": ["B", "C"], "metrics": {"PCC": 0.61234}},
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
    assert good.split() == ["good", "2", "genes", "Breast,", "two", "genes"]
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
    assert "PCC 0.6123" in out
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
