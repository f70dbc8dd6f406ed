"""Spot tables of every technology, as their programs write them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import io, sparse
from tests import slide_files
from tests.slide_files import picture

from napari_flag.errors import UserError
from napari_flag.slides.slide import Slide, open_slide
from napari_flag.slides.spots import estimate_mpp
from napari_flag.slides.tables import read_measured, read_spots

DATA = Path(__file__).parents[3] / "shared/data"
GENES = ["ERBB2", "ACTB", "ACTB", "CD8A"]
UNIQUE = ["ERBB2", "ACTB", "ACTB-1", "CD8A"]
ENSEMBL = [f"ENSG0000000000{i}" for i in range(4)]


def image(folder: Path, width: int, height: int, name: str = "image.png") -> Slide:
    flat = np.full((height, width, 3), 230, np.uint8)
    return open_slide(slide_files.plain_image(folder / name, flat))


# --- legacy ST and plain tables ------------------------------------------------------------------


def st_table(path: Path, **columns: list[object]) -> Path:
    frame = {
        "x": [10, 11, 12], "y": [13, 13, 14], "new_x": [9.9, 11, 12.1], "new_y": [13, 13, 14],
        "pixel_x": [100.5, 200, 300], "pixel_y": [50, 60, 150.25], "selected": [1, 1, 1],
    }  # fmt: skip
    pd.DataFrame(frame | columns).to_csv(path, sep="\t", index=False)
    return path


def test_a_legacy_st_table_names_spots_by_array_and_knows_the_pitch(tmp_path: Path) -> None:
    table = read_spots(st_table(tmp_path / "s.tsv"), slide=image(tmp_path, 400, 300))
    assert table.technology == "Spatial Transcriptomics"
    assert table.spots.ids == ("10x13", "11x13", "12x14")
    assert table.spots.xy.tolist() == [[100.5, 50], [200, 60], [300, 150.25]]
    assert table.spots.array is not None
    assert table.spots.array.tolist() == [[13, 10], [13, 11], [14, 12]]
    assert (table.spots.diameter_um, table.spots.pitch_um) == (100, 200)
    assert (table.spots.lattice, table.image_scale, table.measured) == ("square", 1, None)
    assert table.notices == ()


def test_spots_not_selected_are_left_out_and_told(tmp_path: Path) -> None:
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


def test_counts_given_beside_the_table_come_in_the_spots_order(tmp_path: Path) -> None:
    counts = counts_table(tmp_path / "c.tsv.gz")
    table = read_spots(st_table(tmp_path / "s.tsv"), measured_from=counts)
    assert table.measured is not None
    assert list(table.measured.obs_names) == ["10x13", "12x14"]
    assert table.measured.X.toarray()[0].tolist() == [4, 5, 0, 1]
    assert "1 of 3 spots have no counts" in table.notices[0]


# --- Space Ranger --------------------------------------------------------------------------------

BARCODES = ["AAAC-1", "AAAG-1", "AACT-1", "AAGG-1", "ACGT-1"]
COUNTS = np.array([[0, 1, 2, 0], [3, 0, 0, 1], [0, 0, 7, 0], [1, 1, 1, 1]])
POSITIONS = pd.DataFrame(
    {
        "barcode": BARCODES,
        "in_tissue": [1, 1, 0, 1, 1],
        "array_row": [0, 0, 1, 1, 2],
        "array_col": [0, 2, 1, 3, 2],
        "pxl_row_in_fullres": [1000, 1010, 1170, 1180, 1350],
        "pxl_col_in_fullres": [500, 700, 600, 800, 705],
    }
)
FACTORS = {
    "spot_diameter_fullres": 120.0, "tissue_hires_scalef": 0.2, "tissue_lowres_scalef": 0.06,
}  # fmt: skip


def write_h5(path: Path, version: int = 3) -> None:
    kinds = ["Gene Expression"] * 4 + ["Antibody Capture"]
    values = sparse.csc_matrix(np.column_stack([COUNTS, [5, 5, 5, 5]]).T)
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix" if version == 3 else "GRCh38")
        ids, names = [*ENSEMBL, "CD3"], [*GENES, "CD3"]
        if version == 3:
            features = group.create_group("features")
            for key, strings in (("id", ids), ("name", names), ("feature_type", kinds)):
                features[key] = np.array(strings, "S")
        else:
            values = sparse.csc_matrix(COUNTS.T)
            group["genes"], group["gene_names"] = np.array(ENSEMBL, "S"), np.array(GENES, "S")
        group["barcodes"] = np.array([BARCODES[i] for i in (1, 0, 3, 2)], "S")
        group["data"], group["indices"] = values.data, values.indices
        group["indptr"], group["shape"] = values.indptr, values.shape


def write_mex(folder: Path) -> None:
    folder.mkdir()
    with gzip.open(folder / "matrix.mtx.gz", "wb") as stream:
        io.mmwrite(stream, sparse.coo_matrix(COUNTS.T))
    rows = [f"{i}\t{n}\tGene Expression\n" for i, n in zip(ENSEMBL, GENES, strict=True)]
    (folder / "features.tsv.gz").write_bytes(gzip.compress("".join(rows).encode()))
    names = "\n".join(BARCODES[i] for i in (1, 0, 3, 2)) + "\n"
    (folder / "barcodes.tsv.gz").write_bytes(gzip.compress(names.encode()))


def space_ranger(
    outs: Path, *, version: int = 2, matrix: str = "filtered", kind: str = "h5", images: bool = True
) -> Path:
    """Write an outs folder; the full-resolution image would be 1200 × 2000 px."""
    spatial = outs / "spatial"
    spatial.mkdir(parents=True)
    name = "tissue_positions_list.csv" if version == 1 else "tissue_positions.csv"
    POSITIONS.to_csv(spatial / name, index=False, header=version != 1)
    (spatial / "scalefactors_json.json").write_text(json.dumps(FACTORS))
    if images:
        slide_files.plain_image(spatial / "tissue_hires_image.png", picture(240, 400))
        slide_files.plain_image(spatial / "tissue_lowres_image.png", picture(72, 120))
    stem = f"{matrix}_feature_bc_matrix"
    if kind == "h5":
        write_h5(outs / f"{stem}.h5")
    elif kind == "mex":
        write_mex(outs / stem)
    return outs


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", ["h5", "mex"])
@pytest.mark.parametrize("matrix", ["filtered", "raw"])
def test_a_space_ranger_folder_gives_spots_on_tissue_with_counts(
    version: int, kind: str, matrix: str, tmp_path: Path
) -> None:
    outs = space_ranger(tmp_path / "outs", version=version, matrix=matrix, kind=kind)
    table = read_spots(outs, slide=image(tmp_path, 1200, 2000))
    assert (table.technology, table.image_scale) == ("Visium", 1)
    assert table.spots.ids == ("AAAC-1", "AAAG-1", "AAGG-1", "ACGT-1")
    assert table.spots.xy[:2].tolist() == [[500, 1000], [700, 1010]]
    assert (table.spots.diameter_um, table.spots.pitch_um, table.spots.lattice) == (55, 100, "hex")
    assert table.measured is not None
    assert list(table.measured.obs_names) == ["AAAC-1", "AAAG-1", "AAGG-1"]
    assert table.measured.X.toarray().tolist() == COUNTS[[1, 0, 2]].tolist()
    assert list(table.measured.var_names) == UNIQUE
    assert list(table.measured.var["gene_ids"]) == ENSEMBL
    said = " ".join(table.notices)
    assert "1 of 5 spots are not on tissue" in said
    assert "1 of 4 spots have no counts" in said
    assert ("raw matrix" in said) == (matrix == "raw")


def test_any_part_of_the_folder_may_be_given(tmp_path: Path) -> None:
    outs = space_ranger(tmp_path / "sample" / "outs")
    given = (
        outs, outs.parent, outs / "spatial", outs / "spatial/tissue_positions.csv",
        outs / "filtered_feature_bc_matrix.h5",
    )  # fmt: skip
    for path in given:
        assert len(read_spots(path).spots) == 4
        assert read_measured(path if path.suffix != ".csv" else outs).n_obs == 4


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize(("name", "size"), [("hires", (240, 400)), ("lowres", (72, 120))])
def test_smaller_images_scale_the_positions_and_say_so(
    name: str, size: tuple[int, int], images: bool, tmp_path: Path
) -> None:
    outs = space_ranger(tmp_path / "outs", images=images)
    table = read_spots(outs, slide=image(tmp_path, *size))
    factor = FACTORS[f"tissue_{name}_scalef"]
    assert table.image_scale == factor
    assert table.spots.xy[0] == pytest.approx([500 * factor, 1000 * factor])
    assert f"the {name} image" in " ".join(table.notices)


@pytest.mark.parametrize("images", [True, False])
def test_an_image_that_is_none_of_the_runs_is_refused(images: bool, tmp_path: Path) -> None:
    outs = space_ranger(tmp_path / "outs", images=images)
    with pytest.raises(UserError, match=r"\(40 × 50 px\) does not belong to outs"):
        read_spots(outs, slide=image(tmp_path, 40, 50))


def test_older_10x_files_of_one_genome_are_read(tmp_path: Path) -> None:
    write_h5(tmp_path / "old.h5", version=2)
    adata = read_measured(tmp_path / "old.h5")
    assert adata.X.toarray().tolist() == COUNTS.tolist()
    assert list(adata.var_names) == UNIQUE


def test_visium_hd_bins_state_their_size_and_resolution(tmp_path: Path) -> None:
    bins = space_ranger(tmp_path / "outs/binned_outputs/square_016um", images=False)
    (bins / "spatial/tissue_positions.csv").unlink()
    POSITIONS.to_parquet(bins / "spatial/tissue_positions.parquet")
    factors = {"bin_size_um": 16.0, "microns_per_pixel": 0.27}
    (bins / "spatial/scalefactors_json.json").write_text(json.dumps(factors))
    table = read_spots(bins)
    assert (table.spots.pitch_um, table.spots.lattice) == (16, "square")
    assert table.mpp == pytest.approx(0.27)
    assert "microns_per_pixel" in table.mpp_source
    with pytest.raises(UserError, match="square_016um"):
        read_spots(tmp_path / "outs")


def test_the_real_visium_folder_agrees_with_scanpy() -> None:
    folder = DATA / "visium_v1_small"
    if not folder.exists():
        pytest.skip("the Visium data are not beside the project")
    scanpy = pytest.importorskip("scanpy")
    theirs = scanpy.read_10x_h5(folder / "filtered_feature_bc_matrix.h5")
    theirs.var_names_make_unique()
    ours = read_measured(folder)
    assert (ours.X != theirs.X).nnz == 0
    assert list(ours.obs_names) == list(theirs.obs_names)
    assert list(ours.var_names) == list(theirs.var_names)
    hires = open_slide(folder / "spatial/tissue_hires_image.png")
    table = read_spots(folder, slide=hires)
    assert table.image_scale == pytest.approx(0.150015)
    assert estimate_mpp(table.spots) == pytest.approx(4.83, abs=0.02)


# --- h5ad ----------------------------------------------------------------------------------------


def annotated(n: int = 6, *, dense: bool = False) -> anndata.AnnData:
    counts = np.random.default_rng(0).poisson(2, (n, 4)).astype(np.float32)
    adata = anndata.AnnData(counts if dense else sparse.csr_matrix(counts))
    adata.obs_names = [f"spot{i}" for i in range(n)]
    adata.var_names = ["ERBB2", "ACTB", "CD8A", "KRT5"]
    adata.obsm["spatial"] = np.stack([np.arange(n) * 30 + 20, np.arange(n) * 10 + 40], axis=1)
    return adata


@pytest.mark.parametrize("dense", [True, False])
def test_a_plain_h5ad_gives_positions_and_counts(dense: bool, tmp_path: Path) -> None:
    adata = annotated(dense=dense)
    adata.write_h5ad(tmp_path / "a.h5ad")
    table = read_spots(tmp_path / "a.h5ad", slide=image(tmp_path, 300, 200))
    assert table.spots.ids == tuple(adata.obs_names)
    assert table.spots.xy.tolist() == adata.obsm["spatial"].tolist()
    assert (table.spots.pitch_um, table.spots.lattice) == (None, "none")
    assert table.measured is not None
    expected = adata.X if dense else adata.X.toarray()
    assert (table.measured.X.toarray() == expected).all()
    assert (read_measured(tmp_path / "a.h5ad").X != table.measured.X).nnz == 0


def hest(folder: Path) -> Path:
    adata = annotated()
    adata.obs["array_row"], adata.obs["array_col"] = [0, 0, 0, 1, 1, 1], [0, 2, 4, 1, 3, 5]
    adata.obs["in_tissue"] = [True, True, True, True, False, True]
    factors = {"spot_diameter_fullres": 12.5, "tissue_downscaled_fullres_scalef": 0.5}
    images = {"downscaled_fullres": picture(150, 100)}
    adata.uns["spatial"] = {"ST": {"images": images, "scalefactors": factors}}
    adata.write_h5ad(folder / "TENX1.h5ad")
    return folder / "TENX1.h5ad"


def test_a_hest_file_gives_array_technology_and_scale(tmp_path: Path) -> None:
    path = hest(tmp_path)
    table = read_spots(path, slide=image(tmp_path, 300, 200))
    assert len(table.spots) == 5
    assert "Visium" in table.technology
    assert (table.spots.lattice, table.spots.pitch_um, table.image_scale) == ("hex", 100, 1)
    small = read_spots(path, slide=image(tmp_path, 150, 100, "small.png"))
    assert small.image_scale == 0.5
    assert small.spots.xy[1].tolist() == [25, 25]


def test_positions_in_obs_and_symbols_in_var_are_found(tmp_path: Path) -> None:
    adata = annotated()
    xy = adata.obsm.pop("spatial")
    adata.obs["pxl_col_in_fullres"], adata.obs["pxl_row_in_fullres"] = xy.T
    adata.var["gene_name"] = list(adata.var_names)
    adata.var_names = ENSEMBL
    adata.write_h5ad(tmp_path / "a.h5ad")
    table = read_spots(tmp_path / "a.h5ad")
    assert table.spots.xy.tolist() == xy.tolist()
    assert table.measured is not None
    assert list(table.measured.var_names) == ["ERBB2", "ACTB", "CD8A", "KRT5"]
    assert list(table.measured.var["gene_ids"]) == ENSEMBL


def test_counts_are_found_behind_normalised_values_or_missed_aloud(tmp_path: Path) -> None:
    adata = annotated()
    raw = adata.X.copy()
    adata.X = adata.X.log1p()
    adata.write_h5ad(tmp_path / "log.h5ad")
    table = read_spots(tmp_path / "log.h5ad")
    assert table.measured is None
    assert "no raw counts" in " ".join(table.notices)
    with pytest.raises(UserError, match="no raw counts"):
        read_measured(tmp_path / "log.h5ad")
    adata.layers["counts"] = raw
    adata.write_h5ad(tmp_path / "both.h5ad")
    assert (raw != read_measured(tmp_path / "both.h5ad").X).nnz == 0


def test_a_file_of_several_slides_gives_the_one_at_hand(tmp_path: Path) -> None:
    adata = annotated()
    adata.obs["library_id"] = ["a", "a", "image", "image", "image", "a"]
    adata.write_h5ad(tmp_path / "many.h5ad")
    table = read_spots(tmp_path / "many.h5ad", slide=image(tmp_path, 300, 200))
    assert table.spots.ids == ("spot2", "spot3", "spot4")
    with pytest.raises(UserError, match="2 slides"):
        read_spots(tmp_path / "many.h5ad")


# --- bad input -----------------------------------------------------------------------------------


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
        "1 of 3 rows .* 'pixel_x'",
    ),
    "no rows": (lambda d: write(d / "s.tsv", "x\ty\tpixel_x\tpixel_y\n"), "no spots"),
    "none selected": (lambda d: st_table(d / "s.tsv", selected=[0, 0, 0]), "no spots"),
    "the same spot twice": (
        lambda d: st_table(d / "s.tsv", x=[10, 10, 12], y=[13, 13, 14]),
        "twice",
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
    make, said = BAD[kind]
    with pytest.raises(UserError, match=said) as caught:
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
    ("text", "said"),
    [
        ("\tA\tB\n1x1\t1\tmany\n", "text where counts"),
        ("\tA\tB\n1x1\t1\t\n", "empty cells"),
        ("\tA\tB\n1x1\t1\t-2\n", "negative"),
        ("\tA\tB\tC\tD\n1x1\t1\t2\n", "gene names"),
        ("", "no table of counts|not a table of counts"),
    ],
)
def test_what_is_no_table_of_counts_is_refused(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
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
