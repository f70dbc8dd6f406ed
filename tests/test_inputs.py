"""One answer to what a prediction starts from, for the command line, the docks, demo and notebooks."""

from types import SimpleNamespace

import numpy as np
import pytest
import shapely
from PIL import Image, ImageCms
from tests.fakes import SOME_GENES, FakeSlide
from tests.slide_files import plain_tiff, tissue_picture
from tests.spot_files import space_ranger
from tests.tiny_weights import GENES, tiny_network

from napari_flag import inputs, keys
from napari_flag.errors import UserError
from napari_flag.gene_names import symbols_of
from napari_flag.inputs import Grid, choose_genes, grid_of, lay_grid, predict_inputs, prepare
from napari_flag.model.checkpoint import Checkpoint, find_weights, save_checkpoint
from napari_flag.progress import finish
from napari_flag.slides.formats.readers import ImageReader
from napari_flag.slides.formats.tiff import TiffReader
from napari_flag.slides.slide import open_slide
from napari_flag.slides.spot_tables import read_spots
from napari_flag.slides.spots import Spots

ST = {"array": {"pitch_um": 200.0, "diameter_um": 100.0, "technology": "Spatial Transcriptomics (legacy)"}}


def checkpoint(card=ST):
    return SimpleNamespace(genes=SOME_GENES, name="fake", card=card)


@pytest.fixture
def tissue(tmp_path):
    """A slide of 1000 × 900 px with tissue up to its left and top edge."""
    image = np.full((900, 1000, 3), 245, np.uint8)
    image[:700, :800] = (190, 110, 170)
    image = np.clip(image + np.random.default_rng(0).integers(-12, 12, image.shape), 0, 255)
    Image.fromarray(image.astype(np.uint8)).save(tmp_path / "C9.png")
    return tmp_path / "C9.png"


def test_no_spot_is_laid_where_a_region_reaches_past_the_edge_of_the_slide():
    slide = FakeSlide(1200, 1000, mpp=0.5)
    past = [shapely.box(-2000, -2000, 4000, 4000)]
    for lattice in ("hex", "square"):
        table = finish(lay_grid(slide, Grid(50.0, 25.0, lattice), polygons=past))
        assert (table.spots.xy >= 0).all()
        assert (table.spots.xy < slide.size).all()
        assert len(table.spots) > 50


@pytest.mark.parametrize(("weights", "lattice"), [("her2st", "square"), ("demo", "hex")])
def test_a_grid_has_the_lattice_of_the_array_its_weights_were_trained_on(weights, lattice, tissue):
    loaded = Checkpoint.load(find_weights(weights))
    with finish(prepare(tissue, loaded, mpp=2.0)).slide as slide:
        prepared = finish(prepare(slide, loaded))
        dock = finish(lay_grid(slide, grid_of(loaded.card)))
    assert prepared.spots.lattice == dock.spots.lattice == lattice
    np.testing.assert_array_equal(prepared.spots.xy, dock.spots.xy)


@pytest.mark.parametrize(
    ("array", "lattice"),
    [
        ({"lattice": "hex", "pitch_um": 200.0}, "hex"),
        ({"lattice": "square", "technology": "Visium"}, "square"),
        ({"technology": "Visium, simulated"}, "hex"),
        ({"technology": "Visium HD", "pitch_um": 16.0}, "square"),
        ({"pitch_um": 100.0}, "hex"),
        ({"pitch_um": 200.0, "lattice": "none"}, "square"),
        ({}, "square"),
    ],
)
def test_the_lattice_is_the_recorded_one_else_that_of_the_technology_or_pitch(array, lattice):
    assert grid_of({"array": array}).lattice == lattice


def test_a_grid_like_several_arrays_is_like_the_finest_of_them():
    several = {"pitch_um": [200.0, 100.0], "diameter_um": [100.0, 55.0], "lattice": ["hex", "square"]}
    assert grid_of({"array": several}) == Grid(100.0, 55.0, "hex")
    assert grid_of({"array": several}, 200.0) == Grid(200.0, 55.0, "hex")


@pytest.mark.parametrize("card", [{}, {"array": None}, {"array": "ST"}, {"array": {"pitch_um": "200"}}])
def test_a_grid_is_laid_for_weights_whose_card_states_no_array(card):
    assert grid_of(card) == Grid(200.0, 100.0, "square")


def test_distances_asked_for_replace_those_of_the_weights():
    assert grid_of(ST) == Grid(200.0, 100.0, "square")
    assert grid_of(ST, 80.0) == Grid(80.0, 80.0, "square")  # spots never overlap unasked
    assert grid_of(ST, 80.0, 55.0) == Grid(80.0, 55.0, "square")


def test_a_slide_opened_here_is_closed_again_when_something_is_wrong(tissue, monkeypatch):
    closed = []

    def opened(path, mpp=None):
        slide = open_slide(path, mpp=mpp)
        monkeypatch.setattr(type(slide), "close", lambda self: closed.append(self.path.name))
        return slide

    monkeypatch.setattr(inputs, "open_slide", opened)
    with pytest.raises(UserError, match="how large a pixel is"):
        finish(prepare(tissue, checkpoint()))
    assert closed == ["C9.png"]
    with opened(tissue) as slide, pytest.raises(UserError):
        finish(prepare(slide, checkpoint()))
    assert closed == ["C9.png", "C9.png"]  # the second by its owner, not by `prepare`


def test_spots_genes_and_polygons_may_be_given_instead_of_files(tissue):
    spots = Spots(("a", "b"), np.array([[100.0, 100.0], [400.0, 300.0]]))
    region = [shapely.box(0, 0, 200, 200)]
    steps = prepare(tissue, checkpoint(), spots=spots, mpp=2.0, region=region, genes=["HER2", "VIM"])
    prepared = finish(steps)
    with prepared.slide:
        assert prepared.spots.ids == ("a", "b")
        assert prepared.genes == ["ERBB2", "VIM"]
        assert prepared.region == region
        assert prepared.slide.mpp == 2.0


def test_genes_the_weights_do_not_know_are_named():
    with pytest.raises(UserError, match=r"(?s)do not know.*NOTAGENE"):
        finish(prepare(FakeSlide(), checkpoint(), genes=["NOTAGENE"]))


@pytest.mark.parametrize(
    ("given", "symbols"),
    [
        (["estrogen receptor"], ["ESR1"]),
        ("estrogen receptor", ["ESR1"]),
        (["HER2, KI67"], ["ERBB2", "MKI67"]),
        ("HER2, KI67", ["ERBB2", "MKI67"]),
        (("ki 67", "HER2", "KI67"), ["MKI67", "ERBB2"]),
    ],
)
def test_genes_given_in_memory_mean_the_same_in_predict_and_export(given, symbols):
    weights = SimpleNamespace(genes=["ERBB2", "ESR1", "MKI67"], name="fake")
    assert choose_genes(given, weights) == symbols
    assert symbols_of(weights.genes, given) == symbols


class CountingSlide(FakeSlide):
    """Counts every reading of its pixels."""

    reads = 0

    def read_region(self, *window, **options):
        self.reads += 1
        return super().read_region(*window, **options)

    def thumbnail(self, *longest):
        self.reads += 1
        return super().thumbnail(*longest)

    def in_colours(self, colours):
        return self


@pytest.mark.parametrize("other", ["seed", "panel", "weights", "quality"])
def test_a_second_prediction_of_an_open_slide_reads_no_pixel(
    other, tiny_checkpoint, tiny_spots, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    slide = CountingSlide(width=1500, height=1200, mpp=0.683)
    slide.path = tmp_path / "slide.svs"
    slide.path.touch()

    def predict(checkpoint=tiny_checkpoint, genes=None, **options):
        given = finish(prepare(slide, checkpoint, spots=tiny_spots, genes=genes))
        return finish(predict_inputs(given, checkpoint, device="cpu", **options))

    first = predict()
    before = slide.reads
    assert before >= len(tiny_spots)
    if other == "seed":
        again = predict(seed=1)
    elif other == "panel":
        again = predict(genes=GENES[:2])
    elif other == "quality":
        again = predict(quality="fast")
    else:
        tensors = {name: t for name, t in tiny_checkpoint.tensors.items() if name.startswith("encoder.")}
        encoder = {name.removeprefix("encoder."): t for name, t in tensors.items()}
        path = tmp_path / "other.safetensors"
        network = tiny_network()
        network.get_buffer("slide_location").fill_(3.0)
        save_checkpoint(path, network, encoder, encoder="embedded", genes=GENES, card=tiny_checkpoint.card)
        again = predict(Checkpoint.load(path))
        assert (again.X != first.X).any()
    assert slide.reads == before
    assert again.n_obs == first.n_obs
    assert (again.n_vars != first.n_vars) == (other == "panel")


def no_pixel(*_):
    pytest.fail("a pixel was decoded")


@pytest.mark.parametrize("where", ["table", "grid"])
def test_a_slide_that_is_opened_again_is_predicted_without_decoding_a_pixel(
    where, tiny_checkpoint, tiny_spots, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    image = tissue_picture(1500, 1200, (300, 300, 1100, 900))
    if where == "table":
        path, reader = tmp_path / "slide.png", ImageReader
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        Image.fromarray(image).save(path, icc_profile=profile)
        given, colours = {"spots": tiny_spots}, "srgb"
    else:
        path, reader = plain_tiff(tmp_path / "slide.tif", image, tile=(256, 256)), TiffReader
        given, colours = {"spacing_um": 250.0}, "scanned"

    def predict(**options):
        found = finish(prepare(path, tiny_checkpoint, mpp=0.683, **given))
        with found.slide:
            return finish(predict_inputs(found, tiny_checkpoint, device="cpu", colours=colours, **options))

    first = predict()
    for reading in ("read", "rows"):
        monkeypatch.setattr(reader, reading, no_pixel)
    again = predict(seed=1)
    np.testing.assert_array_equal(again.X, first.X)
    assert list(again.obs_names) == list(first.obs_names)
    pictures = [next(iter(found.uns[keys.SPATIAL].values()))["images"]["hires"] for found in (first, again)]
    np.testing.assert_array_equal(*pictures)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"quality": "great"}, "There is no quality 'great'; give one of fast, balanced, best"),
        ({"colours": "rgb"}, 'names the colours "rgb"'),
        ({"draws": "3"}, "draws='3' is no whole number from 1 on"),
        ({"draws": 0}, "draws=0 is no whole number from 1 on"),
        ({"seed": -1}, "seed=-1 is no whole number from 0 on"),
        ({"seed": None}, "seed=None is no whole number from 0 on"),
    ],
)
def test_options_that_there_are_none_of_are_refused_in_a_sentence(options, said):
    given = inputs.Inputs(FakeSlide(), Spots(("a",), np.array([[100.0, 100.0]])))
    with pytest.raises(UserError, match=said):
        finish(predict_inputs(given, checkpoint(), **options))


def test_an_alignment_of_nothing_is_refused():
    with pytest.raises(
        UserError, match=r"and none are given; give them \(--measured\), or leave --alignment"
    ):
        finish(prepare(FakeSlide(), checkpoint(), alignment="matrix.csv"))


@pytest.mark.parametrize("in_memory", [False, True])
def test_the_scale_given_is_that_of_the_full_resolution_slide_also_of_a_smaller_copy(tmp_path, in_memory):
    outs = space_ranger(tmp_path)
    copy = outs / "spatial" / "tissue_hires_image.png"
    given = open_slide(copy) if in_memory else copy
    prepared = finish(prepare(given, checkpoint(), spots=outs, mpp=0.25))
    with prepared.slide as slide:
        scale = read_spots(outs, slide=slide).image_scale
        assert scale != 1
        assert slide.mpp == pytest.approx(0.25 / scale)
        assert slide.mpp_source == "set by hand for the full-resolution slide"
