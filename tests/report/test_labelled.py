import numpy as np
import pytest
from tests.fakes import counts_for, fake_prediction

from napari_flag import keys
from napari_flag.analysis.domains import write_labels
from napari_flag.analysis.truth import MEASURED, PREDICTED
from napari_flag.progress import finish
from napari_flag.report import write_report
from napari_flag.report.findings import gather, labels_of
from napari_flag.slides.formats.labels import SpotLabels
from napari_flag.statistics.domains import Agreement


@pytest.fixture
def labelled():
    """The first eight of 64 spots have no label, the others are <tumour> or fat by turns."""
    adata = fake_prediction(n_spots=64, n_genes=12)
    by_spot = dict(zip(adata.obs_names[8:], np.resize(["<tumour>", "fat"], 56).tolist(), strict=True))
    write_labels(adata, SpotLabels(by_spot, "label", 0))
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


def test_the_report_shows_labels_and_how_far_domains_agree_with_them(labelled, tmp_path):
    findings = finish(gather(labelled, counts_for(labelled)))
    work = write_report(labelled, counts_for(labelled), tmp_path, findings=findings)
    page = finish(work).read_text("utf-8")
    part = page[page.index('id="domains"') : page.index('id="table"')]
    assert "&lt;tumour&gt;" in part
    for key, word in ((keys.DOMAIN, "predicted"), (keys.DOMAIN + keys.OF_MEASURED, "measured")):
        found = findings.labels.agreements[key]
        cells = f"<td>{found.ari:.3f}</td><td>{found.nmi:.3f}</td>"
        assert f'<th scope="row">domains, {word}</th>{cells}' in part


def test_without_truth_the_prediction_alone_is_compared_with_the_labels(labelled):
    assert set(finish(gather(labelled, None)).labels.agreements) == {keys.DOMAIN}


def test_without_labels_the_report_says_nothing_of_them(tmp_path):
    page = finish(write_report(fake_prediction(n_spots=64, n_genes=12), None, tmp_path)).read_text("utf-8")
    assert "to the labels" not in page
