"""Labels of spots are read from the layouts they come in."""

import gzip
from pathlib import Path

import pytest

from napari_flag.errors import UserError
from napari_flag.slides.formats.labels import read_labels
from napari_flag.slides.spot_tables import read_measured, read_spots

HER2ST = Path(__file__).resolve().parents[3] / "shared" / "data" / "her2st"


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_fractional_array_positions_are_rounded_and_rows_without_them_left_out(tmp_path):
    text = "Row.names\tx\ty\tlabel\na\t9.02\t20.994\tinvasive cancer\nb\t\t3.1\tfat\nc\t10\t2.4\t\n"
    found = read_labels(write(tmp_path / "labels.tsv", text))
    assert found.by_spot == {"9x21": "invasive cancer"}
    assert found.column == "label"
    assert found.of(["9x21", "1x1"]).tolist() == ["invasive cancer", ""]


def test_a_loupe_table_and_a_gzipped_one_are_read_by_their_names(tmp_path):
    loupe = read_labels(
        write(tmp_path / "Graph.csv", "Barcode,Graph-based\nAAAC-1,Cluster 1\nAAAG-1,Cluster 2\n")
    )
    assert loupe.by_spot == {"AAAC-1": "Cluster 1", "AAAG-1": "Cluster 2"}
    path = tmp_path / "named.tsv.gz"
    path.write_bytes(gzip.compress(b"n\tSpot\tdepth\tCluster\n1\ts1\t7\t3\n2\ts2\t8\t4\n"))
    assert read_labels(path).by_spot == {"s1": "3", "s2": "4"}


def test_a_text_that_is_no_label_is_refused_before_every_spot_has_room_for_it(tmp_path):
    path = write(tmp_path / "labels.csv", f"spot,label\ns1,{'a' * 1000}\n")
    assert len(read_labels(path).by_spot["s1"]) == 1000
    with pytest.raises(UserError, match=r"labels spot s1 with 1,001 letters, so its column 'label' holds no"):
        read_labels(write(path, f"spot,label\ns1,{'a' * 1001}\n"))


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("name", ["labels.txt", "labels.tsv", "labels.csv", "LABELS.CSV"])
def test_columns_are_separated_as_the_header_is_whatever_the_ending(tmp_path, name, separator):
    text = f"spot{separator}label\ns1{separator}fat\n"
    assert read_labels(write(tmp_path / name, text)).by_spot == {"s1": "fat"}


@pytest.mark.parametrize("header", ["label,Name", "label,ID", "label,barcode", "label,name,id"])
def test_spots_are_named_by_the_same_column_as_in_a_table_of_positions(tmp_path, header):
    ids = "other,s1" if header.count(",") > 1 else "s1"
    labels = read_labels(write(tmp_path / "labels.csv", f"{header}\nfat,{ids}\n"))
    table = read_spots(write(tmp_path / "spots.csv", f"{header},x_px,y_px\nfat,{ids},5,7\n"))
    assert tuple(labels.by_spot) == table.spots.ids == ("s1",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cannot be read"),
        ("spot\ta\tb\ns1\t1\t2\n", "no column that is called label"),
        ("spot\tlabel\ns1\tfat\ns1\tgland\n", "calls spot s1 both fat and gland"),
        ("spot\tlabel\ns1\t\n", "labels no spot"),
    ],
)
def test_what_holds_no_labels_is_refused_in_one_sentence(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_labels(write(tmp_path / "labels.tsv", text))


def test_a_missing_file_and_labels_of_another_slide_are_refused_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        read_labels(tmp_path / "none.tsv")
    found = read_labels(write(tmp_path / "labels.tsv", "spot\tlabel\ns1\tfat\n"))
    with pytest.raises(UserError, match=r"None of the spots \(such as t1\).*named like s1"):
        found.of(["t1"])


def test_numbers_of_clusters_stay_as_written_where_some_are_missing(tmp_path):
    found = read_labels(write(tmp_path / "labels.csv", "Barcode,cluster\n1,5\n02,\n03,10\n"))
    assert found.by_spot == {"1": "5", "03": "10"}


@pytest.mark.slow
@pytest.mark.parametrize("section", ["C1", "G2"])
def test_every_spot_of_the_labelled_real_sections_has_its_label(section):
    if not HER2ST.is_dir():
        pytest.skip(f"real data is not at {HER2ST}")
    found = read_labels(HER2ST / "pathology" / f"{section}_labeled_coordinates.tsv")
    labels = found.of(list(read_measured(HER2ST / "counts" / f"{section}.tsv.gz").obs_names))
    assert (labels != "").all()
    assert "invasive cancer" in labels


def test_rows_that_are_longer_than_the_heading_are_refused(tmp_path):
    with pytest.raises(UserError, match="more cells than its heading has names"):
        read_labels(write(tmp_path / "l.csv", "id,label\na,fat,1\nb,fat,2\n"))


@pytest.mark.parametrize(
    ("place", "said"),
    [("inf", "have no number in column 'x'"), ("left", "no number in column"), ("1e12", "array coordinate")],
)
def test_places_that_no_array_has_are_refused(place, said, tmp_path):
    with pytest.raises(UserError, match=said):
        read_labels(write(tmp_path / "l.csv", f"x,y,label\n1,2,fat\n{place},2,fat\n"))
