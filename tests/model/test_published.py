"""The published networks, rebuilt, against numbers made with the published code (`../shared/reference`).

    python -m tests.model.test_published

prints the worst absolute difference of each of these numbers.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from flag_training.engine.loop import Held
from flag_training.methods.tissue_windows import TrainingWindows
from flag_training.methods.window_losses import (
    FlagObjective,
    JointObjective,
    NoisyWindows,
    alignment,
    spot_correlation,
)
from napari_flag.methods.published import Published, our_names
from napari_flag.methods.published_checkpoint import KERNEL_PX
from napari_flag.methods.windowed import Joint, WindowSizes, window_attributes
from napari_flag.model.published import (
    SIGMA_MAX,
    PublishedConfig,
    fourier_features,
    heun_in_time,
    sigma_at,
)
from napari_flag.progress import finish

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared/reference")
GIVEN = {
    "spot_xy", "spot_features", "expression_log2", "latent.t", "latent.noise", "latent.gene_embeddings",
    "latent.gene_mask", "latent.start_noise_unit", "joint.edge_noise",
}  # fmt: skip
"""Vectors that are given to the networks; all others are what the published code makes of them."""
COMPARED = {
    "edge_distance_and_cosine": ("attributes of edges (distance, cosine)", 1e-5),
    "latent.x_t": ("FLAG: noisy expression", 1e-5),
    "latent.score": ("FLAG: score", 1e-5),
    "latent.aligned_features": ("FLAG: what is aligned", 1e-5),
    "latent.graph_output": ("FLAG: output of the graph transformer", 1e-5),
    "latent.loss_score": ("FLAG: loss of the score", 1e-5),
    "latent.loss_align": ("FLAG: loss of the alignment", 1e-5),
    "latent.loss_total": ("FLAG: loss", 1e-5),
    "latent.heun_5_steps": ("FLAG: draw in 5 steps", 1e-4),
    "latent.heun_20_steps": ("FLAG: draw in 20 steps", 1e-4),
    "joint.edge_true": ("joint: true edges", 1e-5),
    "joint.time_embedding": ("joint: features of the time", 1e-5),
    "joint.node_score": ("joint: score of the spots", 1e-5),
    "joint.edge_score": ("joint: score of the edges", 1e-5),
    "joint.loss_node": ("joint: loss of the spots", 1e-5),
    "joint.loss_edge": ("joint: loss of the edges", 1e-5),
    "joint.loss_consistency": ("joint: consistency", 1e-5),
    "joint.loss_total": ("joint: loss", 1e-5),
}
"""What each of the others is, and how far ours may lie from it; trajectories add up many differences."""


def network(name, kind):
    """The network of the reference numbers, unscaled as published."""
    stated = json.loads((REFERENCE / "config.json").read_text())[name]
    config = PublishedConfig.read(stated, gene_transformer=kind is Published)
    made = kind(WindowSizes(config.features, asdict(config), 1000.0))
    made.network.load_state_dict(our_names(load_file(REFERENCE / f"{name}_weights.safetensors"), config))
    return made.eval()


@torch.no_grad()
def ours(vectors):
    """What we compute from the given vectors, by the names of the reference."""
    return of_flag(vectors) | of_the_joint_form(vectors)


def noisy_window(vectors):
    """The nine spots as one window, at the reference's time and noise."""
    windows = TrainingWindows(
        vectors["spot_features"][None],
        vectors["edge_distance_and_cosine"][None],
        torch.ones(1, 9, dtype=torch.bool),
        vectors["expression_log2"][None],
        torch.arange(9)[None],
    )
    edge_noise = vectors["joint.edge_noise"][None, ..., 0]
    return NoisyWindows(windows, vectors["latent.t"], vectors["latent.noise"][None], edge_noise)


def of_flag(vectors):
    window, flag = noisy_window(vectors), network("graph_latent", Published)
    t, features, inner = window.t, vectors["spot_features"], flag.network
    score, aligned = inner(vectors["latent.x_t"], t[0], features)
    context, _ = inner.graph(vectors["latent.x_t"][None], None, inner.time(t), features[None])
    loss, _ = FlagObjective(flag, None, 0.5).eval()(Held(window))
    pull = alignment(aligned, vectors["latent.gene_embeddings"], vectors["latent.gene_mask"] > 0)
    found = {
        "latent.x_t": window.spots_at_t[0],
        "latent.score": score,
        "latent.aligned_features": aligned,
        "latent.graph_output": context[0],
        "latent.loss_score": loss,
        "latent.loss_align": pull,
        "latent.loss_total": loss + 0.5 * pull,
    }
    start = vectors["latent.start_noise_unit"] * SIGMA_MAX

    def scores(state, t):
        return (inner.score(state[0], t, features),)

    for steps in (5, 20):
        (found[f"latent.heun_{steps}_steps"],) = finish(heun_in_time(scores, (start,), steps))
    return found


def of_the_joint_form(vectors):
    window, joint = noisy_window(vectors), network("joint", Joint)
    edges = spot_correlation(window.windows.expression, window.windows.present, "sum")
    noisy = vectors["joint.edge_true"][None, ..., 0] + sigma_at(window.t) * window.edge_noise
    nodes, of_edges = joint.scores((vectors["latent.x_t"][None], noisy), window.t, window.windows)
    loss, parts = JointObjective(joint, "sum", 1.0, 0.1).eval()(Held(window))
    return {
        "edge_distance_and_cosine": window_attributes(
            vectors["spot_xy"], vectors["spot_features"], KERNEL_PX
        ),
        "joint.edge_true": edges[0, ..., None],
        "joint.time_embedding": fourier_features(window.t, joint.sizes.width),
        "joint.node_score": nodes[0],
        "joint.edge_score": of_edges[0, ..., None],
        "joint.loss_total": loss,
        **{f"joint.loss_{part}": parts[part] for part in ("node", "edge", "consistency")},
    }


@pytest.fixture(scope="module")
def vectors():
    return load_file(REFERENCE / "vectors.safetensors")


@pytest.fixture(scope="module")
def found(vectors):
    return ours(vectors)


@needs_reference
@pytest.mark.parametrize("name", COMPARED)
def test_what_is_computed_is_what_the_published_code_computes(name, found, vectors):
    assert found[name].squeeze().shape == vectors[name].squeeze().shape
    assert worst(found[name], vectors[name]) <= COMPARED[name][1]


@needs_reference
def test_every_published_number_is_given_or_compared(vectors):
    assert GIVEN | COMPARED.keys() == vectors.keys()


def worst(here, there):
    """The largest absolute difference; of numbers that are not, one that no tolerance allows."""
    return float((here.squeeze() - there.squeeze()).abs().nan_to_num(torch.inf).max())


def main():
    given = load_file(REFERENCE / "vectors.safetensors")
    made = ours(given)
    sys.stdout.write("| number | largest value | worst difference | allowed |\n|---|---:|---:|---:|\n")
    for name, (words, allowed) in COMPARED.items():
        largest, apart = float(given[name].abs().max()), worst(made[name], given[name])
        sys.stdout.write(f"| {words} | {largest:.3g} | {apart:.1e} | {allowed:.0e} |\n")


if __name__ == "__main__":
    main()
