"""Space Ranger folders, as versions 1, 2 and HD write them."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
from tests.spot_files import (
    COUNTS,
    ENSEMBL,
    FACTORS,
    POSITIONS,
    UNIQUE,
    image,
    space_ranger,
    write_h5,
)

from napari_flag.errors import UserError
from napari_flag.slides.formats.counts import RESOLUTIONS
from napari_flag.slides.lattice import estimate_mpp
from napari_flag.slides.slide import open_slide
from napari_flag.slides.spot_tables import read_measured, read_spots

DATA = Path(__file__).parents[3] / "shared/data"


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("kind", ["h5", "mex"])
@pytest.mark.parametrize("matrix", ["filtered", "raw"])
def test_a_space_ranger_folder_gives_spots_on_tissue_with_counts(
    version: int, kind: str, matrix: str, tmp_path: Path
) -> None:
    outs = space_ranger(tmp_path / "outs", version=version, matrix=matrix, kind=kind)
    table = read_spots(outs, slide=image(tmp_path, 1200, 2000))
    assert table.technology == "Visium"
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


@pytest.mark.parametrize("kind", ["h5", "mex"])
def test_counts_of_a_folder_know_the_places_of_its_barcodes(kind: str, tmp_path: Path) -> None:
    outs = space_ranger(tmp_path / "outs", kind=kind)
    [matrix] = outs.glob("*_feature_bc_matrix*")
    for path in (outs, matrix):
        counts = read_measured(path)
        known = {"AAAC-1": [500, 1000], "AAAG-1": [700, 1010]}
        found = dict(zip(counts.obs_names, counts.obsm["spatial"].tolist(), strict=True))
        assert {name: found[name] for name in known} == known
        assert counts.uns[RESOLUTIONS] == [FACTORS["tissue_hires_scalef"], FACTORS["tissue_lowres_scalef"]]
    (outs / "spatial").rename(tmp_path / "elsewhere")
    assert "spatial" not in read_measured(matrix).obsm


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


@pytest.mark.slow
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
    np.testing.assert_allclose(table.spots.xy, read_spots(folder).spots.xy * 0.150015, rtol=1e-5)
    assert estimate_mpp(table.spots) == pytest.approx(4.83, abs=0.02)


@pytest.mark.parametrize(
    "factor",
    ["1" + 400 * "0", "NaN", "Infinity", "-0.2", "0", "1e-320", "true", '"0.2"'],
    ids=lambda text: text[:8],
)
@pytest.mark.parametrize("name", ["tissue_hires_scalef", "microns_per_pixel", "bin_size_um"])
def test_a_scale_factor_that_is_none_is_refused(name: str, factor: str, tmp_path: Path) -> None:
    outs = space_ranger(tmp_path / "outs")
    (outs / "spatial/scalefactors_json.json").write_text(f'{{"{name}": {factor}}}')
    with pytest.raises(UserError, match="so the scale of positions is unknown; copy it again"):
        read_spots(outs)


def test_scale_factors_that_are_not_used_may_be_anything(tmp_path: Path) -> None:
    outs = space_ranger(tmp_path / "outs")
    (outs / "spatial/scalefactors_json.json").write_text('{"fiducial_diameter_fullres": null, "new": 0}')
    assert len(read_spots(outs).spots) == 4


def parquet_of(outs: Path, rows: int, group: int, barcode: str) -> Path:
    """Write positions of one barcode again and again, which take no room."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    numbers = ("in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
    schema = pa.schema([("barcode", pa.string()), *((name, pa.int64()) for name in numbers)])
    part = pa.table(
        {"barcode": pa.array([barcode] * group)} | {name: np.ones(group, np.int64) for name in numbers},
        schema,
    )
    (outs / "spatial/tissue_positions.csv").unlink()
    path = outs / "spatial/tissue_positions.parquet"
    with parquet.ParquetWriter(path, schema, compression="zstd", dictionary_pagesize_limit=10**9) as writer:
        for _ in range(rows // group):
            writer.write_table(part, row_group_size=group)
    return path


def test_one_text_in_thousands_of_rows_is_measured_before_it_is_read(tmp_path: Path, monkeypatch) -> None:
    outs = space_ranger(tmp_path / "outs")
    path = parquet_of(outs, 3000, 50, "A" * 1_000_000)
    assert path.stat().st_size < 1_000_000
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=4_000_000_000))
    with pytest.raises(UserError, match=r"needs about 7\.\d GB of memory while 4\.0 GB are free"):
        read_spots(outs)


def test_rows_beyond_any_slide_are_refused_before_they_are_read(tmp_path: Path) -> None:
    outs = space_ranger(tmp_path / "outs")
    parquet_of(outs, 5_500_000, 500_000, "A")
    with pytest.raises(UserError, match="it has 5,500,000 rows, where up to 5,000,000 are read"):
        read_spots(outs)


def test_positions_in_parquet_are_read_as_those_in_text(tmp_path: Path) -> None:
    import pandas

    outs = space_ranger(tmp_path / "outs")
    text = outs / "spatial/tissue_positions.csv"
    expected = read_spots(outs).spots
    pandas.read_csv(text).to_parquet(text.with_suffix(".parquet"))
    text.unlink()
    assert read_spots(outs).spots.ids == expected.ids


def test_a_parquet_with_a_barcode_that_is_no_text_is_damaged(tmp_path: Path) -> None:
    """The error of pyarrow for it is of no kind of Python's own."""
    import pandas

    outs = space_ranger(tmp_path / "outs")
    text = outs / "spatial/tissue_positions.csv"
    path, frame = text.with_suffix(".parquet"), pandas.read_csv(text)
    frame.to_parquet(path, compression=None)
    text.unlink()
    barcode = str(frame["barcode"][0]).encode()
    path.write_bytes(path.read_bytes().replace(barcode, b"\xff" + barcode[1:]))
    with pytest.raises(UserError, match="so it is damaged or incomplete"):
        read_spots(outs)
