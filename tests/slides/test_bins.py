"""Visium HD, in the layout of Space Ranger 3 and 4 as made by `tests.platform_files`."""

import shutil

import h5py
import numpy as np
import pandas as pd
import pytest
from tests.platform_files import GENES, MPP, visium_hd

from napari_flag.discovery import discover
from napari_flag.errors import UserError
from napari_flag.progress import finish
from napari_flag.slides.formats import bins
from napari_flag.slides.slide import open_slide
from napari_flag.slides.spot_tables import measured_at, read_spots
from napari_flag.slides.spots import grid_over
from napari_flag.slides.tissue import find_tissue

FOLDERS = ("outs", "outs/binned_outputs", "outs/binned_outputs/square_002um")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A sample's folder and the truth in it; tests only read it."""
    sample = tmp_path_factory.mktemp("hd") / "P2"
    return sample, visium_hd(sample)


@pytest.fixture
def slide(run):
    with open_slide(run[0] / "P2_tissue_image.tif") as slide:
        yield slide


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        "",
        *(pytest.param(folder, marks=pytest.mark.slow) for folder in FOLDERS),
    ],
)
def test_two_micrometre_bins_pool_into_discs_as_a_sum_bin_by_bin_does(given, run, slide, monkeypatch):
    monkeypatch.setattr(bins, "BATCH_POINTS", 30_000)  # several batches
    sample, truth = run
    tissue = find_tissue(slide)
    spots = grid_over(tissue, MPP, 100.0, 55.0, "hex")
    counts, said = finish(measured_at(sample / given, spots, MPP, slide, tissue=tissue))
    at = {name: i for i, name in enumerate(spots.ids)}
    assert 20 < counts.n_obs < len(spots)
    assert list(counts.var_names) == GENES
    centres = [spots.xy[at[name]] * MPP for name in counts.obs_names[:6]]
    expected = [truth.in_disc(centre, 55.0) for centre in centres]
    np.testing.assert_array_equal(counts.X[:6].toarray(), expected)
    assert "2 µm bins" in said[0]
    assert "on the tissue of P2_tissue_image.tif" in said[1]


@pytest.mark.slow
def test_bins_pool_into_grid_squares_of_the_image(run, slide):
    sample, truth = run
    spots = grid_over(find_tissue(slide), MPP, 64.0, 64.0, "square")
    counts, _ = finish(measured_at(sample, spots, MPP, slide))
    for name in counts.obs_names[:4]:
        row, column = (int(part) for part in name.split("_"))
        np.testing.assert_array_equal(
            counts[name].X.toarray()[0], truth.in_square(np.array([column, row]) * 64.0, 64.0)
        )


def test_bins_that_are_the_spots_themselves_are_matched_by_name(run, slide):
    folder = run[0] / "outs/binned_outputs/square_016um"
    table = read_spots(folder, slide=slide)
    assert table.measured is not None
    counts, said = finish(measured_at(folder, table.spots, MPP, slide))
    assert said == ()
    assert (counts[list(table.spots.ids)].X != table.measured.X).nnz == 0


def test_small_images_of_the_run_scale_the_bins(run):
    sample, truth = run
    path = sample / "outs/binned_outputs/square_002um/spatial/tissue_hires_image.png"
    with open_slide(path, mpp=4 * MPP) as hires:
        spots = grid_over(find_tissue(hires), 4 * MPP, 100.0, 55.0, "hex")
        counts, said = finish(measured_at(sample, spots, 4 * MPP, hires))
    centre = spots.xy[spots.ids.index(counts.obs_names[3])] * 4 * MPP
    np.testing.assert_array_equal(counts.X[3].toarray()[0], truth.in_disc(centre, 55.0))
    assert "scaled by 0.25" in said[0]


def test_a_folder_of_bins_is_found_with_its_image_and_the_reason(run):
    [section] = discover(run[0]).sections
    assert section.slide.name == "P2_tissue_image.tif"
    assert section.table is None
    assert section.measured == run[0] / "outs/binned_outputs/square_002um"
    assert "the size that Space Ranger's small images give" in section.why
    assert "square_008um, square_016um" in section.why


def test_a_bin_without_position_is_named(run, slide, tmp_path):
    folder = shutil.copytree(run[0] / "outs/binned_outputs/square_016um", tmp_path / "square_016um")
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "r+") as file:
        names = file["matrix/barcodes"][:]
        names[5] = b"s_016um_00999_00001-1"
        file["matrix/barcodes"][:] = names
    spots = grid_over(find_tissue(slide), MPP, 100.0, 55.0, "hex")
    with pytest.raises(UserError, match="s_016um_00999_00001-1"):
        finish(measured_at(folder, spots, MPP, slide))


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("barcodes", lambda values: np.full_like(values, values[3]), "more than once"),
        ("data", lambda values: values * -1, "negative numbers"),
    ],
)
def test_bins_named_twice_and_counts_below_zero_are_refused(name, change, said, run, slide, tmp_path):
    folder = shutil.copytree(run[0] / "outs/binned_outputs/square_016um", tmp_path / "square_016um")
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "r+") as file:
        file["matrix"][name][:] = change(file["matrix"][name][:])
    spots = grid_over(find_tissue(slide), MPP, 100.0, 55.0, "hex")
    with pytest.raises(UserError, match=said):
        finish(measured_at(folder, spots, MPP, slide))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bins_without_finite_pixels_are_refused(value, run, slide, tmp_path):
    folder = shutil.copytree(run[0] / "outs/binned_outputs/square_016um", tmp_path / "square_016um")
    path = folder / "spatial/tissue_positions.parquet"
    frame = pd.read_parquet(path)
    frame.loc[7, "pxl_row_in_fullres"] = value
    frame.to_parquet(path)
    with pytest.raises(UserError, match="1 bin without finite pixels"):
        bins.located_bins(folder, slide)
    frame.iloc[:7].to_parquet(path)
    bins.located_bins(folder, slide)
    frame.drop(index=[0, 7]).to_parquet(path)
    with pytest.raises(UserError, match="lacks bins at the corners"):
        bins.located_bins(folder, slide)
