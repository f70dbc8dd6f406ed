import json

import pytest

from napari_flag import doctor
from napari_flag.cli import main
from napari_flag.doctor import Finding


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
