import numpy as np
import pytest
import torch
from tests.fake_method import LEVELS, SD, Level
from tests.fakes import FakeSlide, fake_xy

from napari_flag import prediction_file
from napari_flag.methods.moments import Moments
from napari_flag.model.samplers import SamplerSettings
from napari_flag.progress import finish
from napari_flag.sampling import Preview, preview_of, sample_expression
from napari_flag.slides.spots import Spots

IDS = tuple(f"spot{i}" for i in range(12))
ROWS = np.arange(12)


def sample(method, on_step=None, rows=ROWS, **settings):
    return finish(sample_expression(method, method, IDS, rows, SamplerSettings(**settings)), on_step)


@pytest.fixture
def chunks_of(monkeypatch):
    def of(values):
        monkeypatch.setattr("napari_flag.sampling._TOKENS_CPU", values)

    return of


def test_the_expectation_depends_on_neither_seed_nor_draws():
    one, other = sample(Level()), sample(Level(), seed=5, draws=4, first=3)
    np.testing.assert_array_equal(one.mean, np.tile(LEVELS, (12, 1)))
    np.testing.assert_array_equal(other.mean, one.mean)
    np.testing.assert_array_equal(other.spread, one.spread)
    np.testing.assert_array_equal(one.spread, np.full((12, len(LEVELS)), SD, np.float32))
    assert (other.draws[0] != one.draws[0]).any()


def test_eight_draws_at_once_are_those_made_one_by_one():
    together = sample(Level(), draws=8, seed=2).draws
    for number in range(1, 9):
        [alone] = sample(Level(), first=number, seed=2).draws
        np.testing.assert_array_equal(alone, together[number - 1])
    assert len(np.unique(together, axis=0)) == 8


def test_chunks_change_no_number_and_hold_no_more_values_over_all_draws_than_the_limit(chunks_of):
    class Watched(Level):
        drawn: list[int]

        def draw(self, rows, ids, settings):
            self.drawn.append(len(rows) * len(self.genes) * settings.draws)
            return super().draw(rows, ids, settings)

    method = Watched()
    method.drawn = []
    whole = sample(method, draws=3)
    chunks_of(60)
    parts = sample(method, draws=3)
    np.testing.assert_array_equal(parts.draws, whole.draws)
    np.testing.assert_array_equal(parts.mean, whole.mean)
    assert method.drawn == [180, 60, 60, 60]


def test_genes_that_are_kept_are_those_of_the_whole_panel(chunks_of):
    whole = sample(Level(), draws=2)
    chunks_of(4 * len(LEVELS))
    columns = np.array([3, 1])
    settings = SamplerSettings(draws=2)
    kept = finish(sample_expression(Level(), Level(), IDS, ROWS, settings, columns))
    np.testing.assert_array_equal(kept.mean, whole.mean[:, columns])
    np.testing.assert_array_equal(kept.spread, whole.spread[:, columns])
    np.testing.assert_array_equal(kept.draws, whole.draws[:, :, columns])


@pytest.mark.parametrize("what", ["expectation", "draw"])
def test_values_that_are_no_numbers_are_refused(what):
    class Broken(Level):
        def expectation(self, rows, ids):
            found = yield from super().expectation(rows, ids)
            return Moments(found.mean, found.sd * np.inf) if what == "expectation" else found

        def draw(self, rows, ids, settings):
            return (yield from super().draw(rows, ids, settings)) * np.nan

    with pytest.raises(FloatingPointError, match="not numbers"):
        sample(Broken())


def test_each_chunk_is_shown_before_it_is_drawn_and_progress_never_goes_back(chunks_of):
    chunks_of(4 * len(LEVELS))
    begun, steps = [], []

    class Watched(Level):
        def draw(self, rows, ids, settings):
            begun.append(rows[0])
            return super().draw(rows, ids, settings)

    def on_step(step):
        steps.append(step)
        if isinstance(step.partial, Preview):
            assert step.partial.rows[0] not in begun
            done = int(step.partial.rows[-1]) + 1
            np.testing.assert_array_equal(step.partial.values[:done], np.tile(LEVELS, (done, 1)))
            assert np.isnan(step.partial.values[done:]).all(), "spots that are still coming"

    found = sample(Watched(), on_step)
    shown = [step.partial for step in steps if step.partial is not None]
    np.testing.assert_array_equal(np.concatenate([preview.rows for preview in shown]), ROWS)
    assert all(np.shares_memory(preview.values, found.mean) for preview in shown), "nothing is copied"
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert done[-1] == 12


def test_exhausted_gpu_memory_halves_the_chunk_and_goes_on():
    class SmallGpu(Level):
        def draw(self, rows, ids, settings):
            if len(rows) > 3:
                raise torch.cuda.OutOfMemoryError
            return (yield from super().draw(rows, ids, settings))

    notices = []
    found = sample(SmallGpu(), lambda step: notices.append(step.notice))
    assert any("continuing with 3 spots" in notice for notice in notices if notice)
    np.testing.assert_array_equal(found.draws, sample(Level()).draws)


def test_closing_it_stops_the_method_at_once():
    ended = []

    class Endless(Level):
        def draw(self, rows, ids, settings):
            try:
                while True:
                    yield 0.0
            finally:
                ended.append("draw")

        def expectation(self, rows, ids):
            try:
                yield 0.0
                return Moments(np.tile(LEVELS, (len(rows), 1)), None)
            finally:
                ended.append("expectation")

    method = Endless()
    for until in (1, 5):
        work = sample_expression(method, method, IDS, ROWS, SamplerSettings())
        for _ in range(until):
            next(work)
        work.close()
    assert ended == ["expectation", "expectation", "draw"]


def test_a_method_that_states_no_spread_leaves_it_out():
    class Unsure(Level):
        def expectation(self, rows, ids):
            return (yield from super().expectation(rows, ids))._replace(sd=None)

    assert sample(Unsure()).spread is None


def spots_of_a_slide(number=16):
    xy, array = fake_xy(number)
    ids = tuple(f"{row}_{col}" for row, col in array)
    return Spots(ids, xy, diameter_um=100.0, pitch_um=200.0, lattice="square", array=array)


def test_a_preview_states_slide_and_spots_as_a_prediction_does():
    slide, spots = FakeSlide(), spots_of_a_slide()
    shown = preview_of(Preview(np.arange(16), np.ones((16, 2), np.float32), ("A", "B")), slide, spots)
    assert prediction_file.find_fault(shown) is None
    assert prediction_file.slide_size(shown) == slide.size
    assert prediction_file.um_per_px(shown) == slide.mpp
    stated = prediction_file.spots_of(shown)
    for name in ("ids", "diameter_um", "pitch_um", "lattice"):
        assert getattr(stated, name) == getattr(spots, name)
    np.testing.assert_array_equal(stated.array, spots.array)
