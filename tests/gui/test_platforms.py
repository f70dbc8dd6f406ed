"""SpatialData zarrs, and Visium HD and Xenium runs, dropped: asked about where unclear, and pooled."""

# ruff: noqa: F811  fixtures of test_opening

import numpy as np
import pytest
from tests.fakes import fake_prediction
from tests.gui.test_opening import _apart, dock, names, start  # noqa: F401
from tests.platform_files import GENES, MPP, SIDE_PX, TISSUE, he_image, visium_hd, xenium
from tests.slides import test_spatial_data as stores

from napari_flag import keys
from napari_flag.discovery import counts_for, discover
from napari_flag.gui.compare_dock import CompareDock
from napari_flag.gui.reader import get_reader
from napari_flag.prediction_file import write_prediction
from napari_flag.progress import finish

pytestmark = pytest.mark.slow


@pytest.fixture
def answers(dock, monkeypatch):
    """What a person answers when asked for elements, in turn; and the questions."""
    given, asked = [], []

    def answer(question):
        asked.append((question.option, question.names))
        return given.pop(0)

    monkeypatch.setattr(dock.opener, "ask_element", answer)
    monkeypatch.setattr(dock.opener, "ask_unit", lambda file: "log1p")
    return given, asked


def opened(dock, *paths):
    dock.opener.open(paths)
    dock.rest()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One image, its shapes, counts of them and another model's prediction."""
    images, shapes, tables, _ = stores.elements()
    tables["stpath"] = tables["table"].copy()
    tables["stpath"].X = np.log1p(tables["table"].X.toarray() + 0.5)
    folder = tmp_path_factory.mktemp("zarr")
    return stores.write(folder / "P3.zarr", images=images, shapes=shapes, tables=tables)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two H&E images, two sets of spots with their tables of counts, and a prediction of the first."""
    images, shapes, tables, pixels = stores.elements()
    tables["stpath"] = tables["table"].copy()
    tables["stpath"].X = np.log1p(tables["table"].X.toarray() + 0.5)
    images["other"] = stores.picture_of(pixels, elsewhere=np.eye(3))
    shapes["far"] = stores.circles_of(stores.spots_px(), elsewhere=np.eye(3))
    tables["of_far"] = stores.table_of("far", np.arange(100, 130), [f"far{i}" for i in range(30)])
    folder = tmp_path_factory.mktemp("several")
    return stores.write(folder / "P4.zarr", images=images, shapes=shapes, tables=tables)


def test_a_zarr_brings_image_spots_counts_and_the_prediction_on_them(dock, answers, qtbot, store):
    opened(dock, store)
    qtbot.waitUntil(lambda: dock.session.adata is not None, timeout=10_000)
    dock.rest()
    [state] = dock.session.workspace.slides
    assert (state.name, [result.name for result in state.results]) == ("P3_he", ["stpath"])
    assert answers[1] == []
    assert dock.section.spots.ids == tuple(dock.session.adata.obs_names)
    np.testing.assert_allclose(dock.session.adata.obsm["spatial"], dock.section.spots.xy)
    truth = state.measured[list(dock.session.adata.obs_names), stores.GENES].X.toarray()
    compared = dock.session.adata[:, stores.GENES].layers[keys.MEASURED]
    np.testing.assert_allclose(compared, np.log2(truth + 1), rtol=1e-6)


def test_of_several_elements_each_is_asked_for_once(dock, answers, qtbot, several):
    given, asked = answers
    given += ["he", "table"]
    opened(dock, several)
    qtbot.waitUntil(lambda: len(asked) == 2, timeout=10_000)
    qtbot.waitUntil(lambda: dock.session.adata is not None, timeout=10_000)
    dock.rest()
    assert asked == [("image", ("he", "other")), ("table", ("of_far", "table"))]
    assert names(dock) == ["P4_he"]
    assert dock.section.spots.ids == tuple(dock.session.adata.obs_names)
    np.testing.assert_allclose(dock.session.adata.obsm["spatial"], dock.section.spots.xy)
    assert not any("--image" in text for text in dock.messages.texts)


def test_who_does_not_choose_is_left_with_what_was_open(dock, answers, qtbot, several):
    answers[0].append(None)
    opened(dock, several)
    qtbot.waitUntil(lambda: bool(answers[1]), timeout=10_000)
    assert dock.messages.texts == ("P4.zarr was not opened, since none of its 2 colour images was chosen.",)
    assert names(dock) == []


def test_napari_opens_a_zarr_of_spatialdata_and_leaves_others(several, tmp_path):
    (tmp_path / "plain.zarr").mkdir()
    assert get_reader(str(several)) is not None
    assert get_reader(str(tmp_path / "plain.zarr")) is None
    assert get_reader(str(tmp_path)) is None


def test_the_bins_of_a_visium_hd_run_are_pooled_into_the_grid(dock, qtbot, tmp_path):
    truth = visium_hd(tmp_path / "P1")
    opened(dock, tmp_path / "P1")
    qtbot.waitUntil(lambda: dock.section.measured is not None, timeout=30_000)
    counts, spots = dock.section.measured, dock.section.spots
    place = dict(zip(spots.ids, spots.xy * MPP, strict=True))
    assert counts.n_obs > 5
    expected = [truth.in_disc(place[name], spots.diameter_um) for name in counts.obs_names]
    np.testing.assert_array_equal(counts[:, GENES].X.toarray(), expected)


@pytest.fixture
def prediction():
    """A prediction of 36 spots on the tissue of `he_image`, without counts."""
    adata = fake_prediction(36, n_genes=len(GENES), measured=False)
    adata.var_names = GENES
    steps = np.linspace(TISSUE[0] + 200, TISSUE[2] - 200, 6)
    adata.obsm[keys.SPATIAL] = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    adata.uns[keys.PROVENANCE] |= {
        keys.SLIDE_NAME: "P5", keys.SLIDE_WIDTH: SIDE_PX, keys.SLIDE_HEIGHT: SIDE_PX,
        keys.MPP: MPP, keys.SPOT_DIAMETER_UM: 100.0,
    }  # fmt: skip
    return adata


@pytest.fixture
def on_slide(prediction, tmp_path):
    """The file of such a prediction, beside its slide and a Xenium run."""
    he_image(tmp_path / "P5.tif")
    truth = xenium(tmp_path / "run")["transcripts"]
    write_prediction(prediction, tmp_path / "P5.h5ad")
    centres = prediction.obsm[keys.SPATIAL] * MPP
    return tmp_path, np.log2(1 + np.array([truth.in_disc(centre, 100.0) for centre in centres]))


def test_a_xenium_run_dropped_on_a_prediction_is_pooled_into_its_spots(dock, qtbot, on_slide):
    folder, expected = on_slide
    opened(dock, folder / "P5.h5ad")
    qtbot.waitUntil(lambda: dock.session.adata is not None, timeout=10_000)
    dock.rest()
    opened(dock, folder / "run")
    qtbot.waitUntil(lambda: dock.session.measured is not None, timeout=30_000)
    np.testing.assert_allclose(dock.session.adata.layers[keys.MEASURED], expected, rtol=1e-6)
    assert any("of the counts" in text for text in dock.messages.texts)


def test_the_compare_dock_pools_as_the_command_line_does(viewer, qtbot, on_slide, prediction):
    folder, expected = on_slide
    dock = CompareDock(viewer)
    dock.session.set_prediction(prediction)
    dock.read_counts(folder / "run/transcripts.parquet")
    qtbot.waitUntil(lambda: dock.session.measured is not None, timeout=30_000)
    np.testing.assert_allclose(dock.session.adata.layers[keys.MEASURED], expected, rtol=1e-6)
    counts, said = finish(counts_for(prediction, folder / "run", beside=folder / "P5.h5ad"))
    np.testing.assert_allclose(np.log2(1 + counts[:, GENES].X.toarray()), expected, rtol=1e-6)
    assert not any("not checked" in sentence for sentence in said)
    _, said = finish(counts_for(prediction, folder / "run"))
    assert any("not checked" in sentence for sentence in said)
    dock.close()


def test_a_xenium_run_is_found_with_the_only_slide_in_its_folder(tmp_path):
    xenium(tmp_path / "run")
    assert discover(tmp_path / "run").tables == (tmp_path / "run",)
    he_image(tmp_path / "run" / "P5.tif")
    [section] = discover(tmp_path / "run").sections
    assert (section.slide.name, section.table, section.measured) == ("P5.tif", None, tmp_path / "run")
