import threading
from dataclasses import dataclass

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from flag_training.engine.loop import Keeping, Objective, Schedule, log_columns, run_loop
from flag_training.engine.run_log import RunLog
from napari_flag.errors import UserError
from napari_flag.progress import finish


@dataclass(frozen=True)
class Points:
    x: torch.Tensor
    y: torch.Tensor
    share: float = 1.0

    @property
    def spots(self):
        return len(self.x)

    def to(self, device):
        return self


class Line(Objective):
    """Fits y = x w + b by least squares."""

    parts = ("squares",)

    def __init__(self, scale=1.0):
        super().__init__(nn.Linear(2, 1), nn.Identity())
        nn.init.ones_(self.learning.weight)
        nn.init.zeros_(self.learning.bias)
        self.scale = scale

    def forward(self, held):
        self.seen = held.batch.x.dtype
        loss = self.scale * ((self.learning(held.batch.x)[:, 0] - held.batch.y) ** 2).mean()
        return loss, {"squares": loss}


class FiveBatches:
    """The same five batches every epoch, one point each; remembers what was asked for."""

    batches = 5

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(5, 2, generator=generator), torch.randn(5, generator=generator)
        self.asked, self.readers = [], []

    def draw(self, draw):
        self.asked.append((draw.epoch, draw.number))
        self.readers.append(threading.current_thread())
        return Points(self.x[draw.number : draw.number + 1], self.y[draw.number : draw.number + 1])


def schedule(**values):
    stated = {"stage": "Fitting", "steps": 6, "rate": 0.1, "decay": 0.01, "warm": 2, "accumulate": 2}
    return Schedule(**stated | values)


def train(folder, objective=None, source=None, look=None, precision="32-true", every=100, **values):
    objective, source = objective or Line(), source or FiveBatches()
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    with RunLog(folder, "line", log_columns(Line)) as log:
        keeping = Keeping(folder / "line.pt", every, {}, log)
        averaged = finish(run_loop(objective, source, schedule(**values), fabric, keeping, look))
    return objective, averaged, (folder / "line.csv").read_text().splitlines()


def test_accumulated_gradients_are_those_of_the_batches_together(tmp_path):
    """Against plain PyTorch on the whole groups: two points, two points, and the one left over."""
    source = FiveBatches()
    trained, _, _ = train(tmp_path, source=source, clip=0.5)
    line, plan = Line().learning, schedule(clip=0.5)
    optimiser = torch.optim.AdamW(line.parameters(), lr=0.1, weight_decay=0.01)
    for step in range(6):
        group = [slice(0, 2), slice(2, 4), slice(4, 5)][step % 3]
        optimiser.param_groups[0]["lr"] = plan.rate_at(step)
        optimiser.zero_grad()
        ((line(source.x[group])[:, 0] - source.y[group]) ** 2).mean().backward()
        nn.utils.clip_grad_norm_(line.parameters(), 0.5)
        optimiser.step()
    torch.testing.assert_close(trained.learning.weight, line.weight)
    torch.testing.assert_close(trained.learning.bias, line.bias)


def test_an_epoch_draws_every_batch_once(tmp_path):
    source = FiveBatches()
    train(tmp_path, source=source)
    drawn = [(epoch, number) for epoch in (0, 1) for number in range(5)]
    assert source.asked[:10] == drawn
    assert source.asked[10:] in ([], [(2, 0)])  # read ahead


def test_the_rate_warms_up_and_falls_to_nothing():
    rates = [schedule(steps=100, warm=10).rate_at(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == pytest.approx(0.1, rel=0.05)
    assert rates[-1] < 0.001
    assert rates[9:] == sorted(rates[9:], reverse=True)


def test_the_average_trails_the_parameters(tmp_path):
    objective, averaged, _ = train(tmp_path, early_ema=0.5)
    start = torch.ones(1, 2)
    assert not torch.equal(averaged.weight, objective.learning.weight)
    moved, kept = objective.learning.weight - start, averaged.weight - start
    assert (kept.abs() < moved.abs()).all()


def test_a_step_and_an_epoch_leave_a_row_each(tmp_path):
    _, _, rows = train(tmp_path)
    assert rows[0] == "step,epoch,loss,squares,validation,learning_rate,gradient_norm,seconds"
    assert [row.split(",")[:2] for row in rows[1:]] == [[str(s), str((s + 2) // 3)] for s in range(1, 7)]
    epochs = (tmp_path / "line_epochs.csv").read_text().splitlines()
    assert epochs[0] == "step,epoch,seconds,spots,peak_memory_mb"
    assert [row.split(",")[:2] for row in epochs[1:]] == [["3", "1"], ["6", "2"]]
    assert all(float(row.split(",")[4]) > 10 for row in epochs[1:])


def test_mixed_precision_leaves_what_enters_whole(tmp_path):
    half, _, _ = train(tmp_path / "half", precision="bf16-mixed")
    whole, _, _ = train(tmp_path / "whole")
    assert half.seen == torch.float32
    assert not torch.equal(half.learning.weight, whole.learning.weight)
    torch.testing.assert_close(half.learning.weight, whole.learning.weight, atol=0.02, rtol=0.02)


def test_a_loss_that_is_no_number_ends_the_run_with_a_sentence(tmp_path):
    with pytest.raises(UserError, match=r"diverged: at step 1 .* lower the learning rate"):
        train(tmp_path, objective=Line(scale=float("nan")))


def test_training_stops_when_held_out_slides_gain_no_more_and_keeps_the_best(tmp_path):
    stated, seen = iter([3.0, 1.0, 2.0, 2.0, 0.0]), []

    def look(averaged):
        seen.append(averaged.weight.clone())
        return next(stated)

    _, averaged, rows = train(tmp_path, look=look, steps=60, check_every=2, patience=2)
    assert len(rows) - 1 == 8
    assert [row.split(",")[4] for row in rows[1:]] == ["", "3.0", "", "1.0", "", "2.0", "", "2.0"]
    torch.testing.assert_close(averaged.weight, seen[1])


def test_a_stopped_run_stays_stopped_when_it_is_asked_again(tmp_path):
    stated = iter([1.0, 2.0, 2.0])
    _, first, _ = train(tmp_path, look=lambda _: next(stated), steps=60, check_every=2, patience=2)
    _, again, rows = train(tmp_path, look=lambda _: 0.0, steps=60, check_every=2, patience=2)
    torch.testing.assert_close(again.weight, first.weight)
    assert len(rows) - 1 == 6


def test_a_run_goes_on_from_its_state_to_the_same_end(tmp_path):
    whole, averaged, rows = train(tmp_path / "whole")
    folder = tmp_path / "stopped"
    with RunLog(folder, "line", log_columns(Line)) as log:
        fabric = Fabric(accelerator="cpu", devices=1)
        keeping = Keeping(folder / "line.pt", 2, {}, log)
        work = run_loop(Line(), FiveBatches(), schedule(), fabric, keeping)
        while next(work).done < 5:
            pass
        work.close()
    resumed, average, again = train(folder)
    torch.testing.assert_close(resumed.learning.weight, whole.learning.weight, atol=0, rtol=0)
    torch.testing.assert_close(average.weight, averaged.weight, atol=0, rtol=0)
    assert [row.split(",")[:4] for row in again] == [row.split(",")[:4] for row in rows]


def readers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("next batch")]


class Waiting(FiveBatches):
    """Batches after the first can be read only while another one is computed."""

    def __init__(self):
        super().__init__()
        self.computed = threading.Event()

    def draw(self, draw):
        if draw.number and not self.computed.wait(10):
            raise TimeoutError("a batch was asked for before the one before it was computed")
        return super().draw(draw)


def test_the_next_batch_is_read_while_one_is_computed(tmp_path):
    source = Waiting()

    class Telling(Line):
        def forward(self, held):
            source.computed.set()
            return super().forward(held)

    train(tmp_path, objective=Telling(), source=source, steps=3)
    first, *others = source.readers
    assert first is threading.main_thread()
    assert {thread.name.split("_")[0] for thread in others} == {"next batch"}
    assert readers() == []


class Failing(FiveBatches):
    def draw(self, draw):
        if draw.number == 3:
            raise UserError("The vectors cannot be read; make them again.")
        return super().draw(draw)


def test_what_goes_wrong_in_reading_ahead_is_said_as_it_is(tmp_path):
    with pytest.raises(UserError, match=r"^The vectors cannot be read; make them again\.$"):
        train(tmp_path, source=Failing())
    assert (tmp_path / "line.csv").read_text().count("\n") == 2  # one step was whole
    assert readers() == []


def test_reading_ends_when_the_work_is_closed(tmp_path):
    with RunLog(tmp_path, "line", log_columns(Line)) as log:
        fabric = Fabric(accelerator="cpu", devices=1)
        keeping = Keeping(tmp_path / "line.pt", 100, {}, log)
        work = run_loop(Line(), FiveBatches(), schedule(), fabric, keeping)
        next(work)
        assert len(readers()) == 1
        work.close()
    assert readers() == []


def test_a_run_that_goes_on_draws_the_batches_that_are_left(tmp_path):
    train(tmp_path, steps=4, every=4)
    source = FiveBatches()
    train(tmp_path, source=source, steps=6)
    assert source.asked[:3] == [(1, 2), (1, 3), (1, 4)]
