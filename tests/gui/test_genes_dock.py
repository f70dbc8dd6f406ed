import numpy as np
import pytest
from qtpy.QtCore import Qt
from tests.fakes import FakeSlide, fake_prediction
from tests.gui.choices import can_be_chosen

from napari_flag import keys
from napari_flag.gui.controls.tables import NumberTable
from napari_flag.gui.genes_dock import COLUMNS, FIXED, GenesDock
from napari_flag.gui.session import Session
from napari_flag.layers import slide_layers
from napari_flag.layers.gene_values import Quantity


@pytest.fixture
def dock(viewer, qtbot):
    dock = GenesDock(viewer)
    qtbot.addWidget(dock)
    return dock


@pytest.fixture
def filled(dock):
    dock.session.set_prediction(fake_prediction(36, n_genes=12), FakeSlide())
    return dock


MEAN, VARIANCE = 1, 2
"""Columns of the table."""


def shown(dock):
    return dock.table.table.shown


def test_without_a_prediction_the_dock_says_what_to_do(dock):
    assert "No prediction yet" in dock.reading.text()
    assert not dock.search.isEnabled()


def test_a_new_prediction_is_listed_by_mean_and_painted(filled, viewer):
    means = [float(filled.table.table.index(r, MEAN).data()) for r in range(filled.table.table.rowCount())]
    assert means == sorted(means, reverse=True)
    assert [la.name for la in viewer.layers] == ["fake", f"{filled.session.gene} · predicted"]


def test_searching_an_alias_and_pressing_enter_shows_the_gene(filled, qtbot):
    qtbot.keyClicks(filled.search, "her2")
    assert shown(filled) == ["ERBB2"]
    assert filled.table.table.index(0, 0).data() == "ERBB2  (HER2)"
    qtbot.keyClick(filled.search, Qt.Key.Key_Return)
    assert filled.session.gene == "ERBB2"


def test_a_missing_gene_is_explained_and_the_map_stays(filled, qtbot):
    before = filled.session.gene
    qtbot.keyClicks(filled.search, "PAX8")
    assert shown(filled) == []
    assert "fake-weights" in filled.message.text()
    assert filled.session.gene == before


def test_a_list_pasted_with_line_breaks_is_taken(filled, qapp):
    qapp.clipboard().setText("HER2\nVIM\nNOPE1")
    filled.search.paste()
    assert shown(filled) == ["ERBB2", "VIM"]
    assert "NOPE1" in filled.message.text()


def test_arrow_keys_walk_the_list_from_the_search_box_and_the_picture(filled, qtbot, viewer):
    order = shown(filled)
    filled.session.select_gene(order[0])
    qtbot.keyClick(filled.search, Qt.Key.Key_Down)
    assert filled.session.gene == order[1]
    next(action for key, action in viewer.keymap.items() if str(key) == "Down")(viewer)
    assert filled.session.gene == order[2]
    filled.session.step(-5)
    assert filled.session.gene == order[0]


def test_choosing_a_row_shows_its_gene_and_the_session_selects_the_row(filled):
    filled.table.setCurrentIndex(filled.table.table.index(3, 0))
    assert filled.session.gene == shown(filled)[3]
    filled.session.select_gene(shown(filled)[5])
    assert filled.table.currentIndex().row() == 5


def test_sorting_by_variance_keeps_the_gene_and_orders_the_arrow_keys(filled):
    gene = filled.session.gene
    filled.table.sortByColumn(VARIANCE, Qt.SortOrder.AscendingOrder)
    assert filled.session.gene == gene
    assert filled.session.gene_order == shown(filled)
    variances = [float(filled.table.table.index(r, VARIANCE).data()) for r in range(12)]
    assert variances == sorted(variances)


def test_what_is_not_there_is_greyed_with_the_reason(dock):
    dock.session.set_prediction(fake_prediction(16, measured=False))
    row = list(Quantity).index(Quantity.MEASURED)
    assert not can_be_chosen(dock.quantity, row)
    assert dock.quantity.native.itemText(row) == "Measured (no counts for these spots)"
    assert can_be_chosen(dock.quantity, 0)


def test_choosing_measured_paints_the_measurement(filled, viewer):
    filled.quantity.value = Quantity.MEASURED
    picture, shown = [la.name for la in viewer.layers if la.visible]
    assert picture == "fake"
    assert shown.endswith("measured")


def test_a_second_gene_is_overlaid_by_its_alias_and_cleared(filled):
    filled.session.select_gene("ERBB2")
    filled.second.value = "vimentin"
    filled.second.native.editingFinished.emit()
    assert filled.session.genes_shown == ["ERBB2", "VIM"]
    assert filled.second.value == "VIM"
    assert not filled.colormap.enabled
    filled.second.value = ""
    assert filled.session.genes_shown == ["ERBB2"]


def test_fixed_limits_start_from_those_shown(filled, viewer):
    before = viewer.layers[-1].contrast_limits
    filled.range.value = FIXED
    assert viewer.layers[-1].contrast_limits == pytest.approx(before, abs=0.06)
    filled.high.value = 11.0
    filled.session.step(1)
    assert viewer.layers[-1].contrast_limits[1] == 11.0


def test_a_figure_is_saved_and_a_failure_is_one_sentence(filled, tmp_path):
    filled.save_figure(tmp_path / "f.png")
    assert (tmp_path / "f.png").stat().st_size > 10_000
    filled.save_figure(tmp_path / "no" / "f.png")
    assert len(filled.messages.texts) == 1
    assert "cannot be written" in filled.messages.texts[0]


def test_unknown_resolution_is_said(dock):
    adata = fake_prediction(16)
    del adata.uns[keys.PROVENANCE][keys.MPP]
    dock.session.set_prediction(adata)
    assert any("drawn in pixels" in text for text in dock.messages.texts)


def test_the_result_outlives_the_dock(viewer, undock, qapp):
    dock = GenesDock(viewer)
    dock.session.set_prediction(fake_prediction(16))
    undock(dock)
    session = Session.of(viewer)
    session.select_gene("VIM")
    assert session.adata is not None
    assert viewer.layers[0].name == "VIM · predicted"


def test_one_session_serves_viewer_and_plugin_proxy(viewer):
    from napari.utils._proxies import PublicOnlyProxy

    assert Session.of(viewer) is Session.of(PublicOnlyProxy(viewer))


def test_a_preview_is_painted_without_becoming_the_result(dock, viewer):
    slide_layers.add_slide(viewer, FakeSlide())
    dock.session.preview(fake_prediction(9, measured=False), dock.session.state)
    assert [layer.metadata[keys.LAYER_KIND] for layer in viewer.layers] == ["slide", "gene"]
    assert dock.session.adata is None


def test_a_prediction_opened_from_a_file_becomes_the_current_one(dock, viewer):
    from napari_flag.layers.readers import prediction_layer

    adata = fake_prediction(16)
    data, options, _ = prediction_layer(adata)
    viewer.add_image(data, **options)
    assert dock.session.adata is adata
    assert len(viewer.layers) == 1
    dock.session.select_gene("VIM")
    assert [la.name for la in viewer.layers] == ["VIM · predicted"]


def test_hovering_shows_spot_and_value_in_the_status_bar_and_the_dock(filled, viewer):
    class Event:
        position = tuple(filled.session.adata.obsm[keys.SPATIAL][4][::-1] * 0.5)

    for callback in viewer.mouse_move_callbacks:
        callback(viewer, Event)
    assert "spot 0_4" in viewer.status
    assert "spot 0_4" in filled.reading.text()


def test_twenty_thousand_genes_sort_and_filter_quickly(benchmark_clock):
    table = NumberTable()
    genes = [f"G{i:05d}" for i in range(20_000)]
    numbers = np.random.default_rng(0).random(20_000).astype(np.float32)
    with benchmark_clock(1.0):
        table.set_rows(genes, {"mean": numbers, "variance": numbers}, COLUMNS)
        for column in (0, MEAN, VARIANCE):
            table.sort(column, Qt.SortOrder.DescendingOrder)
        table.limit(genes[100:9000], as_given=True)
        table.limit(None)
    assert table.rowCount() == 20_000


@pytest.fixture
def benchmark_clock():
    import time
    from contextlib import contextmanager

    @contextmanager
    def within(seconds):
        start = time.process_time()
        yield
        assert time.process_time() - start < seconds

    return within


def test_a_page_that_is_opened_again_shows_the_range_that_is_used(filled, viewer, qtbot):
    filled.range.value = FIXED
    filled.low.value, filled.high.value = 1.0, 5.0
    again = GenesDock(viewer)
    qtbot.addWidget(again)
    assert (again.range.value, again.low.value, again.high.value) == (FIXED, 1.0, 5.0)
    assert not again.limits.native.isHidden()
    again.range.value = 5.0
    third = GenesDock(viewer)
    qtbot.addWidget(third)
    assert third.range.value == 5.0
    assert third.limits.native.isHidden()
