import threading

import numpy as np
import pytest
from anndata import AnnData
from tests.fakes import FakeSlide, add_draws, fake_prediction

from napari_flag import keys
from napari_flag.analysis.draws import Draw, count
from napari_flag.errors import UserError
from napari_flag.formatting import interval, score
from napari_flag.gui import samples_dock
from napari_flag.gui.compare_dock import CompareDock
from napari_flag.gui.samples_dock import SamplesDock
from napari_flag.layers.gene_values import Quantity
from napari_flag.progress import Step


def with_draws(number, **options):
    return add_draws(fake_prediction(64, n_genes=8, **options), number)


@pytest.fixture
def dock(viewer, qtbot):
    dock = SamplesDock(viewer)
    qtbot.addWidget(dock)
    dock.show()
    return dock


@pytest.fixture
def filled(dock, qtbot):
    dock.session.set_prediction(with_draws(4))
    qtbot.waitUntil(lambda: dock.numbers is not None, timeout=10_000)
    return dock


def shown(viewer):
    return [layer.name for layer in viewer.layers if layer.visible]


def drawing(*, until, upto=3):
    """Work that draws `upto` and then waits for `until`."""

    def draw_more(request):
        for number in range(2, upto + 1):
            values = np.full(request.adata.shape, float(number), np.float32)
            yield Step(f"Draw {number} of {request.upto}", 1, 1, "draws", partial=Draw(number, values))
        while not until.wait(0.05):
            yield Step("Draw", 0, None)
        return upto

    return draw_more


def test_without_a_prediction_it_says_what_to_do(dock):
    assert "No prediction yet" in dock.messages.texts[0]
    assert not dock.isEnabled()


def test_paging_paints_each_draw_in_one_layer(filled, viewer):
    gene = filled.session.gene
    filled.step(1)
    assert shown(viewer) == [f"{gene} · draw 2"]
    filled.after.click()
    assert shown(viewer) == [f"{gene} · draw 3"]
    filled.step(2)
    assert shown(viewer) == [f"{gene} · one draw"]
    assert filled.place.text() == "1 of 4"
    filled.step(-1)
    assert filled.place.text() == "4 of 4"
    assert len(viewer.layers) == 1


def test_the_keys_over_the_picture_page_too(filled, viewer):
    next(action for key, action in viewer.keymap.items() if str(key) == "Alt+Right")(viewer)
    assert filled.place.text() == "2 of 4"


def test_slider_row_and_small_map_say_which_draw_is_shown(filled):
    filled.sheet.draws[2].click()
    assert filled.slider.value() == 3
    assert [button.isChecked() for button in filled.sheet.draws] == [False, False, True, False]
    assert filled.table.currentIndex().row() == 2
    filled.table.setCurrentIndex(filled.table.table.index(3, 0))
    assert filled.place.text() == "4 of 4"
    filled.sheet.top.buttons[Quantity.SPREAD].click()
    assert not any(button.isChecked() for button in filled.sheet.draws)


def test_playing_pages_through_all_draws(filled, qtbot):
    seen = []
    filled.session.appearanceChanged.connect(lambda: seen.append(filled.place.text()))
    filled._playing.setInterval(5)
    filled.play.click()
    qtbot.waitUntil(lambda: set(seen) == {"1 of 4", "2 of 4", "3 of 4", "4 of 4"}, timeout=3_000)
    filled.play.click()
    assert not filled._playing.isActive()


def test_playing_ends_when_the_page_or_the_prediction_is_left(filled, qtbot):
    filled.play.click()
    assert filled._playing.isActive()
    filled.set_awake(False)
    assert (filled._playing.isActive(), filled.play.isChecked()) == (False, False)
    filled.set_awake(True)
    assert not filled._playing.isActive()
    filled.play.click()
    filled.session.set_prediction(with_draws(3, seed=2))
    assert (filled._playing.isActive(), filled.play.isChecked()) == (False, False)


def test_what_stays_and_what_moves_is_said(filled):
    between = filled.numbers.between
    for metric in ("PCC", "GSC", "SSC"):
        assert f"{metric} {score(between[metric], metric)}" in filled.between.text()
    assert "against the measurement" in filled.against.text()
    assert filled.gene.text().startswith(f"{filled.session.gene}: correlation between two draws")
    filled.session.select_gene("VIM")
    assert filled.gene.text().startswith("VIM")


def test_one_draw_says_that_more_are_needed(dock, qtbot):
    dock.session.set_prediction(fake_prediction(36), FakeSlide())
    qtbot.waitUntil(lambda: dock.numbers is not None, timeout=10_000)
    assert "Draw more" in dock.between.text()
    assert not dock.slider.isEnabled()
    assert dock.more.isEnabled()


def test_the_table_holds_the_scores_of_each_draw(filled):
    scores = filled.numbers.scores
    for column, name in enumerate(("GSC", "SSC", "amplitude", "PCC"), start=1):
        shown = [filled.table.table.index(row, column).data() for row in range(4)]
        assert shown == [score(value, name) for value in scores.by_draw[name]]


def test_with_fewer_than_eight_draws_a_button_draws_up_to_eight(dock, qtbot, monkeypatch):
    requests = []

    def draw_more(request):
        requests.append(request.upto)
        for number in range(5, request.upto + 1):
            values = request.adata.X + np.random.default_rng(number).normal(0, 0.5, request.adata.shape)
            yield Step("Draw", 1, 1, "draws", partial=Draw(number, values.astype(np.float32)))
        return request.upto

    monkeypatch.setattr(samples_dock, "draw_more", draw_more)
    dock.session.set_prediction(with_draws(4), FakeSlide())
    qtbot.waitUntil(lambda: dock.numbers is not None, timeout=10_000)
    assert "this prediction holds 4 draws" in dock.proper.text()
    assert dock.up_to.isVisible()
    dock.wanted.value = 20
    dock.up_to.click()
    qtbot.waitUntil(lambda: dock.up_to.isHidden(), timeout=10_000)
    assert requests == [8]
    found = dock.numbers.scores
    for name, value in found.proper.items():
        low, high = found.intervals[name]
        assert f"{name} {score(value, name)}" in dock.proper.text().replace(samples_dock.HYPHEN, "-")
        assert f"{name} {interval((low, high), name)}: " in dock.proper.toolTip()


def test_new_draws_are_scored_in_the_compare_dock_once_they_are_made(dock, viewer, qtbot, monkeypatch):
    compare = CompareDock(viewer)
    qtbot.addWidget(compare)
    dock.session.set_prediction(with_draws(1), FakeSlide())
    qtbot.waitUntil(lambda: compare.agreement is not None, timeout=10_000)
    released = threading.Event()
    released.set()
    monkeypatch.setattr(samples_dock, "draw_more", drawing(until=released, upto=8))
    dock.up_to.click()
    qtbot.waitUntil(lambda: compare.agreement.comparison.draws.number == 8, timeout=10_000)
    assert compare.agreement.comparison.draws.why_not is None


def test_without_a_measurement_draws_are_compared_with_one_another(dock, qtbot):
    dock.session.set_prediction(with_draws(8, measured=False))
    qtbot.waitUntil(lambda: dock.numbers is not None, timeout=10_000)
    assert "Nothing measured" in dock.against.text()
    assert dock.table.isHidden()
    assert dock.up_to.isHidden()
    assert dock.proper.text() == ""
    assert "GSC" in dock.between.text()


def test_without_the_slide_the_reason_is_said_and_draws_in_the_file_are_paged(filled):
    assert not filled.more.isEnabled()
    assert "need the slide" in filled.messages.texts[0]
    assert filled.slider.isEnabled()


def test_draws_of_an_earlier_version_are_paged_and_cannot_be_continued(dock, qtbot):
    adata = with_draws(4)
    made = adata.uns[keys.PROVENANCE]
    made[keys.EARLIER_SAMPLES] = made.pop(keys.DRAWS)
    dock.session.set_prediction(adata, FakeSlide())
    assert dock.slider.isEnabled()
    assert not dock.more.isEnabled()
    assert any("earlier version" in text for text in dock.messages.texts)


def test_a_section_seen_in_training_is_called_so(dock, qtbot):
    adata = with_draws(2)
    adata.uns[keys.PROVENANCE][keys.SLIDE_NAME] = "C2"
    dock.session.set_prediction(adata)
    qtbot.waitUntil(lambda: any("trained on" in text for text in dock.messages.texts), timeout=10_000)


def test_draws_appear_as_they_are_made_and_cancelling_keeps_them(dock, qtbot, monkeypatch):
    dock.session.set_prediction(fake_prediction(36), FakeSlide())
    released = threading.Event()
    monkeypatch.setattr(samples_dock, "draw_more", drawing(until=released))
    dock.more.click()
    qtbot.waitUntil(lambda: len(dock.sheet.draws) == 3, timeout=5_000)
    dock.strip.stop()
    qtbot.waitUntil(lambda: any("3 draws are kept" in text for text in dock.messages.texts), timeout=1_000)
    released.set()
    assert count(dock.session.adata) == 3
    assert dock.session.result.additions == 2
    assert (dock.session.adata.layers["sample_3"] == 3).all()


def test_draws_of_one_prediction_never_land_in_another(dock, qtbot, monkeypatch):
    dock.session.set_prediction(fake_prediction(36), FakeSlide())
    released = threading.Event()
    monkeypatch.setattr(samples_dock, "draw_more", drawing(until=released, upto=2))
    dock.more.click()
    qtbot.waitUntil(lambda: len(dock.sheet.draws) == 2, timeout=5_000)
    dock.session.set_prediction(fake_prediction(36, seed=2), FakeSlide())
    released.set()
    qtbot.wait(150)
    assert count(dock.session.adata) == 1
    assert dock.place.text() == "1 of 1"


def test_draws_go_on_into_their_prediction_while_another_page_and_another_prediction_are_shown(
    dock, qtbot, monkeypatch
):
    dock.session.set_prediction(fake_prediction(36), FakeSlide())
    drawn = dock.session.adata
    released = threading.Event()
    monkeypatch.setattr(samples_dock, "draw_more", drawing(until=released, upto=3))
    dock.more.click()
    dock.set_awake(False)
    other = fake_prediction(36, seed=2)
    dock.session.set_prediction(other, FakeSlide())
    qtbot.waitUntil(lambda: count(drawn) == 3, timeout=5_000)
    released.set()
    assert count(other) == 1


def test_attaching_counts_to_a_prediction_does_not_stop_its_drawing(dock, qtbot, monkeypatch):
    dock.session.set_prediction(fake_prediction(36, measured=False), FakeSlide())
    released = threading.Event()
    monkeypatch.setattr(samples_dock, "draw_more", drawing(until=released, upto=2))
    dock.more.click()
    qtbot.waitUntil(lambda: len(dock.sheet.draws) == 2, timeout=5_000)
    dock.show_draw(2)
    adata = dock.session.adata
    values = np.random.default_rng(0).poisson(3, adata.shape).astype(np.float32)
    dock.session.set_measured(AnnData(values, obs=adata.obs[[]], var=adata.var[[]]))
    assert dock.jobs.running("draw")
    assert dock.session.gene_map.values.sample == "sample_2"
    released.set()


def test_what_goes_wrong_is_said_and_other_weights_can_be_chosen(dock, qtbot, monkeypatch):
    def fail(request):
        yield Step("Loading model", 0, None)
        raise UserError("The weights are not here; choose them.")

    dock.session.set_prediction(fake_prediction(36), FakeSlide())
    monkeypatch.setattr(samples_dock, "draw_more", fail)
    assert dock.file.isHidden()
    dock.more.click()
    qtbot.waitUntil(lambda: "not here" in "".join(dock.messages.texts), timeout=5_000)
    assert dock.file.isVisible()
