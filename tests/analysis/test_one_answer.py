"""One prediction, of which a gene and some spots were not measured: every place gives the same answer."""

import json

import anndata
import numpy as np
import pandas as pd
import pytest
from napari.components import ViewerModel
from tests.fakes import MPP, PITCH_UM, add_draws, counts_for, fake_prediction

from napari_flag import keys
from napari_flag.analysis.coexpression import DEPTH_SHOWN, correlate
from napari_flag.analysis.compare import agree, comparing, section_of
from napari_flag.analysis.domains import (
    COLUMNS,
    LABELS,
    colour_of,
    domain_agreement,
    domain_title,
    find,
    read_domains,
)
from napari_flag.analysis.draws import compare_draws
from napari_flag.analysis.pathways import bundled, recover_in_truth
from napari_flag.analysis.regions import AreaScale, compare_regions
from napari_flag.analysis.scores import scoring, scoring_section
from napari_flag.analysis.spatial import score_spatially, spot_neighbours
from napari_flag.analysis.structure import write_structure
from napari_flag.analysis.truth import (
    MEASURED,
    PREDICTED,
    attach_measured,
    measured_extent,
    truth_of,
)
from napari_flag.cli import main
from napari_flag.exports.qupath import domain_annotations
from napari_flag.layers.gene_map import GeneMap
from napari_flag.layers.region_shapes import collect
from napari_flag.prediction_file import read_prediction, um_per_px, write_prediction
from napari_flag.progress import finish
from napari_flag.report.findings import gather
from napari_flag.report.page import write_page
from napari_flag.report.pictures import Picture
from napari_flag.slides.formats.geojson import as_feature
from napari_flag.statistics import coexpression
from napari_flag.statistics.coexpression import gene_correlations
from napari_flag.statistics.domains import agreement

MISSING_GENE, MISSING_SPOTS = 7, 18
ROUNDING = 1e-5
"""Counts go through float32 in ``layers["measured"]`` on some of the ways."""


@pytest.fixture(scope="module")
def counts():
    whole = counts_for(fake_prediction(121, n_genes=24))
    genes = [gene for k, gene in enumerate(whole.var_names) if k != MISSING_GENE]
    return whole[MISSING_SPOTS:, genes].copy()


@pytest.fixture(scope="module")
def alone():
    """The prediction without any measurement, of nine draws."""
    return add_draws(fake_prediction(121, n_genes=24, measured=False), 9)


@pytest.fixture
def adata(alone, counts):
    prediction = alone.copy()
    attach_measured(prediction, counts)
    return prediction


@pytest.fixture(scope="module")
def findings(alone, counts):
    """Of the report."""
    return finish(gather(alone, counts))


@pytest.fixture(scope="module")
def written(alone, counts):
    """With the structure that every export writes."""
    prediction = alone.copy()
    attach_measured(prediction, counts)
    finish(write_structure(prediction))
    return prediction


@pytest.fixture
def files(alone, counts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_prediction(alone, tmp_path / "predicted.h5ad")
    counts.write_h5ad(tmp_path / "measured.h5ad")
    return tmp_path


def test_the_mask_is_the_genes_measured_and_the_spots_that_have_them_all(adata):
    adata.layers[keys.MEASURED][30, 2] = np.nan
    extent = measured_extent(adata)
    assert set(range(adata.n_obs)) - set(extent.spots.tolist()) == {*range(MISSING_SPOTS), 30}
    assert set(range(adata.n_vars)) - set(extent.genes.tolist()) == {MISSING_GENE}
    assert finish(scoring_section(adata)).spots == len(section_of(adata).truth) == len(extent.spots)
    assert finish(agree(adata)).comparison.spots == len(extent.spots)
    assert finish(score_spatially(adata)).spots_measured == len(extent.spots)


def test_every_place_gives_the_same_scores(adata, counts, findings, files, capsys):
    known = finish(comparing(adata, counts))
    expected = known.scores["X"].values
    assert (known.spots, known.genes) == (121 - MISSING_SPOTS, 23)
    side_by_side, spatial = finish(scoring_section(adata)), finish(score_spatially(adata))
    together = finish(correlate(adata, adata.var_names))
    assert side_by_side.overall == pytest.approx(expected, abs=ROUNDING)
    assert finish(agree(adata)).comparison.scores["X"].values == pytest.approx(expected, abs=ROUNDING)
    assert finish(agree(adata, counts)).comparison.scores["X"].values == expected
    assert findings.comparison.scores["X"].values == expected
    assert section_of(adata).sample_scores == pytest.approx(known.scores["sample"].values, abs=ROUNDING)
    assert spatial.ssc == pytest.approx(expected["SSC"], abs=ROUNDING)
    for gsc in (together.gsc, together.gsc_all, findings.together.gsc):
        assert gsc == pytest.approx(expected["GSC"], abs=ROUNDING)
    drawn, sample = finish(compare_draws(adata)).scores, known.scores["sample"].values
    assert {name: values[0] for name, values in drawn.by_draw.items()} == pytest.approx(sample, abs=ROUNDING)
    assert drawn.values == pytest.approx(known.draws.values, abs=ROUNDING)
    assert drawn.proper == pytest.approx(known.draws.proper, abs=ROUNDING)
    for name, ends in known.draws.intervals.items():
        assert drawn.intervals[name] == pytest.approx(ends, abs=ROUNDING)
    assert findings.comparison.draws.to_dict() == known.draws.to_dict()
    assert main(["compare", "predicted.h5ad", "measured.h5ad", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    for source, scores in (("X", expected), ("sample", sample)):
        assert {name: printed[source][name] for name in scores} == pytest.approx(scores)
    assert printed["draws"] == known.draws.to_dict()


def test_every_place_gives_the_same_morans_i_of_a_predicted_gene(adata, alone, counts, findings, written):
    spatial = finish(score_spatially(alone))
    everywhere = pd.Series(spatial.predicted, spatial.genes)
    q = pd.Series(spatial.q, spatial.genes)
    measured = [gene for k, gene in enumerate(adata.var_names) if k != MISSING_GENE]
    np.testing.assert_array_equal(finish(score_spatially(adata)).predicted, spatial.predicted)
    np.testing.assert_array_equal(finish(score_spatially(adata)).q, spatial.q)
    report = findings.genes.set_index("gene")
    assert list(report.index) == list(adata.var_names)
    np.testing.assert_allclose(report.moran, everywhere)
    np.testing.assert_allclose(report.q, q)
    exported = written.uns[keys.MORAN].loc[list(adata.var_names)]
    np.testing.assert_allclose(exported.I, everywhere)
    np.testing.assert_allclose(exported.pval_norm_fdr_bh, q)
    np.testing.assert_allclose(
        [s.moran_predicted for s in finish(scoring_section(adata)).genes.values()], everywhere
    )
    compared = finish(comparing(adata, counts)).tables["X"].set_index("gene")
    np.testing.assert_allclose(compared.moran_predicted, everywhere[measured])
    np.testing.assert_allclose(finish(agree(alone)).tables["X"].moran_predicted, everywhere)
    drawn = finish(compare_draws(adata)).moran[0]
    sample = finish(comparing(adata, counts)).tables["sample"].set_index("gene").moran_predicted
    np.testing.assert_allclose(pd.Series(drawn, adata.var_names)[measured], sample[measured])


def test_every_place_gives_the_same_morans_i_of_a_measured_gene(adata, counts, findings, written):
    spatial = finish(score_spatially(adata))
    expected = pd.Series(spatial.measured, spatial.genes)
    assert np.flatnonzero(expected.isna()).tolist() == [MISSING_GENE]
    close = {"atol": ROUNDING, "equal_nan": True}
    np.testing.assert_allclose(findings.genes.moran_measured, expected, **close)
    scored = finish(scoring_section(adata)).genes
    np.testing.assert_allclose([scored[gene].moran_measured for gene in expected.index], expected, **close)
    known = expected.dropna()
    compared = finish(comparing(adata, counts)).tables["X"].set_index("gene")
    np.testing.assert_allclose(compared.moran_measured, known, **close)
    np.testing.assert_allclose(written.uns[keys.MORAN + keys.OF_MEASURED].I[known.index], known, **close)
    there = pd.Series(spatial.predicted_there, spatial.genes)[known.index]
    np.testing.assert_allclose(compared.moran_compared, there, **close)


@pytest.mark.parametrize("first", [PREDICTED, MEASURED])
def test_every_place_finds_the_same_domains(adata, alone, findings, written, first):
    finish(find(adata, first, "leiden"))
    finish(find(adata, MEASURED if first == PREDICTED else PREDICTED, "leiden"))
    for source, of_report in ((PREDICTED, findings.domains), (MEASURED, findings.domains_measured)):
        of_dock = read_domains(adata, source)
        np.testing.assert_array_equal(of_report, of_dock)
        np.testing.assert_array_equal(read_domains(written, source), of_dock)
    assert findings.likeness == domain_agreement(adata) == domain_agreement(written)
    assert (findings.domains > 0).all()
    assert np.flatnonzero(findings.domains_measured == 0).tolist() == list(range(MISSING_SPOTS))
    groups = finish(gather(alone, None)).domains
    assert agreement(groups, findings.domains).ari == 1.0
    finish(find(alone_copy := alone.copy(), PREDICTED, "leiden"))
    np.testing.assert_array_equal(read_domains(alone_copy, PREDICTED), groups)


def test_every_export_holds_the_domains_of_the_docks(written, files):
    formats = ["h5ad", "csv", "geojson"]
    line = ["export", "predicted.h5ad", "--measured", "measured.h5ad", "--out", "out", "--to", *formats]
    assert main(line) == 0
    out = files / "out"
    back = read_prediction(out / "fake.h5ad")
    table = pd.read_csv(out / "fake_expression.csv")
    for source, column in COLUMNS.items():
        if column in written.obs:
            np.testing.assert_array_equal(read_domains(back, source), read_domains(written, source))
            np.testing.assert_array_equal(table[column].fillna(0).astype(int), read_domains(written, source))
    pd.testing.assert_frame_equal(back.uns[keys.MORAN], written.uns[keys.MORAN])
    spots = [
        feature["properties"]
        for feature in json.loads((out / "fake.geojson").read_text("utf-8"))["features"]
        if feature["properties"]["objectType"] == "detection"
    ]
    named = {spot["name"]: spot["classification"]["name"] for spot in spots}
    expected = read_domains(written, PREDICTED)
    assert named == {
        spot: f"domain {number}" for spot, number in zip(written.obs_names, expected, strict=True)
    }


def test_every_place_keeps_the_domains_that_a_person_found(adata, counts, files, findings):
    for source in (PREDICTED, MEASURED):
        finish(find(adata, source, "k-means"))
    write_prediction(adata, files / "found.h5ad")
    read = read_prediction(files / "found.h5ad")
    of_report = finish(gather(read, finish(truth_of(read))))
    assert main(["export", "found.h5ad", "--out", "out", "--to", "h5ad", "csv"]) == 0
    back, table = read_prediction(files / "out" / "fake.h5ad"), pd.read_csv(files / "out/fake_expression.csv")
    known = {PREDICTED: of_report.domains, MEASURED: of_report.domains_measured}
    for source, numbers in known.items():
        expected = read_domains(adata, source)
        for given in (numbers, read_domains(back, source), table[COLUMNS[source]].fillna(0).astype(int)):
            np.testing.assert_array_equal(given, expected)
    assert of_report.domain_methods == {PREDICTED: "k-means", MEASURED: "k-means"}
    markers = back.uns[keys.MARKERS + keys.OF_MEASURED]["names"]
    for domain in of_report.markers:
        assert domain.measured == tuple(markers[str(domain.number)][: len(domain.measured)])
    assert finish(recover_in_truth(adata, bundled())).to_dict() == of_report.pathways.to_dict()
    assert agreement(of_report.domains_measured, findings.domains_measured).ari < 1  # which are Leiden's
    again = finish(gather(adata, counts))
    np.testing.assert_array_equal(again.domains_measured, of_report.domains_measured)


OTHERS = {
    "from 0 on": np.array(["0", "1", "2"]),
    "named": np.array(["immune", "fat", "adipose"]),
    "of ours": np.array(["1", "2", "3"]),
    "more than nine": np.array([str(number) for number in range(1, 13)]),
}


@pytest.fixture
def jittered(alone):
    """Spots off their places by a twelfth of the pitch, with twelve labels named by numbers."""
    prediction = alone.copy()
    pitch = PITCH_UM / MPP
    prediction.obsm[keys.SPATIAL] += np.random.default_rng(3).normal(0, pitch / 12, (prediction.n_obs, 2))
    prediction.obs[keys.LABEL] = pd.Categorical(np.resize([str(n) for n in range(1, 13)], prediction.n_obs))
    finish(write_structure(prediction))
    return prediction


def listed(adata, source):
    """Title, spots, colour and area of each that the dock lists, in its order."""
    scale = AreaScale.of(adata, um_per_px(adata))
    found = []
    for entry in collect([], GeneMap(ViewerModel()), adata, source):
        title = entry.region.name.removesuffix(" of the prediction").removeprefix("Label ")
        found.append((title, entry.region.spots, entry.colour, round(scale.of_region(entry.region), 4)))
    return found


def outlined(annotations):
    """The same of annotations in the schema of QuPath."""
    found = []
    for properties in (annotation["properties"] for annotation in annotations):
        name, numbers, kind = (properties[key] for key in ("name", "measurements", "classification"))
        assert kind["name"] == name
        title = name.replace("domain", "Domain")
        found.append((title, numbers["Spots"], tuple(kind["color"]), numbers["Area mm^2"]))
    return found


@pytest.mark.parametrize("names", OTHERS.values(), ids=OTHERS)
def test_every_place_orders_names_and_paints_domains_and_labels_alike(jittered, files, names):
    rank = np.linspace(0, len(names) - 1e-6, jittered.n_obs).astype(int)
    jittered.obs[keys.DOMAIN] = pd.Categorical(names[rank])
    numbers = read_domains(jittered, PREDICTED)
    expected = listed(jittered, PREDICTED)
    write_prediction(jittered, files / "other.h5ad")
    assert main(["export", "other.h5ad", "--out", "out", "--to", "geojson"]) == 0
    features = json.loads((files / "out" / "fake.geojson").read_text("utf-8"))["features"]
    domains = [f for f in features if f["properties"]["objectType"] == "annotation"]
    assert outlined(domains) == expected
    classes = [f["properties"]["classification"] for f in features[len(domains) :]]
    called = dict(zip(np.unique(numbers), (title for title, *_ in expected), strict=True))
    assert [kind["name"].replace("domain", "Domain") for kind in classes] == [called[n] for n in numbers]
    if not names[0].isdecimal():
        assert set(called.values()) == set(names)
    assert [tuple(kind["color"]) for kind in classes] == [colour_of(number) for number in numbers]
    of_report = finish(gather(jittered, None))
    np.testing.assert_array_equal(of_report.domains, numbers)
    for found in of_report.markers:
        title = domain_title(found.name).replace("domain", "Domain")
        known = (title, found.spots, colour_of(found.number), round(found.area, 4))
        assert known in expected
    page = write_page(of_report, [Picture("domains", "Domains", "", '<svg role="img"></svg>')], command=None)
    assert all(f"</span>{found.name}, " in page for found in of_report.markers)
    labels = as_features(domain_annotations(jittered, LABELS))
    assert outlined(labels) == listed(jittered, LABELS)
    assert of_report.labels.names == tuple(title for title, *_ in listed(jittered, LABELS))
    np.testing.assert_array_equal(of_report.labels.codes + 1, read_domains(jittered, LABELS))


def as_features(steps):
    return [as_feature(annotation) for annotation in finish(steps)]


def test_every_place_takes_the_stated_pitch_for_the_area_of_a_spot(jittered):
    one = (PITCH_UM / 1000) ** 2
    findings = finish(gather(jittered, None))
    assert [domain.area for domain in findings.markers] == pytest.approx(
        [one * domain.spots for domain in findings.markers]
    )
    for _, spots, _, area in outlined(as_features(domain_annotations(jittered))):
        assert area == round(one * spots, 4)
    del jittered.uns[keys.PROVENANCE][keys.SPOT_PITCH_UM]  # the fitted lattice is next
    assert AreaScale.of(jittered, MPP).of_spots(1) == pytest.approx(one, rel=0.02)


@pytest.mark.slow
def test_spatialdata_holds_the_domains_of_the_docks(written, files):
    """Slow for spatialdata's import."""
    pytest.importorskip("spatialdata")
    line = ["export", "predicted.h5ad", "--measured", "measured.h5ad", "--out", "out", "--to", "spatialdata"]
    assert main(line) == 0
    table = anndata.read_zarr(files / "out" / "fake.zarr" / "tables" / "table")
    for source in (PREDICTED, MEASURED):
        np.testing.assert_array_equal(read_domains(table, source), read_domains(written, source))
    pd.testing.assert_series_equal(table.uns[keys.MORAN].I, written.uns[keys.MORAN].I, check_names=False)


def test_every_place_ranks_the_genes_of_a_region_alike(adata, alone, findings, written):
    for source, column in ((PREDICTED, keys.DOMAIN), (MEASURED, keys.DOMAIN + keys.OF_MEASURED)):
        markers = written.uns[keys.MARKERS + ("" if source == PREDICTED else keys.OF_MEASURED)]
        for name in markers["names"].dtype.names:
            inside = (written.obs[column] == name).to_numpy()
            dock = finish(compare_regions(adata, inside, None))
            assert dock.rankings[source] == tuple(markers["names"][name])
            table = dock.genes.set_index("gene").loc[list(markers["names"][name])]
            np.testing.assert_allclose(table[f"score_{source}"], markers["scores"][name], rtol=1e-5)
            np.testing.assert_allclose(table[f"q_{source}"], markers["pvals_adj"][name])
    for domain in findings.markers:
        region = finish(compare_regions(adata, findings.domains_measured == domain.number, None))
        assert domain.predicted == region.rankings[PREDICTED][: len(domain.predicted)]
        assert domain.measured == region.rankings[MEASURED][: len(domain.measured)]
        assert domain.overlaps[0] == region.overlaps[0]


def test_a_region_of_the_prediction_does_not_depend_on_what_was_measured(adata, alone):
    inside = np.arange(adata.n_obs) < 40
    with_truth, without = (finish(compare_regions(a, inside, None)).genes for a in (adata, alone))
    pd.testing.assert_frame_equal(with_truth[without.columns], without)
    unmeasured = np.arange(adata.n_obs) < MISSING_SPOTS
    assert list(finish(compare_regions(adata, unmeasured, None)).rankings) == [PREDICTED]


def test_co_expression_of_the_prediction_does_not_depend_on_what_was_measured(adata, alone, findings):
    for depth in (True, False):
        with_truth, without = (finish(correlate(a, a.var_names, depth=depth)) for a in (adata, alone))
        order = [without.genes.index(gene) for gene in with_truth.genes]
        np.testing.assert_allclose(with_truth.predicted, without.predicted[np.ix_(order, order)])
    of_report, shown = findings.together, finish(correlate(adata, adata.var_names))
    assert of_report.depth is shown.depth is DEPTH_SHOWN
    assert of_report.genes == shown.genes
    assert of_report.gsc == pytest.approx(shown.gsc)
    assert of_report.limit == shown.limit
    np.testing.assert_allclose(of_report.predicted, shown.predicted)
    np.testing.assert_allclose(of_report.measured, shown.measured, atol=ROUNDING)


@pytest.mark.parametrize("above", [False, True])
def test_gsc_ends_at_one_number_of_genes_in_every_place(monkeypatch, above):
    """Some places used to stop at fewer: 3,500 genes had a GSC in one dock and none in the next."""
    assert coexpression.MOST_GENES > 3500
    monkeypatch.setattr(coexpression, "MOST_GENES", 40)
    adata = fake_prediction(9, n_genes=41 if above else 40)
    values = adata.X.astype(float), adata.layers[keys.MEASURED].astype(float)
    pairs = np.triu_indices(adata.n_vars, 1)
    expected = np.corrcoef(*(gene_correlations(given)[pairs] for given in values))[0, 1]
    scores, _ = finish(scoring(*values, spot_neighbours(adata), None, list(adata.var_names), 0))
    found = (
        finish(scoring_section(adata)).overall["GSC"],
        finish(correlate(adata, adata.var_names[:2])).gsc_all,
        scores.values["GSC"],
    )
    assert found == pytest.approx((np.nan if above else expected,) * 3, nan_ok=True)
    assert np.isnan(finish(compare_draws(adata)).scores.by_draw["GSC"]).all() == above
