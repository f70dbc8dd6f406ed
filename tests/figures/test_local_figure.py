import pytest
from napari.components import ViewerModel
from PIL import Image
from tests.fakes import FakeSlide, fake_prediction

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.figures.gene_figure import save_local_figure
from napari_flag.layers.gene_map import GeneMap
from napari_flag.layers.local_map import LocalMap, MapKind, find_classes
from napari_flag.progress import finish

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
    local.set_found(finish(find_classes(local.missing())))
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
