"""Checkpoints in the layout of the published code, with the names and sizes of its parameters, imported."""

import datetime
import json
import os
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.model.test_published import REFERENCE, needs_reference
from tests.tiny_weights import write_weights_on_uni

from napari_flag import keys
from napari_flag.cli.main import main
from napari_flag.errors import UserError
from napari_flag.methods.drawn import normal
from napari_flag.methods.predictor import open_method
from napari_flag.methods.published import Published, our_names
from napari_flag.methods.published_checkpoint import MOST_CONFIG, import_published
from napari_flag.methods.windowed import Joint, NodeOnly, Windows
from napari_flag.model import checkpoint as weights_files
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.model.diffusion import keyed_uniforms
from napari_flag.model.graph import Places, build_graph
from napari_flag.model.published import (
    SIGMA_MAX,
    PublishedConfig,
    fourier_features,
    heun_in_time,
)
from napari_flag.prediction import predict_slide
from napari_flag.progress import finish

GENES = [f"GENE{number}" for number in range(12)]
GRAPH = {
    "edge_dim": 1, "edge_cond_dim": 2, "d_model": 16, "n_layers": 2, "n_heads": 4, "dropout": 0.1,
    "edge_feat_dim": 16,
}  # fmt: skip
FLAG = GRAPH | {
    "name": "graph_dit_repa", "ada_norm": False, "use_cond_e_in_attn": False, "d_gene": 20, "hidden_dim": 16,
    "num_heads": 2, "dit_num_blocks": 2, "encoder_layer": 1, "projector_dim": 28, "z_dim": 10,
    "mlp_ratio": 4.0,
}  # fmt: skip
RELATIVE = GRAPH | {"name": "graph_model", "ada_norm": True, "use_cond_e_in_attn": True}
"""A relative's configuration states no sizes of a gene transformer."""
FORMS = {
    "FLAG": ("repa_graph_fixed", FLAG, Published, "published", "FLAG as published"),
    "joint": ("graph_diffusion_learned", RELATIVE, Joint, "joint", "joint diffusion as published"),
    "node-only": (
        "graph_diffusion_fixed", RELATIVE, NodeOnly, "node_only", "node-only diffusion as published",
    ),
}  # fmt: skip
"""Mode, network, and what becomes of it: class, method, and its name on cards."""


def graph_layout(sizes, genes):
    """Name and shape of each parameter of the published graph transformer."""
    width, features, known = sizes["d_model"], sizes["node_cond_dim"], sizes["edge_cond_dim"]
    known = known if sizes["use_cond_e_in_attn"] else 0
    square = (width, width)

    def linear(out, into):
        return {"weight": (out, into), "bias": (out,)}

    norm = {"weight": (width,), "bias": (width,)}
    feed = {0: norm, "1.proj": linear(4 * width, width), 3: linear(width, 2 * width)}
    modulated = {"to_gb.1": linear(2 * width, width)} if sizes["ada_norm"] else norm
    block = dict.fromkeys(("alpha", "beta", "gamma", "delta"), ())
    block |= {f"to_{name}.weight": square for name in ("q", "k", "v", "e_mul", "e_add")}
    block |= {"to_x_out.0": linear(*square), "to_e_out.0": linear(*square), "ff_x": feed, "ff_e": feed}
    block |= {f"{place}_norm": modulated for place in ("ga_x", "ga_e", "ff_x", "ff_e")}
    block |= {"pool_cx.weight": (width, features), "pool_ce.weight": (width, known)}
    for kind in ("mul", "add"):
        block |= {f"cx.cx_{part}_{kind}.weight": (width, features) for part in ("q", "k", "out")}
        block |= {f"ce.ce_{part}{kind}.weight": (width, known) for part in ("", "out_")}
    if sizes["ada_norm"]:
        block["z_fuse"] = {0: linear(width, 3 * width), 2: linear(*square)}
    return _flat(
        {
            "x_in": {0: linear(width, genes), 2: linear(*square)},
            "e_in": {0: linear(width, 1), 2: linear(*square)},
            "t_in": {0: linear(*square), 2: linear(*square)},
            "x_out": {0: norm, 1: linear(genes, width)},
            "e_out": {0: norm, 1: linear(1, width)},
            "blocks": dict.fromkeys(range(sizes["n_layers"]), block),
        }
    )


def flag_layout(sizes, genes):
    """Name and shape of each parameter of the published FLAG."""
    tokens, features, condition = sizes["hidden_dim"], sizes["node_cond_dim"], sizes["d_gene"]
    projector, target = sizes["projector_dim"], sizes["z_dim"]

    def linear(out, into):
        return {"weight": (out, into), "bias": (out,)}

    block = {"attn.qkv": linear(3 * tokens, tokens), "attn.proj": linear(tokens, tokens)}
    block |= {"mlp.fc1": linear(4 * tokens, tokens), "mlp.fc2": linear(tokens, 4 * tokens)}
    block |= {"adaLN_modulation.1": linear(6 * tokens, tokens)}
    return _flat(
        {
            "graph_backbone": graph_layout(sizes, genes),
            "blocks": dict.fromkeys(range(sizes["dit_num_blocks"]), block),
            "final_layer": {"linear": linear(1, tokens), "adaLN_modulation.1": linear(2 * tokens, tokens)},
            "gene_joint_embed.gene_name_ebd": (genes, tokens),
            "gene_joint_embed.gene_count_ebd": {0: linear(tokens, 1), 2: linear(tokens, tokens)},
            "label_embed": {0: linear(features, features), 2: linear(tokens, features)},
            "node2gene": {0: linear(condition, genes), 2: linear(tokens, condition)},
            "projectors.0": {
                0: linear(projector, tokens), 2: linear(projector, projector), 4: linear(target, projector),
            },
            "time_embed.mlp": {0: linear(tokens, 256), 2: linear(tokens, tokens)},
        }
    )  # fmt: skip


def _flat(tree, before=""):
    found = {}
    for name, value in tree.items():
        below = _flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
        found |= below
    return found


def layout_of(sizes, genes):
    return (flag_layout if "hidden_dim" in sizes else graph_layout)(sizes, genes)


def random_state(sizes, genes):
    generator = torch.Generator().manual_seed(0)
    shapes = layout_of(sizes, genes)
    return {name: torch.randn(shape, generator=generator) * 0.1 for name, shape in shapes.items()}


def configuration(form, features):
    """What the published code writes beside a checkpoint; the panel's size is filled in when it loads."""
    return {
        "mode": FORMS[form][0],
        "data_config": {"crop_size": 2048, "img_encoder_name": "uni", "data_dir": "/somewhere"},
        "sde_config": {"name": "vesde", "sigma_min": 0.01, "sigma_max": 10.0, "t_min": 0.01},
        "model_config": FORMS[form][1] | {"node_cond_dim": features},
        "test_config": {"ckpt": "x.pt", "sample_num": 3},
    }


def write_parts(folder, config, state, ema):
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "genes.txt").write_text("\n".join(GENES) + "\n")
    torch.save({"model": state, "ema": ema, "opt": {}}, folder / "model.pt")


@pytest.fixture
def features(tmp_path, monkeypatch):
    """A small UNI on this computer; returns the length of its vectors."""
    return Checkpoint.load(write_weights_on_uni(tmp_path / "uni", monkeypatch)).config["features"]


@pytest.fixture
def parts(tmp_path, features, request):
    """Checkpoint, configuration and gene list as training leaves them: of FLAG, or the form asked for."""
    config = configuration(getattr(request, "param", "FLAG"), features)
    state = random_state(config["model_config"], len(GENES))
    write_parts(tmp_path, config, state, {name: tensor * 1.01 for name, tensor in state.items()})
    return tmp_path, config, state


every_form = pytest.mark.parametrize(("parts", "form"), [(form, form) for form in FORMS], indirect=["parts"])


def imported(folder, out="out.safetensors"):
    where = (folder / name for name in ("model.pt", "config.yaml", "genes.txt"))
    import_published(*where, 0.5, folder / out)
    return Checkpoint.load(folder / out)


@every_form
def test_an_imported_checkpoint_states_what_it_is_and_predicts_with_its_averaged_weights(parts, form):
    folder, config, state = parts
    weights = imported(folder)
    _, _, kind, method, title = FORMS[form]
    assert (weights.method, weights.method_name, weights.encoder) == (method, title, "uni")
    assert weights.genes == tuple(GENES)
    assert weights.config["window_um"] == 1024
    assert weights.config["kernel_um"] == (0 if form == "FLAG" else 112)
    assert "/somewhere" not in str(weights.card)
    predictor = open_method(weights)
    assert type(predictor.network) is kind
    assert predictor.sampler.steps == 100
    assert weights.config["samples"] == 3
    sizes = PublishedConfig.read(config["model_config"] | {"node_dim": 12}, gene_transformer=form == "FLAG")
    found = predictor.network.network.state_dict()
    for name, tensor in our_names(state, sizes).items():
        torch.testing.assert_close(found.pop(name), tensor * 1.01)
    assert not found


@every_form
def test_a_slide_is_predicted_with_an_imported_checkpoint(parts, form, tiny_slide, tiny_spots):
    folder, config, _ = parts
    config["test_config"]["sample_num"] = 1
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    few = tiny_spots.take(np.arange(4))
    found = finish(predict_slide(tiny_slide, few, imported(folder), device="cpu", cache=folder / "cache"))
    made = found.uns[keys.PROVENANCE]
    assert (made[keys.METHOD], made[keys.ENCODER]) == (FORMS[form][4], "uni")
    assert list(found.var_names) == GENES
    assert np.isfinite(found.X).all()
    assert (found.X.std(0) > 0).any()


def test_windows_are_solved_each_for_itself_as_the_published_sampler_does(parts):
    predictor = open_method(imported(parts[0]))
    predictor.network.config = replace(predictor.network.config, solver_steps=3)
    network = predictor.network.network
    places = Places(np.array([[100.0, 100.0], [300.0, 100.0], [2000.0, 100.0]]), 200.0, ("a", "b", "c"))
    features = np.random.default_rng(0).normal(size=(3, network.config.features)).astype(np.float32)
    slide = predictor.encode(features, build_graph(places, features))
    drawn = finish(slide._sampled(np.arange(3), places.names, 0, 0, ""))
    for rows in ([0, 1], [2]):
        seen = torch.from_numpy(features[rows])
        noise = keyed_uniforms(0, 0, [places.names[row] for row in rows], 12, "start")

        def score(state, t, seen=seen):
            return (network.score(state[0], t, seen),)

        with torch.no_grad():
            (wanted,) = finish(heun_in_time(score, (normal(noise, seen) * SIGMA_MAX,), 3))
        np.testing.assert_allclose(drawn[rows], wanted.numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("parts", "joint"), [("joint", True), ("node-only", False)], indirect=["parts"])
def test_a_relative_is_solved_with_the_published_kernel_and_edges_of_its_mode(parts, joint):
    predictor = open_method(imported(parts[0]))
    predictor.network.config = replace(predictor.network.config, solver_steps=3)
    network, width = predictor.network.network, FORMS["joint"][1]["d_model"]
    px = np.array([[200.0, 200.0], [600.0, 200.0], [200.0, 700.0]])
    places = Places(px * 0.5, 200.0, ("a", "b", "c"))
    features = np.random.default_rng(0).normal(size=(3, network.config.features)).astype(np.float32)
    slide = predictor.encode(features, build_graph(places, features))
    drawn = finish(slide._sampled(np.arange(3), places.names, 0, 0, ""))
    apart = np.linalg.norm(px[:, None] - px[None], axis=2)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    off = 1 - np.eye(3)
    known = np.stack([np.exp(-(apart**2) / (2 * 224**2)) * off, (unit @ unit.T) * off], 2)
    known = torch.from_numpy(known).float()[None]

    def symmetric(edges):
        return (edges + edges.transpose(1, 2)) / 2 * torch.from_numpy(off).float()

    def score(state, t):
        edges = state[1] if joint else torch.zeros(1, 3, 3)
        seen = state[0], edges, fourier_features(t.view(1), width), torch.from_numpy(features)[None], known
        return network(*seen)[: len(state)]

    def noise(what, size):
        return normal(keyed_uniforms(0, 0, places.names, size, what), torch.zeros(1))[None] * SIGMA_MAX

    start = (noise("start", 12), symmetric(noise("edges", 3)))[: 1 + joint]

    def settle(state):
        return (state[0], *map(symmetric, state[1:]))

    with torch.no_grad():
        wanted = finish(heun_in_time(score, start, 3, settle))[0][0]
    np.testing.assert_allclose(drawn, wanted.numpy(), rtol=1e-4, atol=1e-4)


@needs_reference
@pytest.mark.parametrize("name", ["graph_latent", "joint"])
def test_the_layout_of_these_tests_is_that_of_the_published_code(name):
    sizes = json.loads((REFERENCE / "config.json").read_text())[name]
    if name == "joint":  # states the gene transformer's sizes, which no configuration of a relative does
        sizes = {key: sizes[key] for key in RELATIVE.keys() - {"name"} | {"node_cond_dim"}}
    theirs = {k: tuple(t.shape) for k, t in load_file(REFERENCE / f"{name}_weights.safetensors").items()}
    assert layout_of(sizes, len(GENES)) == theirs


@needs_reference
@torch.no_grad()
@pytest.mark.parametrize(("form", "name"), [("FLAG", "graph_latent"), ("joint", "joint")])
def test_an_import_of_the_published_codes_own_numbers_gives_its_scores(form, name, tmp_path, features):
    """Features of the reference are filled up with zeros to those of the encoder, which changes no number."""
    config = configuration(form, features)
    stated = json.loads((REFERENCE / "config.json").read_text())[name]
    config["model_config"] |= {key: stated[key] for key in FORMS[form][1].keys() - {"name"}}
    state = load_file(REFERENCE / f"{name}_weights.safetensors")
    for key, tensor in state.items():
        if (".cx." in key or "pool_cx" in key) and tensor.shape[-1] == 16:
            state[key] = torch.nn.functional.pad(tensor, (0, features - 16))
    write_parts(tmp_path, config, {key: torch.zeros_like(tensor) for key, tensor in state.items()}, state)
    network = open_method(imported(tmp_path)).network
    vectors = load_file(REFERENCE / "vectors.safetensors")
    seen = torch.nn.functional.pad(vectors["spot_features"], (0, features - 16))[None]
    everything = torch.ones(1, 9, dtype=torch.bool)
    window = Windows(seen, vectors["edge_distance_and_cosine"][None], everything)
    spots, t = vectors["latent.x_t"][None], vectors["latent.t"]
    if form == "FLAG":
        (found,) = network.scores((spots,), t, window)
        torch.testing.assert_close(found[0], vectors["latent.score"], rtol=0, atol=1e-5)
        return
    sigma = SIGMA_MAX**t * 0.01 ** (1 - t)
    edges = vectors["joint.edge_true"] + sigma * vectors["joint.edge_noise"]
    nodes, of_edges = network.scores((spots, edges[None, ..., 0]), t, window)
    torch.testing.assert_close(nodes[0], vectors["joint.node_score"], rtol=0, atol=1e-5)
    torch.testing.assert_close(of_edges[0], vectors["joint.edge_score"][..., 0], rtol=0, atol=1e-5)


def test_it_is_imported_and_listed_by_the_command_line(parts, monkeypatch, capsys):
    folder = parts[0]
    monkeypatch.setattr(weights_files, "weights_folder", lambda: folder / "imported")
    words = ["weights", "import", str(folder / "model.pt")]
    assert main(words) == 2
    assert "give --config, --genes, --mpp too" in capsys.readouterr().err
    given = ["--config", str(folder / "config.yaml"), "--genes", str(folder / "genes.txt"), "--mpp", "0.5"]
    assert main([*words, *given]) == 0
    assert "--weights model" in capsys.readouterr().out
    assert weights_files.label_of("model", folder / "imported" / "model.safetensors") == (
        "model · FLAG as published"
    )
    assert main([*words, *given]) == 2  # the name is taken
    ours = str(folder / "imported" / "model.safetensors")
    assert main(["weights", "import", ours, *given]) == 2
    assert "imported as it is" in capsys.readouterr().err


class Other:
    """Something that a restricted loader does not build."""


def test_a_pickle_with_other_objects_is_refused_and_not_run(parts):
    folder, _, state = parts
    torch.save({"model": state, "ema": state, "extra": Other()}, folder / "model.pt")
    with pytest.raises(UserError, match="holds more than tensors, which is never run"):
        imported(folder)


@pytest.mark.parametrize("lacking", ["model", "ema"])
def test_a_checkpoint_without_one_of_its_parts_is_refused(parts, lacking):
    folder, _, state = parts
    torch.save({name: state for name in ("model", "ema") if name != lacking}, folder / "model.pt")
    with pytest.raises(UserError, match=f'no parameters under "{lacking}"'):
        imported(folder)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda c: c["model_config"].update(n_layers=3), "does not fit the network of the configuration"),
        (lambda c: c["model_config"].update(node_cond_dim=7), "features of length 7"),
        (lambda c: c["model_config"].pop("d_model"), "lacks sizes of the network"),
        (lambda c: c["model_config"].update(name="graph_dit"), "is of another network"),
        (lambda c: c["model_config"].update(name="graph_model"), "states the mode repa_graph_fixed, which"),
        (
            lambda c: (
                c.update(mode="graph_diffusion_learned") or c["model_config"].update(name="graph_model")
            ),
            "does not fit the network of the configuration",
        ),
        (lambda c: c["model_config"].update(use_cond_e_in_attn=True), "without conditions on edges"),
        (lambda c: c["sde_config"].update(sigma_max=50.0), "another sigma_max"),
        (lambda c: c.pop("data_config"), r"lacks data_config\.crop_size"),
        (lambda c: c["data_config"].update(img_encoder_name="nobody"), "no encoder called"),
        (lambda c: c["data_config"].update(img_encoder_name=["uni"]), r"lacks data_config\.img_encoder_name"),
        (lambda c: c["data_config"].update(crop_size="wide"), r"lacks data_config\.crop_size"),
        (lambda c: c["data_config"].update(crop_size=float("nan")), "nan where a number above 0"),
        (lambda c: c["model_config"].update(name=["graph_dit"]), r"lacks model_config\.name"),
        (lambda c: c["model_config"].update(name="x" * 200), r"another network \(x{40}\) than"),
        (lambda c: c["model_config"].update(n_heads=0), "lacks sizes of the network"),
        (lambda c: c["model_config"].update(ada_norm={"x"}), "one of them is no number"),
        (lambda c: c["model_config"].update(n_layers="two"), "lacks sizes of the network"),
        (lambda c: c["model_config"].update(n_layers=10**6), "it states a size of 1,000,000"),
        (lambda c: c["model_config"].update(hidden_dim=9_000), "larger network than its tensors are of"),
        (lambda c: c["test_config"].update(sample_num=10**12), "it states a size of 1,000,000,000,000"),
        (lambda c: c["test_config"].update(sample_num=0.5), "0.5 where a whole number"),
        (lambda c: c["test_config"].update(sample_num=0), "0 where a number above 0"),
        (lambda c: c.update(sde_config=[1]), "lacks sde_config"),
        (lambda c: c.update(test_config="none"), "lacks test_config"),
    ],
)
def test_a_configuration_that_does_not_belong_to_it_is_refused(parts, spoil, why):
    folder, config, _ = parts
    spoil(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=why):
        imported(folder)


def test_a_gene_list_is_read_as_every_list_of_genes(parts):
    folder = parts[0]
    (folder / "genes.txt").write_text("\ufeff" + ", ".join(GENES), encoding="utf-8")
    assert imported(folder).genes == tuple(GENES)


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 9)}]\n" for level in range(1, 9)
)
"""600 bytes that stand for 43 million values."""


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{BOMB}model_config: {{name: *a8}}", r"repeats a part by its name, \*a0"),
        ("a: " + "[" * 100_000, "nested too deeply"),
        ("a: " * 40 + "1", "no YAML file"),
        ("a: [", "no YAML file"),
        ("a: 2026-13-01", "no YAML file"),
        ("a: !!int ''", "no YAML file"),
        ("a: !!python/object:os.system x", "no YAML file"),
        ("x" * (MOST_CONFIG + 1), "holds more than"),
        ("- 1", "lacks data_config.crop_size"),
    ],
    ids=range(9),
)
def test_yaml_that_is_none_or_stands_for_far_more_than_it_holds_is_refused_at_once(parts, text, why):
    folder = parts[0]
    (folder / "config.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(UserError, match=why) as refused:
        imported(folder)
    assert time.process_time() - began < 5
    assert len(str(refused.value)) < 1_000


@pytest.mark.parametrize("name", ["model.pt", "config.yaml", "genes.txt"])
def test_a_pipe_in_place_of_a_part_is_not_waited_for(parts, name):
    folder = parts[0]
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(UserError, match="is a pipe or a device"):
        imported(folder)


def test_the_card_states_numbers_and_texts_of_the_configuration_alone(parts):
    folder, config, _ = parts
    config["model_config"] |= {"since": datetime.date(2026, 1, 2), "stages": [1, 2], 5: "five"}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    stated = imported(folder).card["values"]
    assert (stated["d_model"], stated["5"]) == (16, "five")
    assert stated.keys().isdisjoint({"since", "stages"})


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "names no genes"), ("A A", "names a gene twice"), ("A B", "on 12 genes and the list names 2")],
)
@pytest.mark.parametrize("parts", ["FLAG", "joint"], indirect=True)
def test_a_gene_list_that_is_not_its_panel_is_refused(parts, text, why):
    folder = parts[0]
    (folder / "genes.txt").write_text(text)
    with pytest.raises(UserError, match=why):
        imported(folder)
