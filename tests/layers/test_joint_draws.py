import numpy as np
import pytest
from tests.fakes import FakeSlide, fake_prediction
from tests.tiny_weights import GENES, write_tiny_weights

from napari_flag import keys
from napari_flag.analysis import draws
from napari_flag.analysis.draws import Draw, DrawRequest, count, draw_more, keep, layer_of, why_not
from napari_flag.errors import UserError
from napari_flag.layers.gene_map import GeneMap
from napari_flag.layers.gene_values import Quantity
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.prediction import predict_slide
from napari_flag.prediction_file import spots_of
from napari_flag.progress import finish
from napari_flag.slides.spots import Spots


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_tiny_weights(tmp_path_factory.mktemp("w") / "tiny.safetensors")


@pytest.fixture(scope="module")
def slide():
    return FakeSlide(width=1500, height=1200, mpp=0.683)


@pytest.fixture(scope="module")
def spots():
    rows, columns = np.divmod(np.arange(12), 4)
    return Spots(
        ids=tuple(f"{c}x{r}" for r, c in zip(rows, columns, strict=True)),
        xy=np.stack([columns, rows], 1) * 293.0 + 200,
        diameter_um=100.0,
        pitch_um=200.0,
        lattice="square",
        array=np.stack([rows, columns], 1),
    )


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def predict(weights, slide, spots, cache):
    checkpoint = Checkpoint.load(weights)

    def run(**options):
        return finish(predict_slide(slide, spots, checkpoint, device="cpu", cache=cache, seed=3, **options))

    return run


@pytest.fixture
def adata(predict):
    return predict(samples=4, genes=GENES[:3])


def drawn(request):
    for step in draw_more(request):
        if step.partial is not None:
            keep(request.adata, step.partial)


def test_the_spots_of_a_prediction_come_back(adata, spots):
    back = spots_of(adata)
    assert (back.ids, back.diameter_um, back.pitch_um, back.lattice) == (spots.ids, 100.0, 200.0, "square")
    assert np.array_equal(back.xy, spots.xy)
    assert np.array_equal(back.array, spots.array)


def test_more_draws_are_those_of_the_next_seeds_and_are_kept_with_the_prediction(
    adata, slide, weights, cache, spots
):
    request = DrawRequest(adata, slide, 3, "cpu", weights, cache)
    drawn(request)
    assert count(adata) == 3
    third = finish(
        predict_slide(
            slide,
            spots,
            Checkpoint.load(weights),
            seed=5,
            samples=1,
            device="cpu",
            cache=cache,
            genes=GENES[:3],
        )
    )
    np.testing.assert_allclose(adata.layers["sample_3"], third.X, atol=1e-4)
    assert np.abs(adata.layers["sample_2"] - adata.layers["sample_3"]).max() > 1e-3


def test_drawing_goes_on_where_it_stopped(adata, slide, weights, cache):
    drawn(DrawRequest(adata, slide, 2, "cpu", weights, cache))
    second = adata.layers["sample_2"]
    drawn(DrawRequest(adata, slide, 3, "cpu", weights, cache))
    assert count(adata) == 3
    assert adata.layers["sample_2"] is second


def test_a_prediction_of_a_region_is_refused_as_its_draws_would_be_others(predict, slide, weights, cache):
    from shapely.geometry import box

    part = predict(samples=4, region=[box(0, 0, 600, 1200)])
    with pytest.raises(UserError, match="predict the whole tissue"):
        drawn(DrawRequest(part, slide, 2, "cpu", weights, cache))


def test_other_weights_are_refused(adata, slide, tmp_path, cache):
    other = write_tiny_weights(tmp_path / "other.safetensors", pitch_um=150.0)
    with pytest.raises(UserError, match="not those of this prediction"):
        drawn(DrawRequest(adata, slide, 2, "cpu", other, cache))


def test_weights_that_are_not_here_are_one_sentence(adata, slide):
    adata.uns[keys.PROVENANCE][keys.WEIGHTS_NAME] = "gone"
    with pytest.raises(UserError, match='no weights called "gone"'):
        drawn(DrawRequest(adata, slide, 2))


def test_a_draw_is_kept_only_as_the_next(adata):
    keep(adata, Draw(5, adata.X))
    assert count(adata) == 1
    keep(adata, Draw(2, adata.X))
    assert count(adata) == 2


def test_what_is_missing_for_drawing_is_said():
    adata = fake_prediction(9)
    assert "no prediction" in why_not(None, None)
    assert "open it" in why_not(adata, None)
    assert why_not(adata, FakeSlide()) is None
    del adata.layers[keys.SAMPLE]
    assert "not predicted by napari-flag" in why_not(adata, FakeSlide())


def test_the_gene_map_shows_the_draw_that_is_asked_for():
    from napari.components import ViewerModel

    adata = fake_prediction(16)
    adata.layers[layer_of(2)] = adata.layers[keys.SAMPLE] + 1
    viewer = ViewerModel()
    gene_map = GeneMap(viewer)
    gene_map.set_prediction(adata)
    gene_map.show([adata.var_names[0]])
    gene_map.set_quantity(Quantity.SAMPLE)
    before = gene_map.layer(Quantity.SAMPLE).data.copy()
    gene_map.set_sample(layer_of(2))
    assert np.nanmax(np.abs(gene_map.layer(Quantity.SAMPLE).data - before - 1)) < 1e-5
    assert gene_map.layer(Quantity.SAMPLE).name.endswith("sample 2")
    assert len(viewer.layers) == 2
    assert draws.count(adata) == 2
