import numpy as np
import pytest
from anndata import AnnData
from napari.components import ViewerModel
from tests.fakes import fake_prediction
from tests.layers.overlay_texts import lines_on

from napari_flag import keys
from napari_flag.analysis.domains import domain_agreement, find, read_domains
from napari_flag.analysis.spatial import find_classes
from napari_flag.analysis.truth import MEASURED, PREDICTED
from napari_flag.errors import UserError
from napari_flag.gui.session import Session
from napari_flag.gui.shortcuts import SHORTCUTS
from napari_flag.layers import local_map
from napari_flag.layers.gene_values import Quantity
from napari_flag.layers.local_map import MapKind
from napari_flag.progress import finish


@pytest.fixture
def session(qapp):
    viewer = ViewerModel()
    session = Session.of(viewer)
    session.kept = viewer  # the session itself holds the viewer weakly
    session.set_prediction(fake_prediction(25, n_genes=8))
    return session


def counts_of(prediction, seed=1):
    rng = np.random.default_rng(seed)
    measured = AnnData(rng.poisson(3.0, prediction.shape).astype(np.float32))
    measured.obs_names, measured.var_names = prediction.obs_names, prediction.var_names
    return measured


def emitted(signal):
    received = []
    signal.connect(lambda *given: received.append(given[0] if given else None))
    return received


def test_a_gene_set_is_announced_once_and_without_repeats(session):
    received = emitted(session.geneSetChanged)
    for _ in range(2):
        session.set_gene_set("epithelium", ["KRT8", "EPCAM", "KRT8"])
    assert received == [("KRT8", "EPCAM")]
    assert (session.gene_set_name, session.gene_set) == ("epithelium", ("KRT8", "EPCAM"))


def test_counts_that_are_attached_are_announced_with_the_prediction_and_can_be_removed(session):
    attached = []
    session.predictionChanged.connect(lambda _: attached.append(session.measured))
    measured = counts_of(session.adata)
    session.set_measured(measured)
    assert attached == [measured]
    assert np.allclose(session.adata.layers[keys.MEASURED], np.log2(measured.X + 1))
    session.set_measured(None)
    assert session.measured is None
    assert session.gene_map.values.why_not(Quantity.MEASURED)


def test_domains_of_counts_go_with_them_and_stay_when_the_same_come_again(session):
    measured = counts_of(session.adata)
    session.set_measured(measured)
    for source in (PREDICTED, MEASURED):
        finish(find(session.adata, source, "leiden"))
    session.set_measured(measured)
    assert domain_agreement(session.adata) is not None
    session.set_measured(counts_of(session.adata, seed=2))
    assert read_domains(session.adata, MEASURED) is None
    assert read_domains(session.adata, PREDICTED) is not None
    finish(find(session.adata, MEASURED, "leiden"))
    session.set_measured(None)
    assert domain_agreement(session.adata) is None


def test_another_prediction_forgets_the_counts_of_the_one_before(session):
    session.set_measured(counts_of(session.adata))
    session.set_prediction(fake_prediction(25, n_genes=8, measured=False))
    assert session.measured is None


def test_counts_of_another_slide_are_refused_and_change_nothing(session):
    other = counts_of(session.adata)
    other.obs_names = [f"x{i}" for i in range(25)]
    before = session.adata.layers[keys.MEASURED].copy()
    with pytest.raises(UserError):
        session.set_measured(other)
    assert session.measured is None
    assert np.array_equal(session.adata.layers[keys.MEASURED], before)


def test_a_pair_ends_with_the_next_gene(session):
    received = emitted(session.pairChanged)
    session.show_pair("ERBB2", "VIM")
    assert (session.gene, session.gene_beside) == ("ERBB2", "VIM")
    session.select_gene("CDH1")
    assert session.gene_beside is None
    assert len(received) == 2


def test_a_gene_that_the_prediction_lacks_changes_nothing_that_is_shown(session):
    former = str(session.adata.var_names[-1])
    session.set_prediction(fake_prediction(25, n_genes=6, seed=1))
    one, two, three = map(str, session.adata.var_names[1:4])
    assert former not in session.adata.var_names
    session.show_genes([one, two])
    received = emitted(session.genesShownChanged)
    session.select_gene(former)  # as a table that still lists the genes of the prediction before does
    session.show_pair(former, one)
    assert (session.genes_shown, received) == ([one, two], [])
    session.show_pair(three, former)
    assert (session.genes_shown, session.gene_beside) == ([three], None)
    session.show_genes([one, former])
    assert list(session.gene_map.genes) == [one]


def test_keys_over_the_picture_show_what_the_list_of_shortcuts_says(session):
    bound = {str(key): action for key, action in session.viewer.keymap.items()}
    bound["Alt+3"](session.viewer)
    assert session.gene_map.quantity is Quantity.MEASURED
    session.set_measured(None)
    bound["Alt+4"](session.viewer)  # no difference without truth: nothing happens
    assert session.gene_map.quantity is Quantity.PREDICTED
    listed = {shortcut.key for shortcut in SHORTCUTS}
    assert {key for key in bound if key.startswith("Alt")} <= listed


def test_the_kind_of_map_is_announced_and_follows_the_gene(session):
    received = emitted(session.mapKindChanged)
    session.set_map_kind(MapKind.LOCAL)
    session.set_map_kind(MapKind.LOCAL)
    session.select_gene("VIM")
    assert received == [MapKind.LOCAL]
    assert [la.name for la in session.viewer.layers if la.visible] == ["VIM · local Moran's I (predicted)"]
    session.set_prediction(None)
    assert len(session.viewer.layers) == 0


def test_a_preview_paints_the_gene_and_the_clusters_are_there_again_after_it(session, monkeypatch):
    session.set_map_kind(MapKind.CLASSES)
    key, of = session.local_map.key, session.adata
    (wanted,) = session.local_map.missing()
    session.local_map.set_found(finish(find_classes([wanted])), of)
    shown = session.local_map.layer.data.copy()
    sought = []
    monkeypatch.setattr(local_map, "neighbours_of", lambda *given: sought.append(given))
    session.preview(fake_prediction(9, n_genes=8, measured=False), session.state)
    assert sought == [], "neighbours of spots that are still coming"
    assert session.local_map.missing() == []
    assert [la.name for la in session.viewer.layers if la.visible] == [f"{key[0]} · predicted"]
    assert lines_on(session.viewer) == []
    monkeypatch.undo()
    session.show_result(session.state)
    assert session.local_map.found(key) is not None
    np.testing.assert_array_equal(session.local_map.layer.data, shown)
    assert [la.name for la in session.viewer.layers if la.visible] == [f"{key[0]} · clusters (predicted)"]
