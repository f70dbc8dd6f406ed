import pytest
import shapely
from qtpy.QtCore import QObject, Qt, Signal
from qtpy.QtWidgets import QMessageBox
from tests.fakes import fake_prediction
from tests.gui.predict.fake_work import N, fake_spots
from tests.gui.two_slides import named

from napari_flag.gui.keeping import regions_of
from napari_flag.gui.session import Session
from napari_flag.gui.slide_list import SlideList, describe
from napari_flag.layers import region_shapes
from napari_flag.slides.formats.geojson import Annotation
from napari_flag.slides.spots import SpotTable


class FakeKeeper(QObject):
    """Knows of a workspace that was kept, or of none."""

    lastChanged = Signal()
    last = None
    restoring = False


class FakePredict:
    """The part of the Predict dock that the list asks."""

    asked = 0

    def __init__(self, session):
        self._session, self.keeper = session, FakeKeeper()

    @property
    def unpredicted(self):
        return [state for state in self._session.workspace.slides if not state.results]

    def predict_all(self):
        self.asked += 1


@pytest.fixture
def slide_list(two_slides, qtbot):
    return shown(two_slides, qtbot)


def shown(session, qtbot):
    slides = SlideList(session, FakePredict(session))
    qtbot.addWidget(slides)
    slides.show()
    return slides


def lines(slides):
    items = [slides.list.topLevelItem(row) for row in range(slides.list.topLevelItemCount())]
    return [(item.text(0), item.text(1)) for item in items]


def click(slides, row, qtbot):
    place = slides.list.visualItemRect(slides.list.topLevelItem(row)).center()
    qtbot.mouseClick(slides.list.viewport(), Qt.MouseButton.LeftButton, pos=place)


def test_without_slides_it_says_how_to_open_them(qapp, viewer, qtbot):
    slides = shown(Session.of(viewer), qtbot)
    assert "Drag slides" in slides.hint.text()
    assert not slides.hint.isHidden()
    assert slides.list.isHidden()
    assert slides.predict_all.isHidden()


def test_a_click_shows_the_slide_and_its_line_stands_out(slide_list, two_slides, qtbot):
    assert lines(slide_list) == [("A", "no spots yet"), ("B", "no spots yet")]
    click(slide_list, 0, qtbot)
    assert two_slides.state.name == "A"
    assert [slide_list.list.topLevelItem(row).font(0).bold() for row in (0, 1)] == [True, False]
    two_slides.workspace.show(two_slides.workspace.slides[1])
    assert slide_list.list.currentItem().text(0) == "B"


def test_the_line_says_what_is_known_of_a_slide(slide_list, two_slides, adatas, tmp_path):
    workspace, (a, _) = two_slides.workspace, two_slides.workspace.slides
    a.table = SpotTable(fake_spots(), None, "square grid")
    assert describe(a) == f"{N} spots"
    workspace.add_result(adatas[0], a)
    assert lines(slide_list)[0][1] == "1 prediction, not saved"
    workspace.add_result(named(fake_prediction(25, seed=5), "A"), a)
    workspace.saved(adatas[0], tmp_path / "a.h5ad")
    assert lines(slide_list)[0][1] == "2 predictions, 1 not saved"
    workspace.set_status(a, "predicting 40 %")
    assert lines(slide_list) == [("A", "predicting 40 %"), ("B", "no spots yet")]


@pytest.mark.slow
def test_a_slide_whose_picture_was_removed_says_so_and_a_click_brings_it_back(
    slide_list, two_slides, adatas, qtbot
):
    a, b = two_slides.workspace.slides
    two_slides.workspace.add_result(adatas[1], b)
    two_slides.viewer.layers.remove(b.layer)
    qtbot.waitUntil(lambda: two_slides.state is a)
    assert lines(slide_list)[1] == ("B", "1 prediction, not saved, click to show")
    click(slide_list, 1, qtbot)
    assert two_slides.state is b
    assert b.layer in two_slides.viewer.layers


def test_a_renamed_picture_renames_the_line(slide_list, two_slides):
    two_slides.state.layer.name = "Tumour, level 2"
    assert lines(slide_list)[1][0] == "Tumour, level 2"


def test_all_predictions_of_the_slide_that_is_shown_are_offered_and_switch(slide_list, two_slides, adatas):
    second = named(fake_prediction(25, seed=5), "A")
    assert slide_list._results.isHidden()
    for adata in (adatas[0], second):
        two_slides.set_prediction(adata)
    assert two_slides.state.name == "A"
    results = two_slides.state.results
    assert list(slide_list.result.choices) == results
    assert slide_list.result.value is results[1]
    slide_list.result.value = results[0]
    assert two_slides.adata is adatas[0]
    assert two_slides.gene_map.values.adata is adatas[0]
    two_slides.workspace.show(two_slides.workspace.slides[1])
    assert slide_list._results.isHidden()


def test_a_slide_that_is_taken_out_leaves_the_list_and_another_is_shown(slide_list, two_slides):
    slide_list.remove(two_slides.state)
    assert [name for name, _ in lines(slide_list)] == ["A"]
    assert two_slides.state.name == "A"


def test_the_last_workspace_is_offered_until_it_is_restored(slide_list, two_slides, tmp_path):
    keeper, kept = slide_list._predict.keeper, tmp_path / "workspace.json"

    def offered():
        keeper.lastChanged.emit()
        button, entry = slide_list.restore, slide_list.restore_too
        assert button.isEnabled() is not keeper.restoring
        assert entry.isEnabled() is (entry.isVisible() and not keeper.restoring)
        return ["button"] * (not button.isHidden()) + ["menu"] * entry.isVisible()

    assert offered() == []
    keeper.last = kept
    assert offered() == ["menu"], "beside slides that are open there is no room for the button"
    keeper.restoring = True
    assert offered() == ["menu"]
    keeper.restoring = False
    for state in tuple(two_slides.workspace.slides):
        two_slides.workspace.remove(state)
    assert offered() == ["button"]
    keeper.last = None
    assert offered() == []


@pytest.fixture
def asked(monkeypatch):
    """The questions asked, each answered with No."""
    questions = []

    def answer(parent, title, text):
        questions.append(text)
        return QMessageBox.StandardButton.No

    monkeypatch.setattr(QMessageBox, "question", answer)
    return questions


def test_a_slide_with_drawn_regions_is_taken_out_only_after_a_question(slide_list, two_slides, asked):
    a, b = two_slides.workspace.slides
    layer = region_shapes.add_layer(two_slides.viewer, b.frame, 1000)
    drawn = [Annotation("Front", (shapely.box(100, 100, 300, 200),))]
    region_shapes.add_annotations(layer, drawn, region_shapes.Placement.in_frame(b.frame))
    slide_list.remove(b)
    assert asked == ["This also removes 1 region drawn on B. Remove the slide?"]
    assert two_slides.workspace.slides == [a, b]
    assert len(regions_of(two_slides, b)) == 1


def test_a_slide_with_predictions_not_saved_is_taken_out_only_after_a_question(
    slide_list, two_slides, adatas, tmp_path, asked
):
    b = two_slides.state
    two_slides.workspace.add_result(adatas[1], b)
    slide_list.remove(b)
    assert asked == ["This also removes 1 prediction of B that is not saved. Remove the slide?"]
    two_slides.workspace.saved(adatas[1], tmp_path / "b.h5ad")
    slide_list.remove(b)
    assert len(asked) == 1
    assert b not in two_slides.workspace.slides


def test_predict_all_is_offered_for_several_slides(slide_list, two_slides, qtbot):
    qtbot.mouseClick(slide_list.predict_all, Qt.MouseButton.LeftButton)
    assert slide_list._predict.asked == 1
    slide_list.remove(two_slides.state)
    assert slide_list.predict_all.isHidden()


def test_predict_all_cannot_be_pressed_once_every_slide_has_a_prediction(slide_list, two_slides, adatas):
    workspace, (a, b) = two_slides.workspace, two_slides.workspace.slides
    workspace.add_result(adatas[0], a)
    assert slide_list.predict_all.isEnabled()
    workspace.add_result(adatas[1], b)
    assert not slide_list.predict_all.isEnabled()
    assert "Every slide has a prediction" in slide_list.predict_all.toolTip()


def test_a_closed_list_follows_no_longer(slide_list, two_slides):
    slide_list.close()
    two_slides.state.layer.name = "Tumour, level 2"
    assert lines(slide_list)[1][0] == "B"
