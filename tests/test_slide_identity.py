import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tests.fakes import FakeSlide, fake_prediction

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.prediction_file import output_name, trained_on
from napari_flag.slide_identity import (
    are_of_one_slide,
    belongs_on,
    belongs_with,
    doubt_about,
    is_made_on,
    refuse_other_size,
    without_folders,
    without_names,
    without_personal_names,
)
from napari_flag.slides.file_identity import name_of

EARLIER = Path(__file__).resolve().parent / "golden" / "earlier_prediction.h5ad"


def slide_at(path, content=b"tissue", width=1200):
    """A slide whose file holds `content`."""
    slide = FakeSlide(width=width)
    path.write_bytes(content)
    slide.path, slide.name = path, path.stem
    return slide


def made_on(slide, name=None):
    adata = fake_prediction(9)
    made = adata.uns[keys.PROVENANCE]
    made |= {
        keys.SLIDE_NAME: name or slide.name,
        keys.SLIDE_HASH: hashlib.sha256(slide.path.read_bytes()).hexdigest(),
    }
    made[keys.SLIDE_WIDTH], made[keys.SLIDE_HEIGHT] = slide.size
    made[keys.COMMAND] = (
        f"napari-flag predict {slide.path.name} --spots {slide.name}_spots.tsv --mpp 0.2500125"
    )
    made[keys.NOTICES] = [f"{slide.path.name} has no colour profile, so its colours are taken to be sRGB."]
    adata.uns[keys.SPATIAL] = {
        slide.name: adata.uns[keys.SPATIAL]["fake"] | {"metadata": {"source_image_path": slide.path.name}}
    }
    return adata


# --- which slide ---------------------------------------------------------------------------------


def test_a_slide_is_known_by_its_content_whatever_it_is_called_now(tmp_path):
    slide = slide_at(tmp_path / "Smith_John.svs")
    adata = made_on(slide, name="anonymous-12345678")
    assert is_made_on(adata, slide)
    assert doubt_about(adata, slide) is None
    assert not is_made_on(adata, slide_at(tmp_path / "other.svs", b"other"))


def test_names_differ_in_letters_alone_and_what_is_not_stated_fits_any_slide(tmp_path):
    slide = slide_at(tmp_path / "C5.svs")
    adata = made_on(slide, name="c5")
    adata.uns[keys.PROVENANCE].pop(keys.SLIDE_HASH)
    assert is_made_on(adata, slide)
    assert are_of_one_slide(adata, made_on(slide))
    adata.uns[keys.PROVENANCE].pop(keys.SLIDE_NAME)
    assert is_made_on(adata, slide)
    assert not is_made_on(adata, slide_at(tmp_path / "C5.tif", width=1300))


def test_a_slide_of_another_size_is_refused(tmp_path):
    slide = slide_at(tmp_path / "C5.svs")
    adata = made_on(slide)
    refuse_other_size(adata, slide)
    with pytest.raises(
        UserError, match=r"C5\.tif has 1,300 × .* px, but .* made on a slide of 1,200 × .* px;"
    ):
        refuse_other_size(adata, slide_at(tmp_path / "C5.tif", width=1300))


def test_a_file_of_the_same_name_and_size_with_another_content_is_doubted_in_one_sentence(tmp_path):
    slide = slide_at(tmp_path / "C5.svs")
    adata = made_on(slide)
    (tmp_path / "copy").mkdir()
    other = slide_at(tmp_path / "copy" / "C5.svs", b"another scan")
    assert is_made_on(adata, other)
    assert doubt_about(adata, slide) is None
    doubt = doubt_about(adata, other)
    assert doubt.startswith("C5.svs is not the file that this prediction was made on")
    assert doubt.count(".") == 2  # the ending of the file, and of the sentence
    assert not is_made_on(adata, slide_at(tmp_path / "copy" / "C6.svs", b"another scan"))


def test_predictions_of_versions_without_a_hash_go_by_name_and_size(tmp_path):
    slide = slide_at(tmp_path / "C5.svs")
    adata = made_on(slide)
    del adata.uns[keys.PROVENANCE][keys.SLIDE_HASH]
    assert is_made_on(adata, slide)
    assert doubt_about(adata, slide) is None
    assert not is_made_on(adata, slide_at(tmp_path / "C5.svs", width=1300))


def test_a_prediction_that_records_no_slide_belongs_on_one_by_place_and_only_where_that_is_asked(tmp_path):
    slide, other = slide_at(tmp_path / "C5.svs"), slide_at(tmp_path / "C6.svs", b"other")
    slide.size = other.size = (5000, 5000)
    adata = made_on(slide)
    assert belongs_on(adata, slide)
    assert not belongs_on(adata, other, by_place=True)  # though all its spots lie on it
    del adata.uns[keys.PROVENANCE]
    assert not belongs_on(adata, slide)
    assert belongs_on(adata, slide, by_place=True)
    adata.obsm[keys.SPATIAL][0, 0] = 5000
    assert not belongs_on(adata, slide, by_place=True)


def test_another_programs_prediction_belongs_with_one_of_the_same_spots_at_the_same_places(tmp_path):
    ours = made_on(slide_at(tmp_path / "C5.svs"))
    foreign = fake_prediction(9, seed=1)
    foreign.uns[keys.PROVENANCE] = {keys.READ_FROM: {keys.READ_FILE: "x.h5ad", keys.READ_UNIT: "log2p1"}}
    assert belongs_with(foreign, ours)
    assert belongs_with(ours, foreign)
    foreign.obsm[keys.SPATIAL] += 1.5
    assert not belongs_with(foreign, ours)


def test_predictions_without_a_size_belong_together_where_their_spots_have_the_same_names(tmp_path):
    one, other = (made_on(slide_at(tmp_path / "C5.svs")) for _ in range(2))
    for adata in (one, other):
        for key in (keys.SLIDE_WIDTH, keys.SLIDE_HEIGHT):
            del adata.uns[keys.PROVENANCE][key]
    assert belongs_with(one, other)
    other.obs_names = [f"other_{name}" for name in other.obs_names]
    assert not belongs_with(one, other)


def test_two_predictions_of_one_content_are_of_one_slide(tmp_path):
    slide = slide_at(tmp_path / "C5.svs")
    assert are_of_one_slide(made_on(slide), made_on(slide, name="anonymous-12345678"))
    assert not are_of_one_slide(made_on(slide), made_on(slide_at(tmp_path / "C6.svs", b"other")))


# --- what it is called ---------------------------------------------------------------------------


def everything_in(adata):
    """Every text that a prediction states, and every key."""
    texts = []

    def walk(value):
        if isinstance(value, dict):
            for key, inner in value.items():
                texts.append(str(key))
                walk(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner)
        elif not isinstance(value, np.ndarray) or value.dtype.kind in "OUS":
            texts.append(str(value))

    walk(dict(adata.uns))
    return "\n".join(texts)


def test_a_patients_name_is_replaced_wherever_it_stands_and_said(tmp_path):
    slide = slide_at(tmp_path / "Smith_John.svs")
    adata = made_on(slide)
    renamed, [notice] = without_personal_names(adata)
    neutral = f"anonymous-{hashlib.sha256(b'tissue').hexdigest()[:8]}"
    assert output_name(renamed) == neutral
    assert list(renamed.uns[keys.SPATIAL]) == [neutral]
    assert "smith" not in everything_in(renamed).lower()
    assert (
        f"napari-flag predict {neutral}.svs --spots {neutral}_spots.tsv"
        in renamed.uns[keys.PROVENANCE][keys.COMMAND]
    )
    assert neutral in notice
    assert "a person's name" in notice
    assert "--keep-names" in notice
    assert "Smith" not in notice
    assert output_name(adata) == "Smith_John"  # not changed
    assert renamed.X is adata.X
    assert is_made_on(renamed, slide)


def test_other_names_and_names_that_are_kept_stay(tmp_path):
    for name, keep in (("C5", False), ("Smith_John", True)):
        adata = made_on(slide_at(tmp_path / f"{name}.svs"))
        renamed, said = without_personal_names(adata, keep)
        assert renamed is adata
        assert said == ()


def test_patients_whose_slides_the_weights_were_trained_on_are_not_named(tmp_path):
    adata = made_on(slide_at(tmp_path / "C5.svs"))
    adata.uns[keys.PROVENANCE][keys.TRAINING_SLIDES] = ["Doe_Jane", "her2st-C2"]
    renamed, [notice] = without_personal_names(adata)
    assert renamed.uns[keys.PROVENANCE][keys.TRAINING_SLIDES] == ["anonymous", "her2st-C2"]
    assert "trained on" in notice


def test_that_the_weights_were_trained_on_the_slide_is_still_known_under_a_neutral_name(tmp_path):
    adata = made_on(slide_at(tmp_path / "Smith_John.svs"))
    adata.uns[keys.PROVENANCE][keys.TRAINING_SLIDES] = ["Smith_John", "her2st-C2"]
    assert trained_on(without_personal_names(adata)[0])


def test_files_named_in_notices_are_not_named_after_patients(tmp_path):
    adata = made_on(slide_at(tmp_path / "C5.svs"))
    adata.uns[keys.PROVENANCE][keys.NOTICES] = ["Doe_Jane.tsv names 3 spots that are not on the slide."]
    renamed, _ = without_personal_names(adata)
    assert renamed.uns[keys.PROVENANCE][keys.NOTICES] == [
        "anonymous.tsv names 3 spots that are not on the slide."
    ]


def test_a_region_named_after_the_patient_is_renamed_in_valid_json(tmp_path):
    adata = made_on(slide_at(tmp_path / 'Smith_"J"_John.svs'))
    regions = {"features": [{"properties": {"name": 'Smith_"J"_John tumour'}}]}
    adata.uns[keys.PROVENANCE][keys.REGIONS] = json.dumps(regions, ensure_ascii=False)
    renamed, _ = without_personal_names(adata)
    [feature] = json.loads(renamed.uns[keys.PROVENANCE][keys.REGIONS])["features"]
    assert feature["properties"]["name"] == f"{output_name(renamed)} tumour"


@pytest.mark.parametrize("name", ["C5", "anonymous-12345678"])
def test_what_is_neutral_already_is_left_as_it_is(tmp_path, name):
    adata = made_on(slide_at(tmp_path / f"{name}.svs"))
    assert without_personal_names(adata) == (adata, ())


def test_a_sentence_names_files_without_the_folders_of_the_slide(tmp_path, monkeypatch):
    folder = tmp_path / "Jane Roe" / "a"
    folder.mkdir(parents=True)
    slide = folder / "C5.svs"
    sentence = f"The folder {folder} holds {slide} and {folder}/b/C6.svs; a/b in µm/px."
    assert (
        without_folders(sentence, slide) == "The folder its folder holds C5.svs and b/C6.svs; a/b in µm/px."
    )
    monkeypatch.chdir(tmp_path)
    relative = Path("Jane Roe/a/C5.svs")
    assert without_folders(f"{relative}: a slide of {folder}.", relative) == "C5.svs: a slide of its folder."


def test_names_of_inputs_with_blanks_are_replaced_whole(tmp_path):
    folder = tmp_path / "Jane Roe"
    folder.mkdir()
    names = ("John Smith spots.tsv", "Ann Miller.tsv.gz", "C5 spots.tsv")
    table, beside, plain = (folder / name for name in names)
    for file in (table, beside, plain):
        file.write_text(file.name)
    sentence = (
        f"{table} names 3 spots, John Smith spots.tsv is large; {beside.name} and {plain.name} too, of Jane "
        "Roe, Ann Miller and Otto_Meier.svs."
    )
    said = without_names(sentence, [table])
    assert not any(name in said for name in ("Smith", "Miller", "Roe", "Meier", str(tmp_path)))
    begins = f"{name_of(table)} names 3 spots, {name_of(table)} is large; {name_of(beside)} and C5 spots.tsv"
    assert said.startswith(begins)
    kept = without_names(sentence, [table], keep=True)
    assert kept == sentence.replace(f"{folder}/", "")


def test_a_missing_input_is_not_named_after_a_patient(tmp_path):
    missing = tmp_path / "Hans Meier.svs"
    said = without_names(f"There is no file or folder {missing}; check the path.", [missing])
    assert said == "There is no file or folder anonymous.svs; check the path."


def test_the_file_of_another_program_is_not_named_after_a_patient(tmp_path):
    adata = made_on(slide_at(tmp_path / "C5.svs"))
    adata.uns[keys.PROVENANCE] |= {
        keys.READ_FROM: {keys.READ_FILE: "Smith John.h5ad"},
        keys.NOTICES: ["Smith John.h5ad was not written by napari-flag."],
    }
    renamed, _ = without_personal_names(adata)
    assert renamed.uns[keys.PROVENANCE][keys.READ_FROM] == {keys.READ_FILE: "anonymous.h5ad"}
    assert renamed.uns[keys.PROVENANCE][keys.NOTICES] == ["anonymous.h5ad was not written by napari-flag."]


def test_weights_called_after_a_patient_have_a_neutral_name_wherever_theirs_stood(tmp_path):
    adata = made_on(slide_at(tmp_path / "C5.svs"))
    called = "Smith_John_1950-03-04"
    adata.uns[keys.PROVENANCE] |= {
        keys.WEIGHTS_NAME: called,
        keys.WEIGHTS_HASH: "0123456789abcdef" * 4,
        keys.COMMAND: f"napari-flag predict C5.svs --weights {called}",
        keys.NOTICES: [f'The weights "{called}" were made for simulated slides.'],
    }
    renamed, [notice] = without_personal_names(adata)
    assert renamed.uns[keys.PROVENANCE][keys.WEIGHTS_NAME] == "anonymous-01234567"
    assert "Smith" not in everything_in(renamed)
    assert "results call them anonymous-01234567" in notice
    assert without_personal_names(adata, keep=True)[0] is adata
