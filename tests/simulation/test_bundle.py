import anndata
import numpy as np
import pytest
import tifffile

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.simulation import demo_slide, demo_table, simulate, simulator
from napari_flag.simulation.simulator import ORIGIN
from napari_flag.slides.slide import open_slide
from napari_flag.slides.spot_tables import read_spots


def test_the_bundled_files_are_small_enough_to_ship():
    assert demo_slide().stat().st_size < 1.5e6
    assert demo_table().stat().st_size < 0.3e6


def test_the_bundled_slide_is_a_tiled_pyramid_with_its_resolution():
    with tifffile.TiffFile(demo_slide()) as tif:
        widths = [page.imagewidth for page in tif.pages]
        assert widths == [2400, 1200, 600, 300]
        assert all(page.is_tiled for page in tif.pages)
        per_cm = tif.pages[0].tags["XResolution"].value
        assert 1e4 * per_cm[1] / per_cm[0] == pytest.approx(0.7)


def test_the_bundled_table_lies_on_the_bundled_slide():
    table = anndata.read_h5ad(demo_table())
    assert table.n_obs > 200
    assert (table.obsm[keys.SPATIAL] > 0).all()
    assert (table.obsm[keys.SPATIAL] < 2400).all()
    assert table.uns[ORIGIN]["seed"] == simulator.DEMO_SEED


def test_the_bundled_files_open_as_any_slide_and_table_do():
    with open_slide(demo_slide()) as slide:
        assert slide.size == (2400, 2400)
        assert slide.mpp == pytest.approx(0.7)
        table = read_spots(demo_table(), slide=slide)
    assert (table.spots.pitch_um, table.spots.diameter_um) == (100.0, 55.0)
    assert table.spots.lattice == "hex"
    assert tuple(table.measured.obs_names) == table.spots.ids


@pytest.mark.slow
def test_the_documented_command_remakes_the_bundled_pixels_and_counts(tmp_path):
    slide, table = simulator.write_simulated(tmp_path, "again", simulate(simulator.DEMO_SEED))
    made, shipped = tifffile.imread(slide), tifffile.imread(demo_slide())
    assert np.abs(made.astype(int) - shipped).mean() < 1.0
    np.testing.assert_array_equal(anndata.read_h5ad(table).X, anndata.read_h5ad(demo_table()).X)


def test_a_written_slide_reads_back_as_it_was_within_jpeg_loss(tmp_path):
    image = simulate(2, size_px=600).image
    simulator.write_slide(tmp_path / "small.tif", image, 0.7)
    with tifffile.TiffFile(tmp_path / "small.tif") as tif:
        back = [page.asarray() for page in tif.pages]
    assert [b.shape[0] for b in back] == [600, 300]
    assert np.abs(back[0].astype(int) - image).mean() < 8


def test_a_missing_demo_file_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(simulator, "NAME", "nowhere")
    with pytest.raises(UserError, match=r"nowhere\.tif is missing.*napari_flag\.simulation"):
        simulator.demo_slide()
