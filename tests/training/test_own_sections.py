"""Weights from one's own sections: small ones, found in a folder or listed in a CSV."""

import sys

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from tests.tiny_weights import write_tiny_weights

from flag_training.own_sections import NO_PATIENT, fit_sections, read_sections
from flag_training.result_tables import markdown, read_results
from napari_flag.cli.main import main
from napari_flag.errors import UserError
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.progress import finish
from napari_flag.simulation.simulator import MPP, write_slide
from napari_flag.slides.spot_tables import read_measured

SIDE, PITCH_PX = 6, 290


def write_section(folder, name, seed):
    """A picture of coloured patches, and counts of 20 genes that follow their colour, on a square array."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(90, 250, (16, 16, 3), dtype=np.uint8)
    write_slide(folder / f"{name}.tif", np.kron(patches, np.ones((130, 130, 1), np.uint8)), MPP)
    rows, columns = np.divmod(np.arange(SIDE * SIDE), SIDE)
    xy = np.stack([columns, rows], 1) * PITCH_PX + 300.0
    colour = patches[(xy[:, 1] // 130).astype(int), (xy[:, 0] // 130).astype(int)] / 255
    loading = np.random.default_rng(0).normal(0, 2, (3, 20))
    counts = rng.poisson(np.exp2(4 + colour @ loading)).astype(np.float32)
    obs = pd.DataFrame(
        {"array_row": rows, "array_col": columns},
        index=[f"{c}x{r}" for r, c in zip(rows, columns, strict=True)],
    )
    var = pd.DataFrame(index=[f"GENE{number}" for number in range(20)])
    AnnData(counts, obs, var, obsm={"spatial": xy}).write_h5ad(folder / f"{name}.h5ad")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sections with their counts."""
    place = tmp_path_factory.mktemp("sections")
    for seed in (11, 12):
        write_section(place, f"S{seed}", seed)
    return place


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors"))


def listing(folder, *lines):
    path = folder / "list.csv"
    path.write_text("name,patient,image,spots,counts,mpp\n" + "".join(f"{line}\n" for line in lines))
    return path


def test_sections_of_a_folder_are_found_with_their_tables(folder):
    entries = read_sections(folder)
    assert [entry.name for entry in entries] == ["S11", "S12"]
    assert {entry.patient for entry in entries} == {NO_PATIENT}
    assert all(entry.image.endswith(f"{entry.name}.tif") for entry in entries)


def test_sections_of_a_list_have_the_patients_and_resolution_that_it_says(folder):
    path = listing(folder, "a,P1,S11.tif,S11.h5ad,,0.5", ",,S12.tif,S12.h5ad,,")
    first, second = read_sections(path, mpp=0.7)
    assert (first.name, first.patient, first.mpp) == ("a", "P1", 0.5)
    assert (second.name, second.patient, second.mpp) == ("S12", NO_PATIENT, 0.7)
    assert first.spots == str(folder / "S11.h5ad")
    assert first.counts is None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a,P1,S11.tif,S11.h5ad,,"], "1 section"),
        (["a,P1,S11.tif,S11.h5ad,,", "a,P1,S12.tif,S12.h5ad,,"], "two sections called a"),
        (["a,P1,,S11.h5ad,,"], "Line 2 .* no image"),
        (["a,P1,S11.tif,S11.h5ad,,half"], "half as µm per pixel"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(folder, lines, said):
    with pytest.raises(UserError, match=said):
        read_sections(listing(folder, *lines))


def test_sections_to_leave_out_must_be_there(folder, tmp_path):
    with pytest.raises(UserError, match="no section S99"):
        finish(fit_sections(read_sections(folder), tmp_path / "w.safetensors", leave_out=["S99"]))


def test_a_list_of_genes_that_is_not_there_is_refused(folder, tmp_path, encoder):
    work = fit_sections(
        read_sections(folder), tmp_path / "w.safetensors", panel=tmp_path / "none.txt", encoder=encoder
    )
    with pytest.raises(UserError, match="list of genes"):
        finish(work)


def test_the_command_says_in_a_sentence_what_is_missing(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["fit", str(tmp_path / "empty"), "--out", str(tmp_path / "w.safetensors")]) == 2
    assert "0 section(s) with measured counts" in capsys.readouterr().err


@pytest.mark.slow
def test_sections_of_ones_own_make_weights_with_held_out_scores_that_predict(
    folder, tmp_path, encoder, monkeypatch
):
    """From the command line, with an encoder that was never trained, so nothing is asked of the scores."""
    genes = tmp_path / "genes.txt"
    genes.write_text("\n".join(read_measured(folder / "S11.h5ad").var_names[:12]))
    out = tmp_path / "mine.safetensors"
    command = ["fit", str(folder), "--out", str(out), "--genes", str(genes), "--encoder", encoder]
    monkeypatch.setattr(sys, "argv", ["napari-flag", *command])
    assert main(command) == 0
    weights = Checkpoint.load(out)
    assert len(weights.genes) == 12
    assert weights.card["sections"] == ["S11", "S12"]
    assert weights.card["command"].startswith(f"napari-flag fit {folder.name} --out mine.safetensors")
    assert str(tmp_path) not in str(weights.card)
    assert str(folder) not in str(weights.card)
    held_out = weights.card["held_out_scores"]["sections left out one by one, seed 0"]
    assert set(held_out) == {"S11", "S12"}
    assert np.isfinite(held_out["S11"]["draws"]["ES"])
    scores = read_results(tmp_path / "mine.fit" / "scores.json")
    page = (tmp_path / "mine.fit" / "scores.md").read_text("utf-8")
    assert page == markdown([scores], "mine, sections left out")
    made = tmp_path / "again.h5ad"
    table = str(folder / "S12.h5ad")
    assert (
        main(
            ["predict", str(folder / "S12.tif"), "--spots", table, "--weights", str(out), "--out", str(made)]
        )
        == 0
    )
    assert made.exists()
