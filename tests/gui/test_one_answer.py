"""With a gene and some spots not measured, every dock shows the same answer."""

import numpy as np
import pandas as pd
import pytest
from tests.fakes import MPP, PITCH_UM, add_draws, counts_for, fake_prediction

from napari_flag import keys
from napari_flag.analysis.compare import comparing
from napari_flag.analysis.domains import COLUMNS, LABELS, read_domains
from napari_flag.analysis.structure import write_structure
from napari_flag.analysis.truth import MEASURED, PREDICTED, attach_measured
from napari_flag.exports.qupath import domain_annotations
from napari_flag.formatting import area, score
from napari_flag.gui.coexpression_dock import CoexpressionDock
from napari_flag.gui.compare_dock import CompareDock
from napari_flag.gui.regions.regions_dock import RegionsDock
from napari_flag.gui.samples_dock import SamplesDock
from napari_flag.gui.side_by_side_dock import SideBySideDock
from napari_flag.gui.spatial_dock import SpatialDock
from napari_flag.progress import finish
from napari_flag.report.findings import labels_of
from napari_flag.slides.formats.geojson import read_annotations

MISSING_GENE, MISSING_SPOTS = 7, 18


@pytest.fixture
def case():
    """A prediction with its measurement attached, and the counts."""
    whole = counts_for(fake_prediction(100, n_genes=12))
    genes = [gene for k, gene in enumerate(whole.var_names) if k != MISSING_GENE]
    counts = whole[MISSING_SPOTS:, genes].copy()
    adata = add_draws(fake_prediction(100, n_genes=12, measured=False), 8)
    attach_measured(adata, counts)
    return adata, counts


@pytest.fixture
def open_dock(viewer, qtbot):
    def open_one(kind):
        dock = kind(viewer)
        qtbot.addWidget(dock)
        return dock

    return open_one


def test_every_dock_shows_the_same_scores(case, open_dock, qtbot):
    adata, counts = case
    kinds = (SideBySideDock, SpatialDock, CoexpressionDock, CompareDock, SamplesDock)
    side, spatial, genes, scores, samples = (open_dock(kind) for kind in kinds)
    side.session.set_prediction(adata)
    qtbot.waitUntil(
        lambda: all((side.scores, spatial.scores, genes.together, scores.agreement, samples.numbers)),
        timeout=60_000,
    )
    expected = finish(comparing(adata, counts))
    values = expected.scores["X"].values
    assert side.scores.overall == pytest.approx(values, abs=1e-5)
    assert scores.agreement.comparison.scores["X"].values == pytest.approx(values, abs=1e-5)
    assert spatial.scores.ssc == pytest.approx(values["SSC"], abs=1e-5)
    assert genes.together.gsc_all == pytest.approx(values["GSC"], abs=1e-5)
    for draws in (scores.agreement.comparison.draws, samples.numbers.scores):
        assert draws.values == pytest.approx(expected.draws.values, abs=1e-5)
        assert draws.proper == pytest.approx(expected.draws.proper, abs=1e-5)
    assert f"<b>{score(values['PCC'], 'PCC')}</b>" in side._numbers["PCC"].text()
    assert side._numbers["PCC"].text() == scores.numbers["PCC"].text()
    assert f"SSC of X {score(values['SSC'], 'SSC')} over 11 genes and 82 spots" in spatial.heading.text()
    assert "11 genes over 82 spots" in genes.heading.text()
    moran = dict(zip(spatial.scores.genes, spatial.scores.predicted, strict=True))
    assert {name: gene.moran_predicted for name, gene in side.scores.genes.items()} == pytest.approx(moran)
    table = scores.agreement.tables["X"].set_index("gene").moran_predicted
    assert table.to_dict() == pytest.approx({gene: moran[gene] for gene in table.index})


def test_the_regions_dock_finds_the_domains_of_every_export(case, open_dock, qtbot):
    adata, _ = case
    exported = adata.copy()
    finish(write_structure(exported))
    dock = open_dock(RegionsDock)
    dock.session.set_prediction(adata)
    expected = {source: read_domains(exported, source) for source in (PREDICTED, MEASURED)}
    for source in expected:
        dock.choice.source.value = source
        dock.find_domains()
        qtbot.waitUntil(lambda source=source: read_domains(adata, source) is not None, timeout=30_000)
    for source, numbers in expected.items():
        qtbot.waitUntil(
            lambda source=source, numbers=numbers: np.array_equal(read_domains(adata, source), numbers),
            timeout=30_000,
        )
    largest = f"domain {MEASURED} 1"
    qtbot.waitUntil(lambda: any(entry.key == largest for entry in dock.regions.entries), timeout=30_000)
    dock.regions.choose(largest)
    qtbot.waitUntil(lambda: dock.numbers is not None, timeout=30_000)
    ranked = exported.uns[keys.MARKERS + keys.OF_MEASURED]["names"]["1"]
    assert dock.numbers.rankings[MEASURED] == tuple(ranked)


@pytest.mark.parametrize(
    ("source", "names"),
    [
        (PREDICTED, ["0", "1", "2"]),
        (PREDICTED, ["immune", "fat", "adipose"]),
        (LABELS, [str(number) for number in range(1, 13)]),
    ],
    ids=["domains from 0 on", "named domains", "twelve labels"],
)
def test_the_regions_dock_lists_and_exports_what_the_command_line_and_the_report_do(
    case, open_dock, qtbot, tmp_path, source, names
):
    adata, _ = case
    places = adata.obsm[keys.SPATIAL]
    places += np.random.default_rng(3).normal(0, PITCH_UM / MPP / 12, places.shape)
    adata.obs[COLUMNS[source]] = pd.Categorical(np.resize(names, adata.n_obs))
    dock = open_dock(RegionsDock)
    dock.session.set_prediction(adata)
    dock.choice.source.value = source
    qtbot.waitUntil(lambda: bool(dock.regions.entries), timeout=30_000)
    dock.export_regions(tmp_path / "regions.geojson")
    qtbot.waitUntil((tmp_path / "regions.geojson").exists, timeout=30_000)
    exported = read_annotations(tmp_path / "regions.geojson")
    assert [a.colour for a in exported] == [entry.colour for entry in dock.regions.entries]
    listed = [entry.region.name for entry in dock.regions.entries]
    titles = [name.removesuffix(" of the prediction").removeprefix("Label ") for name in listed]
    assert [a.name.replace("domain", "Domain") for a in exported] == titles
    again = finish(domain_annotations(adata, source))
    assert [(a.name, a.colour, a.polygons) for a in again] == [
        (a.name, a.colour, a.polygons) for a in exported
    ]
    areas = [dock.regions.list.topLevelItem(row).text(2) for row in range(len(again))]
    assert areas == [area(a.measurements["Area mm^2"], unit=False) for a in again]
    if source == LABELS:
        assert labels_of(adata, {}).names == tuple(titles)
