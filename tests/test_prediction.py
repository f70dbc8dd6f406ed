from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import box
from tests.fakes import FakeSlide
from tests.tiny_weights import GENES, write_tiny_weights, write_weights_on_uni

from napari_flag import keys, prediction
from napari_flag.errors import UserError
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.prediction import compare_with_training, predict_slide
from napari_flag.progress import finish
from napari_flag.sampling import Preview
from napari_flag.slides.spots import Spots

PITCH = 293.0


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return Checkpoint.load(write_tiny_weights(tmp_path_factory.mktemp("w") / "tiny.safetensors"))


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    """With a file, so that its features are computed once for all tests and then read from the cache."""
    slide = FakeSlide(width=1500, height=1200, mpp=0.683)
    slide.path = tmp_path_factory.mktemp("slide") / "fake.svs"
    slide.path.touch()
    return slide


@pytest.fixture(scope="module")
def spots():
    rows, columns = np.divmod(np.arange(12), 4)
    return Spots(
        ids=tuple(f"{c}x{r}" for r, c in zip(rows, columns, strict=True)),
        xy=np.stack([columns, rows], 1) * PITCH + 200,
        diameter_um=100.0,
        pitch_um=200.0,
        lattice="square",
        array=np.stack([rows, columns], 1),
    )


@pytest.fixture(scope="module")
def predict(slide, checkpoint, spots, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def run(slide=slide, spots=spots, on_step=None, **options):
        return finish(predict_slide(slide, spots, checkpoint, device="cpu", cache=cache, **options), on_step)

    return run


@pytest.fixture(scope="module")
def whole(predict):
    return predict(seed=3)


def test_the_prediction_keeps_the_contract(whole, spots):
    assert tuple(whole.obs_names) == spots.ids
    assert tuple(whole.var_names) == GENES
    assert whole.X.dtype == np.float32
    assert (whole.X >= 0).all()
    assert whole.layers[keys.SAMPLE].shape == whole.layers[keys.SPREAD].shape == whole.shape
    np.testing.assert_array_equal(whole.obsm[keys.SPATIAL], spots.xy)
    np.testing.assert_array_equal(whole.obs[keys.ARRAY_ROW], spots.array[:, 0])
    made = whole.uns[keys.PROVENANCE]
    assert made[keys.SAMPLES] == 3
    assert made[keys.MPP] == 0.683
    assert made[keys.NOT_FOR_DIAGNOSIS] == keys.RESEARCH_USE_ONLY


def test_the_mean_and_spread_are_those_of_the_samples(predict):
    one = predict(seed=3, samples=1)
    assert keys.SPREAD not in one.layers
    np.testing.assert_array_equal(one.X, one.layers[keys.SAMPLE])


def test_the_same_seed_gives_the_same_numbers_and_another_does_not(predict, whole):
    np.testing.assert_array_equal(predict(seed=3).X, whole.X)
    assert np.abs(predict(seed=4).X - whole.X).max() > 1e-2


def test_the_order_of_spots_does_not_change_their_numbers(predict, whole, spots):
    order = np.random.default_rng(0).permutation(len(spots))
    shuffled = predict(spots=spots.take(order), seed=3)
    np.testing.assert_allclose(shuffled[whole.obs_names].X, whole.X, atol=1e-4)


def test_a_region_gives_the_numbers_of_the_whole(predict, whole, spots):
    part = predict(region=[box(0, 0, 700, 1200)], seed=3)
    assert 0 < part.n_obs < len(spots)
    np.testing.assert_allclose(part.X, whole[part.obs_names].X, atol=1e-4)


def test_chosen_genes_have_the_numbers_of_the_panel(predict, whole):
    part = predict(genes=["CD74", "ERBB2"], seed=3)
    assert list(part.var_names) == ["CD74", "ERBB2"]
    np.testing.assert_array_equal(part.X, whole[:, ["CD74", "ERBB2"]].X)


def test_the_size_of_chunks_does_not_change_numbers(predict, whole, monkeypatch):
    monkeypatch.setattr("napari_flag.sampling._TOKENS_CPU", 40)
    np.testing.assert_allclose(predict(seed=3).X, whole.X, atol=1e-4)


def test_previews_arrive_and_add_up_to_the_result(predict, whole, monkeypatch):
    monkeypatch.setattr("napari_flag.sampling._TOKENS_CPU", 60)
    seen = np.full(whole.shape, np.nan, np.float32)

    def show(step):
        if isinstance(step.partial, Preview):
            seen[step.partial.rows] = step.partial.values

    predict(seed=3, on_step=show)
    np.testing.assert_allclose(seen, whole.X, atol=1e-4)


def test_exhausted_gpu_memory_halves_the_chunk_and_goes_on(predict, whole, monkeypatch):
    import torch

    from napari_flag.model.flag import Flag

    denoise, notices = Flag.denoise, []

    def small_gpu(self, x, *rest):
        if len(x) > 9:  # three spots of three samples
            raise torch.cuda.OutOfMemoryError
        return denoise(self, x, *rest)

    monkeypatch.setattr(Flag, "denoise", small_gpu)
    found = predict(seed=3, on_step=lambda s: notices.append(s.notice))
    assert any("GPU memory ran out" in n for n in notices if n)
    np.testing.assert_allclose(found.X, whole.X, atol=1e-4)


def test_unknown_resolution_is_asked_for_not_guessed(predict):
    with pytest.raises(UserError, match="--mpp"):
        predict(slide=FakeSlide(mpp=None))


def test_a_slide_too_coarse_for_the_encoder_is_refused(predict):
    with pytest.raises(UserError, match=r"1\.5|coarse"):
        predict(slide=FakeSlide(width=1500, height=1200, mpp=1.5))


def test_no_spots_is_an_error(predict, spots):
    with pytest.raises(UserError, match="no spots"):
        predict(spots=spots.take(np.zeros(len(spots), bool)))


def test_unknown_genes_are_named(predict):
    with pytest.raises(UserError, match="NOSUCH1"):
        predict(genes=["ERBB2", "NOSUCH1"])


def test_a_region_beside_the_tissue_is_an_error(predict):
    with pytest.raises(UserError, match="No spot lies inside"):
        predict(region=[box(-50, -50, -10, -10)])


def test_a_run_that_would_not_fit_in_memory_is_refused_before_it_starts(predict, monkeypatch):
    monkeypatch.setattr(prediction, "_free_memory", lambda: 1000)
    with pytest.raises(UserError, match="GiB"):
        predict()


def test_differences_from_the_training_array_are_stated(checkpoint, spots):
    same = compare_with_training(checkpoint, 0.683, 200.0, spots)
    assert not any("µm" in sentence for sentence in same)
    visium = replace(spots, diameter_um=55.0, pitch_um=100.0)
    stated = " ".join(compare_with_training(checkpoint, 0.9, 100.0, visium))
    assert "distance between spots is 100 µm" in stated
    assert "spot diameter is 55 µm" in stated
    assert "coarser" in stated


def test_a_cancelled_run_stops_at_the_next_step(slide, spots, checkpoint, tmp_path):
    work = predict_slide(slide, spots, checkpoint, device="cpu", cache=tmp_path)
    for step in work:
        if step.stage == "Reading tiles":
            break
    work.close()
    assert list(tmp_path.iterdir()) == []


def test_a_slide_is_read_with_the_foundation_encoder_the_weights_name(slide, spots, tmp_path, monkeypatch):
    trained = Checkpoint.load(write_weights_on_uni(tmp_path, monkeypatch))
    found = finish(predict_slide(slide, spots, trained, device="cpu", cache=tmp_path / "cache"))
    made = found.uns[keys.PROVENANCE]
    assert (made[keys.ENCODER], made[keys.TILE_PX], made[keys.TILE_UM_PER_PX]) == ("uni", 256, 0.5)
    assert np.isfinite(found.X).all()
    (tmp_path / "encoders" / "uni" / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match="UNI are not on this computer"):
        finish(predict_slide(slide, spots, trained, device="cpu", cache=tmp_path / "cache"))
