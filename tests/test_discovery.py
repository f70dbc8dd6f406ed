import gzip
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image
from tests import cohort_files, platform_files, slide_files, spot_files
from tests.fakes import SOME_GENES, fake_prediction

from napari_flag import keys
from napari_flag.discovery import Source, discover, find_slide, kind_of, looks_like_slide, source_of
from napari_flag.discovery.kinds import size_of
from napari_flag.errors import UserError
from napari_flag.prediction_file import write_prediction
from napari_flag.slides.file_identity import content_hash
from napari_flag.slides.slide import open_slide
from napari_flag.slides.spot_tables import read_measured, read_spots
from napari_flag.workspace_file import WorkspaceFile, write_workspace

HER2ST = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "her2st"


def picture(path, width=2400, height=40, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (width, height), "white").save(path)
    return path


def spots(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return spot_files.st_table(path)


def counts(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ["\t" + "\t".join(SOME_GENES), *("\t".join([i, *["3"] * 20]) for i in ("10x13", "11x13", "12x14"))]
    path.write_text("\n".join(rows) + "\n")
    return path


def annotated(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    spot_files.annotated().write_h5ad(path)
    return path


def prediction(path, name="C5", size=(2400, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    adata = fake_prediction(9)
    made = adata.uns[keys.PROVENANCE]
    made[keys.SLIDE_NAME], (made[keys.SLIDE_WIDTH], made[keys.SLIDE_HEIGHT]) = name, size
    write_prediction(adata, path)
    return adata


def geojson(path):
    path.write_text('{"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}')
    return path


def the_only(found):
    assert len(found.sections) == 1, found
    return found.sections[0]


# --- files ---------------------------------------------------------------------------------------


def test_each_kind_of_file_is_recognised_by_name_and_header(tmp_path):
    prediction(tmp_path / "p.h5ad")
    write_workspace(WorkspaceFile(()), tmp_path / "w.json")
    assert kind_of(picture(tmp_path / "a.png")) == "slide"
    assert kind_of(tmp_path / "p.h5ad") == "prediction"
    assert kind_of(annotated(tmp_path / "o.h5ad")) == "annotated"
    assert kind_of(spots(tmp_path / "s.tsv")) == "spots"
    assert kind_of(counts(tmp_path / "c.tsv")) == "counts"
    assert kind_of(geojson(tmp_path / "r.geojson")) == kind_of(geojson(tmp_path / "r.json")) == "regions"
    assert kind_of(tmp_path / "w.json") == "workspace"
    for name, text in (
        ("x.h5ad", "no hdf5"),
        ("x.json", "{}"),
        ("x.tsv", "a\tb\nq\tz\n"),
        ("x.tsv.gz", "no"),
    ):
        (tmp_path / name).write_text(text)
        assert kind_of(tmp_path / name) == "", name


@pytest.mark.parametrize("version", [2, 3])
def test_counts_of_10x_that_can_be_read_are_found_as_such(tmp_path, version):
    spot_files.write_h5(tmp_path / "counts.h5", version)
    assert discover(tmp_path / "counts.h5").tables == (tmp_path / "counts.h5",)
    assert read_measured(tmp_path / "counts.h5").n_obs == 4
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["gene_names"], file["group/names"] = 1.0, 1.0
    assert kind_of(tmp_path / "other.h5") == ""


@pytest.mark.parametrize("unzipped", [False, True])
def test_a_mex_folder_and_its_matrix_are_counts_and_no_other_matrix_is(tmp_path, unzipped):
    folder = tmp_path / "filtered_feature_bc_matrix"
    spot_files.write_mex(folder)
    matrix = folder / "matrix.mtx.gz"
    if unzipped:
        text = gzip.decompress(matrix.read_bytes())
        matrix.unlink()
        matrix = folder / "matrix.mtx"
        matrix.write_bytes(text)
    for path in (folder, matrix, tmp_path):
        assert discover(path).tables == (matrix,), path
    assert read_measured(matrix).n_obs == read_measured(folder).n_obs == 4
    other = folder / "other.mtx"
    other.write_bytes(b"%%MatrixMarket")
    assert not discover(other)
    with pytest.raises(UserError, match=r"other\.mtx is no count table"):
        read_measured(other)


def test_the_files_of_a_run_that_are_pooled_are_counts_and_files_so_named_elsewhere_are_not(tmp_path):
    platform_files.xenium(tmp_path / "P5", n=50, n_cells=5)
    platform_files.cosmx(tmp_path / "P6", n=50, n_cells=5)
    pooled = [tmp_path / "P5" / name for name in ("transcripts.parquet", "cells.parquet")]
    pooled += (tmp_path / "P6").glob("*tx_file.csv.gz")
    assert len(pooled) == 3
    for path in pooled:
        assert discover(path).tables == (path,)
    (tmp_path / "cells.csv").write_text("cell\tx\na\tb\n")
    assert not discover(tmp_path / "cells.csv")


@pytest.mark.parametrize(
    "name", ["C5_cells.tsv", "C5_cells.csv", "cells.csv", "transcripts.csv", "tx_file.tsv"]
)
def test_tables_called_like_those_of_a_run_are_read_as_what_they_are_beside_several_sections(tmp_path, name):
    sections = [tmp_path / "A_tx_file.csv", tmp_path / "B_tx_file.csv"]
    for section in sections:
        section.write_text("fov\n")
    assert kind_of(spots(tmp_path / name)) == "spots"
    assert read_spots(tmp_path / name).spots.ids == ("10x13", "11x13", "12x14")
    assert [kind_of(section) for section in sections] == ["counts", "counts"]


@pytest.mark.parametrize("name", ["S.TSV", "S.Csv", "S.TXT.GZ"])
def test_a_table_that_is_recognised_is_read_whatever_the_case_of_its_ending(tmp_path, name):
    text = spots(tmp_path / "s.tsv").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("GZ") else text)
    assert kind_of(tmp_path / name) == "spots"
    assert read_spots(tmp_path / name).spots.ids == ("10x13", "11x13", "12x14")
    text = counts(tmp_path / "c.tsv").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(text) if name.endswith("GZ") else text)
    assert kind_of(tmp_path / name) == "counts"
    assert read_measured(tmp_path / name).n_obs == 3


def test_an_h5ad_that_is_recognised_is_read_whatever_the_case_of_its_ending(tmp_path):
    path = annotated(tmp_path / "o.h5ad").rename(tmp_path / "O.H5AD")
    assert kind_of(path) == "annotated"
    assert len(read_spots(path).spots) == read_measured(path).n_obs > 0


@pytest.mark.parametrize(
    "text",
    [
        "X,Y,PIXEL_X,PIXEL_Y\n10,13,100.5,50\n",
        "ID,X_PX,Y_PX\n10x13,100.5,50\n",
        '"Barcode";" x_px";"Y_px"\n10x13;100.5;50\n',
        "Name\tx_px\ty_px\n10x13\t100.5\t50\n",
    ],
)
def test_columns_that_are_recognised_as_positions_are_read_so(tmp_path, text):
    (tmp_path / "s.csv").write_text(text)
    assert kind_of(tmp_path / "s.csv") == "spots"
    table = read_spots(tmp_path / "s.csv").spots
    assert (table.ids, table.xy.tolist()) == (("10x13",), [[100.5, 50]])


def test_what_is_no_slide_is_left_to_others_and_the_reason_is_said(tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((2100, 64), np.uint16))
    for path, reason in (
        (picture(tmp_path / "small.png", 300), "smaller than 2,000 px"),
        (picture(tmp_path / "grey.png", mode="L"), "no 8-bit RGB"),
        (tmp_path / "stack.tif", "no 8-bit RGB"),
    ):
        found = discover(path)
        assert not found, path
        assert reason in found.notices[0]
        assert not looks_like_slide(path)
    with pytest.raises(UserError, match="no file or folder"):
        discover(tmp_path / "gone.svs")


def test_pictures_that_cannot_be_read_are_left_out_and_said_in_one_sentence(tmp_path):
    picture(tmp_path / "A1.png")
    picture(tmp_path / "grey.png", mode="L")
    picture(tmp_path / "small.png", 300)
    whole = picture(tmp_path / "sub" / "A2.png").read_bytes()
    (tmp_path / "sub" / "A2.png").write_bytes(whole[:20])
    assert "A2.png cannot be read as a picture and was left out" in discover(tmp_path).notices[0]
    (tmp_path / "A3.tif").write_bytes(b"II*\0 and no more")
    (tmp_path / "A4.jpg").write_bytes(b"")
    found = discover(tmp_path)
    assert the_only(found).name == "A1"
    (said,) = found.notices
    assert said.startswith("A2.png, A3.tif, A4.jpg cannot be read")
    (said,) = discover(tmp_path / "A4.jpg").notices
    assert "cannot be read as a picture" in said


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_are_nothing_and_never_a_crash(tmp_path, seed):
    rng = np.random.default_rng(seed)
    pixels = slide_files.picture(300, 200)
    slide_files.pyramid_tiff(tmp_path / "a.tif", pixels)
    slide_files.plain_image(tmp_path / "a.png", pixels)
    for path in (
        tmp_path / "a.tif",
        tmp_path / "a.png",
        annotated(tmp_path / "a.h5ad"),
        spots(tmp_path / "a.tsv"),
    ):
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for cut in (False, True) * 15:
            harmed = whole.copy()
            harmed[rng.integers(0, min(len(whole), 2000), 20)] = rng.integers(0, 256, 20)
            path.write_bytes(harmed[: rng.integers(len(whole)) if cut else None].tobytes())
            discover(path)
            size_of(path)


def test_pipes_and_devices_are_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no named pipes here")
    os.mkfifo(tmp_path / "a.tsv")
    os.mkfifo(tmp_path / "a.json")
    assert not discover(tmp_path)
    assert not discover(tmp_path / "a.tsv")


def test_a_file_is_found_as_what_it_is_and_nothing_beside_it_is_taken(tmp_path):
    spots(tmp_path / "C5.tsv")
    section = the_only(discover(picture(tmp_path / "C5.png")))
    assert (section.table, section.measured) == (None, None)
    assert "RGB picture of 2,400 × 40 px" in section.why
    assert discover(tmp_path / "C5.tsv").tables == (tmp_path / "C5.tsv",)


# --- folders of slides ---------------------------------------------------------------------------


def test_slides_take_the_tables_of_their_name_the_longest_one(tmp_path):
    slides = [picture(tmp_path / f"{name}.png") for name in ("C5", "C5_b", "D1")]
    spots(tmp_path / "C5_selection.tsv")
    counts(tmp_path / "C5.tsv")
    spots(tmp_path / "C5_b_spots.tsv")
    annotated(tmp_path / "D1.h5ad")
    prediction(tmp_path / "C5_predicted.h5ad")
    regions = geojson(tmp_path / "C5_b.geojson")
    found = discover(tmp_path)
    assert [section.slide for section in found.sections] == slides
    assert [section.table and section.table.name for section in found.sections] == [
        "C5_selection.tsv", "C5_b_spots.tsv", "D1.h5ad",
    ]  # fmt: skip
    assert [section.measured and section.measured.name for section in found.sections] == [
        "C5.tsv",
        None,
        None,
    ]
    assert found.predictions == (tmp_path / "C5_predicted.h5ad",)
    assert found.section_of(regions) == found.sections[1]
    assert (found.tables, found.notices) == ((), ())


def test_one_slide_takes_the_only_tables_there_are_and_says_so(tmp_path):
    picture(tmp_path / "slide.png")
    spots(tmp_path / "spots.tsv")
    counts(tmp_path / "counts.tsv")
    section = the_only(discover(tmp_path))
    assert section.why == (
        "slide.png is an RGB picture of 2,400 × 40 px; spots are read from spots.tsv (the only one), "
        "counts from counts.tsv (the only one)."
    )


def test_names_are_compared_without_case_and_only_as_whole_words(tmp_path):
    for name in ("C1.png", "Straße.png"):
        picture(tmp_path / name)
    spots(tmp_path / "c1_spots.tsv")
    spots(tmp_path / "C10.tsv")
    spots(tmp_path / "STRASSE-spots.tsv")
    found = discover(tmp_path)
    assert [s.table and s.table.name for s in found.sections] == ["c1_spots.tsv", "STRASSE-spots.tsv"]
    assert found.tables == (tmp_path / "C10.tsv",)


def test_of_two_slides_neither_takes_a_table_named_otherwise(tmp_path):
    picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    table = spots(tmp_path / "spots.tsv")
    found = discover(tmp_path)
    assert [section.table for section in found.sections] == [None, None]
    assert found.tables == (table,)


def test_of_pictures_of_one_name_the_largest_is_taken_and_those_made_from_it_are_not(tmp_path):
    picture(tmp_path / "C5.jpg")
    best = picture(tmp_path / "C5.png", 2500)
    for name in ("C5_mask.png", "C5-thumbnail.png", "tissue_hires_image.png"):
        picture(tmp_path / name, 3000)
    section = the_only(discover(tmp_path))
    assert section.slide == best
    assert "taken before C5.jpg" in section.why


def test_pictures_of_a_hamamatsu_slide_are_parts_of_it(tmp_path):
    (tmp_path / "CMU.vms").touch()
    picture(tmp_path / "CMU(1,0).jpg")
    assert the_only(discover(tmp_path)).slide.name == "CMU.vms"


def test_a_folder_of_dicom_files_is_one_slide(tmp_path):
    folder = tmp_path / "case"
    folder.mkdir()
    for name in ("1.dcm", "2.dcm"):
        slide_files.dicom_slide(folder / name, slide_files.picture(256, 128))
    assert the_only(discover(folder)).slide == folder
    assert the_only(discover(tmp_path)).slide == folder


def test_a_folder_of_dicom_files_is_opened_whatever_the_case_of_their_endings(tmp_path):
    folder = tmp_path / "case"
    folder.mkdir()
    slide_files.dicom_slide(folder / "1.dcm", slide_files.picture(256, 128))
    (folder / "1.dcm").rename(folder / "1.DCM")
    found = the_only(discover(folder)).slide
    with open_slide(found) as slide:
        assert slide.size == (256, 128)


def test_subfolders_are_looked_into_one_level_down(tmp_path):
    picture(tmp_path / "p1" / "A.png")
    spots(tmp_path / "p1" / "A.tsv")
    picture(tmp_path / "p2" / "A.png")
    picture(tmp_path / "p3" / "deep" / "B.png")
    spots(tmp_path / "labels" / "A_labels.tsv")
    found = discover(tmp_path)
    assert [section.slide.parent.name for section in found.sections] == ["p1", "p2"]
    assert [section.table is None for section in found.sections] == [False, True]
    assert found.tables == ()  # beside slides, tables in folders of their own are another's


def test_only_so_many_files_are_looked_at_and_that_is_said(tmp_path):
    for i in range(1010):
        (tmp_path / f"{i:04}.txt").touch()
    found = discover(tmp_path)
    assert not found
    assert "Only 1,000 files" in found.notices[0]


def test_an_empty_folder_says_what_to_choose(tmp_path):
    found = discover(tmp_path)
    assert not found
    assert "choose a folder with slides" in found.notices[0]


def test_a_workspace_in_a_folder_is_found_and_of_two_none(tmp_path):
    write_workspace(WorkspaceFile(()), tmp_path / "w.json")
    assert discover(tmp_path).workspace == tmp_path / "w.json"
    write_workspace(WorkspaceFile(()), tmp_path / "v.json")
    found = discover(tmp_path)
    assert found.workspace is None
    assert "2 workspaces (v.json, w.json)" in found.notices[0]


# --- the one slide that is predicted -------------------------------------------------------------


def test_a_slide_given_is_taken_as_it_is_with_what_is_given_beside_it(tmp_path):
    slide = picture(tmp_path / "C5.png")
    places = str(spots(tmp_path / "C5.tsv"))
    table = spot_files.annotated()
    for given in (slide, str(slide)):
        assert source_of(given) == Source(slide)
        assert source_of(given, places, table) == Source(slide, places, table)
        with pytest.raises(UserError, match=r"There is no file or folder .*C6\.tsv; check the path"):
            source_of(given, tmp_path / "C6.tsv")
    with open_slide(slide, mpp=1.0) as opened:
        assert source_of(opened, None, None) == Source(opened)
        with pytest.raises(UserError, match=r"table \(--table\) names an element .* and .*C5\.png is none"):
            source_of(opened, table="table")


def test_a_folder_of_several_slides_says_in_python_and_on_the_command_line_how_to_choose(tmp_path):
    picture(tmp_path / "C5.png")
    picture(tmp_path / "C6.png")
    with pytest.raises(UserError, match=r"give the file of one, .* on the command line, e\.g\.: napari-flag"):
        source_of(tmp_path)


def test_a_folder_gives_its_only_slide_with_spots_and_counts_of_it_unless_others_are_given(tmp_path):
    slide, table = picture(tmp_path / "C5.png"), spots(tmp_path / "spots.tsv")
    measured = counts(tmp_path / "counts.tsv")
    found = source_of(tmp_path)
    assert (found.slide, found.spots, found.measured) == (slide, table, measured)
    assert "spots are read from spots.tsv" in found.notices[0]
    mine = spots(tmp_path / "elsewhere" / "mine.tsv")
    others = source_of(tmp_path, mine)
    assert (others.spots, others.measured) == (mine, None)  # the folder's counts are of its own spots
    recounted = source_of(tmp_path, measured=mine)
    assert (recounted.spots, recounted.measured) == (table, mine)


# --- layouts of others ---------------------------------------------------------------------------


def test_legacy_st_is_joined_by_the_sections_names(tmp_path):
    for name in ("C4", "C5"):
        picture(tmp_path / "images" / f"{name}.jpg")
    for name in ("A1", "C4", "C5"):
        spots(tmp_path / "spots" / f"{name}_selection.tsv")
        counts(tmp_path / "counts" / f"{name}.tsv")
    found = discover(tmp_path)
    assert [section.name for section in found.sections] == ["C4", "C5"]
    assert found.sections[1].table == tmp_path / "spots" / "C5_selection.tsv"
    assert found.sections[1].measured == tmp_path / "counts" / "C5.tsv"
    assert found.tables == ()
    assert "no image of their name (A1)" in found.notices[0]


def test_hest_samples_are_joined_by_id(tmp_path, monkeypatch):
    monkeypatch.setattr("napari_flag.discovery.kinds.SLIDE_SIDE_PX", 200)
    for seed, name in enumerate(("SPA1", "SPA2")):
        cohort_files.hest_sample(tmp_path, name, seed)
    found = discover(tmp_path)
    assert [section.slide.name for section in found.sections] == ["SPA1.tif", "SPA2.tif"]
    assert [section.table.name for section in found.sections] == ["SPA1.h5ad", "SPA2.h5ad"]


def test_one_picture_beside_st_is_a_hest_sample(tmp_path):
    picture(tmp_path / "slide.tif")
    annotated(tmp_path / "st" / "TENX95.h5ad")
    section = the_only(discover(tmp_path))
    assert section.table == tmp_path / "st" / "TENX95.h5ad"
    assert "the only one" in section.why


@pytest.fixture
def sample(tmp_path):
    """A Space Ranger folder whose full-resolution image is 1200 × 2000 px, not there yet."""
    spot_files.space_ranger(tmp_path / "V1" / "outs")
    return tmp_path / "V1"


@pytest.mark.parametrize(
    "place", ["outs/full.png", "full.png", "images/scan.tif", "../V1.png", "../scan.png"]
)
@pytest.mark.parametrize("dropped", [".", "outs", "outs/spatial"])
def test_the_full_resolution_image_is_found_in_and_beside_a_space_ranger_folder(sample, place, dropped):
    image = picture(sample / place, 1200, 2000)
    section = the_only(discover(sample / dropped))
    assert section.slide.samefile(image)
    assert section.table.samefile(sample / "outs")
    assert "full-resolution image (1,200 × 2,000 px" in section.why
    assert "counts are read from filtered_feature_bc_matrix.h5" in section.why


def test_version_1_and_matrices_without_images_are_taken_by_the_only_slide(tmp_path):
    outs = spot_files.space_ranger(tmp_path / "outs", version=1, images=False)
    image = picture(outs / "scan.png", 2000, 1500)
    section = the_only(discover(outs))
    assert section.slide == image
    assert "the only image here that can be it" in section.why


def test_an_image_of_another_size_or_of_another_sample_is_not_taken(sample):
    picture(sample / "other.png", 1300, 2000)  # 1,200 × 2,000 px is what the small images give
    spot_files.space_ranger(sample.parent / "V2" / "outs")
    picture(sample.parent / "V2.png", 1200, 2000)
    found = discover(sample)
    assert the_only(found).slide.name == "tissue_hires_image.png"
    assert "(other.png has another size)" in found.notices[0]


def test_a_folder_that_is_no_sample_owns_no_picture_beside_it(sample):
    """Results are often written into a folder named after the slide."""
    for name in ("scan", "slide"):
        picture(sample.parent / f"{name}.png", 1200, 2000)
    (sample.parent / "scan").mkdir()
    found = discover(sample)
    assert found.sections == ()
    assert "2 images may be the full-resolution one of V1" in found.notices[0]


def test_the_better_small_image_is_taken_only_with_its_scale_and_a_notice(sample):
    found = discover(sample)
    section = the_only(found)
    assert section.slide == sample / "outs" / "spatial" / "tissue_hires_image.png"
    assert "Space Ranger's hires image (240 × 400 px, 0.2 of full resolution)" in section.why
    assert "scaled by 0.2" in found.notices[0]
    (sample / "outs" / "spatial" / "scalefactors_json.json").unlink()
    found = discover(sample)
    assert found.sections == ()
    assert found.tables == (sample / "outs",)
    assert "open the slide" in found.notices[0]


def test_of_several_images_that_may_be_it_the_samples_name_decides_else_none(sample):
    picture(sample / "a.png", 1200, 2000)
    picture(sample / "b.png", 1200, 2000)
    found = discover(sample)
    assert found.sections == ()
    assert "2 images may be the full-resolution one of V1 (a.png, b.png)" in found.notices[0]
    named = picture(sample / "V1_scan.png", 1200, 2000)
    assert the_only(discover(sample)).slide == named


def test_samples_of_a_run_each_take_their_own_image_which_is_not_listed_twice(sample):
    spot_files.space_ranger(sample.parent / "V2" / "outs")
    for name in ("V1", "V2"):
        picture(sample.parent / f"{name}.png", 1200, 2000)
    found = discover(sample.parent)
    assert [section.slide.name for section in found.sections] == ["V1.png", "V2.png"]
    assert all(section.table is not None for section in found.sections)


def test_bins_of_visium_hd_are_named_for_the_person_to_choose(tmp_path):
    (tmp_path / "binned_outputs" / "square_016um").mkdir(parents=True)
    found = discover(tmp_path)
    assert not found
    assert "square_016um" in found.notices[0]


@pytest.mark.skipif(not HER2ST.is_dir(), reason="the HER2ST sections are not in ../shared/data")
def test_the_real_her2st_folder_gives_its_five_sections():
    found = discover(HER2ST)
    assert [section.name for section in found.sections] == ["B4", "C2", "C3", "C4", "C5"]
    for section in found.sections:
        assert section.table == HER2ST / "spots" / f"{section.name}_selection.tsv"
        assert section.measured == HER2ST / "counts" / f"{section.name}.tsv.gz"
    assert (found.tables, found.predictions, found.regions) == ((), (), ())


# --- the slide of a prediction -------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["C5.png", "images/C5.png", "../C5.png", "../images/c5.tif", "../wsis/C5.ome.tif"]
)
def test_the_slide_of_a_prediction_is_found_by_name_and_size(tmp_path, place):
    path = tmp_path / "results" / "p.h5ad"
    adata = prediction(path)
    image = picture(path.parent / place)
    found = find_slide(adata, path)
    assert found.path is not None, found.why
    assert found.path.samefile(image)
    assert "2,400 × 40 px" in found.why


def test_a_slide_of_another_size_or_name_and_one_of_several_are_not_taken(tmp_path):
    adata = prediction(tmp_path / "p.h5ad")
    assert "neither in" in find_slide(adata, tmp_path / "p.h5ad").why
    picture(tmp_path / "C6.png")
    picture(tmp_path / "C5.png", 1200, 20)
    found = find_slide(adata, tmp_path / "p.h5ad")
    assert found.path is None
    assert "another size than its 2,400 × 40 px" in found.why
    picture(tmp_path / "images" / "C5.png")
    assert find_slide(adata, tmp_path / "p.h5ad").path == tmp_path / "images" / "C5.png"
    picture(tmp_path / "images" / "C5.tif")
    found = find_slide(adata, tmp_path / "p.h5ad")
    assert found.path is None
    assert "2 files are named so (images/C5.png, images/C5.tif)" in found.why


def test_of_several_files_of_the_name_the_one_of_the_same_content_is_the_slide(tmp_path):
    adata = prediction(tmp_path / "p.h5ad")
    picture(tmp_path / "C5.png")
    slide = picture(tmp_path / "images" / "C5.tif")
    adata.uns[keys.PROVENANCE][keys.SLIDE_HASH] = content_hash(slide)
    found = find_slide(adata, tmp_path / "p.h5ad")
    assert found.path == slide
    assert "has the content" in found.why


def test_a_slide_under_another_name_is_found_by_its_content(tmp_path):
    adata = prediction(tmp_path / "p.h5ad", name="anonymous-12345678")
    picture(tmp_path / "C6.png", 1200, 20)
    slide = picture(tmp_path / "images" / "Smith_John.png")
    assert find_slide(adata, tmp_path / "p.h5ad").path is None
    adata.uns[keys.PROVENANCE][keys.SLIDE_HASH] = content_hash(slide)
    assert find_slide(adata, tmp_path / "p.h5ad").path == slide


def test_a_prediction_that_names_no_slide_is_not_given_one(tmp_path):
    adata = prediction(tmp_path / "p.h5ad")
    del adata.uns[keys.PROVENANCE][keys.SLIDE_NAME]
    assert "does not name its slide" in find_slide(adata, tmp_path / "p.h5ad").why


def test_hdf5_of_another_kind_is_nothing(tmp_path):
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        file["x"] = 1
    assert kind_of(tmp_path / "a.h5ad") == ""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_place_of_a_table_is_said(tmp_path):
    slide_files.plain_image(tmp_path / "A1.png", np.zeros((2100, 2100, 3), np.uint8))
    os.mkfifo(tmp_path / "A1_spots.tsv")
    found = source_of(tmp_path)
    assert found.spots is None
    assert any(said.startswith("A1_spots.tsv was left out, since pipes and") for said in found.notices)
