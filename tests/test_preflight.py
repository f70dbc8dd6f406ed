"""What stands against a prediction is said before it starts, in the same words wherever it is asked."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw
from tests.fakes import FakeSlide, fake_prediction, fake_xy
from tests.slide_files import tissue_picture

import napari_flag as nf
from napari_flag import inputs, keys, prediction, preflight
from napari_flag.cli import main
from napari_flag.encoders.embedded import TILE_UM_PER_PX
from napari_flag.encoders.registry import find_encoder
from napari_flag.errors import UserError
from napari_flag.gui.predict.model_step import differences, why_no_estimate, why_not_ready
from napari_flag.inputs import Inputs, predict_inputs, settle_scale
from napari_flag.model.checkpoint import Checkpoint, find_weights
from napari_flag.preflight import check, look_at, off_tissue, picture_doubts
from napari_flag.progress import Step, finish
from napari_flag.simulation import demo_slide, demo_table, simulate
from napari_flag.simulation.simulator import write_slide
from napari_flag.slides.slide import open_slide
from napari_flag.slides.spots import Spots, SpotTable
from napari_flag.slides.tiles import COARSEST
from napari_flag.slides.tissue import read_colours

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def weights(name="her2st", encoder="embedded", **card):
    return SimpleNamespace(
        name=name, sha256="0", card=card, encoder=encoder, genes=("ERBB2", "VIM"), colours="scanned"
    )


DEMO = weights("demo", tissue="none: synthetic H&E of the bundled simulator")


def array_of(pitch_px=200.0):
    """A 6 × 6 ST array, 200 µm between spots, `pitch_px` px apart."""
    _, array = fake_xy(36)
    xy = (array[:, ::-1] + 1.0) * pitch_px
    return Spots(tuple(f"{c}x{r}" for r, c in array), xy, pitch_um=200.0, lattice="square", array=array)


def slide_of(pixels, mpp=0.5):
    slide = FakeSlide(60, 60, mpp=mpp)
    slide.pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    slide.size = slide.pixels.shape[1::-1]
    return slide


# --- scale ---------------------------------------------------------------------------------------


def test_a_missing_scale_blocks_with_the_one_number_that_settles_it():
    (sentence,) = check(FakeSlide(mpp=None), array_of(396.0)).blocking
    assert "suggests 0.505" in sentence
    assert "press Estimate" in sentence
    assert "--mpp 0.505" in sentence
    (sentence,) = check(FakeSlide(mpp=None)).blocking
    assert "--mpp 0.5 " in sentence


def test_a_fit_to_the_array_has_the_same_digits_in_refusal_and_warning():
    spots = array_of(200 / 0.68316)
    (refused,) = check(FakeSlide(mpp=None), spots).blocking
    (coarse,) = check(FakeSlide(mpp=4.667), spots, weights()).blocking
    (warned,) = settle_scale(FakeSlide(mpp=0.5), SpotTable(spots, None, "ST"))[1]
    for sentence in (refused, coarse, warned):
        assert re.search(r"suggests 0\.6832\b", sentence)


def test_a_reduced_picture_whose_pitch_agrees_is_not_called_a_wrong_number():
    reduced = array_of(200 / 4.667)
    slide = FakeSlide(mpp=4.667)
    for spots in (reduced, SpotTable(reduced, None, "ST")):
        (sentence,) = check(slide, spots, weights()).blocking
        assert "reduced about 9-fold" in sentence
        assert "4.667 µm/px agrees with the array's pitch, so the number is right" in sentence
        assert "open the full-resolution slide" in sentence
    (notice,) = settle_scale(slide, SpotTable(reduced, None, "ST"))[1]
    assert "so the number is right" in notice
    assert "wrong" not in notice


def test_a_coarse_scale_that_the_array_contradicts_is_doubted_and_the_other_number_given():
    (sentence,) = check(FakeSlide(mpp=4.667), array_of(396.0), weights()).blocking
    assert "but the spots' array suggests 0.505" in sentence
    assert "reduced" not in sentence
    (both,) = check(FakeSlide(mpp=9.0), array_of(200 / 4.667), weights()).blocking
    assert "too coarse both at the 9 µm/px stated and at the 4.667" in both


def test_of_a_smaller_copy_the_scale_to_give_is_that_of_the_full_resolution_slide():
    slide, spots = FakeSlide(mpp=4.667), array_of(396.0)  # .505 µm/px of this picture
    table = SpotTable(spots, None, "Visium", image_scale=0.2)
    (coarse,) = check(slide, table, weights()).blocking
    assert "suggests 0.505" in coarse
    assert "full-resolution slide to 0.101 (Estimate in step 1, --mpp 0.101 " in coarse
    assert why_not_ready(slide, table, weights(), None) == coarse
    (warned,) = settle_scale(slide, table)[1]
    assert "set µm/px to 0.101 " in warned
    given = Inputs(slide, spots, image_scale=0.2)
    with pytest.raises(UserError, match=re.escape(coarse)):
        finish(predict_inputs(given, weights()))


def test_a_coarse_scale_that_nothing_confirms_names_what_the_model_reads():
    (sentence,) = check(FakeSlide(mpp=4.667), None, weights()).blocking
    assert "4.667 µm/px" in sentence
    assert "0.683 µm/px" in sentence
    assert "1.02" in sentence


def test_a_grid_laid_at_a_scale_does_not_confirm_it():
    slide = FakeSlide(2400, 2400, mpp=4.667)
    grid = finish(inputs.lay_grid(slide, inputs.Grid(200.0, 100.0, "square"))).spots
    (sentence,) = check(slide, grid, weights()).blocking
    assert "agrees" not in sentence
    assert "table" in why_no_estimate(slide, grid)
    assert settle_scale(slide.with_mpp(0.5, "set by hand"), SpotTable(grid, None, "grid"))[1] == ()


@pytest.mark.parametrize("encoder", ["embedded", "uni"])
def test_it_blocks_exactly_where_no_tiles_would_be_cut(encoder):
    limit = COARSEST * find_encoder(encoder).mpp
    assert check(FakeSlide(mpp=limit * 0.999), None, weights(encoder=encoder)).blocking == ()
    assert check(FakeSlide(mpp=limit * 1.001), None, weights(encoder=encoder)).blocking
    assert find_encoder("embedded").mpp == TILE_UM_PER_PX


def test_shipped_weights_are_never_blocked_on_slides_of_their_own_kind():
    for name, path in (("her2st", None), ("demo", demo_slide())):
        checkpoint = Checkpoint.load(find_weights(name))
        trained = checkpoint.card["um_per_px"]
        for mpp in (trained / 3, trained, trained * 1.2):
            assert check(FakeSlide(mpp=mpp), None, checkpoint).blocking == ()
        if path is not None:
            with open_slide(path) as slide:
                spots = finish(inputs.read_table(demo_table(), slide))
                assert check(slide, spots, checkpoint, look=look_at(slide)) == check(slide)


# --- simulated tissue ----------------------------------------------------------------------------


def test_weights_of_simulated_slides_are_refused_on_another_slide_unless_insisted_on():
    slide = FakeSlide()
    look = look_at(slide)
    found = check(slide, None, DEMO, look=look)
    assert "Predict anyway" in found.blocking[0]
    assert "--force" in found.blocking[0]
    assert found.insistable
    insisted = check(slide, None, DEMO, look=look, force=True)
    assert insisted.blocking == ()
    assert "as was insisted on" in insisted.warnings[0]
    assert insisted.insistable
    assert not check(slide, None, weights(tissue="breast"), look=look).insistable


def test_the_shipped_demo_weights_are_known_by_their_card_and_no_others():
    slide = FakeSlide()
    look_at(slide)
    assert check(slide, None, Checkpoint.load(find_weights("demo"))).insistable
    assert not check(slide, None, Checkpoint.load(find_weights("her2st"))).insistable


@pytest.mark.slow
def test_a_simulated_slide_is_known_by_its_file_and_not_by_its_name(tmp_path):
    made = simulate(4, size_px=600)
    write_slide(tmp_path / "patient_7.tif", made.image, made.mpp)
    Image.fromarray(made.image).save(tmp_path / "demo_slide.png")
    with open_slide(tmp_path / "patient_7.tif") as slide:
        assert look_at(slide).simulated
        assert look_at(slide.with_mpp(0.6)) is look_at(slide)
    with open_slide(tmp_path / "demo_slide.png", mpp=0.7) as slide:
        assert not look_at(slide).simulated
    with open_slide(demo_slide()) as slide:
        assert look_at(slide).simulated


def fake_predict(slide, spots, checkpoint, **_):
    yield Step("Reading tiles", 0)
    return fake_prediction(16)


def test_what_was_insisted_on_is_recorded_with_the_prediction(monkeypatch):
    monkeypatch.setattr(prediction, "predict_slide", fake_predict)
    given = Inputs(FakeSlide(), array_of())
    with pytest.raises(UserError, match="know only simulated slides"):
        finish(predict_inputs(given, DEMO))
    adata = finish(predict_inputs(given, DEMO, force=True))
    assert any("as was insisted on" in notice for notice in adata.uns[keys.PROVENANCE][keys.NOTICES])


def test_spots_whose_ids_were_repaired_are_no_longer_refused_where_their_first_id_was_right():
    right = array_of()
    row_by_column = (right.ids[0], *(f"{r}x{c}" for r, c in right.array[1:]))
    wrong = replace(right, ids=row_by_column)
    assert wrong.ids[0] == right.ids[0]
    (sentence,) = check(FakeSlide(), wrong).blocking
    assert "row × column" in sentence
    assert check(FakeSlide(), right).blocking == ()
    assert check(FakeSlide(), wrong).blocking == (sentence,)


@pytest.fixture
def section(tmp_path, monkeypatch):
    """An H&E-like picture of no simulator, in the current folder."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(tissue_picture(1300, 1100, (100, 100, 1200, 1000))).save(tmp_path / "C9.png")
    return tmp_path / "C9.png"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mpp"), [("demo", "0.7"), ("her2st", "1.5"), ("her2st", None)])
def test_dock_command_line_and_python_refuse_in_the_same_sentence(name, mpp, section, capsys):
    line = ["predict", "C9.png", "--weights", name, *(() if mpp is None else ("--mpp", mpp))]
    assert main(line) == 2
    printed = " ".join(capsys.readouterr().err.split())
    with pytest.raises(UserError) as refused:
        nf.predict(section, weights=name, mpp=None if mpp is None else float(mpp))
    with open_slide(section, mpp=None if mpp is None else float(mpp)) as slide:
        look_at(slide)
        grid = replace(array_of(), laid=True) if mpp else None
        dock = why_not_ready(slide, grid, Checkpoint.load(find_weights(name)), None)
    assert dock == str(refused.value)
    assert dock in printed


@pytest.mark.slow
def test_the_dock_can_predict_once_it_is_insisted(section):
    with open_slide(section, mpp=0.7) as slide:
        look_at(slide)
        spots = replace(array_of(), array=None)
        assert "step 3" in why_not_ready(slide, spots, DEMO, None)
        assert why_not_ready(slide, spots, DEMO, None, force=True) is None
        assert any("insisted" in sentence for sentence in differences(DEMO, slide, spots, force=True))


# --- stain ---------------------------------------------------------------------------------------


def recoloured(image, *, power=1.0, glass=(1.0, 1.0, 1.0)):
    """`image` with optical density times `power`, seen through `glass`."""
    density = -np.log((image.astype(np.float64) + 1) / 256)
    return 255 * np.exp(-density * power) * np.array(glass)


def variants(image):
    """A section as other laboratories and scanners give it: pale, strong, cream, dim."""
    yield "as it is", image
    yield "pale", recoloured(image, power=0.4)
    yield "strong", recoloured(image, power=1.8)
    yield "cream glass", recoloured(image, glass=(1.0, 0.96, 0.85))
    yield "dim lamp", recoloured(image, glass=(0.85, 0.8, 0.65))


def doubts(image):
    return picture_doubts("C9.png", read_colours(slide_of(image)))


SECTION = tissue_picture(512, 512, (60, 60, 450, 450))


def test_h_and_e_raises_no_doubt_however_it_was_scanned():
    found = [(how, doubt) for how, image in variants(SECTION) for doubt in doubts(image)]
    assert found == []


@pytest.mark.slow
def test_the_bundled_slide_and_other_simulated_ones_raise_no_doubt():
    with open_slide(demo_slide()) as slide:
        pictures = [slide.thumbnail(512), simulate(7, size_px=600).image, simulate(101, size_px=600).image]
    assert [doubts(image) for picture in pictures for _, image in variants(picture)] == [[]] * 15


@pytest.mark.slow
@pytest.mark.skipif(not (DATA / "her2st").is_dir(), reason="needs the her2st sections in ../shared/data")
def test_no_real_section_raises_a_doubt():
    Image.MAX_IMAGE_PIXELS = None
    pictures = []
    for path in sorted((DATA / "her2st" / "images").glob("*.jpg")):
        with Image.open(path) as image:
            image.draft("RGB", (1200, 1200))
            image.thumbnail((512, 512))
            pictures.append(np.asarray(image.convert("RGB")))
    with Image.open(DATA / "visium_v1_small" / "spatial" / "tissue_lowres_image.png") as image:
        pictures.append(np.asarray(image.convert("RGB")))
    assert len(pictures) == 6
    found = [doubts(image) for picture in pictures for _, image in variants(picture)]
    assert found == [[]] * 30


def grey(image):
    return np.repeat(np.asarray(image, np.float64).mean(axis=2, keepdims=True), 3, axis=2)


def fluorescence(colours):
    """Nuclei and cells shining in the dark, one of `colours` each."""
    image = np.full((400, 400, 3), 8.0)
    y, x = np.mgrid[:400, :400]
    rng = np.random.default_rng(0)
    for cx, cy, radius in rng.integers((20, 20, 3), (380, 380, 8), (250, 3)):
        image[np.hypot(x - cx, y - cy) < radius] += colours[rng.integers(len(colours))]
    return image


def dab():
    """Brown membranes between blue nuclei: optical densities of DAB and hematoxylin."""
    rng = np.random.default_rng(0)
    brown = np.kron(rng.random((64, 64)) > 0.4, np.ones((8, 8)))[..., None]
    density = brown * (0.27, 0.57, 0.78) + (1 - brown) * np.multiply((0.65, 0.7, 0.29), 0.6)
    density[:, :100] = 0
    return 240 * np.exp(-density)


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: grey(SECTION), "is grey"),
        (lambda: grey(SECTION) * (1.0, 0.97, 0.9), "is grey"),  # grey seen through cream glass
        (lambda: fluorescence([(30, 60, 200)]), "fluorescence"),
        (lambda: fluorescence([(30, 60, 200), (0, 180, 20), (220, 30, 10)]), "fluorescence"),
        (lambda: fluorescence([(200, 200, 200)]), "fluorescence"),
        (dab, "immunohistochemistry"),
        (lambda: recoloured(SECTION)[..., [1, 0, 2]], "another stain"),  # green lets through
    ],
    ids=["grey", "cream grey", "DAPI", "three channels", "one grey channel", "DAB", "green"],
)
def test_what_is_not_h_and_e_is_noticed_and_does_not_block(make, word):
    image = make()
    (sentence,) = doubts(image)
    assert word in sentence
    assert word == "is grey" or re.search(r"\d % of", sentence)
    slide = slide_of(image)
    found = check(slide, None, weights(), look=look_at(slide))
    assert found.blocking == ()
    assert found.warnings == (sentence.replace("C9.png", "fake.svs"),)


@pytest.mark.parametrize("width", [2, 4, 6])
def test_a_frame_drawn_in_red_is_noticed_as_such_and_the_tissue_in_it_as_h_and_e(width):
    picture = Image.fromarray(tissue_picture(1600, 1600, (300, 300, 1300, 1300)))
    draw = ImageDraw.Draw(picture)
    for at in range(150, 1451, 28):
        for x, y in ((at, 150), (at, 1450), (150, at), (1450, at)):
            draw.ellipse((x - 10, y - 10, x + 10, y + 10), outline=(255, 0, 0), width=width)
    (sentence,) = doubts(np.asarray(picture))
    assert "drawn in red" in sentence


def test_a_blank_picture_is_no_matter_of_stain():
    assert doubts(np.full((300, 300, 3), 240)) == []


def test_spots_of_a_table_beside_the_tissue_or_in_its_corner_are_said():
    slide = slide_of(tissue_picture(2000, 1600, (0, 0, 1400, 1600)), mpp=0.7)
    rng = np.random.default_rng(0)
    names = tuple(f"s{i}" for i in range(60))
    right = Spots(names, rng.uniform((20, 20), (1380, 1580), (60, 2)))
    assert off_tissue(slide, right) == ()
    [small] = off_tissue(slide, replace(right, xy=right.xy / 10))
    assert re.match(r"The spots take up 1 % of the tissue of fake\.svs, in the corner", small)
    array = np.stack(np.divmod(np.arange(60), 8), axis=1)
    assert off_tissue(slide, replace(right, xy=right.xy / 10, array=array)) == ()
    assert off_tissue(slide, replace(right, xy=right.xy / 10 + 700)) == ()
    [beside] = off_tissue(slide, replace(right, xy=right.xy + np.array([700, 0])))
    assert re.match(r"[34]\d of 60 spots do not lie on the tissue that is found on fake\.svs", beside)
    assert off_tissue(slide, replace(right, xy=right.xy + np.array([700, 0]), laid=True)) == ()
    assert off_tissue(slide_of(np.full((900, 900, 3), 240)), right) == ()


def test_asking_reads_no_pixels_of_a_slide_that_nobody_has_looked_at(monkeypatch):
    slide = FakeSlide()
    monkeypatch.setattr(slide, "thumbnail", lambda *_: pytest.fail("read"))
    assert check(slide, array_of(), weights()).warnings == ()


def test_places_of_a_table_are_looked_at_in_the_job_that_reads_it_and_not_when_the_window_asks(monkeypatch):
    with open_slide(demo_slide()) as slide:
        table = finish(inputs.read_table(demo_table(), slide))
        for name in ("misplaced", "mirrored", "estimate_mpp"):
            monkeypatch.setattr(preflight, name, lambda spots: pytest.fail("looked at again"))
        moved = replace(table, spots=replace(table.spots, pitch_um=table.spots.pitch_um))
        assert check(slide, moved).blocking == check(slide, table).blocking == ()


def test_opening_a_slide_to_look_at_it_reads_its_colours_in_the_same_job():
    with finish(inputs.open_with_pyramid(demo_slide())) as slide:
        assert not check(slide, None, DEMO).insistable
    with finish(inputs.open_with_pyramid(demo_slide())) as slide:
        slide.reader.read = None
        assert look_at(slide).simulated
