import pytest
from tests.fakes import counts_for, fake_prediction

from napari_flag import prediction_file


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A prediction and measured counts as h5ad, in the current folder."""
    monkeypatch.chdir(tmp_path)
    prediction = fake_prediction(n_spots=49, n_genes=8)
    prediction_file.write_prediction(prediction, tmp_path / "predicted.h5ad")
    counts_for(prediction).write_h5ad(tmp_path / "measured.h5ad")
    return tmp_path
