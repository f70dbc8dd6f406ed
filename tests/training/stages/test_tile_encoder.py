import numpy as np
import pytest
import torch

from flag_training.stages.tile_encoder import TileEncoderConfig, train_tile_encoder, vicreg_loss
from napari_flag.progress import finish

CONFIG = TileEncoderConfig(steps=4, schedule_steps=4, batch_size=4)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    blocks = rng.integers(60, 240, (40, 40, 3), np.uint8)
    return [blocks.repeat(8, 0).repeat(8, 1)]


def test_collapsed_features_are_punished():
    varied = torch.randn(64, 8, generator=torch.Generator().manual_seed(0))
    assert vicreg_loss(torch.zeros(64, 8), torch.zeros(64, 8)) > vicreg_loss(varied, varied) + 10


def test_views_that_disagree_are_punished():
    generator = torch.Generator().manual_seed(0)
    one, two = (torch.randn(64, 8, generator=generator) for _ in range(2))
    assert vicreg_loss(one, two) > vicreg_loss(one, one)


@pytest.fixture(scope="module")
def trained(images):
    """The network of a run that was never stopped, and its losses."""
    losses = []
    net = finish(train_tile_encoder(images, CONFIG), lambda step: losses.append(step.partial))
    return net, losses


def test_a_stopped_run_resumes_with_the_same_losses(images, trained, tmp_path, monkeypatch):
    """Saved after two steps and stopped after three: the third is taken again."""
    monkeypatch.setattr("flag_training.stages.tile_encoder._SAVE_EVERY", 2)
    _, whole = trained
    work = train_tile_encoder(images, CONFIG, tmp_path / "state.pt")
    first = [next(work).partial for _ in range(3)]
    work.close()
    rest = [step.partial for step in train_tile_encoder(images, CONFIG, tmp_path / "state.pt")]
    assert first == pytest.approx(whole[:3], rel=1e-3)
    assert rest == pytest.approx(whole[2:], rel=2e-2)


def test_a_finished_run_keeps_the_network_alone_and_gives_it_back(images, trained, tmp_path):
    net = finish(train_tile_encoder(images, CONFIG, tmp_path / "state.pt"))
    assert torch.load(tmp_path / "state.pt", weights_only=True)["states"].keys() == {"net"}
    again = finish(train_tile_encoder((), CONFIG, tmp_path / "state.pt"))
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, net.state_dict()[name]), name


def test_the_trained_network_is_ready_to_encode(trained):
    net, _ = trained
    assert not net.training
    assert net(torch.rand(1, 3, 64, 64)).shape == (1, 160, 8, 8)
