import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.exports.contents import choose_genes, expression_table
from napari_flag.exports.formats import export, find_format
from napari_flag.progress import Step


def said_by(steps):
    """The notices of what is run to its end."""
    return [step.notice for step in steps if isinstance(step, Step) and step.notice]


@pytest.mark.parametrize("name", ["spot", "x_px", "y_px", "ERBB2"])
def test_no_column_of_obs_takes_the_place_of_ids_places_or_genes(tmp_path, name):
    adata = fake_prediction(n_spots=49, n_genes=8)
    plain = expression_table(adata)
    adata.obs[name] = range(49)
    table = expression_table(adata)
    assert list(table) == list(plain)
    assert table.equals(plain)
    assert list(table["spot"]) == list(adata.obs_names)
    assert list(table["x_px"]) == list(adata.obsm[keys.SPATIAL][:, 0])
    said = said_by(export(adata, [(find_format("csv"), tmp_path / "a.csv")]))
    assert any(f"{name} in obs is called as a column that every table has" in notice for notice in said)


def test_columns_that_others_wrote_are_named_where_they_go_along(tmp_path):
    adata = fake_prediction(n_spots=49, n_genes=8)
    adata.obs["pathologist"] = "jdoe"
    adata.obs[keys.DOMAIN] = "tumour"
    said = said_by(export(adata, [(find_format("csv"), tmp_path / "a.csv")]))
    assert any(notice.startswith("The columns pathologist of obs were not written by") for notice in said)
    said = said_by(export(adata, [(find_format("geojson"), tmp_path / "a.geojson")]))
    assert not any("were not written by" in notice for notice in said)


@pytest.fixture
def prediction():
    return fake_prediction(n_spots=25, n_genes=6)


def test_tables_of_genes_that_another_program_wrote_in_another_layout_stay_as_they_are(prediction):
    names = np.array([("ERBB2",), ("ESR1",)], [("1", object)])
    for markers in (1, {"params": {}}, {"names": names}):
        prediction.uns[keys.MARKERS], prediction.uns[keys.MORAN] = markers, "none"
        chosen = choose_genes(prediction, ["ERBB2", "MKI67"])
        assert list(chosen.var_names) == ["ERBB2", "MKI67"]
        assert chosen.uns[keys.MORAN] == "none"
        assert type(chosen.uns[keys.MARKERS]) is type(markers)
