import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from napari_flag import files
from napari_flag.slides.file_identity import content_hash, name_of, neutral_name, state_of, why_personal
from napari_flag.slides.slide import slide_name

PERSONAL = {
    "a person's name": (
        "Smith_John.svs", "SMITH_JOHN", "smith_john.tif", "Müller_Anna", "Müller, Anna", "Doe^Jane",
        "anna-schmidt.ndpi", "Garcia-Lopez_Maria", "O'Brien_Pat", "McDonald_Ronald", "Nguyen_Thi_Mai",
        "Smith_John_Breast_HE", "Ivanov Pyotr 2", "JohnSmith_HE", "JaneDoe", "DoeJane.tif",
        "johnSmith2", "JohnSmithHE.svs", "MarkRiver", "CharlesBench", "CharlesRivera",
    ),
    "a date": (
        "Doe_Jane_1970-01-01.svs", "slide 1964.03.12", "12.03.1964_HE", "03-12-1964", "12-03-64",
        "12Mar1964_slide.tif", "19640312_HE.svs", "scan_2023_05_14", "March 3, 1964",
        "12.03.64", "12.03.64.svs", "HE_12-03-64_1.tif", "1964_3_12", "1964-3-2.svs",
        "Ivanov12.03.64", "2039_1_2",
    ),
    "a personal number": (
        "123-45-6789", "640312-1234", "943 476 5919.svs",
    ),
    "a record number": (
        "MRN_12345", "patient_id_0045", "DOB-1964_x", "patient_12345", "Patient12345.svs", "pat-4711",
    ),
    "an accession number": (
        "S22-12345_HE.svs", "S2022-001234", "SP-22-0012345 A1.ndpi", "H22-1234.svs", "20H12345",
    ),
    "a long number": (
        "1234567.svs", "31121964.svs", "P0012345678",
    ),
}  # fmt: skip
HARMLESS = (
    "C5.jpg", "A1", "slide_012.svs", "her2st-C5", "spots.tsv", "counts.tsv.gz", "C5_predicted.h5ad",
    "demo_slide.tif", "TCGA-A2-A0T2-01Z-00-DX1.29A5C4D4-6E6F-4E57-B0E9-84A9F1F4D9D6.svs",
    "TCGA-BH-A0B3-01A-01-TSA", "GTEX-1117F-0126.svs", "C3L-00001-21.svs", "GSM4284316_P2_ST_rep1.jpg",
    "0005f7aaab2800f6170c399693a96917.tiff", "tissue_hires_image.png",
    "V1_Breast_Cancer_Block_A_Section_1_image.tif", "CytAssist_FFPE_Human_Breast_Cancer_tissue_image.btf",
    "Visium_HD_Human_Colon_Cancer_tissue_image", "Parent_Visium_Human_OvarianCancer", "V10L13-020_A1.tif",
    "H1-YD7CDZK_A1", "V1_Adult_Mouse_Brain_Coronal_Section_1",
    "Xenium_Prime_Ovarian_Cancer_FFPE_he_image.ome.tif", "151673_full_image.tif", "HE_BT23287_C1.jpg",
    "BC23450_D2.tif", "CMU-1-Small-Region.svs", "JP2K-33003-1.svs", "Leica-Fluorescence-1.scn",
    "Mirax2-Fluorescence-2.mrxs", "Zeiss-1-Merged.zvi", "patient_004_node_4.tif", "tumor_001.tif",
    "NCBI785.tif", "TENX99", "Normal_Liver", "Patient_1_Section_B", "mouse-brain-P7", "P10_001.svs",
    "deepspot.h5ad", "SlideScan", "VisiumHD_2", "BreastTumor", "NanoZoomer_1", "DeepSpot", "CytAssist",
    "HE-1.12.3", "v1.2.64.svs", "2025.1", "pattern_1234", "TomographyScan",
    "BenchMark.svs", "BenchMarkULTRA_HE.svs", "CharlesRiver.svs", "KarlStorz_1", "MarkDuplicates.svs",
    "SaraNet.svs", "LandMark_2", "tile_2048_3_4.tif", "tile_3_4_2048.png", "v10.10.10.svs", "HE_v12.03.64",
)  # fmt: skip


@pytest.mark.parametrize(
    ("what", "name"), [(what, name) for what, names in PERSONAL.items() for name in names]
)
def test_names_that_may_be_a_patients_are_recognised(what, name):
    assert why_personal(name) == what


def test_names_of_slides_archives_and_instruments_are_no_patients():
    assert {name: why for name in HARMLESS if (why := why_personal(name)) is not None} == {}


def test_what_the_page_of_security_says_no_rule_sees_is_not_found():
    for name in ("Smith_HE", "JS_2", "NguyenThuy", "johnsmith", "patient_123", "456789"):
        assert why_personal(name) is None


def test_a_neutral_name_is_never_replaced_again():
    for digits in ("12345678", "abcdef01", "0" * 8):
        assert why_personal(f"{neutral_name(digits * 8)}.svs") is None
    assert why_personal(neutral_name(None)) is None


def test_only_digits_of_a_hash_become_part_of_a_neutral_name():
    assert neutral_name("0123456789abcdef" * 4) == "anonymous-01234567"
    for other in (None, "", "/../../x", "0" * 63, "A" * 64, "0" * 64 + "\n"):
        assert neutral_name(other) == "anonymous"


def large(path: Path, size: int, seed: int = 0) -> Path:
    path.write_bytes(np.random.default_rng(seed).bytes(size))
    return path


def test_a_small_file_has_the_sha_256_of_any_program(tmp_path):
    path = large(tmp_path / "a.svs", 100_000)
    assert content_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_hash_is_that_of_the_content_wherever_the_file_lies_and_whatever_it_is_called(tmp_path):
    one = large(tmp_path / "a.svs", 20 * 2**20)
    (tmp_path / "elsewhere").mkdir()
    same = tmp_path / "elsewhere" / "b.tif"
    same.write_bytes(one.read_bytes())
    assert content_hash(one) == content_hash(same)
    with same.open("r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        stream.write(b"?")
    os.utime(same, (1, 1))
    assert content_hash(one) != content_hash(same)


def test_of_a_large_file_only_its_ends_and_blocks_between_are_read(tmp_path):
    path = tmp_path / "large.svs"
    with path.open("wb") as stream:
        stream.truncate(40 * 2**30)  # no disk is written
    digest = content_hash(path)
    assert digest == content_hash(path)
    with path.open("r+b") as stream:
        stream.truncate(40 * 2**30 + 1)
    assert content_hash(path) != digest


def test_every_part_of_a_large_file_that_is_read_counts(tmp_path):
    size = files.WHOLE_BYTES + 2**20
    path = large(tmp_path / "a.svs", size)
    before = content_hash(path)
    for place in (0, files.END_BYTES + 5, size - 1):
        with path.open("r+b") as stream:
            stream.seek(place)
            was = stream.read(1)
            stream.seek(place)
            stream.write(bytes([was[0] ^ 1]))
        os.utime(path, (place, place))
        assert content_hash(path) != before
        with path.open("r+b") as stream:
            stream.seek(place)
            stream.write(was)


def test_a_dicom_file_stands_for_its_folder_and_a_zarr_is_hashed_by_what_is_in_it(tmp_path):
    dicom = tmp_path / "dicom"
    dicom.mkdir()
    for name in ("1.dcm", "2.dcm"):
        large(dicom / name, 1000, seed=ord(name[0]))
    (dicom / "notes.txt").write_text("not of the slide")
    whole = content_hash(dicom)
    assert whole == content_hash(dicom / "1.dcm") == content_hash(dicom / "2.dcm")
    image = tmp_path / "S.zarr" / "images" / "he" / "0"
    image.mkdir(parents=True)
    large(image / "0.0", 50)
    first = content_hash(image.parent)
    large(image / "0.1", 50)
    os.utime(image.parent, (1, 1))
    assert content_hash(image.parent) not in (first, whole, None)


def test_a_file_of_a_folder_that_is_written_anew_changes_the_state_and_the_hash_of_the_slide(tmp_path):
    dicom, zarr, mirax = tmp_path / "dicom", tmp_path / "S.zarr" / "images" / "he", tmp_path / "mirax"
    slides = {
        dicom: dicom / "0.dcm",
        zarr: zarr / "0" / "c" / "0",
        mirax.with_suffix(".mrxs"): mirax / "D.dat",
    }
    mirax.with_suffix(".mrxs").write_bytes(b"index")
    for slide, file in slides.items():
        file.parent.mkdir(parents=True)
        large(file, 100, seed=1)
        folder_s, state, digest = file.parent.stat().st_mtime_ns, state_of(slide), content_hash(slide)
        large(file, 100, seed=2)
        os.utime(file, (1, 1))
        assert file.parent.stat().st_mtime_ns == folder_s
        assert state_of(slide) != state
        assert content_hash(slide) not in (digest, None)
    assert state_of(dicom / "0.dcm") == state_of(dicom)


def test_the_state_of_a_slide_is_the_same_however_its_path_is_written(tmp_path, monkeypatch):
    large(tmp_path / "a.svs", 10)
    folder = tmp_path / "he"
    folder.mkdir()
    large(folder / "0", 10)
    monkeypatch.chdir(tmp_path)
    for name in ("a.svs", "he"):
        assert state_of(Path(name)) == state_of(tmp_path / name)
    monkeypatch.chdir(folder)
    assert state_of(Path()) == state_of(folder)


def test_what_cannot_be_read_has_no_hash(tmp_path):
    os.mkfifo(tmp_path / "pipe.svs")
    assert content_hash(tmp_path / "pipe.svs") is None
    os.mkfifo(tmp_path / "pipe.mrxs")
    (tmp_path / "pipe").mkdir()
    (tmp_path / "pipe" / "Slidedat.ini").write_text("x")
    assert content_hash(tmp_path / "pipe.mrxs") is None
    assert content_hash(tmp_path / "missing.svs") is None


def test_results_name_a_file_without_its_folders(tmp_path):
    secret = tmp_path / "secret"
    assert name_of(secret / "C5.jpg") == "C5.jpg"
    assert name_of(secret / "S.zarr" / "images" / "he") == "S.zarr/images/he"


def test_a_name_that_is_no_unicode_has_a_sign_where_it_is_none(tmp_path):
    odd = tmp_path / os.fsdecode(b"C\xff5.jpg")
    assert name_of(odd) == "C\ufffd5.jpg"
    assert slide_name(odd) == "C\ufffd5"


def test_a_folder_with_files_whose_names_are_no_unicode_has_a_hash_and_a_state(tmp_path):
    folder = tmp_path / "slide"
    folder.mkdir()
    try:
        for name in (b"a\xff.dcm", b"b.dcm"):
            (folder / os.fsdecode(name)).write_bytes(name)
    except OSError:
        pytest.skip("this system has no such names")
    assert content_hash(folder) is not None
    assert state_of(folder)[0] == 11


def test_results_call_a_patients_file_after_its_content_unless_names_are_kept(tmp_path):
    path = large(tmp_path / "Smith_John.ome.tif", 100)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert name_of(path) == f"anonymous-{digest[:8]}.ome.tif"
    assert name_of(path, keep=True) == "Smith_John.ome.tif"
    assert name_of(tmp_path / "Smith_John_report") == "anonymous"
