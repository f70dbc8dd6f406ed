import json
import re
import subprocess
import sys
import time
from dataclasses import MISSING, fields

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tests.tiny_weights import GENES, tiny_network, write_tiny_weights, write_weights_on_uni

from napari_flag.encoders.foundation import loader
from napari_flag.errors import UserError
from napari_flag.methods.flag import FlagPredictor
from napari_flag.methods.predictor import _named
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


def test_the_same_encoder_is_taken_on_a_device_that_computes_in_half_precision(tmp_path, monkeypatch):
    checkpoint = Checkpoint.load(write_weights_on_uni(tmp_path, monkeypatch))
    monkeypatch.setattr(loader, "_computing_type", lambda *_: torch.float16)
    encoder = checkpoint.build_encoder()
    assert encoder.fingerprint != encoder.weights == checkpoint.card["encoder"]["fingerprint"]


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


def test_weights_may_lie_in_the_home_folder_and_a_file_never_takes_the_place_of_a_name(
    weights, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.safetensors").write_bytes(weights.read_bytes())
    assert find_weights("~/mine.safetensors") == tmp_path / "mine.safetensors"
    bundled = find_weights("demo")
    (tmp_path / "demo").write_bytes(weights.read_bytes())
    assert find_weights("demo") == bundled
    assert checkpoint.file_given("demo") is None


def test_imported_weights_are_found_by_name(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "user_data_path", lambda _: tmp_path / "data")
    copied = import_weights(weights)
    assert ("tiny", copied) in list_weights()
    assert find_weights("tiny") == copied
    with pytest.raises(UserError, match="already weights"):
        import_weights(weights)


def test_imported_weights_have_a_name_that_every_system_takes_and_keeps_apart(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "user_data_path", lambda _: tmp_path / "data")
    import_weights(weights)
    with pytest.raises(UserError, match='already weights called "tiny"'):
        checkpoint.free_place("TINY")
    odd = checkpoint.free_place("a\nb\x1b[31m")
    assert odd.parent == checkpoint.weights_folder()
    assert re.fullmatch(r"a_b_\[31m-[0-9a-f]{8}\.safetensors", odd.name)


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


def rewritten(path, change):
    """The file with its header changed by `change`."""
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["napari_flag"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no dict
    change(header, tensors)
    save_file(tensors, path, metadata={"napari_flag": json.dumps(header)})
    return path


@pytest.mark.parametrize("name", ["blocks", "width", "features"])
@pytest.mark.parametrize("size", [10**9, 50_000, -1, 10**30])
def test_a_header_that_states_another_size_is_refused_without_building_it(weights, name, size):
    began = time.monotonic()
    path = rewritten(weights, lambda header, _: header["config"].update({name: size}))
    with pytest.raises(UserError, match=r"do not fit the network|holds no napari-flag weights"):
        FlagPredictor.open(Checkpoint.load(path), "cpu")
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("card", []), ("config", 5), ("genes", "ERBB2"), ("genes", [1, 2]), ("genes", ["A", "A"]),
        ("genes", []), ("encoder", None), ("format", "2"), ("config", [["features", 5]]),
    ],
)  # fmt: skip
def test_a_header_of_other_kinds_is_refused(weights, part, value):
    path = rewritten(weights, lambda header, _: header.update({part: value}))
    with pytest.raises(UserError, match=f"its header lacks {part}"):
        Checkpoint.load(path)


@pytest.mark.parametrize("header", ["[]", "3", "null", "[" * 100_000, '"x"', "{"])
def test_a_header_that_is_no_object_is_refused(tmp_path, header):
    path = tmp_path / "other.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={"napari_flag": header})
    with pytest.raises(UserError, match=r"no napari-flag weights|cannot be read as weights"):
        Checkpoint.load(path)
    assert checkpoint.label_of("other", path) == "other"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_tensors_that_are_no_numbers_are_refused(weights, value):
    def change(_, tensors):
        next(t for t in tensors.values() if t.is_floating_point() and t.numel() > 3).view(-1)[2] = value

    with pytest.raises(UserError, match="values that are not numbers"):
        Checkpoint.load(rewritten(weights, change))


@pytest.mark.parametrize("kind", [torch.int64, torch.complex64, torch.bool])
@pytest.mark.parametrize("name", ["flag.axes", "encoder.layers.0.weight", "familiarity.spread"])
def test_tensors_of_another_kind_are_refused_and_not_cast(tmp_path, kind, name):
    path = tmp_path / "other.safetensors"
    path.write_bytes(find_weights("demo").read_bytes())
    change = lambda _, tensors: tensors.update({name: tensors[name].to(kind)})  # noqa: E731
    found = Checkpoint.load(rewritten(path, change))
    opened = {
        "flag": lambda: FlagPredictor.open(found),
        "encoder": found.build_encoder,
        "familiarity": found.build_out_of_distribution_score,
    }
    with pytest.raises(UserError, match=r"do(es)? not (fit|hold)"):
        opened[name.partition(".")[0]]()


def test_tensors_of_another_precision_are_taken(weights):
    def change(_, tensors):
        tensors |= {key: each.half() for key, each in tensors.items() if each.is_floating_point()}

    found = Checkpoint.load(rewritten(weights, change))
    assert FlagPredictor.open(found).network.get_buffer("axes").dtype == torch.float32
    assert found.build_encoder().dim == found.config["features"]


@pytest.mark.parametrize(
    "name", ["spread", "sd_factor", "feature_spread", "eigenvalues", "mean_head.kernel.bandwidth",
             "mean_head.kernel.length"],
)  # fmt: skip
def test_widths_below_0_are_refused(weights, name):
    path = rewritten(weights, lambda _, tensors: tensors[f"flag.{name}"].neg_())
    with pytest.raises(UserError, match=rf"do not fit the network .*\({name} is a width, and not above 0\)"):
        FlagPredictor.open(Checkpoint.load(path))


def test_draws_of_no_width_are_what_training_may_choose(weights):
    path = rewritten(weights, lambda _, tensors: tensors["flag.spread"].zero_())
    assert FlagPredictor.open(Checkpoint.load(path)).genes == GENES
    path = rewritten(weights, lambda _, tensors: tensors["flag.feature_spread"].zero_())
    with pytest.raises(UserError, match="feature_spread is a width"):
        FlagPredictor.open(Checkpoint.load(path))


@pytest.mark.parametrize("name", ["spread", "variances", "rest"])
def test_a_score_of_no_width_is_refused(tmp_path, name):
    path = tmp_path / "demo.safetensors"
    path.write_bytes(find_weights("demo").read_bytes())
    found = Checkpoint.load(rewritten(path, lambda _, tensors: tensors[f"familiarity.{name}"].neg_()))
    with pytest.raises(UserError, match="out-of-distribution score in these weights does not fit"):
        found.build_out_of_distribution_score()


def nested(levels):
    return {"a": nested(levels - 1)} if levels else 1


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"sections": 5}, "states sections that are no list of texts"),
        ({"sections": ["C2", {"a": 1}]}, "states sections that are no list of texts"),
        ({"section_sha256": 7}, "states section sha256 that are no list of texts"),
        ({"array": {"pitch_um": 10**400}}, "states the number 1000"),
        ({"array": {"pitch_um": 1e308}}, r"states 1e\+308 as pitch µm, which no slide has"),
        ({"array": {"pitch_um": [200, 1e-300]}}, "states 1e-300 as pitch µm"),
        ({"array": {"diameter_um": float("nan")}}, "states nan as diameter µm"),
        ({"um_per_px": [0.5, -1]}, "states -1 as µm per px"),
        ({"values": nested(900)}, "is nested more than 32 levels deep"),
        ({"title": "a\ud800"}, "holds a text with a zero byte or half a character"),
        ({"notes": [{"a\0": 1}]}, "holds a text with a zero byte or half a character"),
    ],
)
def test_a_card_that_no_training_writes_is_refused_in_one_short_sentence(weights, card, said):
    path = rewritten(weights, lambda header, _: header["card"].update(card))
    with pytest.raises(UserError, match=f"cannot be right: its data card {said}") as refused:
        Checkpoint.look(path)
    assert len(str(refused.value)) < len(str(path)) + 250
    assert checkpoint.card_of(path) == {}


@pytest.mark.parametrize(
    "card",
    [
        {"sections": None, "array": None, "um_per_px": None},
        {"sections": "C2", "array": "Visium"},
        {"sections": [], "array": {"pitch_um": [100.0, 200.0], "lattice": ["hex", "square"]}, "seed": 2**64},
        {"array": {"pitch_um": "200", "diameter_um": True}, "um_per_px": [0.25, 0.683]},
    ],
)
def test_a_card_that_leaves_things_out_or_states_several_is_read(weights, card):
    path = rewritten(weights, lambda header, _: header["card"].update(card))
    assert Checkpoint.look(path).card | card == Checkpoint.look(path).card


@pytest.mark.parametrize("gene", ["A\ud800", "A\0B"])
def test_a_gene_that_is_no_text_is_refused(weights, gene):
    path = rewritten(weights, lambda header, _: header.update(genes=[gene, *GENES[1:]]))
    with pytest.raises(UserError, match="its header lacks genes"):
        Checkpoint.look(path)


def test_as_many_genes_as_the_network_has_must_be_named(weights):
    path = rewritten(weights, lambda header, _: header.update(genes=list(GENES[:-1])))
    with pytest.raises(UserError, match="it names 4 genes, and its network has 5"):
        Checkpoint.look(path)


def test_a_format_of_many_digits_is_cut(weights):
    path = rewritten(weights, lambda header, _: header.update(format=int("9" * 4000)))
    with pytest.raises(UserError, match=r"format 9{79}…, this one") as refused:
        Checkpoint.look(path)
    assert len(str(refused.value)) < len(str(path)) + 300


@pytest.mark.parametrize("heads", [0, -1, 3])
def test_heads_that_cannot_share_a_width_are_refused(weights, heads):
    path = rewritten(weights, lambda header, _: header["config"].update(heads=heads))
    with pytest.raises(UserError, match=f"16 values cannot be shared among {heads} heads"):
        FlagPredictor.open(Checkpoint.load(path))


NETWORKS = {
    "mean": ("floors.SlideMean", "floors.FloorSizes", (8, 5)),
    "ridge": ("floors.Ridge", "floors.FloorSizes", (8, 5)),
    "knn": ("floors.NearestTiles", "floors.FloorSizes", (8, 5)),
    "regression": ("regression.Regression", "regression.RegressionSizes", (8, 5)),
    "histogene": ("histogene.HisToGene", "histogene.HisToGeneSizes", (8, 5)),
    "bleep": ("bleep.Bleep", "bleep.BleepSizes", (8, 5)),
    "triplex": ("triplex.Triplex", "triplex.TriplexSizes", (8, 5)),
    "stem": ("stem.Stem", "stem.StemSizes", (8, 5)),
    "stflow": ("stflow.StFlow", "stflow.StFlowSizes", (8, 5)),
}


@pytest.mark.parametrize("method", NETWORKS)
def test_every_network_is_measured_before_it_is_built(method):
    """All of them can be built under the count, and none where the file holds less."""
    network, sizes, (features, genes) = NETWORKS[method]
    config = _named(sizes)
    named = {field.name for field in fields(config)}
    values = {name: value for name, value in {"features": features, "genes": genes}.items() if name in named}
    required = [f.name for f in fields(config) if f.default is MISSING and f.name not in values]
    of_kind = {field.name: field.type for field in fields(config)}
    values |= {name: 0.1 if of_kind[name] in (float, "float") else 16 for name in required}
    build = lambda stated: _named(network)(config(**stated))  # noqa: E731
    made = build(values)
    stored = {f"{method}.{key}": tensor for key, tensor in made.state_dict().items()}
    found = Checkpoint("t", "0", ("A",) * genes, {}, values, "embedded", stored, method)
    restored = found.restore(build)
    assert all(tensor.device.type == "cpu" for tensor in restored.state_dict().values())
    huge = {name: 10**7 + 1 if isinstance(value, int) else value for name, value in values.items()}
    with pytest.raises(UserError, match="do not fit the network"):
        Checkpoint("t", "0", ("A",) * genes, {}, huge, "embedded", stored, method).restore(build)


def test_a_feature_that_never_varied_has_an_infinite_spread_and_is_no_damage(tmp_path):
    bundled = checkpoint.find_weights("demo")

    def spread_of(value):
        def change(_, tensors):
            tensors["familiarity.spread"][0] = value

        path = tmp_path / "demo.safetensors"
        path.write_bytes(bundled.read_bytes())
        return rewritten(path, change)

    assert Checkpoint.load(spread_of(float("inf"))).build_out_of_distribution_score() is not None
    with pytest.raises(UserError, match=r"not numbers in familiarity\.spread"):
        Checkpoint.load(spread_of(float("nan")))


@pytest.mark.slow
def test_opening_weights_does_not_load_the_compiler():
    """With it comes an LLVM that ends a process whose window Mesa draws."""
    code = (
        "import sys, pytest;"
        "ended = pytest.main(['-q', '-p', 'no:cacheprovider', '-k', 'is_measured_before', sys.argv[1]]);"
        "from napari_flag.methods.predictor import open_method;"
        "from napari_flag.model.checkpoint import Checkpoint, find_weights;"
        "open_method(Checkpoint.load(find_weights('demo')), 'cpu');"
        "print(int(ended), sorted({'triton', 'torch._dynamo'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, __file__], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "0 []"
