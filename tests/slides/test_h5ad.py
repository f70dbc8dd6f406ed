"""h5ad files as spot tables."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from tests.fakes import DIAMETER_UM, PITCH_UM, fake_prediction
from tests.slide_files import picture
from tests.spot_files import ENSEMBL, annotated, image

from napari_flag.errors import UserError
from napari_flag.slides.spot_tables import read_measured, read_spots


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
    assert (table.spots.lattice, table.spots.pitch_um) == ("hex", 100)
    assert table.spots.xy[1].tolist() == [50, 50]
    small = read_spots(path, slide=image(tmp_path, 150, 100, "small.png"))
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


def test_symbols_are_found_beside_ids_with_versions_made_unique(tmp_path: Path) -> None:
    adata = annotated()
    adata.var["gene_name"] = list(adata.var_names)
    ids = [f"{ENSEMBL[0]}.1", f"{ENSEMBL[1]}.2_PAR_Y", f"{ENSEMBL[2]}-1", ENSEMBL[3]]
    adata.var_names = ids
    adata.write_h5ad(tmp_path / "a.h5ad")
    table = read_spots(tmp_path / "a.h5ad")
    assert table.measured is not None
    assert list(table.measured.var_names) == ["ERBB2", "ACTB", "CD8A", "KRT5"]
    assert list(table.measured.var["gene_ids"]) == ids


def test_symbols_are_found_beside_a_column_of_ids_and_a_row_that_is_no_gene(tmp_path: Path) -> None:
    adata = annotated()
    adata.var["gene_symbols"] = ["ERBB2", "ACTB", "CD8A", None]
    names = [*ENSEMBL[:3], "ERCC-00002"]
    adata.var["gene_ids"] = adata.var_names = names
    adata.write_h5ad(tmp_path / "a.h5ad")
    measured = read_measured(tmp_path / "a.h5ad")
    assert list(measured.var_names) == ["ERBB2", "ACTB", "CD8A", "ERCC-00002"]
    assert list(measured.var["gene_ids"]) == names


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


def test_an_encoding_newer_than_the_installed_anndata_is_refused(tmp_path: Path) -> None:
    annotated().write_h5ad(tmp_path / "new.h5ad")
    with h5py.File(tmp_path / "new.h5ad", "a") as file:
        file["obs"].attrs["encoding-version"] = "99.0"
    with pytest.raises(UserError, match="unknown version"):
        read_spots(tmp_path / "new.h5ad")


def test_odd_but_harmless_content_does_not_stop_it(tmp_path: Path) -> None:
    adata = annotated()
    adata.uns["spatial"] = np.arange(3)
    adata.obs["array_row"], adata.obs["array_col"] = np.nan, 1
    adata.obsm["spatial"] = pd.DataFrame(adata.obsm["spatial"], index=adata.obs_names, columns=["x", "y"])
    adata.X = None
    adata.write_h5ad(tmp_path / "odd.h5ad")
    table = read_spots(tmp_path / "odd.h5ad", slide=image(tmp_path, 300, 200))
    assert (len(table.spots), table.spots.array, table.measured) == (6, None, None)


def test_a_prediction_of_this_package_gives_its_spots_again(tmp_path: Path) -> None:
    prediction = fake_prediction(9)
    prediction.write_h5ad(tmp_path / "p.h5ad")
    table = read_spots(tmp_path / "p.h5ad")
    assert table.spots.ids == tuple(prediction.obs_names)
    assert (table.spots.lattice, table.spots.pitch_um, table.spots.diameter_um) == (
        "square",
        PITCH_UM,
        DIAMETER_UM,
    )
    assert (table.technology, table.measured) == ("napari-flag prediction", None)


def test_a_prediction_that_holds_its_draws_as_counts_is_no_measurement(tmp_path: Path) -> None:
    prediction = fake_prediction(9)
    prediction.layers["counts"] = np.rint(np.exp2(prediction.layers["sample"]) - 1)
    prediction.write_h5ad(tmp_path / "p_counts.h5ad")
    assert read_spots(tmp_path / "p_counts.h5ad").measured is None
    with pytest.raises(UserError, match=r"p_counts\.h5ad is a prediction of napari-flag"):
        read_measured(tmp_path / "p_counts.h5ad")
