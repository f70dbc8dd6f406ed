"""The benchmark of domains takes prediction files of any method."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.fakes import fake_prediction

from benchmarks import domains
from napari_flag import keys
from napari_flag.analysis.domains import find_all
from napari_flag.analysis.pathways import bundled, recover_in_truth
from napari_flag.analysis.truth import MEASURED
from napari_flag.errors import UserError
from napari_flag.prediction_file import read_prediction, write_prediction
from napari_flag.progress import finish


def prediction_of(method=None, measured=True, seed=0, draws=True, **provenance):
    adata = fake_prediction(100, n_genes=30, seed=0, measured=measured)
    adata.X = (adata.X + np.random.default_rng(seed).normal(0, 0.2 + seed, adata.shape)).astype(np.float32)
    if not draws:
        del adata.layers[keys.SAMPLE]
    if method is not None:
        adata.uns[keys.PROVENANCE][keys.METHOD] = method
    adata.uns[keys.PROVENANCE] |= provenance
    return adata


@pytest.fixture
def folder(tmp_path):
    """FLAG's prediction with its truth, and two of other methods, of which one lacks a gene."""
    (tmp_path / "others").mkdir()
    write_prediction(prediction_of(), tmp_path / "flag.h5ad")
    ridge = prediction_of("ridge", measured=False, seed=1, draws=False)
    write_prediction(ridge, tmp_path / "others" / "a.h5ad")
    write_prediction(
        prediction_of("Stem", measured=False, seed=2)[:, 1:].copy(), tmp_path / "others" / "b.h5ad"
    )
    return tmp_path


@pytest.mark.slow
def test_every_method_is_scored_on_the_same_spots_genes_and_domains(folder):
    found = domains.measure([folder / "others", folder / "flag.h5ad"], None)
    (rows,) = found["sections"].values()
    assert list(rows)[:4] == ["FLAG, X", "FLAG, one draw", "ridge, X", "Stem, X"]
    assert "ridge, one draw" not in rows
    assert found["genes"] == 29
    assert rows["FLAG, X"]["PCC"] > rows["ridge, X"]["PCC"] > rows["Stem, X"]["PCC"]
    for measure in ("ARI, leiden", "NMI, leiden", "overlap@20", "gene sets measured", "in both", "by chance"):
        assert np.isfinite(rows["ridge, X"][measure])
    assert len({row["gene sets measured"] for name, row in rows.items() if name != domains.HALVES}) == 1
    assert abs(rows[f"FLAG, X, {domains.SHUFFLED}"]["ARI, leiden"]) < 0.15


@pytest.mark.slow
def test_domains_are_those_that_docks_and_report_find(folder):
    (predictions,) = domains.read_sections([folder / "flag.h5ad"]).values()
    rows = domains.section_rows(predictions)
    adata = read_prediction(folder / "flag.h5ad")
    found = finish(find_all(adata))
    assert rows["FLAG, X"]["ARI, leiden"] == pytest.approx(
        domains.agreement(found["predicted"], found[MEASURED]).ari
    )
    sets = finish(recover_in_truth(adata, bundled())).whole
    stated = {name: rows["FLAG, X"][name] for name in ("gene sets measured", "predicted", "in both")}
    assert list(stated.values()) == [len(sets.measured), len(sets.predicted), len(sets.shared)]
    assert rows["FLAG, X"]["by chance"] == pytest.approx(sets.chance)


def test_files_that_cannot_be_compared_are_refused_in_one_sentence(folder):
    with pytest.raises(UserError, match="second prediction of fake by FLAG"):
        domains.read_sections([folder / "flag.h5ad", folder / "flag.h5ad"])
    with pytest.raises(UserError, match="carries its measurement"):
        domains.read_sections([folder / "others"])
    seen = prediction_of("kNN", **{keys.TRAINING_SLIDES: ["fake"]})
    write_prediction(seen, folder / "seen.h5ad")
    with pytest.raises(UserError, match="trained on fake"):
        domains.read_sections([folder / "seen.h5ad"])


def test_a_method_is_called_the_same_whoever_wrote_its_file(folder):
    for neighbours in (10, 50):
        weights = {keys.WEIGHTS_HASH: f"{neighbours:064}", keys.WEIGHTS_NAME: f"knn{neighbours}"}
        knn = {keys.METHOD: "knn", **weights}
        made = prediction_of(draws=False, **knn)
        write_prediction(made, folder / f"k{neighbours}.h5ad")
    write_prediction(prediction_of("flag", measured=False), folder / "flag.h5ad")
    (predictions,) = domains.read_sections(
        [folder / "flag.h5ad", folder / "k10.h5ad", folder / "k50.h5ad"]
    ).values()
    assert list(predictions) == ["FLAG", "knn", "knn, knn50"]


def test_a_form_of_flag_stands_apart_from_flag(folder):
    write_prediction(prediction_of("FLAG without graph", measured=False, seed=3), folder / "without.h5ad")
    (predictions,) = domains.read_sections([folder / "without.h5ad", folder / "flag.h5ad"]).values()
    assert list(predictions) == ["FLAG", "FLAG without graph"]


@pytest.mark.slow
def test_json_and_tables_are_written(folder, monkeypatch):
    out = folder / "out" / "domains.json"
    monkeypatch.setattr(sys, "argv", ["domains.py", str(folder / "flag.h5ad"), "--out", str(out)])
    domains.main()
    (section,) = json.loads(out.read_text("utf-8"))["sections"]
    page = out.with_suffix(".md").read_text("utf-8")
    assert f"## {section}" in page
    assert "| FLAG, X |" in page
    assert "pathologist" not in page


def rows_of(*methods):
    return {f"{name}, X": {"PCC": value} for name, value in methods}


def test_a_method_measured_again_takes_its_rows_and_leaves_the_others():
    settings = {"settings": {"leiden": "1"}, "genes": 9}
    shuffled = {f"FLAG, X, {domains.SHUFFLED}": {"PCC": 0.0}}
    before = settings | {
        "command": "first",
        "sections": {"C2": rows_of(("FLAG", 0.6), ("Stem", 0.2)) | shuffled},
    }
    other = {f"Stem, X, {domains.SHUFFLED}": {"PCC": 0.9}, domains.HALVES: {"PCC": 0.8}}
    now = settings | {"command": "second", "sections": {"C2": rows_of(("Stem", 0.3)) | other}}
    found = domains.renewed(before, now)
    assert found["sections"] == {"C2": rows_of(("FLAG", 0.6), ("Stem", 0.3)) | shuffled}
    assert (found["command"], found["again"]) == (
        "first",
        [{"command": "second --keep", "methods": ["Stem"]}],
    )
    third = domains.renewed(found, now | {"command": "third"})
    assert [part["command"] for part in third["again"]] == ["third --keep"]
    for changed in (now | {"genes": 8}, now | {"sections": {"C9": {}}}):
        with pytest.raises(UserError, match="other sections, genes or settings"):
            domains.renewed(before, changed)


def test_the_page_of_domains_is_what_its_json_gives():
    folder = Path(__file__).parents[2] / "docs" / "results"
    results = json.loads((folder / "domains.json").read_text("utf-8"))
    assert (folder / "domains.md").read_text("utf-8") == domains.as_markdown(results)


def test_what_is_to_be_kept_must_be_there(folder, monkeypatch, capsys):
    for line, said in (
        (["--out", str(folder / "none.json")], "none.json, which is not there"),
        (["--data", str(folder)], "leave --data out"),
    ):
        monkeypatch.setattr(sys, "argv", ["domains", str(folder / "flag.h5ad"), "--keep", *line])
        with pytest.raises(SystemExit):
            domains.main()
        assert said in capsys.readouterr().err
