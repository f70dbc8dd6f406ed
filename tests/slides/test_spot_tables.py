"""Legacy ST and plain tables, and what may be wrong with any table."""

import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from tests.spot_files import (
    GENES,
    POSITIONS,
    UNIQUE,
    annotated,
    image,
    space_ranger,
    st_table,
    write_h5,
)

from napari_flag.errors import UserError
from napari_flag.foreign_prediction import read_any_prediction
from napari_flag.slides.spot_tables import read_measured, read_spots


def test_a_legacy_st_table_names_spots_by_array_and_knows_the_pitch(tmp_path: Path) -> None:
    table = read_spots(st_table(tmp_path / "s.tsv"), slide=image(tmp_path, 400, 300))
    assert table.technology == "Spatial Transcriptomics"
    assert table.spots.ids == ("10x13", "11x13", "12x14")
    assert table.spots.xy.tolist() == [[100.5, 50], [200, 60], [300, 150.25]]
    assert table.spots.array is not None
    assert table.spots.array.tolist() == [[13, 10], [13, 11], [14, 12]]
    assert (table.spots.diameter_um, table.spots.pitch_um) == (100, 200)
    assert (table.spots.lattice, table.measured) == ("square", None)
    assert table.notices == ()


@pytest.mark.parametrize("far", ["999999999999999999999", "-1e300", "1000001"])
def test_array_coordinates_that_no_array_has_are_refused(far: str, tmp_path: Path) -> None:
    path = st_table(tmp_path / "s.tsv")
    path.write_text(path.read_text().replace("\n10\t", f"\n{far}\t"))
    with pytest.raises(UserError, match="as an array coordinate, where rows and columns up to 1,000,000"):
        read_spots(path)
    path = tmp_path / "plain.csv"
    path.write_text(f"id,x_px,y_px,array_row,array_col\na,1,2,0,0\nb,3,4,{far},1\n")
    with pytest.raises(UserError, match="as an array coordinate"):
        read_spots(path)


def test_a_table_with_more_columns_than_there_are_genes_is_refused_before_they_are_read(
    tmp_path: Path,
) -> None:
    path = tmp_path / "c.tsv"
    path.write_text("\t" + "\t".join(f"g{i}" for i in range(200_001)) + "\nnever read")
    with pytest.raises(UserError, match="has 200,001 columns, more than there are genes"):
        read_measured(path)


def test_spots_are_used_that_are_selected_and_in_tissue(tmp_path: Path) -> None:
    table = read_spots(st_table(tmp_path / "s.tsv", selected=[1, 0, 1], in_tissue=[0, 1, 1]))
    assert table.spots.ids == ("12x14",)
    assert [notice.split(" of ")[0] for notice in table.notices] == ["1", "1"]
    assert ["selected" in notice for notice in table.notices] == [True, False]


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (lambda xy: [f"{v / 1000:.3f}" if v >= 1000 else f"{v:.0f}" for v in np.rint(xy)], 1),
        (lambda xy: [f"{v:.3f}" for v in xy / 10], 0),
        (lambda xy: [f"{v:.1f}" for v in np.rint(xy / 5) / 2], 0),
        (lambda xy: [f"{v:.0f}" for v in xy], 0),
    ],
)
def test_points_that_seem_to_group_thousands_are_said(
    places: Callable[[np.ndarray], list[str]], said: int, tmp_path: Path
) -> None:
    xy = np.random.default_rng(0).uniform(100, 9000, (40, 2))
    rows = [
        f"s{i},{x},{y}\n" for i, (x, y) in enumerate(zip(places(xy[:, 0]), places(xy[:, 1]), strict=True))
    ]
    (tmp_path / "s.csv").write_text("id,x_px,y_px\n" + "".join(rows))
    notices = read_spots(tmp_path / "s.csv").notices
    assert len(notices) == said
    assert all("as if points grouped thousands" in notice for notice in notices)


def test_barcodes_of_several_libraries_in_a_table_of_spots_are_said(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    for library, said in (("1", 0), ("2", 1)):
        path.write_text(f"id,x_px,y_px\nACGTACGT-1,1,2\nACGTACGA-{library},3,4\n")
        notices = read_spots(path).notices
        assert len(notices) == said
        assert all("2 libraries (-1 (1), -2 (1))" in notice for notice in notices)


def test_spots_not_selected_are_left_out_with_a_notice(tmp_path: Path) -> None:
    table = read_spots(st_table(tmp_path / "s.tsv", selected=[1, 0, 1]))
    assert table.spots.ids == ("10x13", "12x14")
    assert "1 of 3 spots" in table.notices[0]


@pytest.mark.parametrize(
    ("ending", "separator"), [(".csv", ","), (".csv", ";"), (".csv.gz", ","), (".tsv", "\t")]
)
def test_a_plain_table_gives_ids_and_pixels(ending: str, separator: str, tmp_path: Path) -> None:
    path = tmp_path / f"spots{ending}"
    frame = pd.DataFrame({"id": ["a", "b"], "x_px": [5, 6.5], "y_px": [7, 8]})
    frame.to_csv(path, sep=separator, index=False)
    table = read_spots(path)
    assert table.spots.ids == ("a", "b")
    assert table.spots.xy.tolist() == [[5, 7], [6.5, 8]]
    assert (table.spots.pitch_um, table.spots.array) == (None, None)


def test_ids_keep_their_zeros_whatever_the_case_of_their_column(tmp_path: Path) -> None:
    assert read_spots(write(tmp_path / "s.csv", "ID,X_PX,Y_PX\n001,5,7\n")).spots.ids == ("001",)


def test_of_two_columns_that_differ_in_case_the_one_in_lower_case_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", "ID,X_px,x_px,y_px, id,id\nA,1,5,7,B,C\n")
    table = read_spots(path)
    assert (table.spots.ids, table.spots.xy.tolist()) == (("C",), [[5, 7]])


def test_marks_within_quoted_names_of_columns_separate_nothing(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", 'id,x_px,y_px,"a; b; c; d; e"\nA,5,7,1\n')
    assert read_spots(path).spots.ids == ("A",)


def counts_table(path: Path) -> Path:
    frame = pd.DataFrame([[1, 0, 2, 9], [4, 5, 0, 1]], index=["12x14", "10x13"], columns=GENES)
    text = frame.to_csv(sep="\t")
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["c.tsv.gz", "c.tsv"])
def test_counts_of_an_st_table_are_read_as_written(name: str, tmp_path: Path) -> None:
    adata = read_measured(counts_table(tmp_path / name))
    assert list(adata.obs_names) == ["12x14", "10x13"]
    assert list(adata.var_names) == UNIQUE
    assert adata.X.toarray().tolist() == [[1, 0, 2, 9], [4, 5, 0, 1]]


def test_counts_of_another_file_come_in_the_spots_order(tmp_path: Path) -> None:
    counts = counts_table(tmp_path / "c.tsv.gz")
    table = read_spots(st_table(tmp_path / "s.tsv"), measured_from=counts)
    assert table.measured is not None
    assert list(table.measured.obs_names) == ["10x13", "12x14"]
    assert table.measured.X.toarray()[0].tolist() == [4, 5, 0, 1]
    assert "1 of 3 spots have no counts" in table.notices[0]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("s.tsv", "x\ty\tpixel_x\tpixel_y\tselected\n10\t13\t5\t7\t1\n", "pixel_x and pixel_y are pixels"),
        ("s.csv", "id,X_PX,y_px\na,5,7\n", "x_px and y_px are pixels"),
        (
            "s.csv",
            "barcode,in_tissue,pxl_row_in_fullres,pxl_col_in_fullres\nA,1,5,7\n",
            "pxl_row_in_fullres and",
        ),
        ("tissue_positions_list.csv", "A,1,0,0,5,7\nB,1,0,2,5,9\n", "Space Ranger calls them so"),
    ],
)
def test_positions_given_as_measured_counts_are_called_positions(
    name: str, text: str, why: str, tmp_path: Path
) -> None:
    with pytest.raises(
        UserError, match=f"{name} says where spots lie .*{why}.*give it as the table of spots"
    ):
        read_measured(write(tmp_path / name, text))


def no_spatial(folder: Path) -> Path:
    adata = annotated()
    del adata.obsm["spatial"]
    adata.obsm["X_pca"] = np.zeros((6, 2))
    adata.write_h5ad(folder / "a.h5ad")
    return folder / "a.h5ad"


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    return path


def no_pixel_columns(folder: Path) -> Path:
    return write(folder / "s.tsv", "x\ty\tpixel_x\n1\t2\t3\n")


def v2_without(folder: Path) -> Path:
    space_ranger(folder / "outs")
    frame = POSITIONS.drop(columns="array_row")
    frame.to_csv(folder / "outs/spatial/tissue_positions.csv", index=False)
    return folder / "outs"


def wide_counts(folder: Path) -> Path:
    genes = "\t".join(f"G{i}" for i in range(100))
    return write(folder / "c.tsv", f"\t{genes}\n1x2\t" + "\t".join("0" * 100))


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda d: d / "none.tsv", "There is no file"),
    "another kind": (lambda d: write(d / "s.docx", "x"), "no spot table"),
    "empty": (lambda d: write(d / "s.tsv", ""), "not a table"),
    "missing column": (no_pixel_columns, "lacks the column pixel_y"),
    "unrelated columns": (lambda d: write(d / "s.csv", "a,b\n1,2\n"), "lacks the columns id, x_px"),
    "counts only": (wide_counts, "counts .* but no positions"),
    "not a number": (
        lambda d: st_table(d / "s.tsv", pixel_x=[1.0, "left", 3.0]),
        r"1 of 3 rows of s\.tsv have no number in column 'pixel_x'; fill in or remove these rows\.$",
    ),
    "no rows": (lambda d: write(d / "s.tsv", "x\ty\tpixel_x\tpixel_y\n"), "no spots"),
    "none selected": (lambda d: st_table(d / "s.tsv", selected=[0, 0, 0]), "no spots"),
    "the same spot twice": (
        lambda d: st_table(d / "s.tsv", x=[10, 10, 12], y=[13, 13, 14]),
        r"The spot table names 1 spot more than once \(such as 10x13\), so it is not clear which row "
        r"is meant; make the spot ids unique\.$",
    ),
    "cut gzip": (
        lambda d: (
            (d / "s.tsv.gz").write_bytes(gzip.compress(b"x" * 999)[:-9]),
            d / "s.tsv.gz",
        )[1],
        "damaged",
    ),
    "an empty folder": (lambda d: d, "no spot positions"),
    "missing Space Ranger column": (v2_without, "lacks the column array_row"),
    "no positions in h5ad": (no_spatial, r'obsm\["spatial"\] is missing \(there is X_pca'),
    "h5ad that is none": (lambda d: write(d / "a.h5ad", "text"), "not be read as an AnnData"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_table_gives_one_clear_sentence(kind: str, tmp_path: Path) -> None:
    make, message = BAD[kind]
    with pytest.raises(UserError, match=message) as caught:
        read_spots(make(tmp_path))
    assert str(caught.value).endswith(".")


def test_the_table_of_another_slide_is_refused_with_numbers(tmp_path: Path) -> None:
    path = st_table(tmp_path / "s.tsv")
    with pytest.raises(UserError, match=r"2 of 3 spots .*x 100 to 300.*\(180 × 120 px\)"):
        read_spots(path, slide=image(tmp_path, 180, 120))


def test_counts_of_another_section_are_refused(tmp_path: Path) -> None:
    frame = pd.DataFrame([[1, 2]], index=["99x99"], columns=["A", "B"])
    frame.to_csv(tmp_path / "c.tsv", sep="\t")
    with pytest.raises(UserError, match="No spot of the table is in c"):
        read_spots(st_table(tmp_path / "s.tsv"), measured_from=tmp_path / "c.tsv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\tA\tB\n1x1\t1\tmany\n", "text where counts"),
        ("\tA\tB\n1x1\t1\t\n", "empty cells"),
        ("\tA\tB\n1x1\t1\t-2\n", "negative"),
        ("\tA\tB\n1x1\t1\t1e30\n", "more than a spot has of any gene"),
        ("\tA\tB\n1x1\tTrue\tFalse\n", "True and False where counts"),
        ("\tA\tB\tC\tD\n1x1\t1\t2\n", "gene names"),
        ("", "no table of counts|not a table of counts"),
    ],
)
def test_what_is_no_table_of_counts_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_measured(write(tmp_path / "c.tsv", text))


def test_other_hdf5_files_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(UserError, match=r"other\.h5"):
        read_measured(tmp_path / "other.h5")
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["x"] = [1]
    with pytest.raises(UserError, match="no AnnData file"):
        read_measured(tmp_path / "other.h5ad")


def test_ids_that_are_numbers_keep_their_zeros(tmp_path):
    (tmp_path / "c.tsv").write_text("\tERBB2\tACTB\n007\t1\t2\n08\t3\t4\n")
    assert list(read_measured(tmp_path / "c.tsv").obs_names) == ["007", "08"]
    (tmp_path / "s.csv").write_text("id,x_px,y_px\n007,1,2\n08,3,4\n")
    assert read_spots(tmp_path / "s.csv").spots.ids == ("007", "08")


def test_a_spot_without_an_id_is_refused(tmp_path):
    (tmp_path / "s.csv").write_text("id,x_px,y_px\n,1,2\nb,3,4\n")
    with pytest.raises(UserError, match=r"1 of 2 rows of s\.csv have no id; give every spot an id, or"):
        read_spots(tmp_path / "s.csv")


def test_counts_that_name_a_spot_twice_are_refused(tmp_path):
    (tmp_path / "s.csv").write_text("id,x_px,y_px\na,1,2\nb,3,4\n")
    (tmp_path / "c.tsv").write_text("\tERBB2\na\t1\na\t2\nb\t3\n")
    with pytest.raises(UserError, match=r"c\.tsv names 1 spot more than once \(such as a\), so"):
        read_spots(tmp_path / "s.csv", measured_from=tmp_path / "c.tsv")


def test_a_matrix_of_antibodies_alone_holds_no_genes(tmp_path):
    write_h5(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        file["matrix/features/feature_type"][:] = b"Antibody Capture"
    with pytest.raises(UserError, match="holds Antibody Capture and no Gene Expression"):
        read_measured(tmp_path / "m.h5")


@pytest.mark.parametrize(
    ("gene", "other"),
    [
        ("Gene Expression", "Antibody Capture"),
        ("gene expression", "antibody capture"),
        ("gene_expression", "ADT"),
        ("GEX", "Protein"),
        ("protein_coding", "Antigen Capture"),
        ("", "Negative Control Probe"),
    ],
)
def test_of_an_h5ad_only_features_that_are_called_genes_are_genes(gene, other, tmp_path):
    adata = annotated()
    adata.var["feature_types"] = [gene, other, gene, gene]
    adata.write_h5ad(tmp_path / "a.h5ad")
    assert list(read_measured(tmp_path / "a.h5ad").var_names) == ["ERBB2", "CD8A", "KRT5"]


def test_a_plain_file_named_as_compressed_is_called_so_and_not_damaged(tmp_path):
    (tmp_path / "counts.tsv.gz").write_text("\tERBB2\n10x13\t1\n")
    with pytest.raises(UserError, match=r"counts\.tsv\.gz is not gzip-compressed.*remove \.gz"):
        read_measured(tmp_path / "counts.tsv.gz")


@pytest.mark.parametrize("name", ["counts.parquet", "counts.xyz"])
def test_an_unknown_file_given_as_counts_is_no_count_table(tmp_path, name):
    (tmp_path / name).write_text("1")
    with pytest.raises(UserError, match=r"no count table napari-flag knows"):
        read_measured(tmp_path / name)


def test_a_plain_anndata_in_a_zarr_is_asked_for_as_h5ad(tmp_path):
    annotated().write_zarr(tmp_path / "plain.zarr")
    for read in (read_measured, read_spots, read_any_prediction):
        with pytest.raises(UserError, match=r"plain\.zarr is an AnnData stored as zarr.*write it as \.h5ad"):
            read(tmp_path / "plain.zarr")


def test_counts_with_spots_in_their_columns_are_to_be_transposed(tmp_path):
    (tmp_path / "spots.tsv").write_text("id\tx_px\ty_px\na\t1\t2\nb\t3\t4\n")
    (tmp_path / "counts.tsv").write_text("\ta\tb\nERBB2\t1\t2\nACTB\t3\t4\n")
    with pytest.raises(UserError, match=r"genes \(such as ERBB2\) in its rows"):
        read_spots(tmp_path / "spots.tsv", measured_from=tmp_path / "counts.tsv")


@pytest.mark.parametrize("heading", ["\tGENE1\tGENE2", "spot\tGENE1\tGENE2", "\tGENE1\t\tGENE3"])
def test_a_heading_that_names_fewer_genes_than_there_are_columns_is_refused(heading, tmp_path):
    path = tmp_path / "counts.tsv"
    path.write_text(f"{heading}\n10x13\t1\t2\t3\n11x13\t4\t5\t6\n")
    with pytest.raises(UserError, match="leaves a column of counts without a gene"):
        read_measured(path)


def test_a_heading_without_a_corner_as_r_writes_it_names_all_genes(tmp_path):
    path = tmp_path / "counts.tsv"
    path.write_text("GENE1\tGENE2\n10x13\t1\t2\n11x13\t4\t5\n")
    assert read_measured(path).to_df().loc["11x13"].tolist() == [4, 5]


@pytest.mark.parametrize("heading", ["id\tx_px\ty_px", "x\ty\tpixel_x\tpixel_y"])
def test_rows_that_are_longer_than_the_heading_are_refused(heading, tmp_path):
    row = "\t".join(str(1000 + k) for k in range(heading.count("\t") + 2))
    path = tmp_path / "s.tsv"
    path.write_text(f"{heading}\n" + f"{row}\n" * 3)
    with pytest.raises(UserError, match=r"Rows of s\.tsv have more cells than its heading"):
        read_spots(path)


def test_a_tab_at_the_end_of_every_row_is_no_column(tmp_path):
    path = tmp_path / "s.tsv"
    path.write_text("id\tx_px\ty_px\n01\t1\t2\t\n02\t3\t4\t\n")
    spots = read_spots(path).spots
    assert (spots.ids, spots.xy.tolist()) == (("01", "02"), [[1, 2], [3, 4]])
