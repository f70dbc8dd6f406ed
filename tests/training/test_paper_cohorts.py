"""The commands of docs/training-data.md on two slides in the layout of each of the paper's cohorts.

Files are made here, in real shapes and tiny sizes; a random projection stands in for UNI, a random BERT for
Geneformer.  The cohort files and configs are the project's own, but for the numbers that make them large.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.cohort_files import VISIUM, TinyEncoder, hest_metadata, hest_sample, spatial_libd
from tests.gene_model_files import write_geneformer

from flag_training.evaluate import X
from flag_training.store import building
from flag_training.store.building import Opened
from flag_training.store.store import open_store
from napari_flag.cli import main
from napari_flag.model.checkpoint import Checkpoint

pytestmark = pytest.mark.slow  # each cohort takes half a minute on one core

TRAINING = Path(__file__).parents[2] / "training"
HEST_COHORTS = {
    "her2st": ("SPA119", "SPA120", {}),
    "kidney": ("NCBI692", "NCBI693", VISIUM),
    "prad": ("MEND139", "MEND140", VISIUM),
}
SMALL = """
[store]
split = ""
[network]
context_width = 16
context_layers = 1
context_heads = 2
width = 12
heads = 2
blocks = 2
tap = 1
[fit]
score_batch = 16
accumulate = 2
score_steps = 4
check_every = 2
warm_steps = 1
[machine]
accelerator = "cpu"
save_every = 2
"""
"""Two slides are not split into three parts, and the network is small; all else is the paper's."""


class StandIn(TinyEncoder):
    name = "uni"


def hest_look_alike(name: str, folder: Path) -> list[str]:
    """Write two samples of a HEST-1k cohort and the cohort file cut to them; return the words of prepare."""
    first, last, technology = HEST_COHORTS[name]
    rows = [hest_sample(folder / "HEST", each, seed, **technology) for seed, each in enumerate((first, last))]
    hest_metadata(folder / "HEST", rows)
    text = (TRAINING / "cohorts" / f"{name}.toml").read_text("utf-8")
    text = re.sub(r"(?m)^last = .*$", f'last = "{last}"', text)
    text = re.sub(r"(?m)^samples = .*$", "samples = 2", text)
    text = re.sub(r"(?m)^for_test = .*$", "", text)
    (folder / f"{name}.toml").write_text(text, "utf-8")
    return [f"{name}.toml", "--hest", "HEST"]


def dlpfc_look_alike(folder: Path) -> list[str]:
    """Write two sections of spatialLIBD and the cohort file cut to them; return the words of prepare."""
    head, *slides = (TRAINING / "cohorts" / "dlpfc.toml").read_text("utf-8").split("[[slides]]")
    (folder / "dlpfc.toml").write_text("[[slides]]".join([head, *slides[:2]]), "utf-8")
    spatial_libd(folder / "DLPFC", ("151507", "151508"))
    return ["dlpfc.toml", "--data", "DLPFC"]


@pytest.mark.parametrize("name", [*HEST_COHORTS, "dlpfc"])
def test_a_cohort_is_prepared_trained_on_and_evaluated(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(building, "open_prepared", lambda *_: Opened(StandIn()))
    words = dlpfc_look_alike(tmp_path) if name == "dlpfc" else hest_look_alike(name, tmp_path)
    store = f"DATA/{name}"
    assert main(["prepare", *words, "--out", store, "--encoder", "uni", "--views", "1"]) == 0
    seen, tested = open_store(Path(store)).names
    geneformer = write_geneformer(tmp_path / "GENEFORMER", length=64)
    targets = ["gene-targets", "contextual", str(geneformer), "--counts", store, "--device", "cpu"]
    panel = f"{store}/panels/hmhvg200.txt"
    out = f"runs/gene_targets/{name}_geneformer"
    assert main([*targets, "--batch", "8", "--panel", panel, "--panel-only", "--out", out]) == 0

    config = "paper" if name == "her2st" else f"paper_{name}"
    extended = (TRAINING / "configs" / f"{config}.toml").as_posix()
    (tmp_path / "run.toml").write_text(f'extends = "{extended}"\nname = "small"\n{SMALL}', "utf-8")
    run = ["run.toml", "--data", "DATA", "--run", "runs/small"]
    assert main(["train", *run, "--leave-out", tested, "--out", "small.safetensors"]) == 0
    weights = Checkpoint.load(tmp_path / "small.safetensors")
    assert (weights.encoder, weights.card["sections"]) == ("uni", [seen])
    assert list(weights.genes) == Path(panel).read_text("utf-8").split()

    capsys.readouterr()
    scoring = ["evaluate", *run, "--test", tested, "--methods", "FLAG", "ridge", "--out", "scores.json"]
    assert main(scoring) == 0
    records = json.loads(Path("scores.json").read_text("utf-8"))["records"]
    known = {record["method"]: record["scores"] for record in records}
    assert {X, "draws", "ridge"} <= set(known)
    assert np.isfinite(known[X]["PCC"])
    assert np.isfinite(known["draws"]["ES"])
    assert main(["tables", "scores.json", "--out", "table.csv"]) == 0
    assert tested in Path("table.csv").read_text("utf-8")
