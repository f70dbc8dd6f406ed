import re
from html import escape
from html.parser import HTMLParser

import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse
from tests.fakes import add_draws, counts_for, fake_prediction

from napari_flag import keys
from napari_flag.analysis.compare import comparing
from napari_flag.analysis.domains import find, write_domains, write_labels
from napari_flag.analysis.regions import TOPS
from napari_flag.analysis.scores import EXPECTATION, MEANING, STRUCTURE
from napari_flag.analysis.truth import MEASURED, PREDICTED
from napari_flag.errors import UserError
from napari_flag.figures.style import house_style
from napari_flag.formatting import area, interval, probability, score
from napari_flag.progress import finish
from napari_flag.report import write_report
from napari_flag.report.findings import MAPS, gather, labels_of
from napari_flag.report.pictures import _draw_domains
from napari_flag.slides.formats.labels import SpotLabels
from napari_flag.statistics.domains import Agreement

VOID = {"meta", "input", "br", "path", "use", "image", "rect"}


class Outline(HTMLParser):
    """Collects what a reader would find, and whether every element is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.headings, self.sources, self.rows = [], [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        self.ids += [given["id"]] if "id" in given else []
        self.sources += [given[key] for key in ("src", "href", "xlink:href") if key in given]
        if tag not in VOID:
            self.open.append(tag)
        self.rows += tag == "tr" and "tbody" in self.open and "table" in self.open

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["h2"]:
            self.headings.append(data)


@pytest.fixture(scope="module")
def prediction():
    return fake_prediction(n_spots=64, n_genes=60)


@pytest.fixture(scope="module")
def page(prediction, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    path = finish(write_report(prediction, counts_for(prediction), folder, command="napari-flag compare a b"))
    assert path == folder / "fake_report.html"
    return path.read_text("utf-8")


def test_the_page_stands_alone_and_is_well_formed(page):
    outline = Outline(page)
    assert outline.open == []
    assert len(set(outline.ids)) == len(outline.ids)
    assert all(source.startswith(("#", "data:")) for source in outline.sources)
    assert not re.search(r"@import|url\((?!#)|<link|fetch\(|XMLHttp", page)


def test_every_reference_inside_a_picture_leads_to_something_in_it(page):
    outline = Outline(page)
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', page))
    assert used
    assert {a or b for a, b in used} <= set(outline.ids)


def test_all_the_figures_are_there_with_truth(page):
    assert Outline(page).headings == [
        "How good it is", "The slide", "Gene maps", "Spatial pattern, gene by gene", "Co-expression",
        "Spatial domains", "A gene set in the domains", "Marker genes of the domains",
        "Calibration of the spread", "All genes", "How it was made",
    ]  # fmt: skip


def test_the_scores_are_those_of_compare(page, prediction):
    comparison = finish(comparing(prediction, counts_for(prediction)))
    scores, draws = comparison.scores["X"], comparison.draws
    for metric in ("PCC", "MSE", "cPCC"):
        assert f"<b>{score(scores.values[metric], metric)}</b>" in page
        low, high = scores.intervals[metric]
        assert interval((low, high), metric, "no interval") in page
    for metric in ("GSC", "SSC", "amplitude"):
        assert f"<b>{score(draws.values[metric], metric)}</b>" in page
        assert f"<td>{score(scores.values[metric], metric)}</td>" in page, (
            "in the table, as the paper reads it"
        )


def test_the_page_says_of_each_metric_what_the_docks_say(page):
    for metric in (*EXPECTATION, *STRUCTURE):
        assert escape(MEANING[metric]) in page


def test_the_picture_of_the_domains_gives_ari_and_nmi_with_the_decimals_of_the_page(prediction):
    findings = finish(gather(prediction, counts_for(prediction)))
    with house_style():
        titles = [axes.get_title(loc="left") for axes in _draw_domains(findings).axes]
    same = findings.likeness
    assert titles == ["measured", f"predicted   {same.described()}"]


def test_q_values_of_genes_are_written_as_in_the_docks(page, prediction):
    genes = finish(gather(prediction, counts_for(prediction))).genes
    assert genes["q"].min() < 0.0005
    for gene, q in zip(genes["gene"], genes["q"], strict=True):
        (row,) = re.findall(rf"<tr><td><i>{gene}</i></td>(.*?)</tr>", page)
        assert f'<td data-v="{q:.6g}">{probability(q)}</td>' in row


@pytest.mark.slow
def test_gene_sets_of_the_domains_are_counted_beside_chance(prediction, tmp_path):
    names = [str(gene) for gene in prediction.var_names]
    sets = {"First": names[:12], "Second": names[12:24], "Third": names[24:30], "Few": names[:2]}
    findings = finish(gather(prediction, counts_for(prediction), sets=sets))
    page = finish(write_report(prediction, counts_for(prediction), tmp_path, findings=findings))
    text = page.read_text("utf-8")
    whole = findings.pathways.whole
    assert whole.tested == 3 * len(findings.pathways.domains)
    assert f"Of {whole.tested} pairs of gene set and domain {len(whole.measured)} raised in the truth" in text
    assert "Few (2)" in text
    assert Outline(text).open == []


@pytest.mark.slow
def test_with_eight_draws_the_page_has_proper_scores_and_with_fewer_it_asks_for_them(page, tmp_path):
    assert "draw up to 8 on the Samples page" in page
    assert "VS-space" not in page
    adata = add_draws(fake_prediction(n_spots=64, n_genes=12), 8)
    counts = counts_for(adata)
    written = finish(write_report(adata, counts, tmp_path)).read_text("utf-8")
    draws = finish(comparing(adata, counts)).draws
    assert "draw more" not in written
    for name, value in draws.proper.items():
        low, high = draws.intervals[name]
        tile = written[written.index(f"<span>{name} <") :]
        tile = tile[: tile.index("</div>")]
        assert f"<b>{score(value, name)}</b>" in tile
        assert interval((low, high), name, "no interval") in tile
    assert Outline(written).open == []


def test_every_gene_has_a_row_and_what_is_needed_to_repeat_it_is_said(page, prediction):
    table = page[page.index('id="genes-table"') : page.index('id="provenance"')]
    assert all(f"<i>{gene}</i>" in table for gene in prediction.var_names)
    made = page[page.index('id="provenance"') :]
    for said in ("0" * 64, "fake-weights", "embedded", "set by hand", "napari-flag compare a b", "µm per px"):
        assert said in made


def test_text_takes_the_colour_of_the_page(page):
    assert "currentColor" in page
    assert "#010203" not in page


@pytest.mark.slow
def test_the_same_files_give_the_same_page(page, prediction, tmp_path):
    again = finish(
        write_report(prediction, counts_for(prediction), tmp_path, command="napari-flag compare a b")
    )
    assert again.read_text("utf-8") == page


def test_without_truth_there_is_a_page_that_claims_no_score(prediction, tmp_path):
    outline = Outline(finish(write_report(prediction, None, tmp_path)).read_text("utf-8"))
    assert outline.headings == [
        "The slide", "Gene maps", "Co-expression", "Spatial domains", "A gene set in the domains",
        "All genes", "How it was made",
    ]  # fmt: skip


def test_the_prediction_handed_in_is_not_changed(page, prediction):
    before = fake_prediction(n_spots=64, n_genes=60)
    assert set(prediction.layers) == set(before.layers)
    assert list(prediction.obs) == list(before.obs)


def test_a_slide_unlike_the_training_tissue_is_said_first(prediction, tmp_path):
    adata = prediction.copy()
    warning = "80 % of the spots look unlike <this>."
    adata.uns[keys.PROVENANCE][keys.FAMILIARITY] = {keys.UNLIKE_WARNING: warning}
    page = finish(write_report(adata, None, tmp_path)).read_text("utf-8")
    assert page.index("80 % of the spots look unlike &lt;this&gt;.") < page.index("<h2")


def test_domains_of_the_prediction_are_of_all_spots_and_those_of_the_truth_of_what_was_measured():
    adata = fake_prediction(n_spots=64, n_genes=60)
    counts = counts_for(adata)[8:].copy()
    found = finish(gather(adata, counts))
    assert (found.domains > 0).all()
    assert (found.domains_measured[:8] == 0).all()
    assert (found.domains_measured[8:] > 0).all()
    assert 0 < found.likeness.ari <= 1
    overlap = found.markers[0].overlaps[0]
    assert overlap.of == TOPS[0]
    assert overlap.chance == pytest.approx(20 * 20 / 60)
    assert len(found.shown) == len(set(found.shown)) == MAPS


def test_maps_are_not_of_the_same_pattern_again_and_again():
    adata = fake_prediction(n_spots=64, n_genes=20)
    adata.X[:, :8] = adata.X[:, :1]
    shown = finish(gather(adata, None)).shown
    assert len(set(shown) & set(adata.var_names[:8])) <= 1


def test_few_spots_and_genes_still_have_a_page(tmp_path):
    small = fake_prediction(n_spots=9, n_genes=2)
    page = finish(write_report(small, counts_for(small), tmp_path)).read_text("utf-8")
    assert Outline(page).headings == [
        "How good it is",
        "The slide",
        "Gene maps",
        "Calibration of the spread",
        "All genes",
        "How it was made",
    ]


@pytest.mark.slow
def test_odd_predictions_have_a_page_too(tmp_path):
    """No array, no resolution, no spread, a gene that never changes, another never seen."""
    adata = fake_prediction(n_spots=36, n_genes=12)
    adata.X[:, 3] = 1.0
    adata.layers[keys.MEASURED][:, 5] = 0.0
    counts = counts_for(adata)
    counts.X[:, 5] = 0
    adata.X = sparse.csr_matrix(adata.X)
    for column in (keys.ARRAY_ROW, keys.ARRAY_COL):
        del adata.obs[column]
    del adata.uns[keys.SPATIAL], adata.uns[keys.PROVENANCE][keys.MPP], adata.layers[keys.SPREAD]
    page = finish(write_report(adata, counts, tmp_path)).read_text("utf-8")
    assert "1 genes are constant in the truth" in page
    assert "Calibration" not in page
    assert "4 nearest spots" in page


def test_names_hold_no_character_that_acts_unseen(tmp_path):
    adata = fake_prediction(n_spots=16, n_genes=4)
    adata.var_names = ["\x1b[2J\u202eA", "<b>", *adata.var_names[2:]]
    page = finish(write_report(adata, None, tmp_path)).read_text("utf-8")
    assert "<i>␛[2J\ufffdA</i>" in page
    assert "<i>&lt;b&gt;</i>" in page
    assert not re.search(r"[\x00-\x08\x0e-\x1f\u202e]", page)


def test_cancelled_it_leaves_nothing(prediction, tmp_path):
    work = write_report(prediction, None, tmp_path)
    for _ in range(3):
        next(work)
    work.close()
    assert not list(tmp_path.iterdir())


def test_what_is_no_prediction_is_refused(tmp_path):
    with pytest.raises(UserError, match="no prediction of napari-flag"):
        finish(write_report(AnnData(np.ones((3, 2))), None, tmp_path))


@pytest.fixture
def labelled():
    """The first eight of 64 spots have no label, the others are <tumour> or fat by turns."""
    adata = fake_prediction(n_spots=64, n_genes=12)
    by_spot = dict(zip(adata.obs_names[8:], np.resize(["<tumour>", "fat"], 56).tolist(), strict=True))
    write_labels(adata, SpotLabels(by_spot, "label"))
    return adata


def test_spots_without_label_or_domain_do_not_count(labelled):
    same = np.resize([4, 2], 64)
    same[:8] = 0
    part = same.copy()
    part[10:60] = 0
    found = labels_of(labelled, {PREDICTED: same, MEASURED: part})
    assert found.names == ("<tumour>", "fat")
    assert (found.codes[:8] == -1).all()
    assert found.agreements == {
        keys.DOMAIN: Agreement(1.0, 1.0),
        keys.DOMAIN + keys.OF_MEASURED: Agreement(1.0, 1.0),
    }
    assert found.to_dict()["spots"] == 56
    assert labels_of(labelled, {}).agreements == {}
    assert labels_of(fake_prediction(n_spots=9), {}) is None


@pytest.mark.slow
def test_the_report_shows_labels_and_how_far_domains_agree_with_them(labelled, tmp_path):
    findings = finish(gather(labelled, counts_for(labelled)))
    work = write_report(labelled, counts_for(labelled), tmp_path, findings=findings)
    page = finish(work).read_text("utf-8")
    part = page[page.index('id="domains"') : page.index('id="table"')]
    assert "&lt;tumour&gt;" in part
    for key, word in ((keys.DOMAIN, "predicted"), (keys.DOMAIN + keys.OF_MEASURED, "measured")):
        found = findings.labels.agreements[key]
        cells = f"<td>{score(found.ari, 'ARI')}</td><td>{score(found.nmi, 'NMI')}</td>"
        assert f'<th scope="row">domains, {word}</th>{cells}' in part


@pytest.mark.parametrize(
    ("by", "said"),
    [
        (None, "found by Leiden on"),
        ("k-means", "found by k-means on"),
        ("a person", "as the file of the prediction states them"),
    ],
)
def test_the_page_says_how_its_domains_were_found(tmp_path, by, said):
    adata = fake_prediction(n_spots=49, n_genes=8, measured=False)
    if by == "a person":
        write_domains(adata, PREDICTED, np.resize([1, 2], 49))
    elif by is not None:
        finish(find(adata, PREDICTED, by))
    page = finish(write_report(adata, None, tmp_path)).read_text("utf-8")
    assert f"alike in composition, {said}" in page


def test_the_page_says_where_domains_were_learned_on_a_part_of_the_spots(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_flag.statistics.domains.MOST_SPOTS", 30)
    adata = fake_prediction(n_spots=49, n_genes=8, measured=False)
    page = finish(write_report(adata, None, tmp_path)).read_text("utf-8")
    assert "neighbourhood. Domains were learned on 30 of 49 spots" in page


def test_without_truth_the_prediction_alone_is_compared_with_the_labels(labelled):
    assert set(finish(gather(labelled, None)).labels.agreements) == {keys.DOMAIN}


def test_without_labels_the_report_says_nothing_of_them(tmp_path):
    page = finish(write_report(fake_prediction(n_spots=64, n_genes=12), None, tmp_path)).read_text("utf-8")
    assert "to the labels" not in page


def test_outlines_kept_in_the_file_are_not_printed_as_provenance(tmp_path):
    prediction = fake_prediction(16)
    prediction.uns[keys.PROVENANCE][keys.REGIONS] = '{"type": "FeatureCollection", "features": []}'
    path = finish(write_report(prediction, None, tmp_path))
    assert "FeatureCollection" not in path.read_text("utf-8")


def test_no_page_is_written_into_a_zarr(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(UserError, match="lies inside the zarr"):
        finish(write_report(fake_prediction(16), None, tmp_path / "a.zarr"))


def test_the_page_shows_what_is_known_of_the_record_alone(tmp_path):
    prediction = fake_prediction(16)
    prediction.uns[keys.PROVENANCE] |= {keys.DEVICE: "/home/jsmith", keys.STEPS: 6, "host": "ws-lab"}
    prediction.uns[keys.PROVENANCE][keys.VERSIONS] = {"torch": "2.15.0", "user": "jsmith"}
    page = finish(write_report(prediction, None, tmp_path)).read_text("utf-8")
    assert not any(secret in page for secret in ("jsmith", "ws-lab"))
    assert "<code>2.15.0</code>" in page


@pytest.mark.slow
def test_domains_are_given_with_spots_and_area(tmp_path):
    page = finish(write_report(fake_prediction(n_spots=64, n_genes=12), None, tmp_path)).read_text("utf-8")
    found = re.findall(r"(\d+) spots, ([\d.]+ mm²)", page)
    assert found
    assert all(text == area(int(spots) * 0.04) for spots, text in found)
