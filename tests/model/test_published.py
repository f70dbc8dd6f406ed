"""The published networks, rebuilt, against numbers made with the published code (`../shared/reference`)."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from napari_flag.methods.published import our_names
from napari_flag.methods.windowed import window_attributes
from napari_flag.model.published import (
    SIGMA_MAX,
    PublishedConfig,
    PublishedFlag,
    PublishedGraph,
    fourier_features,
    heun_in_time,
    sigma_at,
)
from napari_flag.progress import finish

KERNEL_PX = 224.0
"""Width of the published kernel of distance, exp(−d² / (2 · 224²)), in pixels."""
REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
needs_reference = pytest.mark.skipif(not REFERENCE.exists(), reason="needs ../shared/reference")


@pytest.fixture(scope="module")
def vectors():
    return load_file(REFERENCE / "vectors.safetensors")


def network(name, *, gene_transformer):
    sizes = PublishedConfig.read(
        json.loads((REFERENCE / "config.json").read_text())[name], gene_transformer=gene_transformer
    )
    made = PublishedFlag(sizes) if sizes.gene_hidden else PublishedGraph(sizes)
    made.load_state_dict(our_names(load_file(REFERENCE / f"{name}_weights.safetensors"), sizes))
    return made.eval()


def close(ours, theirs, tolerance=1e-5):
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@needs_reference
@torch.no_grad()
def test_scores_aligned_features_and_context_of_flag_are_the_published_ones(vectors):
    flag = network("graph_latent", gene_transformer=True)
    x, t = vectors["latent.x_t"], vectors["latent.t"][0]
    features = vectors["spot_features"]
    noisy = vectors["expression_log2"] + sigma_at(t) * vectors["latent.noise"]
    close(noisy, x)
    score, aligned = flag(x, t, features)
    close(score, vectors["latent.score"])
    close(aligned, vectors["latent.aligned_features"])
    time = flag.time(t.view(1))
    context, _ = flag.graph(x[None], None, time, features[None])
    close(context[0], vectors["latent.graph_output"])


@needs_reference
@torch.no_grad()
@pytest.mark.parametrize("steps", [5, 20])
def test_draws_of_flag_by_heun_are_the_published_ones(vectors, steps):
    flag = network("graph_latent", gene_transformer=True)
    features = vectors["spot_features"]
    start = vectors["latent.start_noise_unit"] * SIGMA_MAX
    (drawn,) = finish(heun_in_time(lambda state, t: (flag.score(state[0], t, features),), (start,), steps))
    close(drawn, vectors[f"latent.heun_{steps}_steps"], 1e-4)


@needs_reference
def test_attributes_of_edges_are_the_published_ones(vectors):
    found = window_attributes(vectors["spot_xy"], vectors["spot_features"], KERNEL_PX)
    close(found, vectors["edge_distance_and_cosine"])


@needs_reference
@torch.no_grad()
def test_scores_of_nodes_and_edges_of_the_joint_form_are_the_published_ones(vectors):
    joint = network("joint", gene_transformer=False)
    t = vectors["latent.t"]
    time = fourier_features(t, joint.config.width)
    close(time, vectors["joint.time_embedding"])
    noisy = vectors["joint.edge_true"] + sigma_at(t) * vectors["joint.edge_noise"]
    nodes, edges = joint(
        vectors["latent.x_t"][None],
        noisy[None, ..., 0],
        time,
        vectors["spot_features"][None],
        vectors["edge_distance_and_cosine"][None],
    )
    close(nodes[0], vectors["joint.node_score"])
    close(edges[0], vectors["joint.edge_score"][..., 0])
