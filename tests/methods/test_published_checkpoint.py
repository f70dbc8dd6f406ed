"""A checkpoint in the layout of the published code, with the names and sizes of its parameters, imported."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.model.test_published import REFERENCE, needs_reference
from tests.tiny_weights import write_weights_on_uni

from napari_flag.cli.main import main
from napari_flag.errors import UserError
from napari_flag.methods.drawn import normal
from napari_flag.methods.predictor import open_method
from napari_flag.methods.published import Published
from napari_flag.methods.published_checkpoint import import_published
from napari_flag.model import checkpoint as weights_files
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.model.diffusion import keyed_uniforms
from napari_flag.model.graph import Places, build_graph
from napari_flag.model.published import SIGMA_MAX, heun_in_time
from napari_flag.progress import finish

pytestmark = needs_reference
GENES = [f"GENE{number}" for number in range(12)]


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """Checkpoint, configuration and gene list as training leaves them, on a small UNI."""
    dim = Checkpoint.load(write_weights_on_uni(tmp_path / "uni", monkeypatch)).config["features"]
    stated = yaml.safe_load((REFERENCE / "config.json").read_text())
    model = {"name": "graph_dit_repa", **stated["graph_latent"], "node_cond_dim": dim}
    del model["node_dim"]  # filled in from the gene list
    config = {
        "mode": "repa_graph_fixed",
        "data_config": {"crop_size": 2048, "img_encoder_name": "uni", "data_dir": "/somewhere"},
        "sde_config": {"name": "vesde", **stated["sde"]},
        "model_config": model,
        "test_config": {"ckpt": "x.pt", "sample_num": 3},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "genes.txt").write_text("\n".join(GENES) + "\n")
    state = load_file(REFERENCE / "graph_latent_weights.safetensors")
    for name, tensor in state.items():  # the reference was made on 16 features
        if (tensor.shape[-1:] == (16,) and ".cx." in name) or "pool_cx" in name:
            state[name] = tensor.repeat(1, -(-dim // 16))[:, :dim].contiguous()
    ema = {name: tensor * 1.01 for name, tensor in state.items()}
    torch.save({"model": state, "ema": ema}, tmp_path / "model.pt")
    return tmp_path, config, state


def imported(folder, out="out.safetensors"):
    where = (folder / name for name in ("model.pt", "config.yaml", "genes.txt"))
    import_published(*where, 0.5, folder / out)
    return Checkpoint.load(folder / out)


def test_an_imported_checkpoint_states_what_it_is_and_predicts_with_its_averaged_weights(parts):
    folder, _, state = parts
    weights = imported(folder)
    assert (weights.method, weights.method_name, weights.encoder) == ("published", "FLAG as published", "uni")
    assert weights.genes == tuple(GENES)
    assert weights.config["window_um"] == 1024
    assert "/somewhere" not in str(weights.card)
    predictor = open_method(weights)
    assert isinstance(predictor.network, Published)
    assert predictor.sampler.steps == 100
    assert weights.config["samples"] == 3
    found = predictor.network.network.state_dict()["name"]
    torch.testing.assert_close(found, state["gene_joint_embed.gene_name_ebd"] * 1.01)


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
        (lambda c: c["model_config"].update(name="graph_model"), "is of another network"),
        (lambda c: c["sde_config"].update(sigma_max=50.0), "another sigma_max"),
        (lambda c: c.pop("data_config"), r"lacks data_config\.crop_size"),
        (lambda c: c["data_config"].update(img_encoder_name="nobody"), "no encoder called"),
    ],
)
def test_a_configuration_that_does_not_belong_to_it_is_refused(parts, spoil, why):
    folder, config, _ = parts
    spoil(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match=why):
        imported(folder)


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "is empty"), ("A A", "names a gene twice"), ("A B", "on 12 genes and the list names 2")],
)
def test_a_gene_list_that_is_not_its_panel_is_refused(parts, text, why):
    folder = parts[0]
    (folder / "genes.txt").write_text(text)
    with pytest.raises(UserError, match=why):
        imported(folder)
