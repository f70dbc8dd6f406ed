"""A list of slides is read as spreadsheets write it, and what is wrong with it is said by its line."""

import pytest

from napari_flag.errors import UserError
from napari_flag.listing import ListedSlide, read_listing, refuse_same_names


def listing(folder, text, encoding="utf-8"):
    path = folder / "slides.csv"
    path.write_text(text, encoding=encoding)
    return path


def test_an_image_alone_is_a_slide_named_after_its_file(tmp_path):
    path = listing(tmp_path, "image\nC5.svs\nsub/C6.tif\n")
    assert read_listing(path) == (
        ListedSlide("C5", tmp_path / "C5.svs"),
        ListedSlide("C6", tmp_path / "sub" / "C6.tif"),
    )


def test_the_image_may_be_called_slide_and_other_columns_are_left_alone(tmp_path):
    text = "slide,stain,spots,counts,mpp,name,patient\na.svs,HE,a.tsv,a.h5,0.25,first,P1\n"
    [row] = read_listing(listing(tmp_path, text))
    assert row == ListedSlide(
        "first", tmp_path / "a.svs", tmp_path / "a.tsv", tmp_path / "a.h5", patient="P1", mpp=0.25
    )


def test_a_german_spreadsheet_with_empty_lines_at_its_end_is_read(tmp_path):
    [row] = read_listing(listing(tmp_path, "image;mpp\na.svs;0,25\n;\n", "utf-8-sig"))
    assert row.mpp == 0.25


def test_a_list_is_separated_as_other_tables_are(tmp_path):
    [row] = read_listing(listing(tmp_path, "image\tspots, all\na.svs\tb\n"))
    assert row.image == tmp_path / "a.svs"


@pytest.mark.parametrize(
    ("text", "needed", "said"),
    [
        ("x,y\n1,2\n", False, "no column image;"),
        ("x,y\n1,2\n", True, "no column image and no column spots"),
        ("image,spots\na.svs,\n", True, "Line 2 .* no image or no spots"),
        ("image,spots\n,a.tsv\n", False, "Line 2 .* names no image;"),
        ("image,mpp\na.svs,half\n", False, "half as µm per pixel"),
        *(
            (f"image,mpp\na.svs,{odd}\n", False, f"{odd} as µm per pixel")
            for odd in ("-1", "0", "nan", "inf")
        ),
        ("image,name\na.svs,../b\n", False, "cannot be the name of a file"),
    ],
)
def test_what_cannot_be_used_is_refused_with_its_line(tmp_path, text, needed, said):
    with pytest.raises(UserError, match=said):
        read_listing(listing(tmp_path, text), spots_needed=needed)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "slides.csv").write_bytes(b"\xff\xfe\x00image")
    with pytest.raises(UserError, match="is no UTF-8 text"):
        read_listing(tmp_path / "slides.csv")
    (tmp_path / "slides.csv").write_bytes(b"name,image\0,mpp\na,a.tif,1\n")
    with pytest.raises(UserError, match="is no UTF-8 text"):
        read_listing(tmp_path / "slides.csv")


def test_a_quote_that_is_not_closed_in_its_line_is_refused(tmp_path):
    (tmp_path / "slides.csv").write_text('name,image,spots\na,a.tif,"\nb,b.tif,b.tsv\n')
    with pytest.raises(UserError, match=r"Line 2 of .* opens a quote that another line closes"):
        read_listing(tmp_path / "slides.csv")


def test_a_list_without_lines_is_refused(tmp_path):
    (tmp_path / "slides.csv").write_text("name,image\n")
    with pytest.raises(UserError, match="lists no slide; give a line per slide"):
        read_listing(tmp_path / "slides.csv")


def test_two_slides_of_one_name_are_refused(tmp_path):
    refuse_same_names(tmp_path, ["a", "b"])
    with pytest.raises(UserError, match="two sections called a; give each its own name"):
        refuse_same_names(tmp_path, ["a", "b", "a"])
