"""Fits the tests' cohort in a process of its own, which may be killed, or one of several.

python -m tests.training.fit_process RUN [--kill-after BATCHES] [--devices N] [--proper | --paper]
    [VALUE=NUMBER ...]
"""

import argparse
import os
import signal
from dataclasses import replace
from pathlib import Path

from tests.training.conftest import PROPER, make_cohort, make_config

from flag_training.config import read_config
from flag_training.engine.devices import leave, open_fabric
from flag_training.stages.fit import fit

parser = argparse.ArgumentParser()
parser.add_argument("run", type=Path)
parser.add_argument("--kill-after", type=int)
parser.add_argument("--devices", type=int, default=1)
parser.add_argument("--proper", action="store_true", help="FLAG without mean head and covariance")
parser.add_argument("--paper", action="store_true", help="the network of the paper's size, and its batches")
parser.add_argument("values", nargs="*")
asked = parser.parse_intermixed_args()
config = make_config(
    save_every=3, **{name: int(stated) for name, stated in (v.split("=") for v in asked.values)}
)
config = replace(config, machine=replace(config.machine, devices=asked.devices))
if asked.proper:
    config = replace(config, network=config.network | PROPER)
if asked.paper:
    paper = read_config(Path(__file__).parents[2] / "training/configs/paper.toml")
    config = replace(
        config, network=paper.network, fit=replace(config.fit, score_batch=paper.fit.score_batch)
    )
batches, fabric = 0, open_fabric(config.machine)
for step in fit(make_cohort(), config, asked.run, fabric):
    batches += step.stage == "Training the gene transformer"
    if batches == asked.kill_after:
        os.kill(os.getpid(), signal.SIGKILL)
leave(fabric)
