import http.server
import threading
from urllib.parse import urlparse

import pytest
from tests.cohort_files import hest_folder, hest_metadata, hest_sample, tree

from flag_training.store.hest import (
    HestSamples,
    choose_ids,
    download_hest,
    find_metadata,
    hest_sources,
    read_metadata,
)
from napari_flag.errors import UserError
from napari_flag.progress import finish

HUMAN = "Homo sapiens"


@pytest.fixture
def folder(tmp_path):
    return hest_folder(tmp_path / "hest", samples=3)


def rows_of(folder):
    return read_metadata(find_metadata(folder))


def test_ids_patients_and_scale_come_from_the_metadata(folder):
    ids = choose_ids(HestSamples("TST1", "TST9"), rows_of(folder))
    assert ids == ("TST1", "TST2", "TST3")
    one, two, three = hest_sources(ids, rows_of(folder), folder, HUMAN)
    assert (one.patient, two.patient, three.patient) == ("Patient 0", "Patient 0", "Patient 1")
    assert one.mpp == 4.0  # not the 0.3528 that the image states
    assert "pixel_size_um_estimated" in one.mpp_source
    assert (one.pitch_um, one.diameter_um) == (200.0, 100.0)
    assert one.image == folder / "wsis" / "TST1.tif"


def test_patients_of_two_studies_are_distinguished(folder):
    rows = [hest_sample(folder, "TST4", 0, dataset_title="Another study"), *rows_of(folder).values()]
    hest_metadata(folder, rows)
    sources = hest_sources(("TST1", "TST4"), rows_of(folder), folder, HUMAN)
    assert [s.patient for s in sources] == ["A study: Patient 0", "Another study: Patient 0"]


def test_a_run_of_ids_with_another_number_of_samples_is_refused(folder):
    with pytest.raises(UserError, match="3 samples from TST1 to TST9, where the cohort has 4"):
        choose_ids(HestSamples("TST1", "TST9", samples=4), rows_of(folder))
    with pytest.raises(UserError, match="has no NOPE1"):
        choose_ids(HestSamples(ids=("NOPE1",)), rows_of(folder))


def test_without_metadata_nothing_is_guessed(tmp_path):
    with pytest.raises(UserError, match=r"no HEST metadata \(HEST_v1_1_0.csv\).*--download"):
        find_metadata(tmp_path)


def test_the_newest_metadata_is_taken(folder):
    hest_metadata(folder, list(rows_of(folder).values()), "HEST_v1_2_0.csv")
    (folder / "HEST_v1_2_0.csv").rename(folder / "HEST_v1_10_0.csv")
    assert find_metadata(folder).name == "HEST_v1_10_0.csv"


def test_a_table_that_is_no_metadata_is_refused(tmp_path):
    (tmp_path / "HEST_v1_1_0.csv").write_text("id,patient\nTST1,P\n")
    with pytest.raises(UserError, match="lacks the columns species, organ"):
        rows_of(tmp_path)


def test_another_species_and_an_unknown_scale_are_refused(folder):
    rows = rows_of(folder)
    rows["TST1"]["species"] = "Mus musculus"
    rows["TST2"]["pixel_size_um_estimated"] = ""
    with pytest.raises(UserError, match="TST1 is of Mus musculus"):
        hest_sources(("TST1",), rows, folder, HUMAN)
    with pytest.raises(UserError, match="µm per pixel of TST2"):
        hest_sources(("TST2",), rows, folder, HUMAN)


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves files of a folder as the Hugging Face hub serves those of a dataset."""

    root = None
    gated = False

    def do_HEAD(self):
        self._answer(body=False)

    def do_GET(self):
        self._answer(body=True)

    def _answer(self, body):
        name = (
            urlparse(self.path).path.partition("/resolve/main/")[2]
            or urlparse(self.path).path.partition(f"/resolve/{'c' * 40}/")[2]
        )
        file = self.root / name
        if self.gated or not (name and file.is_file()):
            self.send_response(403 if self.gated else 404)
            self.send_header("X-Error-Code", "GatedRepo" if self.gated else "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hash(content):x}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(folder, monkeypatch, tmp_path):
    """A hub on this machine that has the files of `folder`, and no token to send."""
    pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    monkeypatch.setattr(Hub, "root", folder)
    monkeypatch.setattr(Hub, "gated", False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


NAMES = ("HEST_v1_1_0.csv", "st/TST1.h5ad", "wsis/TST1.tif")


def test_what_is_missing_is_downloaded_as_the_hub_has_it(hub, folder, tmp_path):
    target = tmp_path / "here"
    (target / "st").mkdir(parents=True)
    (target / "st" / "TST1.h5ad").write_bytes(b"already here")
    steps = list(download_hest(NAMES, target, endpoint=hub))
    assert {step.stage for step in steps} == {f"Downloading {name}" for name in NAMES}
    got = {name: content for name, content in tree(target).items() if not name.startswith(".cache")}
    assert got["wsis/TST1.tif"] == (folder / "wsis" / "TST1.tif").read_bytes()
    assert got["st/TST1.h5ad"] == b"already here"
    assert set(got) == set(NAMES)


def test_a_gated_hub_a_missing_file_and_no_network_are_sentences(hub, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"could not give wsis/TST9\.tif"):
        finish(download_hest(["wsis/TST9.tif"], tmp_path / "a", endpoint=hub))
    monkeypatch.setattr(Hub, "gated", True)
    with pytest.raises(UserError, match="HEST-1k is gated"):
        finish(download_hest(["wsis/TST1.tif"], tmp_path / "b", endpoint=hub))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="check the network"):
        finish(download_hest(["wsis/TST1.tif"], tmp_path / "c", endpoint=hub))
