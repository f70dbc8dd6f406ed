"""What training runs on: one process or several, a device each, through Lightning Fabric."""

import importlib.util
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from inspect import signature
from typing import Any, Final, Literal, TypeVar

import psutil
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from flag_training.config import MachineConfig
from napari_flag.errors import UserError
from napari_flag.formatting import counted
from napari_flag.progress import Steps

T = TypeVar("T")
Precision = Literal["32-true", "bf16-mixed", "16-mixed"]

_PRECISIONS: Final[dict[str, Precision]] = {
    "32": "32-true",
    "bf16-mixed": "bf16-mixed",
    "16-mixed": "16-mixed",
}
_KEEP_BUFFERS: Final[dict[str, Any]] = (
    {"forward_sync_buffers": False}
    if "forward_sync_buffers" in signature(DistributedDataParallel).parameters
    else {"broadcast_buffers": False}  # its name before PyTorch 2.15
)
"""Buffers are the same everywhere and never change, so batches need not send them around."""
_PATIENCE: Final = timedelta(days=2)
"""How long processes wait for the first one, which trains the tile encoder and the mean head alone."""


def open_fabric(machine: MachineConfig) -> Fabric:
    """Start the processes that `machine` or ``torchrun`` sets, and return this one's Fabric.

    Raises
    ------
    UserError
        When `machine` names what is not there.
    """
    _check(machine)
    here, nodes = _processes(machine)
    accelerator = _accelerator(machine, here)
    alone = here * nodes == 1
    fabric = Fabric(
        accelerator=accelerator,
        devices=here,
        num_nodes=nodes,
        strategy="auto" if alone else DDPStrategy(timeout=_PATIENCE, **_KEEP_BUFFERS),
        precision="32-true" if accelerator == "cpu" else _PRECISIONS[machine.precision],
    )
    fabric.launch()
    return fabric


def precision_notice(machine: MachineConfig, fabric: Fabric) -> str | None:
    """Return the sentence to show when `fabric` does not compute in the requested precision."""
    if machine.precision == "32" or fabric.device.type != "cpu":
        return None
    return f"The CPU computes in 32 bits; {machine.precision} is for GPUs."


def in_turn(fabric: Fabric, work: Callable[[], Steps[T]]) -> Steps[T]:
    """Do `work` in the first process; the others then do it too, and find its files in the run folder."""
    if fabric.is_global_zero:
        done = yield from work()
        fabric.barrier()
        return done
    fabric.barrier()
    return (yield from work())


def from_first(fabric: Fabric, work: Callable[[], Steps[T]]) -> Steps[T]:
    """Do `work` in the first process and give its result to all."""
    done: T | None = None
    if fabric.is_global_zero:
        done = yield from work()
    result: T = fabric.broadcast(done)  # type: ignore[assignment]
    return result


def leave(fabric: Fabric) -> None:
    """Wait for the other processes and close the group, while all of them still run.

    At the interpreter's end one of them may have exited first, and threads of gloo that still listen to it
    then abort the process.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        fabric.barrier()
        torch.distributed.destroy_process_group()


def is_first_process() -> bool:
    """Whether this process is the one to report and to write weights."""
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory held so far in MB: allocated on a GPU, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    from resource import RUSAGE_SELF, getrusage

    most = getrusage(RUSAGE_SELF).ru_maxrss
    return most / 1e6 if sys.platform == "darwin" else most / 1e3  # bytes there, kB on Linux


def _check(machine: MachineConfig) -> None:
    if machine.precision not in _PRECISIONS:
        raise UserError(
            f'The config asks for precision "{machine.precision}", which is none of '
            f"{', '.join(_PRECISIONS)}; correct it under [machine]."
        )
    if machine.accelerator not in ("auto", "cpu", "cuda") or machine.devices < 1:
        raise UserError(
            f'The config asks for {machine.devices} devices of "{machine.accelerator}"; under [machine] '
            'accelerator is "auto", "cpu" or "cuda", and devices at least 1.'
        )
    cores = os.cpu_count() or 1
    alone = not torch.distributed.is_torchelastic_launched()
    if alone and machine.devices > cores and (machine.accelerator == "cpu" or not torch.cuda.is_available()):
        raise UserError(
            f"The config asks for {machine.devices} processes on a CPU of {counted(cores, 'core')}; set "
            f"devices to at most {cores} under [machine]."
        )
    if machine.tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise UserError(
            "The config enables TensorBoard logs, but tensorboardX is not installed; install it "
            '(pip install "napari-flag[training]"), or set tensorboard = false under [machine].'
        )


def _processes(machine: MachineConfig) -> tuple[int, int]:
    """Return the processes on this machine, and the machines."""
    if not torch.distributed.is_torchelastic_launched():
        return machine.devices, 1
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return here, int(os.environ["WORLD_SIZE"]) // here


def _accelerator(machine: MachineConfig, processes: int) -> str:
    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if machine.accelerator == "cpu" or (machine.accelerator == "auto" and not found):
        return "cpu"
    if found < processes:
        raise UserError(
            f"Training asks for {processes} CUDA devices and this machine has {found}; ask for fewer, or set "
            'accelerator = "cpu" under [machine] in the config.'
        )
    return "cuda"
