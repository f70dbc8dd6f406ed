"""Sections of one's own: found in a folder or listed in a CSV, looked at, and scores put into a sentence."""

import re
import shutil
import sys
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.section_files import PITCH_PX, listing, write_section, write_smaller_copy

from napari_flag import fitting
from napari_flag.errors import UserError
from napari_flag.fitting import (
    NO_PATIENT,
    FitSettings,
    MeasuredSection,
    encoder_of,
    find_sections,
    load_training,
    look_at,
    look_at_all,
    named_in_results,
    summary,
    verdict,
    why_too_few,
    write_list,
)
from napari_flag.inputs import prepare
from napari_flag.progress import finish
from napari_flag.simulation.simulator import MPP
from napari_flag.slides.file_identity import content_hash


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sections with their counts."""
    place = tmp_path_factory.mktemp("sections")
    for seed in (11, 12):
        write_section(place, f"S{seed}", seed)
    return place


def section(folder, **values):
    given = {"name": "S11", "patient": NO_PATIENT, "image": folder / "S11.tif", "spots": folder / "S11.h5ad"}
    return MeasuredSection(**given | values)


# --- finding -------------------------------------------------------------------------------------


def test_sections_of_a_folder_are_found_with_their_tables(folder):
    sections, notices = find_sections(folder)
    assert [found.name for found in sections] == ["S11", "S12"]
    assert {found.patient for found in sections} == {NO_PATIENT}
    assert all(found.image.name == f"{found.name}.tif" for found in sections)
    assert notices == ()


def test_a_slide_without_a_table_is_left_out_and_said(folder, tmp_path):
    place = tmp_path / "sections"
    shutil.copytree(folder, place)
    shutil.copy(folder / "S11.tif", place / "S13.tif")
    sections, notices = find_sections(place)
    assert [found.name for found in sections] == ["S11", "S12"]
    assert any("S13.tif has no table" in notice for notice in notices)


def test_what_a_fit_leaves_beside_its_sections_is_not_taken_for_one(folder, tmp_path):
    place = tmp_path / "sections"
    shutil.copytree(folder, place)
    (place / "mine.fit").mkdir()
    write_list(find_sections(folder)[0], place / "mine.fit" / "sections.csv")
    (place / "mine.fit" / "scores.json").write_text('{"records": []}')
    assert [found.name for found in find_sections(place)[0]] == ["S11", "S12"]


def test_sections_of_a_list_have_the_patients_and_resolution_that_it_says(folder):
    path = listing(folder, "a,P1,S11.tif,S11.h5ad,,0.5", ",,S12.tif,S12.h5ad,,")
    first, second = find_sections(path, mpp=0.7)[0]
    assert (first.name, first.patient, first.mpp) == ("a", "P1", 0.5)
    assert (second.name, second.patient, second.mpp) == ("S12", NO_PATIENT, 0.7)
    assert first.spots == folder / "S11.h5ad"
    assert first.counts is None


def test_a_list_that_was_written_is_read_back_as_it_was(folder, tmp_path):
    sections, _ = find_sections(listing(folder, "a,P1,S11.tif,S11.h5ad,,0.5", ",,S12.tif,S12.h5ad,,"))
    write_list(sections, tmp_path / "again.csv")
    assert find_sections(tmp_path / "again.csv")[0] == sections


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["a,P1,S11.tif,S11.h5ad,,", "a,P1,S12.tif,S12.h5ad,,"], "two sections called a"),
        (["a,P1,,S11.h5ad,,"], "Line 2 .* no image"),
        (["a,P1,S11.tif,S11.h5ad,,half"], "half as µm per pixel"),
    ],
)
def test_a_list_that_cannot_be_used_is_refused(folder, lines, said):
    with pytest.raises(UserError, match=said):
        find_sections(listing(folder, *lines))


def test_a_list_as_a_german_spreadsheet_writes_it_is_read(folder):
    path = folder / "list.csv"
    path.write_text("image;spots;mpp\nS11.tif;S11.h5ad;0,5\n", encoding="utf-8-sig")
    [section] = find_sections(path)[0]
    assert (section.name, section.mpp) == ("S11", 0.5)


def test_a_table_that_is_no_list_of_sections_is_refused(folder):
    path = folder / "list.csv"
    path.write_text("x,y\n1,2\n")
    with pytest.raises(UserError, match="no column image and no column spots"):
        find_sections(path)


def test_of_one_section_it_is_said_that_none_could_be_left_out(folder):
    sections, _ = find_sections(folder)
    assert why_too_few(sections) is None
    assert "There is 1 section with" in why_too_few(sections[:1])
    assert "left out and scored" in why_too_few(sections[:1])


# --- looking -------------------------------------------------------------------------------------


def test_a_look_counts_spots_and_genes_and_settles_the_resolution(folder):
    look = look_at(section(folder))
    assert (look.spots, look.genes, look.problem) == (36, 20, None)
    assert look.section.mpp == pytest.approx(MPP)
    assert look.doubts == ()


def test_each_look_is_reported_as_soon_as_it_was_had(folder):
    steps = []
    looks = finish(look_at_all(find_sections(folder)[0], "embedded"), steps.append)
    assert [step.partial for step in steps if step.partial is not None] == list(looks)


def without_resolution(folder, tmp_path):
    """S11 as a plain picture."""
    import tifffile

    Image.fromarray(tifffile.imread(folder / "S11.tif")).save(tmp_path / "S11.png")
    return section(folder, image=tmp_path / "S11.png")


def test_an_unknown_resolution_is_a_problem_that_stating_it_solves(folder, tmp_path):
    plain = without_resolution(folder, tmp_path)
    problem = look_at(plain).problem
    assert "S11" in problem
    assert "never guessed" in problem
    assert f"{200 / PITCH_PX:.4g}" in problem  # what the array says
    assert look_at(section(folder, image=plain.image, mpp=MPP)).problem is None


@pytest.mark.parametrize("mpp", [0.0, -0.5, float("nan")])
def test_what_is_no_resolution_is_a_problem(folder, mpp):
    assert "is not a size" in look_at(section(folder, mpp=mpp)).problem


def test_a_resolution_that_the_array_contradicts_is_doubted(folder):
    look = look_at(section(folder, mpp=0.5))
    assert look.problem is None
    assert "spots' array suggests" in look.doubts[0]
    assert "step 1" not in look.doubts[0]


@pytest.fixture
def smaller_copy(tmp_path):
    """A section whose picture is smaller than the full-resolution slide."""
    image = write_smaller_copy(tmp_path / "outs")
    return MeasuredSection("P1", NO_PATIENT, image, tmp_path / "outs")


def test_the_resolution_stated_is_that_of_the_full_resolution_slide_as_where_it_is_predicted(
    smaller_copy, tiny_checkpoint
):
    look = look_at(replace(smaller_copy, mpp=0.25))
    assert (look.section.mpp, look.mpp) == (0.25, pytest.approx(0.25 / 0.8))
    with finish(
        prepare(smaller_copy.image, tiny_checkpoint, spots=smaller_copy.spots, mpp=0.25)
    ).slide as slide:
        assert slide.mpp == look.mpp
    (doubt,) = look.doubts
    suggested = re.search(r"set µm/px to ([\d.]+)", doubt)[1]
    settled = look_at(replace(smaller_copy, mpp=float(suggested)))
    assert (settled.doubts, settled.problem) == ((), None)


def test_a_list_of_sections_that_were_looked_at_means_the_same_resolution_again(smaller_copy, tmp_path):
    look = look_at(replace(smaller_copy, mpp=0.5))
    assert look.mpp == pytest.approx(0.625)
    write_list([look.section], tmp_path / "sections.csv")
    [again] = find_sections(tmp_path / "sections.csv")[0]
    assert again.mpp == 0.5
    assert look_at(again).mpp == look.mpp


def test_a_picture_too_coarse_for_the_encoder_is_a_problem(folder):
    coarse = look_at(section(folder, mpp=3.0)).problem
    assert "takes pictures up to" in coarse
    assert "step 1" not in coarse  # of another dock
    fine = section(folder, mpp=0.8)
    assert look_at(fine, "embedded").problem is None
    assert "uni" not in (look_at(fine, "uni").problem or "")
    assert look_at(fine, "uni").problem is not None  # reads tiles at 0.5


def test_a_section_without_counts_is_a_problem(folder, tmp_path):
    adata = anndata.read_h5ad(folder / "S11.h5ad")
    adata.X = np.log1p(adata.X)
    adata.write_h5ad(tmp_path / "S11.h5ad")
    assert "holds no raw counts" in look_at(section(folder, spots=tmp_path / "S11.h5ad")).problem
    spots = pd.DataFrame({"id": ["a", "b"], "x_px": [300, 600], "y_px": [300, 300]})
    spots.to_csv(tmp_path / "S11.tsv", sep="\t", index=False)
    problem = look_at(section(folder, spots=tmp_path / "S11.tsv")).problem
    assert "no measured counts" in problem
    assert "S11" in problem


def test_counts_of_another_section_and_a_missing_file_are_problems(folder, tmp_path):
    other = anndata.read_h5ad(folder / "S12.h5ad")
    other.obs_names = [f"other{i}" for i in range(other.n_obs)]
    other.write_h5ad(tmp_path / "other.h5ad")
    assert "same section" in look_at(section(folder, counts=tmp_path / "other.h5ad")).problem
    assert "no file" in look_at(section(folder, image=tmp_path / "gone.tif")).problem.lower()


# --- what they are called ------------------------------------------------------------------------


def test_names_like_a_patients_are_replaced_in_results_unless_they_are_to_stay(folder):
    given = [
        section(folder, name="Smith_John_1964-03-12", patient="Smith John"),
        section(folder, name="S12", patient="P1"),
        section(folder, name="MRN_1234567", patient="Smith John"),
    ]
    named, (notice,) = named_in_results(given)
    first, second, third = named
    assert first.name == f"anonymous-{content_hash(first.image)[:8]}"
    assert (second.name, second.patient) == ("S12", "P1")
    assert third.name == f"{first.name}-2"  # of the same image
    assert first.patient == third.patient == "anonymous-1"
    assert [one.image for one in named] == [one.image for one in given]
    assert "2 sections" in notice
    assert "--keep-names" in notice
    assert named_in_results(given, keep=True) == (tuple(given), ())
    assert named_in_results(given[1:2]) == (tuple(given[1:2]), ())


def test_the_command_on_the_card_names_no_patient_either(tmp_path):
    panel = tmp_path / "Smith_John_genes.txt"
    panel.write_text("ERBB2")
    assert "Smith" not in FitSettings(genes=panel).command("mine", tmp_path / "w.safetensors")
    kept = FitSettings(genes=panel, keep_names=True).command("mine", tmp_path / "w.safetensors")
    assert kept.endswith("--genes Smith_John_genes.txt --keep-names")


# --- asking --------------------------------------------------------------------------------------


def test_the_command_names_files_without_their_folders_and_only_what_was_chosen(tmp_path):
    assert (
        FitSettings().command("mine", tmp_path / "w.safetensors")
        == "napari-flag fit mine --out w.safetensors"
    )
    settings = FitSettings(str(tmp_path / "e.safetensors"), tmp_path / "g.txt", diffusion=True, seed=3)
    assert settings.command("mine", tmp_path / "w.safetensors", ["S1"]) == (
        "napari-flag fit mine --out w.safetensors --genes g.txt --encoder e.safetensors --leave-out S1 "
        "--diffusion --seed 3"
    )


def test_an_encoder_is_named_itself_by_weights_or_as_one_to_be_trained(tiny_weights):
    assert encoder_of("uni") == "uni"
    assert encoder_of(fitting.TRAINED_HERE) == encoder_of(str(tiny_weights)) == "embedded"
    with pytest.raises(UserError, match='no weights called "nothing"'):
        encoder_of("nothing")


def test_what_training_lacks_is_named_with_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    with pytest.raises(UserError, match=r"\(lightning_fabric\); run: pip install .napari-flag\[training\]"):
        load_training()


# --- scores --------------------------------------------------------------------------------------


def scores(x=0.4, shuffled=0.1, ridge=0.3, pasted=0.2):
    rows = []
    for name, shift in (("S11", -0.1), ("S12", 0.1)):
        for kind, method, pcc in (
            ("landmark", "halves of the counts, doubled", 0.9),
            ("floor", "ridge", ridge),
            ("image-blind", "one section pasted", pasted),
            ("FLAG", "X", x),
            ("FLAG", "X, tiles shuffled", shuffled),
        ):
            rows.append({"section": name, "kind": kind, "method": method, "PCC": pcc + shift})
    return pd.DataFrame(rows)


def test_the_summary_is_the_mean_over_sections_these_weights_first_and_no_landmarks():
    means = summary(scores())
    assert means.index[0] == ("FLAG", "X")
    assert means.loc[("floor", "ridge"), "PCC"] == pytest.approx(0.3)
    assert "landmark" not in means.index.get_level_values("kind")


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ({}, "notice", "another patient"),
        ({"shuffled": 0.5}, "warning", "learnt nothing from the picture"),
        ({"x": float("nan")}, "warning", "learnt nothing from the picture"),
        ({"ridge": 0.6}, "warning", "(ridge) has 0.600, so it is ahead"),
        ({"pasted": 0.6}, "warning", "does not even look at the image"),
    ],
)
def test_the_verdict_says_when_controls_or_simple_methods_are_ahead(values, kind, said):
    found, sentence = verdict(scores(**values))
    assert found == kind
    assert said in sentence
    assert "2 sections" in sentence
