"""A slide, spots, weights and a prediction in memory, put where the Predict dock finds the real ones."""

import functools
import inspect
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from tests.fakes import FakeSlide, counts_for, fake_prediction, fake_xy

from napari_flag import inputs
from napari_flag.encoders import features
from napari_flag.model import checkpoint
from napari_flag.progress import Step
from napari_flag.sampling import Preview
from napari_flag.slides import lattice
from napari_flag.slides.spots import Spots, SpotTable, inside

N = 16


class Slide(FakeSlide):
    notices = ()

    def read_level(self, x, y, width, height, level):
        down = int(self.downsamples[level])
        return self.read_region(x * down, y * down, width, height, level)

    def with_mpp(self, mpp, source):
        other = Slide.__new__(Slide)
        other.__dict__.update(self.__dict__, mpp=mpp, mpp_source=source)
        return other


@functools.cache
def whole_slide():
    return Slide(2100, 2100)


def fake_slide(mpp=0.5):
    return whole_slide().with_mpp(mpp, "set by hand" if mpp else "")


def fake_spots():
    xy, array = fake_xy(N)
    ids = tuple(f"{r}_{c}" for r, c in array)
    return Spots(ids, xy, diameter_um=100.0, pitch_um=200.0, lattice="square", array=array)


class FakeWork:
    """Readers and model in memory, put where the dock finds the real ones.

    A prediction that is `held` waits half way until `release` is set.
    """

    def __init__(self, mpp=0.5, held=False, error=None, measured=None):
        self.mpp, self.error, self.measured = mpp, error, measured
        self.release = threading.Event()
        if not held:
            self.release.set()
        self.predicted, self.grids, self.insisted, self.kept_names, self.closed = [], [], [], [], 0

    def install(self, monkeypatch):
        for name in ("open_with_pyramid", "lay_grid", "read_table", "counts_at", "predict_inputs"):
            fake, real = getattr(self, name), getattr(inputs, name)
            all_taken = inspect.signature(fake).parameters.values()
            taken = [each.name for each in all_taken if each.kind is not each.VAR_KEYWORD]
            known = list(inspect.signature(real).parameters)
            assert taken == [each for each in known if each in taken], f"{name} does not take {taken}"
            monkeypatch.setattr(inputs, name, fake)
        monkeypatch.setattr(lattice, "estimate_mpp", lambda spots: 0.25)
        monkeypatch.setattr(features, "list_devices", lambda: (("cpu", "CPU (2 threads)"),))
        monkeypatch.setattr(checkpoint, "list_weights", lambda: (("fake", Path("fake.safetensors")),))
        monkeypatch.setattr(checkpoint.Checkpoint, "load", lambda path: fake_checkpoint())

    def _result(self, result):
        yield Step("Working", 0)
        return result

    def open_with_pyramid(self, path):
        slide = fake_slide(self.mpp)
        slide.path = Path(path)
        return self._result(slide)

    def lay_grid(self, slide, grid, *, polygons=None):
        self.grids.append(grid)
        return self._result(SpotTable(fake_spots(), None, "square grid"))

    def read_table(self, path, slide):
        table = SpotTable(fake_spots(), self.measured, "ST", ("Two spots were left out.",))
        return self._result(table)

    def counts_at(self, measured, spots, mpp, image, alignment=None):
        return self._result((counts_for(fake_prediction(N)), ()))

    def predict_inputs(
        self, inputs, checkpoint, *, quality, seed, device, colours=None, force=False, keep_names=False
    ):
        self.predicted.append((inputs, device))
        self.insisted.append(force)
        self.kept_names.append(keep_names)
        done = fake_prediction(N)
        region, spots = inputs.region, inputs.spots
        predicted = N if region is None else int(inside(region, spots.xy).sum())
        values = np.full((predicted, done.n_vars), np.nan, np.float32)
        try:
            for row in range(predicted):
                while row == N // 2 and not self.release.wait(0.02):
                    yield Step("Predicting expression", row, N)
                if self.error is not None and row == 3:
                    raise self.error
                values[row] = done.X[row]
                partial = Preview(np.array([row]), values, tuple(done.var_names))
                yield Step("Predicting expression", row + 1, N, partial=partial)
            yield Step("Predicting expression", N, N, notice="The batch was halved.")
        finally:
            self.closed += 1
        return done


def fake_checkpoint():
    card = {
        "tissue": "breast cancer",
        "sections": ["C2"],
        "array": {"technology": "ST", "pitch_um": 200.0, "diameter_um": 100.0},
        "um_per_px": 0.5,
        "licence": "CC BY 4.0",
    }
    return SimpleNamespace(
        name="fake", sha256="0", genes=("A", "B"), card=card, encoder="embedded", colours="scanned"
    )
