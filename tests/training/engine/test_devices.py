import importlib.util
import os
from dataclasses import replace

import pytest
import torch
from tests.training.conftest import make_config

from flag_training.config import MachineConfig
from flag_training.engine.devices import from_first, in_turn, open_fabric, peak_memory_mb, precision_notice
from flag_training.stages.fit import fit
from napari_flag.errors import UserError
from napari_flag.progress import Step, finish


def test_the_cpu_computes_in_32_bits_and_says_so():
    machine = MachineConfig(accelerator="cpu", precision="bf16-mixed")
    fabric = open_fabric(machine)
    assert fabric.strategy.precision.precision == "32-true"
    assert precision_notice(machine, fabric) == "The CPU computes in 32 bits; bf16-mixed is for GPUs."
    assert precision_notice(replace(machine, precision="32"), fabric) is None


@pytest.mark.parametrize(
    ("machine", "sentence"),
    [
        (MachineConfig(precision="64"), "none of 32, bf16-mixed, 16-mixed"),
        (MachineConfig(accelerator="tpu"), 'devices of "tpu"'),
        (MachineConfig(devices=0), "devices at least 1"),
    ],
)
def test_what_cannot_be_computed_on_is_refused(machine, sentence):
    with pytest.raises(UserError, match=sentence):
        open_fabric(machine)


def test_more_processes_than_cores_are_not_started():
    most = os.cpu_count()
    with pytest.raises(
        UserError, match=rf"asks for {most + 1} processes on a CPU of {most} cores?; .* at most {most}"
    ):
        open_fabric(MachineConfig(accelerator="cpu", devices=most + 1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_gpu_is_never_replaced_by_the_cpu():
    with pytest.raises(UserError, match="1 CUDA devices and this machine has 0"):
        open_fabric(MachineConfig(accelerator="cuda"))


def test_tensorboard_asked_for_and_missing_is_said_before_any_work(cohort, tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "tensorboardX" else found(name)
    )
    config = make_config()
    config = replace(config, machine=replace(config.machine, tensorboard=True))
    with pytest.raises(UserError, match="tensorboardX is not installed"):
        next(fit(cohort, config, tmp_path))


def test_work_in_turn_gives_its_result():
    def work():
        yield Step("Working", 1)
        return 7

    fabric = open_fabric(MachineConfig(accelerator="cpu"))
    assert finish(in_turn(fabric, work)) == 7
    assert finish(from_first(fabric, work)) == 7


def test_peak_memory_never_falls():
    before = peak_memory_mb(torch.device("cpu"))
    block = torch.ones(40_000_000)
    most = peak_memory_mb(torch.device("cpu"))
    del block
    assert most > 100
    assert peak_memory_mb(torch.device("cpu")) >= most >= before


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32", "bf16-mixed", "16-mixed"])
def test_a_gpu_trains_as_the_cpu_does(cohort, tmp_path, precision):
    def losses(name, **machine):
        config = make_config(score_steps=20)
        config = replace(config, machine=replace(config.machine, **machine))
        stated = (step.partial for step in fit(cohort, config, tmp_path / name))
        return [loss for loss in stated if loss is not None]

    here, there = losses("cpu"), losses("gpu", accelerator="cuda", precision=precision)
    assert there == pytest.approx(here, rel=0.2)  # dropout draws other masks there
