"""Whatever a person drops goes to the slide it belongs to, in whatever order."""

import json
import shutil
import threading
import time
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from napari.layers import Layer
from qtpy.compat import isalive
from shapely.geometry import box
from tests.fakes import fake_prediction
from tests.slide_files import aperio_svs, plain_image, tissue_picture
from tests.spot_files import st_table

from napari_flag import inputs, keys
from napari_flag.analysis import truth
from napari_flag.errors import UserError
from napari_flag.gui import opening, reader
from napari_flag.gui.keeping import CloseQuestion, regions_of
from napari_flag.gui.predict.predict_dock import PredictDock
from napari_flag.layers import slide_layers
from napari_flag.model import checkpoint
from napari_flag.prediction_file import write_prediction
from napari_flag.progress import Step
from napari_flag.slides.file_identity import content_hash
from napari_flag.slides.formats.geojson import Annotation, write_annotations
from napari_flag.slides.slide import open_slide
from napari_flag.workspace_file import WorkspaceFile, WorkspacePrediction, WorkspaceSlide, write_workspace

SIDE = 2000
"""A picture this long is taken for a slide."""


@pytest.fixture(autouse=True)
def _apart(monkeypatch):
    monkeypatch.setattr(checkpoint, "list_weights", lambda: ())


@pytest.fixture
def start(viewer, qtbot, tmp_path, monkeypatch):
    """Return a function that opens the Predict dock at rest."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    docks = []

    def rest(dock):
        qtbot.waitUntil(lambda: not dock.jobs.active and dock._watch.settled, timeout=30_000)

    def make():
        dock = PredictDock(viewer)
        docks.append(dock)
        dock.rest = lambda: qtbot.waitUntil(
            lambda: not dock.jobs.active and dock._watch.settled, timeout=30_000
        )
        dock.rest()
        return dock

    yield make
    for dock in docks:
        if isalive(dock):
            dock.close()


@pytest.fixture
def dock(start):
    return start()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Return a function that gives a slide with tissue in its middle, written once per seed."""
    folder = tmp_path_factory.mktemp("written")

    @lru_cache
    def write(seed):
        return aperio_svs(folder / f"{seed}.svs", tissue_picture(SIDE, SIDE, (300, 300, 1800, 1800), seed))

    return write


@pytest.fixture
def slide_file(tmp_path, written):
    """Return a function that puts such a slide, under a name of its own, into the test's folder."""
    return lambda name, seed=0: Path(shutil.copyfile(written(seed), tmp_path / f"{name}.svs"))


def of_slide(name, n_spots=16, seed=0, size=(SIDE, SIDE)):
    adata = fake_prediction(n_spots, seed=seed)
    recorded = adata.uns[keys.PROVENANCE]
    recorded[keys.SLIDE_NAME] = name
    recorded[keys.SLIDE_WIDTH], recorded[keys.SLIDE_HEIGHT] = size
    return adata


def prediction_file(path, name, **options):
    write_prediction(of_slide(name, **options), path)
    return path


def names(dock):
    return [state.name for state in dock.session.workspace.slides]


def test_a_slide_is_opened_and_shown(dock, slide_file):
    dock.opener.open([slide_file("A")])
    dock.rest()
    assert names(dock) == ["A"]
    assert dock.section.slide.mpp == pytest.approx(0.5)
    assert dock.section.spots is not None


def test_what_is_opened_while_others_are_being_opened_ends_none_of_them(dock, slide_file, tmp_path):
    (tmp_path / "other").mkdir()
    twin = Path(shutil.copyfile(slide_file("A"), tmp_path / "other" / "A.svs"))
    (tmp_path / "notes.txt").write_text("hello")
    dock.opener.open([slide_file("B"), tmp_path / "notes.txt"])
    dock.opener.open([slide_file("C", 1), slide_file("D")])
    dock.opener.open([slide_file("A")])
    dock.opener.open([twin])
    dock.rest()
    assert sorted(names(dock)) == ["A", "A (2)", "B", "C", "D"]
    assert any("notes.txt" in text for text in dock.messages.texts)


def test_an_h5ad_brings_its_slide_and_its_spots(dock, slide_file, tmp_path):
    slide_file("A")
    dock.opener.open([prediction_file(tmp_path / "A_predicted.h5ad", "A")])
    dock.rest()
    (state,) = dock.session.workspace.slides
    assert state.slide.path.name == "A.svs"
    assert state.layer.visible
    assert dock.messages.texts == ()
    assert dock.spots_step.messages.texts == ()
    assert dock.session.adata.n_obs == len(dock.section.spots) == 16
    assert state.shown.file == tmp_path / "A_predicted.h5ad"
    assert not dock.session.workspace.unsaved


@pytest.mark.slow
@pytest.mark.parametrize("slide_first", [True, False])
def test_slide_and_prediction_find_each_other_in_any_order(dock, slide_file, tmp_path, slide_first):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    file = prediction_file(folder / "p.h5ad", "A")
    order = [slide_file("A"), file]
    for path in order if slide_first else order[::-1]:
        dock.opener.open([path])
        dock.rest()
    (state,) = dock.session.workspace.slides
    assert (state.slide.name, len(state.results)) == ("A", 1)
    assert not [text for text in dock.messages.texts if "went wrong" in text]


def test_a_prediction_of_another_slide_is_not_put_on_the_one_that_is_open(dock, slide_file, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    dock.opener.open([slide_file("A")])
    dock.rest()
    dock.opener.open([prediction_file(tmp_path / "elsewhere" / "p.h5ad", "B")])
    dock.rest()
    assert names(dock) == ["A", "B"]
    assert not dock.session.workspace.slides[0].results


@pytest.mark.slow
@pytest.mark.parametrize("slide_first", [True, False])
def test_regions_go_to_the_slide_they_are_named_after(dock, slide_file, tmp_path, slide_first):
    corners = box(400, 500, 900, 1100)
    file = tmp_path / "B_regions.geojson"
    write_annotations([Annotation("tumour", (corners,))], file)
    slides = [slide_file("A"), slide_file("B", 1)]
    for path in [*slides[::-1], file] if slide_first else [file, slides[1], slides[0]]:
        dock.opener.open([path])
        dock.rest()
    by_name = {state.name: state for state in dock.session.workspace.slides}
    assert not regions_of(dock.session, by_name["A"])
    (region,) = regions_of(dock.session, by_name["B"])
    assert region.name == "tumour"
    assert region.polygons[0].symmetric_difference(corners).area < 1.0


@pytest.mark.slow
def test_regions_travel_in_the_h5ad(dock, start, slide_file, tmp_path, qtbot):
    dock.opener.open([slide_file("A")])
    dock.rest()
    dock.session.set_prediction(of_slide("A"))
    file = tmp_path / "tumour.geojson"
    write_annotations([Annotation("tumour", (box(400, 500, 900, 1100),))], file)
    dock.opener.open([file])
    dock.rest()
    dock.save(tmp_path / "A.h5ad")
    dock.rest()
    dock.session.workspace.remove(dock.session.state)
    assert names(dock) == []
    dock.opener.open([tmp_path / "A.h5ad"])
    dock.rest()
    (region,) = regions_of(dock.session, dock.session.state)
    assert region.name == "tumour"
    dock.opener.open([tmp_path / "A.h5ad"])  # what is drawn already is not drawn twice
    dock.rest()
    assert len(regions_of(dock.session, dock.session.state)) == 1


def test_a_thousand_regions_are_compared_with_those_drawn_in_a_moment():
    def regions(name, side):
        corners = ((x, y) for x in range(0, 3200, 100) for y in range(0, 3200, 100))
        return [Annotation(name, (box(x, y, x + side, y + side),)) for x, y in corners]

    drawn, renamed, wider = regions("drawn", 120), regions("renamed", 120.01), regions("wider", 130)
    begun = time.perf_counter()
    assert opening._not_drawn([*renamed, *wider], drawn) == wider
    assert time.perf_counter() - begun < 5


def test_counts_are_attached_to_the_prediction_they_belong_to_by_a_job(
    dock, slide_file, tmp_path, monkeypatch
):
    slide_file("A")
    dock.opener.open([prediction_file(tmp_path / "A.h5ad", "A")])
    dock.rest()
    adata = dock.session.adata
    counts = AnnData(np.full(adata.shape, 3.0, np.float32), obs=adata.obs[[]], var=adata.var[[]])
    counts.write_h5ad(tmp_path / "counts.h5ad")
    threads, shared_counts = [], truth.shared_counts

    def watched(*given):
        threads.append(threading.current_thread())
        return shared_counts(*given)

    monkeypatch.setattr(truth, "shared_counts", watched)
    dock.opener.open([tmp_path / "counts.h5ad"])
    dock.rest()
    assert threads
    assert threading.main_thread() not in threads
    assert dock.session.measured is not None
    np.testing.assert_allclose(dock.session.adata.layers[keys.MEASURED], 2.0)


@pytest.mark.slow
def test_a_folder_of_slides_is_opened_whole_and_its_spots_are_found(dock, slide_file, tmp_path):
    for name in ("A", "B", "C"):
        slide_file(name)
    st_table(tmp_path / "B.tsv")
    dock.opener.open([tmp_path])
    dock.rest()
    assert sorted(names(dock)) == ["A", "B", "C"]
    assert all(state.table is not None for state in dock.session.workspace.slides)
    by_name = {state.name: state for state in dock.session.workspace.slides}
    assert by_name["B"].from_table
    visible = [la for la in dock.session.viewer.layers if la.visible]
    assert {dock.session.workspace.of_layer(layer) for layer in visible} == {dock.session.state}


def test_a_workspace_brings_back_all_of_it(dock, start, slide_file, tmp_path):
    for name, seed in (("A", 0), ("B", 1)):
        dock.opener.open([slide_file(name, seed)])
        dock.rest()
        dock.session.set_prediction(of_slide(name, seed=seed))
    dock.session.set_prediction(of_slide("A", seed=7))
    dock.session.select_gene("VIM")
    a, b = dock.session.workspace.slides
    dock.section.set_mpp(0.6, "set by hand", b)
    dock.keeper.save_workspace(tmp_path / "BOTH.JSON")
    dock.rest()
    assert not dock.session.workspace.unsaved
    expected = [(s.name, s.slide.mpp, [r.name for r in s.results]) for s in (a, b)]
    shown = a.adata.X.copy()
    for state in (a, b):
        dock.session.workspace.remove(state)
    dock.opener.open([tmp_path / "BOTH.JSON"])
    dock.rest()
    again = dock.session.workspace.slides
    assert [(s.name, s.slide.mpp, [r.name for r in s.results]) for s in again] == expected
    assert (dock.session.state, dock.session.gene) == (again[0], "VIM")
    np.testing.assert_allclose(dock.session.adata.X, shown)


@pytest.fixture
def three_predictions(slide_file, tmp_path):
    """A workspace of slide A with a region and three predictions, of which the second was shown."""
    paths = [prediction_file(tmp_path / f"{n}.h5ad", "A", seed=n) for n in (1, 2, 3)]
    slide = WorkspaceSlide(
        "A",
        slide_file("A"),
        predictions=tuple(WorkspacePrediction(f"Run {path.stem}", path) for path in paths),
        shown=1,
        regions=(Annotation("tumour", (box(400, 500, 900, 1100),)),),
    )
    write_workspace(WorkspaceFile((slide,)), tmp_path / "three.json")
    return tmp_path / "three.json"


@pytest.mark.parametrize("damaged", [True, False])
def test_of_a_workspace_without_one_prediction_the_rest_opens_and_the_same_one_is_shown(
    dock, three_predictions, damaged
):
    first = three_predictions.with_name("1.h5ad")
    if damaged:
        first.write_bytes(first.read_bytes()[:3000])
    else:
        first.unlink()
    dock.opener.open([three_predictions])
    dock.rest()
    (state,) = dock.session.workspace.slides
    assert [result.name for result in state.results] == ["Run 2", "Run 3"]
    assert state.shown.name == "Run 2"
    assert state.slide is not None
    assert [region.name for region in regions_of(dock.session, state)] == ["tumour"]
    assert [text for text in dock.messages.texts if "1.h5ad" in text]


def test_a_workspace_shows_its_prediction_also_where_the_slide_has_others(dock, three_predictions, tmp_path):
    dock.opener.open([prediction_file(tmp_path / "other.h5ad", "A", seed=9)])
    dock.rest()
    dock.opener.open([three_predictions])
    dock.rest()
    (state,) = dock.session.workspace.slides
    assert [result.name for result in state.results] == ["other", "Run 1", "Run 2", "Run 3"]
    assert state.shown.name == "Run 2"


def test_the_predictions_of_a_workspace_open_without_their_slide_that_is_damaged(dock, three_predictions):
    three_predictions.with_name("A.svs").write_bytes(b"II*\0 no slide")
    dock.opener.open([three_predictions])
    dock.rest()
    (state,) = dock.session.workspace.slides
    assert [result.name for result in state.results] == ["Run 1", "Run 2", "Run 3"]
    assert [text for text in dock.messages.texts if "A.svs" in text]


def test_a_prediction_whose_regions_are_damaged_is_shown_without_them(dock, slide_file, tmp_path):
    slide_file("A")
    adata = of_slide("A")
    adata.uns[keys.PROVENANCE][keys.REGIONS] = "{"
    write_prediction(adata, tmp_path / "A.h5ad")
    dock.opener.open([tmp_path / "A.h5ad"])
    dock.rest()
    (state,) = dock.session.workspace.slides
    assert state.shown.file == tmp_path / "A.h5ad"
    assert [
        text for text in dock.messages.texts if "regions kept in this prediction could not be read" in text
    ]


@pytest.mark.slow
def test_what_was_not_saved_comes_back_with_the_next_session(dock, start, undock, slide_file, qtbot):
    dock.opener.open([slide_file("A")])
    dock.rest()
    dock.session.set_prediction(of_slide("A"))
    dock.keeper.autosave()
    qtbot.waitUntil(lambda: not dock.keeper._own.active)
    (result,) = dock.session.workspace.unsaved
    assert result.autosave.exists()
    dock.session.workspace.remove(dock.session.state)
    undock(dock)
    qtbot.waitUntil(lambda: not isalive(dock), timeout=10_000)
    again = start()
    assert again.keeper.last is not None
    again.keeper.restore(again.opener.open)
    again.rest()
    (state,) = again.session.workspace.slides
    assert (state.name, state.slide.name, len(state.unsaved)) == ("A", "A", 1)


def test_what_cannot_be_opened_is_said_and_the_rest_is_opened(dock, slide_file, tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "broken.json").write_text(json.dumps({"napari_flag_workspace": "x"}))
    dock.opener.open([tmp_path / "notes.txt", tmp_path / "broken.json", slide_file("A")])
    dock.rest()
    assert names(dock) == ["A"]
    assert any("notes.txt" in text for text in dock.messages.texts)
    assert any("broken.json" in text for text in dock.messages.texts)


@pytest.mark.slow
def test_a_slide_without_pyramid_is_there_at_once_and_filled_when_it_is_built(
    dock, tmp_path, viewer, monkeypatch
):
    import napari

    file = plain_image(
        tmp_path / "plain.png", tissue_picture(4200, 2000, (300, 300, 1800, 1800)), compress_level=1
    )
    monkeypatch.setattr(napari, "current_viewer", lambda: viewer)
    end = reader.register(viewer, dock.opener)
    (layer,) = viewer.open(file, plugin="napari-flag")
    assert dock.section.slide is not None
    assert np.asarray(layer.data[0][0:4, 0:4]).min() == np.asarray(layer.data[0][0:4, 0:4]).max()
    dock.rest()
    end()
    assert len(layer.data) > 1
    assert np.asarray(layer.data[0][900:908, 900:908]).std() > 0
    assert dock.session.workspace.of_layer(layer) is dock.session.state


@pytest.fixture
def in_grey(slide_file, viewer, monkeypatch):
    """Return a function that shows slide A in grey; its pyramid is built, or fails, after `released`."""
    released = threading.Event()

    def build(path):
        while not released.wait(0.02):
            yield Step("Building a pyramid", 0)
        if released.error is not None:
            raise released.error
        return open_slide(path)

    def show():
        layer = Layer.create(*slide_layers.placeholder_layer(open_slide(slide_file("A"))))
        return viewer.add_layer(layer)

    monkeypatch.setattr(inputs, "open_with_pyramid", build)
    show.released, released.error = released, None
    yield show
    released.set()


def is_grey(layer):
    return np.ptp(np.asarray(layer.data[0][900:908, 900:908])) == 0


@pytest.mark.parametrize("deleted", [False, True])
def test_a_grey_slide_goes_when_building_its_pyramid_is_cancelled(dock, in_grey, viewer, deleted):
    layer = in_grey()
    assert dock.jobs.active
    if deleted:
        viewer.layers.remove(layer)
    dock.jobs.cancel_all()
    dock.rest()
    assert layer not in viewer.layers


def test_a_grey_slide_whose_pyramid_cannot_be_built_goes_and_it_is_said_why(dock, in_grey, viewer):
    in_grey.released.error = UserError("The drive is full; make room there.")
    layer = in_grey()
    in_grey.released.set()
    dock.rest()
    assert layer not in viewer.layers
    assert dock.messages.texts == ("The drive is full; make room there.",)


def test_a_slide_left_in_grey_is_filled_once_the_area_is_open_again(start, in_grey, undock):
    first = start()
    layer = in_grey()
    undock(first)
    in_grey.released.set()
    again = start()
    assert not is_grey(layer)
    assert again.session.workspace.of_layer(layer) is again.session.state


@pytest.fixture
def window(make_napari_viewer, qtbot):
    from napari_flag.gui.area import open_area

    viewer = make_napari_viewer()
    area = open_area(viewer)
    rest = lambda: qtbot.waitUntil(lambda: not area.predict.jobs.active, timeout=30_000)  # noqa: E731
    rest()
    yield viewer, area, rest
    rest()


def test_what_the_first_slide_needs_is_spared_of_searches_for_garbage_and_no_slide_is(
    window, slide_file, monkeypatch
):
    viewer, area, rest = window
    spared, read = [], []
    real_open = inputs.open_with_pyramid
    monkeypatch.setattr(opening, "spare_loaded", lambda of, again: spared.append((of, len(read))))
    monkeypatch.setattr(inputs, "open_with_pyramid", lambda path: read.append(path) or real_open(path))
    for name in ("A", "B"):
        area.predict.opener.open([slide_file(name)])
        rest()
        area.session.workspace.remove(area.session.state)
        rest()
    assert spared == [(viewer, 0)]
    assert len(read) == 2


class SpontaneousClose:
    """A close event as the window system sends it; Qt's own cannot be made so."""

    def __init__(self):
        self.ignored = False

    def type(self):
        from qtpy.QtCore import QEvent

        return QEvent.Type.Close

    def spontaneous(self):
        return True

    def ignore(self):
        self.ignored = True


def test_closing_asks_once_and_only_where_something_is_not_saved(window, slide_file, qtbot, monkeypatch):
    viewer, area, rest = window
    asked = []
    monkeypatch.setattr(CloseQuestion, "confirmed", lambda self, count: asked.append(count) or False)
    question = viewer.window._qt_window.findChild(CloseQuestion)
    area.predict.opener.open([slide_file("A")])
    rest()
    area.session.set_prediction(of_slide("A"))
    event = SpontaneousClose()
    assert question.eventFilter(viewer.window._qt_window, event)
    assert (asked, event.ignored) == ([1], True)
    area.session.workspace.saved(area.session.adata, Path("kept.h5ad"))
    assert not area.session.workspace.unsaved


@pytest.mark.slow
def test_a_prediction_whose_slide_has_another_name_is_given_it_by_hand(dock, slide_file, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    dock.opener.open([prediction_file(tmp_path / "elsewhere" / "p.h5ad", "A")])
    dock.rest()
    (state,) = dock.session.workspace.slides
    small = aperio_svs(tmp_path / "small.svs", tissue_picture(900, 800, (100, 100, 600, 600)))
    dock.opener.open_slide_of(state, small)
    dock.rest()
    assert state.slide is None
    assert "900 × 800 px" in dock.messages.texts[-1]
    dock.opener.open_slide_of(state, slide_file("renamed"))
    dock.rest()
    assert state.slide.name == "renamed"
    assert state.layer.visible
    assert dock.session.gene_map.layer(dock.session.gene_map.quantity).visible


def with_hash(path, name, slide):
    adata = of_slide(name)
    adata.uns[keys.PROVENANCE][keys.SLIDE_HASH] = content_hash(slide)
    write_prediction(adata, path)
    return path


def test_a_prediction_under_a_neutral_name_finds_its_slide_by_content(dock, slide_file, tmp_path):
    slide = slide_file("Smith_John")
    dock.opener.open([with_hash(tmp_path / "p.h5ad", "anonymous-12345678", slide)])
    dock.rest()
    assert names(dock) == ["Smith_John"]
    [state] = dock.session.workspace.slides
    assert state.slide.path == slide
    assert state.shown.file == tmp_path / "p.h5ad"


@pytest.fixture
def of_one_name(slide_file, tmp_path):
    """Two slides of one name and size, in folders of their own."""
    slides = []
    for seed, folder in enumerate(("one", "two")):
        (tmp_path / folder).mkdir()
        slides.append(slide_file("A", seed).rename(tmp_path / folder / "A.svs"))
    return slides


@pytest.mark.parametrize("both_open", [True, False])
def test_of_two_slides_of_one_name_a_prediction_goes_to_that_of_its_content(
    dock, of_one_name, tmp_path, both_open
):
    for path in of_one_name[: 1 + both_open]:
        dock.opener.open([path])
        dock.rest()
    dock.session.workspace.show(dock.session.workspace.slides[0])
    dock.opener.open([with_hash(tmp_path / "two" / "p.h5ad", "A", of_one_name[1])])
    dock.rest()
    assert names(dock) == ["A", "A (2)"]
    first, second = dock.session.workspace.slides
    assert (first.results, len(second.results)) == ([], 1)
    assert second.slide.path == of_one_name[1]
    assert not [text for text in dock.messages.texts if "its content is another" in text]


def test_of_two_slides_of_one_name_regions_go_to_that_in_their_folder(dock, of_one_name, tmp_path):
    for path in of_one_name:
        dock.opener.open([path])
        dock.rest()
    for folder, there in (("two", [0, 1]), ("one", [1, 1])):
        file = tmp_path / folder / "A_regions.geojson"
        write_annotations([Annotation("tumour", (box(400, 500, 900, 1100),))], file)
        dock.opener.open([file])
        dock.rest()
        assert [len(regions_of(dock.session, state)) for state in dock.session.workspace.slides] == there


def test_a_prediction_opened_twice_is_shown_once_unless_it_or_its_file_was_changed(
    dock, slide_file, tmp_path
):
    path = prediction_file(tmp_path / "p.h5ad", slide_file("A").stem)
    for count in (1, 1):
        dock.opener.open([path])
        dock.rest()
        (state,) = dock.session.workspace.slides
        assert len(state.results) == count
    assert any("p.h5ad is open already, as p." in text for text in dock.messages.texts)
    first = state.shown
    dock.session.workspace.changed(first.adata)
    dock.opener.open([path])
    dock.rest()
    assert [result.name for result in state.results] == ["p", "p (2)"]
    prediction_file(path, "A", seed=3)
    dock.opener.open([path])
    dock.rest()
    assert [result.name for result in state.results] == ["p", "p (2)", "p (3)"]


def test_what_is_read_for_a_slide_that_is_removed_ends_without_a_word(
    dock, slide_file, tmp_path, monkeypatch
):
    dock.opener.open([slide_file("A")])
    dock.rest()
    state, begun, gate = dock.session.state, threading.Event(), threading.Event()

    def reading(*_):
        yield Step("Reading", 0)
        begun.set()
        gate.wait(10)
        raise UserError("The table is damaged.")

    monkeypatch.setattr(inputs, "read_table", reading)
    dock.section.read_spots(tmp_path / "spots.tsv")
    assert begun.wait(10)
    dock.session.workspace.remove(state)
    assert not dock.jobs.running(f"spots {state.number}")
    gate.set()
    dock.rest()
    assert not [text for text in dock.messages.texts if "damaged" in text]


@pytest.mark.parametrize("slide_first", [True, False])
def test_a_slide_of_another_content_than_the_prediction_was_made_on_is_warned_of(
    dock, slide_file, tmp_path, slide_first
):
    (tmp_path / "far" / "away").mkdir(parents=True)
    other = slide_file("B", seed=1)
    prediction = with_hash(tmp_path / "far" / "away" / "p.h5ad", "A", other)
    slide = slide_file("A")
    for path in (slide, prediction) if slide_first else (prediction, slide):
        dock.opener.open([path])
        dock.rest()
    assert names(dock) == ["A"]
    assert any(
        "A.svs is not the file that this prediction was made on" in text for text in dock.messages.texts
    )
