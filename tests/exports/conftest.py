import pandas as pd
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys


@pytest.fixture(scope="session")
def predicted():
    """36 spots, 5 genes, two domains: the upper rows and the lower.  For reading only."""
    adata = fake_prediction(n_spots=36, n_genes=5)
    lower = (adata.obs[keys.ARRAY_ROW] >= 3).astype(int).astype(str)
    adata.obs[keys.DOMAIN] = pd.Categorical(lower)
    return adata


@pytest.fixture
def prediction(predicted):
    """A copy of `predicted` to change."""
    return predicted.copy()
