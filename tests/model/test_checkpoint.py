import json

import pytest
import torch
from safetensors.torch import save_file
from tests.tiny_weights import GENES, tiny_network, write_tiny_weights, write_weights_on_uni

from napari_flag.errors import UserError
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model import checkpoint
from napari_flag.model.checkpoint import (
    Checkpoint,
    find_weights,
    import_weights,
    list_weights,
    save_checkpoint,
)


@pytest.fixture
def weights(tmp_path):
    return write_tiny_weights(tmp_path / "tiny.safetensors")


def test_a_file_gives_back_what_was_saved(weights):
    checkpoint = Checkpoint.load(weights)
    assert checkpoint.name == "tiny"
    assert checkpoint.genes == GENES
    assert checkpoint.card["sampler"]["steps"] == 10
    assert checkpoint.part("flag.")["slide_location"].eq(2.0).all()
    assert checkpoint.build_encoder().dim == checkpoint.config["features"]


def test_weights_of_an_unknown_encoder_are_refused(tmp_path):
    checkpoint = Checkpoint.load(write_tiny_weights(tmp_path / "other.safetensors", encoder="unicorn"))
    with pytest.raises(UserError, match='no encoder called "unicorn"'):
        checkpoint.build_encoder()


def test_a_foundation_encoder_is_opened_from_the_local_folder(tmp_path, monkeypatch):
    checkpoint = Checkpoint.load(write_weights_on_uni(tmp_path, monkeypatch))
    encoder = checkpoint.build_encoder()
    assert encoder.name == "uni"
    assert encoder.dim == checkpoint.config["features"]


def test_another_version_of_the_encoder_is_refused(tmp_path, monkeypatch):
    checkpoint = Checkpoint.load(write_weights_on_uni(tmp_path, monkeypatch, "0" * 64))
    with pytest.raises(UserError, match=r"trained with another version of UNI"):
        checkpoint.build_encoder()


def test_an_encoder_that_is_not_here_is_refused_with_how_to_get_it(tmp_path, monkeypatch):
    checkpoint = Checkpoint.load(write_weights_on_uni(tmp_path, monkeypatch))
    (tmp_path / "encoders" / "uni" / "pytorch_model.bin").unlink()
    with pytest.raises(UserError, match=r"UNI are not on this computer; ask for access at .*MahmoodLab/UNI"):
        checkpoint.build_encoder()


def test_weights_are_not_written_without_saying_which_encoder(tmp_path):
    with pytest.raises(ValueError, match="fingerprint"):
        save_checkpoint(tmp_path / "a", tiny_network(8), {}, encoder="uni", genes=GENES, card={})


def test_a_truncated_file_is_refused(weights):
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(UserError, match="damaged or not a safetensors file"):
        Checkpoint.load(weights)


def test_tensors_of_another_program_are_refused(tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="no napari-flag weights"):
        Checkpoint.load(path)


@pytest.mark.parametrize(
    ("number", "sentence"),
    [
        (99, r"made by a newer napari-flag \(format 99, this one reads 2\); update napari-flag\.$"),
        (1, r"made by an earlier napari-flag \(format 1, this one reads 2\), .* train them again with"),
    ],
)
def test_another_format_is_refused_in_one_sentence(tmp_path, number, sentence):
    path = tmp_path / "other.safetensors"
    header = {"format": number, "genes": [], "card": {}, "config": {}, "encoder": "embedded"}
    save_file({"a": torch.zeros(2)}, path, metadata={"napari_flag": json.dumps(header)})
    with pytest.raises(UserError, match=sentence) as refused:
        Checkpoint.load(path)
    assert str(refused.value).count(". ") == 0


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="no weights file"):
        Checkpoint.load(tmp_path / "none.safetensors")


def test_unknown_weights_never_become_others():
    with pytest.raises(UserError, match='no weights called "nonsense"'):
        find_weights("nonsense")


def test_imported_weights_are_found_by_name(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "user_data_path", lambda _: tmp_path / "data")
    copied = import_weights(weights)
    assert ("tiny", copied) in list_weights()
    assert find_weights("tiny") == copied
    with pytest.raises(UserError, match="already weights"):
        import_weights(weights)


def test_the_fingerprint_changes_with_the_encoder(weights):
    checkpoint = Checkpoint.load(weights)
    before = checkpoint.build_encoder().fingerprint
    assert checkpoint.build_encoder().fingerprint == before
    checkpoint.tensors["encoder.layers.0.weight"][0] += 1
    assert checkpoint.build_encoder().fingerprint != before


@pytest.mark.parametrize(("name", "path"), list_weights())
def test_bundled_weights_are_small_readable_and_say_what_they_are(name, path):
    assert path.stat().st_size <= 25 * 2**20
    checkpoint = Checkpoint.load(path)
    FlagPredictor.open(checkpoint)
    for key in ("title", "tissue", "sections", "array", "seed", "command", "not_for"):
        assert checkpoint.card.get(key) not in (None, "", []), f"{name} lacks {key}"
