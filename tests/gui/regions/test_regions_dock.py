import json
import threading

import numpy as np
import pytest
import shapely
from tests.fakes import MPP, fake_prediction
from tests.gui.choices import can_be_chosen
from tests.gui.two_slides import named
from tests.layers.overlay_texts import lines_on

from napari_flag import keys
from napari_flag.analysis.domains import LABELS
from napari_flag.analysis.truth import MEASURED, PREDICTED
from napari_flag.formatting import area
from napari_flag.gui.regions import regions_dock
from napari_flag.gui.regions.regions_dock import RegionsDock, clicks
from napari_flag.layers.local_map import MapKind
from napari_flag.layers.overlays import Paint
from napari_flag.layers.region_history import history_of
from napari_flag.progress import Step
from napari_flag.slides.formats.geojson import read_annotations


def two_halves(**options):
    """Six of 20 genes are raised in the left half, in prediction and truth."""
    adata = fake_prediction(100, n_genes=20, **options)
    rng = np.random.default_rng(3)
    left = adata.obsm[keys.SPATIAL][:, 0] < 2200
    for values in (adata.X, *(v for k, v in adata.layers.items() if k == keys.MEASURED)):
        values[:] = rng.normal(3, 0.3, values.shape)
        values[left, :6] += 2
    return adata


@pytest.fixture
def dock(viewer, qtbot):
    dock = RegionsDock(viewer)
    qtbot.addWidget(dock)
    dock.show()
    return dock


@pytest.fixture
def filled(dock):
    dock.session.set_prediction(two_halves())
    return dock


def draw_left(dock, qtbot):
    """Draw the left half by hand, and choose it."""
    corners = np.array([[0, 0], [0, 2200], [5000, 2200], [5000, 0]], float)  # (y, x) level-0 px
    dock._layer().add([corners])
    qtbot.waitUntil(lambda: bool(dock.regions.entries), timeout=3_000)
    dock.regions.choose(dock.regions.entries[0].key)
    qtbot.waitUntil(lambda: dock.numbers is not None, timeout=5_000)


def find(dock, qtbot):
    dock.find_domains()
    qtbot.waitUntil(lambda: any(e.number for e in dock.regions.entries), timeout=10_000)


def export(dock, path, qtbot):
    dock.export_regions(path)
    qtbot.waitUntil(lambda: any("Saved" in text for text in dock.messages.texts), timeout=5_000)


def test_without_a_prediction_it_says_what_to_do(dock):
    assert "No prediction yet" in dock.messages.texts[0]
    assert not dock.isEnabled()


def test_a_drawn_region_is_compared_with_the_rest_in_prediction_and_truth(filled, qtbot):
    draw_left(filled, qtbot)
    assert filled.regions.current.region.name == "Region 1"
    assert filled.regions.current.region.spots == 50
    shown = filled.results.genes.table.shown
    assert set(shown[:6]) == set(filled.session.adata.var_names[:6])
    assert "20 of the first 20 (chance 20.0)" in filled.results.summary.text()
    assert list(filled.results.shown.choices) == ["both", PREDICTED, MEASURED]


def test_a_region_that_was_just_drawn_is_chosen_and_one_that_was_edited_is_not(filled, qtbot):
    for left in (0, 2500):
        corners = np.array([[0, left], [0, left + 2200], [5000, left + 2200], [5000, left]], float)
        filled._layer().add([corners])
        count = 1 + bool(left)
        qtbot.waitUntil(lambda count=count: len(filled.regions.entries) == count, timeout=3_000)
        assert filled.regions.current.region.name == f"Region {count}"
    qtbot.waitUntil(lambda: filled.numbers is not None, timeout=5_000)
    filled.regions.choose(filled.regions.entries[0].key)
    layer, before = filled._layer(), filled.regions.entries[1].region.spots
    layer.data = [layer.data[0], layer.data[1] * [0.5, 1.0]]
    qtbot.waitUntil(lambda: filled.regions.entries[1].region.spots < before, timeout=3_000)
    assert filled.regions.current.region.name == "Region 1"


def test_shared_genes_say_over_which_spots_where_some_were_not_measured(dock, qtbot):
    adata = two_halves()
    adata.layers[keys.MEASURED][:20] = np.nan
    dock.session.set_prediction(adata)
    draw_left(dock, qtbot)
    assert "50 spots against 50." in dock.results.summary.text()
    assert "shared by prediction and truth over the 80 measured spots: 20 of" in dock.results.summary.text()


def test_a_measured_layer_without_values_is_not_offered_and_regions_are_compared_without_it(dock, qtbot):
    adata = two_halves()
    adata.layers[keys.MEASURED][:] = np.nan
    dock.session.set_prediction(adata)
    assert not can_be_chosen(dock.choice.source, 1)
    draw_left(dock, qtbot)
    assert list(dock.numbers.rankings) == [PREDICTED]


def test_numbers_of_the_truth_alone_show_its_means(filled, qtbot):
    draw_left(filled, qtbot)
    filled.results.shown.value = MEASURED
    table, gene = filled.results.genes.table, filled.session.adata.var_names[0]
    assert [table.headerData(i, regions_horizontal()) for i in range(5)] == ["Gene", "In", "Out", "Δ", "q"]
    truth = filled.session.adata[:, gene].layers[keys.MEASURED][:, 0]
    inside = truth[filled.regions.current.region.mask].mean()
    assert table.index(table.row(gene), 1).data() == f"{inside:.2f}"


def regions_horizontal():
    from qtpy.QtCore import Qt

    return Qt.Orientation.Horizontal


def test_a_gene_clicked_is_shown_everywhere(filled, qtbot):
    draw_left(filled, qtbot)
    filled.results.genes.setCurrentIndex(filled.results.genes.table.index(2, 0))
    assert filled.session.gene == filled.results.genes.table.name(2)


def test_two_regions_are_compared_with_one_another(filled, qtbot):
    draw_left(filled, qtbot)
    filled._layer().add([np.array([[0, 2500], [0, 3300], [900, 3300], [900, 2500]], float)])
    qtbot.waitUntil(lambda: len(filled.regions.entries) == 2, timeout=3_000)
    filled.regions.choose(filled.regions.entries[0].key)
    filled.choice.against.value = filled.regions.entries[1].key
    qtbot.waitUntil(lambda: filled.numbers.spots[PREDICTED] == (50, 4), timeout=5_000)


def test_a_region_against_itself_is_refused_in_a_sentence(filled, qtbot):
    draw_left(filled, qtbot)
    filled.choice.against.value = filled.regions.current.key
    qtbot.waitUntil(lambda: "another" in "".join(filled.messages.texts), timeout=3_000)


def test_drawn_regions_survive_a_new_prediction_of_the_slide(filled, qtbot):
    draw_left(filled, qtbot)
    again = fake_prediction(81, n_genes=8, seed=5)
    again.uns[keys.PROVENANCE] = filled.session.adata.uns[keys.PROVENANCE]  # of the same slide
    filled.session.set_prediction(again)
    qtbot.waitUntil(lambda: len(filled.regions.current.region.mask) == 81, timeout=3_000)
    assert filled.regions.current.region.name == "Region 1"
    qtbot.waitUntil(lambda: sum(filled.numbers.spots[PREDICTED]) == 81, timeout=5_000)


def test_a_prediction_alone_is_enough(dock, qtbot):
    dock.session.set_prediction(two_halves(measured=False))
    draw_left(dock, qtbot)
    assert list(dock.results.shown.choices) == [PREDICTED]
    assert "truth" not in dock.results.summary.text()
    assert not can_be_chosen(dock.choice.source, 1)
    find(dock, qtbot)


def test_domains_are_painted_listed_and_picked_by_a_click(filled, qtbot, viewer):
    find(filled, qtbot)
    assert filled.domains.paint is Paint.FILLED
    adata = filled.session.adata
    numbers = filled.domains.numbers
    place = adata.obsm[keys.SPATIAL][7, ::-1] * MPP
    filled._on_click(place)
    assert filled.regions.current.region.name == f"Domain {numbers[7]} of the prediction"
    assert np.array_equal(filled.regions.current.region.mask, numbers == numbers[7])


def test_choosing_a_gene_turns_filled_domains_into_rings(filled, qtbot):
    find(filled, qtbot)
    filled.session.select_gene("VIM")
    assert filled.domains.paint is Paint.RINGS
    assert filled.choice.paint.current_choice == "rings"


def test_domains_and_clusters_are_never_painted_at_once(filled, qtbot):
    find(filled, qtbot)
    filled.session.set_map_kind(MapKind.CLASSES)
    assert filled.domains.paint is Paint.HIDDEN
    filled.choice.paint.value = Paint.FILLED
    assert filled.domains.paint is Paint.FILLED
    assert filled.session.local_map.kind is MapKind.EXPRESSION


def test_domains_of_the_truth_are_compared_with_the_prediction(filled, qtbot):
    find(filled, qtbot)
    assert filled.choice.agreement.isHidden()
    filled.regions.choose(f"domain {PREDICTED} 1")
    filled.choice.source.value = MEASURED
    find(filled, qtbot)
    assert "ARI" in filled.choice.agreement.text()
    assert filled.regions.current.region.name == "Domain 1 of the truth"


def label_halves(adata, path):
    """Write the left half as tumour, all other spots but three as fat."""
    left = adata.obs_names[adata.obsm[keys.SPATIAL][:, 0] < 2200]
    rows = [f"{name},{'tumour' if name in left else 'fat'}" for name in adata.obs_names[:-3]]
    path.write_text("\n".join(["Barcode,pathology", *rows]))
    return path


def read_labels(dock, path, qtbot):
    dock.labels.read(path, "leiden")
    qtbot.waitUntil(lambda: "Domains to labels" in dock.choice.to_labels.text(), timeout=10_000)


def test_labels_are_painted_listed_and_compared_with_domains_of_both(filled, qtbot, tmp_path):
    adata = filled.session.adata
    assert not can_be_chosen(filled.choice.source, 2)
    assert filled.choice.to_labels.isHidden()
    read_labels(filled, label_halves(adata, tmp_path / "labels.csv"), qtbot)
    assert [entry.region.name for entry in filled.regions.entries] == ["fat", "tumour"]
    assert filled.domains.paint is Paint.FILLED
    assert "97 of 100 spots are labelled" in filled.choice.to_labels.text()
    assert "prediction ARI" in filled.choice.to_labels.text()
    assert "truth ARI" in filled.choice.to_labels.text()
    assert not filled.choice.search.enabled
    assert filled.choice.agreement.isHidden(), "labels are not what agrees with the truth"
    filled._on_click(adata.obsm[keys.SPATIAL][0, ::-1] * MPP)
    assert (filled.regions.current.region.name, filled.regions.current.region.spots) == ("tumour", 50)
    qtbot.waitUntil(lambda: filled.numbers is not None, timeout=5_000)
    assert set(filled.results.genes.table.shown[:6]) == set(adata.var_names[:6])
    filled.choice.source.value = PREDICTED
    assert filled.regions.entries[0].region.name == "Domain 1 of the prediction"
    assert filled.regions.current is None
    assert filled.choice.search.enabled
    assert "to truth: ARI" in filled.choice.agreement.text()
    assert filled.choice.agreement.isVisible()


def test_domains_learned_on_a_part_of_the_spots_are_said_to_be(filled, qtbot, monkeypatch):
    monkeypatch.setattr("napari_flag.statistics.domains.MOST_SPOTS", 60)
    filled.choice.method.value = "k-means"
    filled.find_domains()
    qtbot.waitUntil(lambda: "learned on 60 of 100 spots" in filled.choice.agreement.text(), timeout=10_000)
    assert filled.choice.agreement.isVisible()


def test_labels_work_on_a_prediction_alone_and_go_with_it(dock, qtbot, tmp_path):
    adata = two_halves(measured=False)
    dock.session.set_prediction(adata)
    read_labels(dock, label_halves(adata, tmp_path / "labels.csv"), qtbot)
    assert "truth" not in dock.choice.to_labels.text()
    dock.session.set_prediction(two_halves(measured=False))
    assert dock.choice.source.value == PREDICTED
    assert dock.choice.to_labels.isHidden()
    assert dock.regions.entries == []
    dock.session.set_prediction(adata)
    dock.choice.source.value = LABELS
    assert len(dock.regions.entries) == 2


def test_labels_and_domains_leave_a_saved_prediction_changed(dock, qtbot, tmp_path):
    adata = two_halves(measured=False)
    dock.session.set_prediction(adata)
    result = dock.session.result

    def saved():
        dock.session.workspace.saved(adata, tmp_path / "saved.h5ad")
        assert not result.unsaved

    saved()
    read_labels(dock, label_halves(adata, tmp_path / "labels.csv"), qtbot)
    assert result.unsaved
    saved()
    dock.choice.source.value = PREDICTED
    dock.find_domains()
    qtbot.waitUntil(lambda: result.unsaved, timeout=10_000)


def test_labels_of_another_slide_are_one_sentence_and_change_nothing(filled, qtbot, tmp_path):
    (tmp_path / "other.csv").write_text("Barcode,label\nACGT-1,fat\n")
    filled.labels.read(tmp_path / "other.csv", "leiden")
    qtbot.waitUntil(lambda: bool(filled.messages.texts), timeout=3_000)
    assert "choose the labels of this slide" in filled.messages.texts[0]
    assert keys.LABEL not in filled.session.adata.obs
    assert filled.choice.source.value == PREDICTED


def test_labels_go_to_the_prediction_they_were_read_for_where_another_is_shown_meanwhile(
    filled, qtbot, tmp_path
):
    labelled, other = filled.session.adata, two_halves(seed=1)
    filled.labels.read(label_halves(labelled, tmp_path / "labels.csv"), "leiden")
    filled.session.set_prediction(other)
    qtbot.waitUntil(lambda: not filled.jobs.active, timeout=10_000)
    assert keys.LABEL not in other.obs
    assert labelled.obs[keys.LABEL].notna().sum() == 97
    assert filled.choice.to_labels.isHidden()
    filled.session.set_prediction(labelled)
    assert filled.choice.shown == PREDICTED
    assert "Domains to labels: prediction ARI" in filled.choice.to_labels.text()


def test_labels_are_written_as_outlines_under_their_names(filled, qtbot, tmp_path):
    read_labels(filled, label_halves(filled.session.adata, tmp_path / "labels.csv"), qtbot)
    export(filled, tmp_path / "out.geojson", qtbot)
    assert [a.name for a in read_annotations(tmp_path / "out.geojson")] == ["fat", "tumour"]


def qupath_file(path):
    feature = {
        "type": "Feature",
        "geometry": shapely.geometry.mapping(shapely.box(0, 0, 2200, 5000)),
        "properties": {"name": "Front", "classification": {"name": "Tumor", "color": [200, 0, 0]}},
    }
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [feature]}))
    return path


def test_regions_of_qupath_are_read_and_all_are_written(filled, qtbot, tmp_path):
    filled.import_regions(qupath_file(tmp_path / "in.geojson"))
    qtbot.waitUntil(lambda: bool(filled.regions.entries), timeout=5_000)
    [entry] = filled.regions.entries
    assert (entry.region.name, entry.region.spots) == ("Front", 50)
    find(filled, qtbot)
    export(filled, tmp_path / "out.geojson", qtbot)
    written = read_annotations(tmp_path / "out.geojson")
    assert (written[0].name, written[0].classification, written[0].colour) == ("Front", "Tumor", (200, 0, 0))
    assert len(written) == len(filled.regions.entries)


def test_regions_are_read_beside_the_window_and_go_to_the_slide_they_were_asked_for(
    filled, qtbot, tmp_path, monkeypatch
):
    threads = []

    def reading(path):
        threads.append(threading.current_thread())
        return read_annotations(path)

    monkeypatch.setattr(regions_dock, "read_annotations", reading)
    session = filled.session
    first = session.state
    filled.import_regions(qupath_file(tmp_path / "in.geojson"))
    session.set_prediction(named(two_halves(seed=1), "another"))
    qtbot.waitUntil(lambda: not filled.jobs.active, timeout=5_000)
    assert threads != [threading.main_thread()]
    assert session.state is not first
    assert filled.regions.entries == []
    (layer,) = session.workspace.layers_of(first)[-1:]
    assert (layer.name, layer.visible) == ("Regions", False)
    session.workspace.show(first)
    assert [entry.region.name for entry in filled.regions.entries] == ["Front"]
    assert layer.visible


def test_a_file_that_is_no_geojson_is_one_sentence(filled, qtbot, tmp_path):
    (tmp_path / "in.geojson").write_text("nothing")
    filled.import_regions(tmp_path / "in.geojson")
    qtbot.waitUntil(lambda: bool(filled.messages.texts), timeout=5_000)
    assert "is not GeoJSON" in filled.messages.texts[0]


def test_a_region_is_renamed_in_the_list_and_removed(filled, qtbot, viewer):
    draw_left(filled, qtbot)
    filled.regions.list.topLevelItem(0).setText(0, "Stroma")
    assert filled.regions.current.region.name == "Stroma"
    assert viewer.layers["Regions"].features["name"].tolist() == ["Stroma"]
    filled.regions.buttons["Remove"].click()
    assert filled.regions.entries == []
    assert filled.regions.current is None


def columns(dock, row):
    item = dock.regions.list.topLevelItem(row)
    return [item.text(column) for column in range(3)]


def test_regions_and_domains_are_listed_with_spots_and_area(filled, qtbot):
    draw_left(filled, qtbot)
    find(filled, qtbot)
    assert columns(filled, 0) == ["Region 1", "50", "2.75"]  # 2,200 × 5,000 px of 0.5 µm
    domain = filled.regions.entries[1].region
    assert columns(filled, 1) == [domain.name, str(domain.spots), area(domain.spots * 0.04, unit=False)]
    assert "pitch²" in filled.regions.list.headerItem().toolTip(2)
    assert filled.regions.no_area.isHidden()


def test_without_a_resolution_there_is_no_area_and_that_is_said(dock, qtbot):
    adata = two_halves()
    del adata.uns[keys.PROVENANCE][keys.MPP]
    dock.session.set_prediction(adata)
    draw_left(dock, qtbot)
    assert columns(dock, 0)[2] == "–"
    assert dock.regions.no_area.isVisible()
    assert "µm/px is not known" in dock.regions.no_area.text()


def test_nothing_of_the_list_is_cut_at_340_pixels(filled, qtbot):
    filled.resize(340, 700)
    find(filled, qtbot)
    shown = filled.regions.list
    metrics = shown.fontMetrics()
    for row in range(shown.topLevelItemCount()):
        for column in range(3):
            room = shown.columnWidth(column) - (24 if column == 0 else 6)
            assert metrics.horizontalAdvance(columns(filled, row)[column]) <= room
    assert sum(shown.columnWidth(c) for c in range(3)) <= shown.viewport().width()
    for text, button in filled.regions.buttons.items():
        assert button.fontMetrics().horizontalAdvance(text) < button.width()


def test_the_tables_of_prediction_and_truth_need_no_scrolling_at_340_pixels(filled, qtbot):
    filled.resize(340, 900)
    draw_left(filled, qtbot)
    assert [c.heading for c in filled.results.genes.table._columns] == ["Δ", "Δ true", "q", "q true"]
    for view in (filled.results.genes, filled.results.sets):
        filled.results.tabs.setCurrentIndex(0 if view is filled.results.genes else 1)
        assert view.horizontalScrollBar().maximum() == 0


def test_every_change_from_the_dock_is_taken_back_and_done_again(filled, qtbot, viewer):
    buttons = filled.regions.buttons
    assert not buttons["Undo"].isEnabled()
    draw_left(filled, qtbot)
    filled.regions.list.topLevelItem(0).setText(0, "Stroma")
    buttons["Remove"].click()
    assert filled.regions.entries == []
    buttons["Undo"].click()
    assert columns(filled, 0)[:2] == ["Stroma", "50"]
    buttons["Undo"].click()
    assert columns(filled, 0)[0] == "Region 1"
    buttons["Undo"].click()
    assert filled.regions.entries == []
    assert not buttons["Undo"].isEnabled()
    for _ in range(2):
        buttons["Redo"].click()
    assert columns(filled, 0)[0] == "Stroma"
    assert buttons["Redo"].isEnabled()


def test_an_undo_by_key_is_seen_in_the_list_at_once(filled, qtbot, viewer):
    draw_left(filled, qtbot)
    filled.regions.list.topLevelItem(0).setText(0, "Stroma")
    history_of(viewer.layers["Regions"]).undo()
    assert columns(filled, 0)[0] == "Region 1"


def test_buttons_undo_what_was_changed_last_whatever_the_layer(filled, qtbot, viewer):
    draw_left(filled, qtbot)
    other = viewer.add_shapes(ndim=2, name="Mine")
    other.add([np.array([[0, 0], [0, 900], [900, 900], [900, 0]], float)])
    filled.regions.buttons["Undo"].click()
    assert len(other.data) == 0
    filled.regions.buttons["Undo"].click()
    assert len(viewer.layers["Regions"].data) == 0


def test_a_closed_dock_is_not_called_by_an_undo(filled, qtbot, viewer):
    draw_left(filled, qtbot)
    layer = viewer.layers["Regions"]
    filled.close()
    assert history_of(layer).moved == []
    assert history_of(layer).undo()


def test_areas_and_spots_go_along_into_geojson(filled, qtbot, tmp_path):
    draw_left(filled, qtbot)
    find(filled, qtbot)
    export(filled, tmp_path / "out.geojson", qtbot)
    features = json.loads((tmp_path / "out.geojson").read_text())["features"]
    written = [feature["properties"]["measurements"] for feature in features]
    assert written[0] == {"Spots": 50, "Area mm^2": 2.75}
    assert written[1]["Area mm^2"] == pytest.approx(written[1]["Spots"] * 0.04)


def test_painted_domains_have_one_legend_with_the_colours_and_counts_of_the_list(filled, qtbot, viewer):
    find(filled, qtbot)
    domains = [entry.region for entry in filled.regions.entries]
    assert lines_on(viewer) == [f"Domain {i}  {d.spots}" for i, d in enumerate(domains, 1)]
    colours = [row.colour for row in filled.domains.legend.rows]
    assert colours == ["#{:02x}{:02x}{:02x}".format(*entry.colour) for entry in filled.regions.entries]
    filled.choice.paint.value = Paint.HIDDEN
    assert lines_on(viewer) == []


def test_a_layer_without_shapes_does_not_make_the_dock_read_and_compare_again(filled, qtbot, viewer):
    draw_left(filled, qtbot)
    before = filled.regions.entries
    viewer.add_image(np.zeros((4, 4)))
    assert filled.regions.entries[0] is before[0]


def test_gene_sets_of_a_file_are_tested_in_prediction_and_truth(filled, qtbot, tmp_path):
    draw_left(filled, qtbot)
    genes = [str(gene) for gene in filled.session.adata.var_names]
    lines = ["\t".join(["RAISED", "", *genes[:6]]), "\t".join(["OTHER", "", *genes[10:16]])]
    (tmp_path / "sets.gmt").write_text("\n".join(lines))
    filled.read_sets(tmp_path / "sets.gmt")
    table = filled.results.sets.table
    qtbot.waitUntil(lambda: table.shown == ["RAISED", "OTHER"], timeout=10_000)
    assert filled.results.recovered.text().startswith(
        "Of 2 pairs of gene set and domain 1 raised in the truth, 1 in the pred"
    )
    filled.results.shown.value = PREDICTED
    assert [table.index(0, column).data() for column in (1, 2)] == ["6", "1.000"]
    filled.results.sets.setCurrentIndex(table.index(0, 0))
    assert filled.session.gene_set == tuple(genes[:6])
    assert filled.session.gene_set_name == "RAISED"


def test_gene_sets_read_on_another_page_are_tested_in_the_region(filled, qtbot, tmp_path):
    draw_left(filled, qtbot)
    genes = tuple(str(gene) for gene in filled.session.adata.var_names)
    filled.session.set_gene_sets({"THEIRS": genes[:6]}, tmp_path / "theirs.gmt")
    qtbot.waitUntil(lambda: filled.results.sets.table.shown == ["THEIRS"], timeout=10_000)
    assert filled.results.origin.text() == "theirs.gmt: 1"


@pytest.mark.slow
def test_the_genes_of_a_set_are_shown_over_the_regions_and_saved(filled, qtbot, tmp_path):
    results, genes = filled.results, [str(gene) for gene in filled.session.adata.var_names]
    results.tabs.setCurrentIndex(2)
    assert "Find domains or draw regions" in results.set_map.message
    assert not results.figure.isEnabled()
    draw_left(filled, qtbot)
    filled.session.set_gene_set("Mine", genes[:6])
    qtbot.waitUntil(lambda: results.set_map.shown is not None and results.set_map.shown.name == "Mine")
    shown = results.set_map.shown
    assert (set(shown.genes), shown.regions) == (set(genes[:6]), ("Region 1",))
    assert min(values.min() for values in shown.values.values()) > 0
    for name in ("map.png", "map.svg"):
        filled.save_figure(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    filled.save_figure(tmp_path / "map.txt")
    assert "choose .png or .svg" in filled.messages.texts[-1]


def test_the_table_is_saved_with_both_sources(filled, qtbot, tmp_path):
    draw_left(filled, qtbot)
    filled.save_table(tmp_path / "genes.csv")
    head, *rows = (tmp_path / "genes.csv").read_text().splitlines()
    assert "difference_predicted" in head
    assert "q_measured" in head
    assert len(rows) == 20


def test_drawing_makes_the_layer_ready(filled, viewer):
    filled.regions.buttons["Lasso"].click()
    layer = viewer.layers.selection.active
    assert (layer.name, str(layer.mode)) == ("Regions", "add_polygon_lasso")
    filled._on_click((10.0, 10.0))  # while drawing, a click is a corner and picks no domain
    assert filled.regions.current is None


def held_comparison():
    """Return the events that a comparison began and is released, and the comparison that waits for it."""
    begun, released = threading.Event(), threading.Event()

    def slow(adata, inside, outside):
        begun.set()
        while not released.wait(0.05):
            yield Step("Comparing regions", 0, None)

    return begun, released, slow


def test_cancel_frees_the_dock_within_a_second(filled, qtbot, monkeypatch):
    begun, released, slow = held_comparison()
    draw_left(filled, qtbot)
    before = filled.numbers
    monkeypatch.setattr(regions_dock, "compare_regions", slow)
    filled._due.start()
    qtbot.waitUntil(lambda: begun.is_set() and filled.strip.isVisible(), timeout=2_000)
    filled.strip.cancel.click()
    qtbot.waitUntil(filled.strip.isHidden, timeout=1_000)
    released.set()
    assert filled.numbers is before


@pytest.mark.parametrize("another", ["region", "prediction"])
def test_numbers_of_another_region_or_prediction_are_not_saved_and_go_when_its_own_are_cancelled(
    filled, qtbot, monkeypatch, tmp_path, another
):
    begun, released, slow = held_comparison()
    draw_left(filled, qtbot)
    filled._layer().add([np.array([[0, 0], [0, 900], [5000, 900], [5000, 0]], float)])
    qtbot.waitUntil(lambda: len(filled.regions.entries) == 2 and not filled.jobs.active, timeout=5_000)
    filled.regions.choose(filled.regions.entries[0].key)
    qtbot.waitUntil(lambda: not (filled._due.isActive() or filled.jobs.active), timeout=5_000)
    monkeypatch.setattr(regions_dock, "compare_regions", slow)
    if another == "region":
        filled.regions.choose(filled.regions.entries[1].key)
    else:
        filled.session.set_prediction(two_halves(seed=4))
    filled.save_table(tmp_path / "genes.csv")
    qtbot.waitUntil(begun.is_set, timeout=2_000)
    filled.save_table(tmp_path / "genes.csv")
    assert "not compared yet" in filled.messages.texts[-1]
    filled.strip.cancel.click()
    qtbot.waitUntil(lambda: not filled.jobs.active, timeout=2_000)
    released.set()
    assert filled.numbers is None
    filled.save_table(tmp_path / "genes.csv")
    assert not (tmp_path / "genes.csv").exists()


def test_a_click_is_announced_and_a_drag_is_not():
    class Event:
        position = (1.0, 2.0)
        type = "mouse_press"

    clicked, event = [], Event()
    callback = clicks(clicked.append)
    for moves, expected in ((0, [(1.0, 2.0)]), (2, [(1.0, 2.0)])):
        running = callback(None, event)
        next(running)
        for _ in range(moves):
            event.type = "mouse_move"
            next(running)
        event.type = "mouse_release"
        assert next(running, "ended") == "ended"
        assert clicked == expected


def test_domains_painted_before_the_page_was_closed_are_those_of_the_page_opened_again(filled, viewer, qtbot):
    find(filled, qtbot)
    (layer,) = [la for la in viewer.layers if la.metadata.get(keys.LAYER_KIND) == "domains"]
    filled.close()
    again = RegionsDock(viewer)
    qtbot.addWidget(again)
    assert again.choice.paint.value is Paint.FILLED
    assert again.domains.layer is layer
    assert layer.visible
    again.choice.paint.value = Paint.HIDDEN
    assert not layer.visible
    assert lines_on(viewer) == []
