import re

import pytest
from matplotlib.figure import Figure
from napari.components import ViewerModel
from PIL import Image
from tests.fakes import FakeSlide, fake_prediction

from napari_flag import keys
from napari_flag.analysis.spatial import find_classes
from napari_flag.errors import UserError
from napari_flag.exports.replacing import written_here
from napari_flag.figures.gene_figure import save_gene_figure, save_local_figure, write_figure
from napari_flag.layers.gene_map import GeneMap
from napari_flag.layers.local_map import LocalMap, MapKind
from napari_flag.progress import finish


@pytest.fixture
def gene_map():
    gene_map = GeneMap(ViewerModel())
    gene_map.set_prediction(fake_prediction(16))
    gene_map.show(["ERBB2"])
    return gene_map


def test_a_vector_figure_says_gene_units_scale_weights_and_use(gene_map, tmp_path):
    text = save_gene_figure(tmp_path / "f.svg", gene_map, FakeSlide()).read_text()
    for part in ("ERBB2", keys.EXPRESSION_UNITS, "µm", "fake-weights", keys.RESEARCH_USE_ONLY):
        assert part in text


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_no_figure_states_when_it_was_made(tmp_path, kind):
    path = write_figure(Figure(), tmp_path / f"f.{kind}")
    assert written_here(path)
    assert not re.search(rb"CreationDate|dc:date|tIME|D:20\d\d", path.read_bytes())


def test_a_picture_of_two_genes_is_written(gene_map, tmp_path):
    gene_map.show(["ERBB2", "ESR1"])
    with Image.open(save_gene_figure(tmp_path / "f.png", gene_map, None)) as picture:
        assert min(picture.size) > 1000


def test_without_resolution_the_scale_bar_is_in_pixels(gene_map, tmp_path):
    adata = gene_map.values.adata
    del adata.uns[keys.PROVENANCE][keys.MPP]
    text = save_gene_figure(tmp_path / "f.svg", gene_map, None).read_text()
    assert "µm per pixel not known" in text


@pytest.mark.parametrize("name", ["f.docx", "missing/f.png"])
def test_a_figure_that_cannot_be_saved_says_why(gene_map, tmp_path, name):
    with pytest.raises(UserError, match="choose"):
        save_gene_figure(tmp_path / name, gene_map, None)


def test_nothing_to_save_is_said(tmp_path):
    with pytest.raises(UserError, match="predict first"):
        save_gene_figure(tmp_path / "f.png", GeneMap(ViewerModel()), None)


ADATA = fake_prediction(64, n_genes=4)


@pytest.fixture
def local():
    viewer = ViewerModel()
    gene_map = GeneMap(viewer)
    local = LocalMap(viewer, gene_map)
    gene_map.set_prediction(ADATA)
    gene_map.show(["ERBB2"])
    local.refresh()
    return local


def test_clusters_are_saved_with_a_legend_that_counts_them(local, tmp_path):
    local.set_kind(MapKind.CLASSES)
    local.set_found(finish(find_classes(local.missing())), local.shared.of)
    text = save_local_figure(tmp_path / "f.svg", local, ADATA, FakeSlide()).read_text()
    number = int((local.classes(local.key) == 1).sum())
    for part in (f"HH high among high: {number}", "p ≤ 0.05 in each spot", "µm", keys.RESEARCH_USE_ONLY):
        assert part in text


def test_local_moran_is_saved_as_a_picture(local, tmp_path):
    local.set_kind(MapKind.LOCAL)
    with Image.open(save_local_figure(tmp_path / "f.png", local, ADATA, None)) as picture:
        assert min(picture.size) > 1000


def test_what_cannot_be_saved_is_said_in_one_sentence(local, tmp_path):
    with pytest.raises(UserError, match="choose one of them"):
        save_local_figure(tmp_path / "f.png", local, ADATA, None)
    local.set_kind(MapKind.CLASSES)
    with pytest.raises(UserError, match="not computed yet"):
        save_local_figure(tmp_path / "f.png", local, ADATA, None)
    with pytest.raises(UserError, match=r"choose \.png or \.svg"):
        save_local_figure(tmp_path / "f.pdf", local, ADATA, None)
