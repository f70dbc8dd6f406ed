import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.exports.contents import choose_genes


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
