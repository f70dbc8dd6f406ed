import json
import os
import re
import sys
from dataclasses import dataclass, field

import anndata
import numpy as np
import pytest
from PIL import Image
from tests.fakes import SOME_GENES, fake_provenance

import napari_flag as nf
from napari_flag import files, inputs, keys, prediction, prediction_file, preflight
from napari_flag.analysis.draws import count
from napari_flag.cli import main
from napari_flag.cli.main import build_parser
from napari_flag.errors import UserError
from napari_flag.keys import DEFAULT_WEIGHTS
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.prediction_file import layer_of
from napari_flag.progress import Step


@dataclass
class FakeCheckpoint:
    """As much of a `Checkpoint` as the command line reads."""

    genes: tuple[str, ...] = SOME_GENES
    name: str = "fake-weights"
    sha256: str = "1" * 64
    encoder: str = "embedded"
    card: dict = field(default_factory=lambda: {"array": {"pitch_um": 200.0, "diameter_um": 100.0}})


def fake_predict_slide(slide, spots, checkpoint, *, region, genes, depth, draws, seed, **_):
    """`prediction.predict_slide`'s contract: seeded draws, two steps, polygons honoured."""
    yield Step("Reading tiles", 0, len(spots), notice="The batch was halved.")
    from shapely import contains_xy, union_all

    if region is not None:
        spots = spots.take(contains_xy(union_all(region), *spots.xy.T))
    names = list(checkpoint.genes if genes is None else genes)
    x = np.full((len(spots), len(names)), 4.0, np.float32)
    rng = np.random.default_rng(seed)
    drawn = {layer_of(number): np.log2(rng.poisson(15, x.shape) + 1) for number in range(1, (draws or 1) + 1)}
    adata = anndata.AnnData(x, layers=drawn, obsm={keys.SPATIAL: spots.xy})
    adata.obs_names, adata.var_names = list(spots.ids), names
    made = fake_provenance(*slide.size)
    made |= {keys.WEIGHTS_HASH: checkpoint.sha256, keys.SEED: seed, keys.MPP: slide.mpp}
    made[keys.WEIGHTS_NAME] = checkpoint.name
    made[keys.DRAWS] = draws or 1
    made[keys.LATTICE] = spots.lattice
    if depth is not None:
        made[keys.DEPTH] = depth if isinstance(depth, float) else depth.total * len(depth.rows)
    adata.uns[keys.PROVENANCE] = made
    yield Step("Sampling", len(spots), len(spots))
    return adata


@pytest.fixture
def model(monkeypatch):
    """A fake model behind the real slide and spot readers."""
    monkeypatch.setattr(Checkpoint, "load", lambda path: FakeCheckpoint())
    monkeypatch.setattr(prediction, "predict_slide", fake_predict_slide)
    monkeypatch.setattr(preflight, "COARSEST", 4.0)  # the pictures here are small, hence coarse


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A slide with tissue, its ST spots (pitch 100 px) and their counts, in the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    image = np.full((900, 1000, 3), 245, np.uint8)
    image[100:800, 100:900] = (190, 110, 170)
    image = np.clip(image + rng.integers(-12, 12, image.shape), 0, 255).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "C9.png")
    rows = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"]
    spots = [(x, y) for x in range(2, 9) for y in range(2, 8)]
    rows += [f"{x}\t{y}\t{x}\t{y}\t{100 * x}\t{100 * y}\t1" for x, y in spots]
    (tmp_path / "spots.tsv").write_text("\n".join(rows) + "\n")
    counts = ["\t" + "\t".join(SOME_GENES)]
    counts += [f"{x}x{y}\t" + "\t".join(map(str, rng.poisson(4, 20))) for x, y in spots]
    (tmp_path / "counts.tsv").write_text("\n".join(counts) + "\n")
    return tmp_path


TABLE = ["predict", "C9.png", "--spots", "spots.tsv", "--mpp", "2"]


def test_spots_come_back_in_the_order_given_with_everything_needed_to_run_it_again(model, folder, capsys):
    assert main([*TABLE, "--out", "out.h5ad", "--seed", "3"]) == 0
    adata = prediction_file.read_prediction(folder / "out.h5ad")
    assert list(adata.obs_names[:2]) == ["2x2", "2x3"]
    assert list(adata.var_names) == list(SOME_GENES)
    made = adata.uns[keys.PROVENANCE]
    assert made[keys.COMMAND] == (
        "napari-flag predict C9.png --spots spots.tsv --mpp 2 --weights her2st --quality balanced --seed 3"
    )
    printed = capsys.readouterr()
    assert "Wrote out.h5ad: 42 spots × 20 genes" in printed.out
    assert "Research use only" in printed.out
    assert "Note: The batch was halved." in printed.err


def test_as_many_draws_as_asked_for_are_written_and_said(model, folder, capsys):
    assert main([*TABLE, "--out", "out.h5ad", "--draws", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["draws"] == 8
    adata = prediction_file.read_prediction(folder / "out.h5ad")
    assert count(adata) == 8
    made = adata.uns[keys.PROVENANCE]
    assert made[keys.DRAWS] == 8
    assert "--draws 8" in made[keys.COMMAND]


def test_the_depth_is_given_as_a_number_or_as_counts(model, folder):
    counts = np.loadtxt(folder / "counts.tsv", skiprows=1, usecols=range(1, 21))
    for given, known in (("250", 250.0), ("counts.tsv", counts.sum())):
        assert main([*TABLE, "--out", "out.h5ad", "--overwrite", "--depth", given]) == 0
        made = prediction_file.read_prediction(folder / "out.h5ad").uns[keys.PROVENANCE]
        assert made[keys.DEPTH] == pytest.approx(known)
        assert f"--depth {given}" in made[keys.COMMAND]


def test_a_depth_that_is_neither_number_nor_file_is_refused(model, folder, capsys):
    assert main([*TABLE, "--depth", "deep"]) == 2
    assert "deep" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["--samples", "4"], ["--samples=4"], ["--samples"]])
def test_samples_are_refused_with_a_sentence_that_names_draws(model, folder, capsys, given):
    assert main([*TABLE, *given]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert "error: --samples is not taken any more, since X no longer depends on it" in said
    assert said.endswith("ask for draws with --draws K.")
    assert list(folder.glob("*.h5ad")) == []


def test_samples_are_not_offered(capsys):
    assert main(["predict", "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--draws" in shown
    assert "--samples" not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="Windows takes no such name")
def test_a_file_named_after_its_slide_has_a_name_that_every_system_takes(model, folder):
    (folder / "C9.png").rename(folder / "C\n9\x1b[31m<\u202e.png")
    assert main(["predict", "C\n9\x1b[31m<\u202e.png", *TABLE[2:]]) == 0
    [written] = folder.glob("*.h5ad")
    assert re.fullmatch(r"C_9_\[31m__-[0-9a-f]{8}_predicted\.h5ad", written.name)


def test_weights_called_after_a_patient_are_not_named_in_what_is_written_and_said(
    model, folder, capsys, monkeypatch
):
    monkeypatch.setattr(Checkpoint, "load", lambda path: FakeCheckpoint(name="Smith_John_1950-03-04"))
    monkeypatch.setattr("napari_flag.model.checkpoint.find_weights", lambda name: folder / "C9.png")
    line = [*TABLE, "--weights", "Smith_John_1950-03-04", "--out", "out.h5ad", "--json"]
    assert main(line) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["weights_name"] == "anonymous-11111111"
    assert "Smith" not in said.out + said.err
    made = prediction_file.read_prediction(folder / "out.h5ad").uns[keys.PROVENANCE]
    assert "Smith" not in str(made)
    assert "--weights anonymous-11111111" in made[keys.COMMAND]
    assert main([*line, "--keep-names", "--overwrite"]) == 0
    assert json.loads(capsys.readouterr().out)["weights_name"] == "Smith_John_1950-03-04"


def test_without_spots_a_grid_like_the_training_array_covers_the_tissue(model, folder):
    assert main(["predict", "C9.png", "--mpp", "2"]) == 0
    adata = prediction_file.read_prediction(folder / "C9_predicted.h5ad")
    xy = adata.obsm[keys.SPATIAL]
    nearest = np.sort(np.linalg.norm(xy[:, None] - xy[None], axis=-1), axis=1)[:, 1]
    np.testing.assert_allclose(nearest, 100.0)  # 200 µm at 2 µm/px
    assert adata.uns[keys.PROVENANCE][keys.LATTICE] == "square"
    assert len(xy) > 40
    assert (xy.min() > 90) & (xy.max() < 910)


def test_measured_counts_are_attached(model, folder):
    assert main([*TABLE, "--measured", "counts.tsv", "--out", "out.h5ad"]) == 0
    layer = prediction_file.read_prediction(folder / "out.h5ad").layers[keys.MEASURED]
    counts = np.loadtxt(folder / "counts.tsv", skiprows=1, usecols=range(1, 21))
    np.testing.assert_allclose(layer, np.log2(counts + 1), rtol=1e-6)


def test_measured_without_spots_and_measured_of_another_slide_are_refused_first(model, folder, capsys):
    assert main(["predict", "C9.png", "--mpp", "2", "--measured", "counts.tsv"]) == 2
    assert "--measured needs --spots" in capsys.readouterr().err
    text = (folder / "counts.tsv").read_text()
    (folder / "other.tsv").write_text(text.replace("x", "_"))
    assert main([*TABLE, "--measured", "other.tsv"]) == 2
    assert list(folder.glob("*.h5ad")) == []


def test_unknown_scale_asks_and_suggests_what_the_spots_say(model, folder, capsys):
    assert main(["predict", "C9.png", "--spots", "spots.tsv"]) == 2
    assert "--mpp 2 on" in capsys.readouterr().err
    assert main(["predict", "C9.png"]) == 2
    assert "--mpp 0.5" in capsys.readouterr().err


def test_a_scale_unlike_that_of_the_spots_is_reported_and_kept(model, folder, capsys):
    assert main([*TABLE[:-1], "1", "--out", "out.h5ad", "--json"]) == 0
    printed = capsys.readouterr()
    assert "suggests 2" in printed.err
    assert any("suggests 2" in notice for notice in json.loads(printed.out)["notices"])
    made = prediction_file.read_prediction(folder / "out.h5ad").uns[keys.PROVENANCE]
    assert any("suggests 2" in notice for notice in made[keys.NOTICES])


def test_region_and_genes_by_alias_cut_what_is_kept(model, folder):
    ring = [[150, 150], [450, 150], [450, 450], [150, 450], [150, 150]]
    (folder / "region.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    (folder / "genes.txt").write_text("HER2\nVIM\n")
    line = [*TABLE, "--region", "region.geojson", "--genes", "genes.txt", "--out", "out.h5ad"]
    assert main(line) == 0
    adata = prediction_file.read_prediction(folder / "out.h5ad")
    assert list(adata.var_names) == ["ERBB2", "VIM"]
    assert adata.n_obs == 9


def test_regions_on_a_slide_without_visible_tissue_are_taken_with_a_notice(model, folder, capsys):
    Image.fromarray(np.full((900, 1000, 3), 245, np.uint8)).save(folder / "blank.png")
    ring = [[150, 150], [650, 150], [650, 650], [150, 650], [150, 150]]
    (folder / "region.geojson").write_text(json.dumps({"type": "Polygon", "coordinates": [ring]}))
    line = ["predict", "blank.png", "--mpp", "2"]
    assert main(line) == 2
    assert "No tissue" in capsys.readouterr().err
    assert main([*line, "--region", "region.geojson", "--out", "out.h5ad"]) == 0
    assert "covers the regions only" in capsys.readouterr().err
    assert prediction_file.read_prediction(folder / "out.h5ad").n_obs > 15


def test_genes_the_weights_do_not_know_are_named(model, folder, capsys):
    (folder / "genes.txt").write_text("ERBB2\nNOTAGENE\n")
    assert main([*TABLE, "--genes", "genes.txt"]) == 2
    assert "NOTAGENE" in capsys.readouterr().err


def test_the_same_command_replaces_its_own_result_and_nothing_else(model, folder, capsys):
    line = [*TABLE, "--out", "out.h5ad"]
    assert main(line) == 0
    assert main(line) == 0
    assert "in place of the earlier result" in capsys.readouterr().out
    before = (folder / "out.h5ad").read_bytes()
    assert main([*line, "--seed", "9"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "out.h5ad").read_bytes() == before
    assert main([*line, "--seed", "9", "--overwrite"]) == 0
    (folder / "notes.h5ad").write_text("mine")
    assert main([*TABLE, "--out", "notes.h5ad"]) == 2
    assert (folder / "notes.h5ad").read_text() == "mine"


def test_numbers_are_recorded_as_typed_so_that_no_two_commands_are_one(model, folder, capsys):
    line = ["predict", "C9.png", "--spots", "spots.tsv", "--out", "out.h5ad", "--mpp"]
    assert main([*line, "2.00001234"]) == 0
    made = prediction_file.read_prediction(folder / "out.h5ad").uns[keys.PROVENANCE]
    assert "--mpp 2.00001234 " in made[keys.COMMAND]
    assert made[keys.MPP] == 2.00001234
    assert main([*line, "2.00001199"]) == 2
    assert "not a result of this very command" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_reported_before_any_work(model, folder, monkeypatch, capsys):
    def no_work(*_, **__):
        raise AssertionError("work began")

    monkeypatch.setattr(inputs, "prepare", no_work)
    assert main([*TABLE, "--out", "spots.tsv/new/out.h5ad"]) == 2
    assert "spots.tsv is a file, so no folder can be made in it" in capsys.readouterr().err


def test_a_missing_folder_is_made_once_there_is_something_to_write(model, folder, capsys):
    line = [*TABLE, "--out", "new/deeper/out.h5ad"]
    assert main([*line, "--genes", "NOTAGENE"]) == 2
    assert not (folder / "new").exists()
    assert main(line) == 0
    before = (folder / "new" / "deeper" / "out.h5ad").read_bytes()
    assert main([*line, "--seed", "9"]) == 2, "what is there stays"
    assert (folder / "new" / "deeper" / "out.h5ad").read_bytes() == before


@pytest.mark.parametrize("given", ["0", "-5", "nan", "inf", "-1,5"])
def test_a_depth_that_no_slide_has_is_refused_before_any_work(folder, capsys, given):
    assert main([*TABLE, f"--depth={given}"]) == 2
    assert f"argument --depth: '{given}' is not a number above 0" in capsys.readouterr().err


def test_a_depth_may_have_a_decimal_comma(model, folder):
    assert main([*TABLE, "--out", "out.h5ad", "--depth", "850,5"]) == 0
    made = prediction_file.read_prediction(folder / "out.h5ad").uns[keys.PROVENANCE]
    assert made[keys.DEPTH] == 850.5
    assert "--depth 850.5" in made[keys.COMMAND]


def test_a_quality_beside_a_number_of_steps_is_refused(folder, capsys):
    assert main([*TABLE, "--quality", "best", "--steps", "3"]) == 2
    assert "The quality best and 3 steps both say" in capsys.readouterr().err


def test_genes_are_given_by_name_or_as_a_file(model, folder, capsys):
    (folder / "ERBB2").write_text("VIM\n")
    for given, kept in (
        (["HER2", "VIM"], ["ERBB2", "VIM"]),
        (["ERBB2"], ["VIM"]),  # which is a file here
        (["./ERBB2"], ["VIM"]),
        (["VIM"], ["VIM"]),
    ):
        assert main([*TABLE, "--genes", *given, "--out", "out.h5ad", "--overwrite"]) == 0
        adata = prediction_file.read_prediction(folder / "out.h5ad")
        assert list(adata.var_names) == kept
        assert adata.uns[keys.PROVENANCE][keys.COMMAND].split(" --genes ")[1].startswith(given[0].strip("./"))
    assert main([*TABLE, "--genes", "nowhere.txt"]) == 2
    assert "There is no file nowhere.txt" in capsys.readouterr().err


def test_a_slide_that_is_not_there_is_said_before_what_would_be_replaced(model, folder, capsys):
    assert main([*TABLE, "--out", "out.h5ad"]) == 0
    assert main(["predict", "C8.png", *TABLE[2:], "--out", "out.h5ad"]) == 2
    assert "There is no file or folder C8.png" in capsys.readouterr().err


def test_counts_of_another_section_of_the_same_array_are_doubted(model, folder, capsys):
    header, *rows = (folder / "counts.tsv").read_text().splitlines()
    shifted = [f"{int(row.partition('x')[0]) + 2}x{row.partition('x')[2]}" for row in rows]
    (folder / "other.tsv").write_text("\n".join([header, *shifted]) + "\n")
    assert main([*TABLE, "--measured", "other.tsv", "--out", "out.h5ad"]) == 0
    said = "12 of 42 spots have no counts, and 12 of 42 measured spots are not among them"
    assert said in capsys.readouterr().err
    adata = prediction_file.read_prediction(folder / "out.h5ad")
    assert any(said in notice for notice in adata.uns[keys.PROVENANCE][keys.NOTICES])


def test_what_lies_in_the_working_folder_does_not_change_which_command_it_is(model, folder, capsys):
    assert main([*TABLE, "--out", "out.h5ad"]) == 0
    for name in ("her2st", "balanced"):
        (folder / name).mkdir()
    assert main([*TABLE, "--out", "out.h5ad"]) == 0
    assert "in place of the earlier result" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("new.zarr", "new.zarr is not the SpatialData zarr that is predicted; give --out an .h5ad"),
        ("out.csv", "out.csv does not end in .h5ad"),
        ("out", "out does not end in .h5ad"),
    ],
)
def test_a_prediction_is_written_under_no_other_ending(model, folder, capsys, name, said):
    assert main([*TABLE, "--out", name]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / name).exists()
    assert main([*TABLE, "--out", "OUT.H5AD"]) == 0


def test_work_is_kept_elsewhere_when_its_place_fails_after_all(
    model, folder, monkeypatch, capsys, tmp_path_factory
):
    spare = tmp_path_factory.mktemp("spare")
    monkeypatch.setattr("tempfile.tempdir", str(spare))
    really = files.write_whole_in_steps

    def write(path, writer):
        if path.name == "out.h5ad" and path.parent.samefile(folder):
            raise UserError("out.h5ad cannot be written (no space left on device); choose another.")
        return (yield from really(path, writer))

    monkeypatch.setattr(prediction_file, "write_whole_in_steps", write)
    assert main([*TABLE, "--out", "out.h5ad"]) == 2
    printed = capsys.readouterr().err.splitlines()[-1]
    kept = next(spare.glob("napari-flag-*/out.h5ad"))
    assert str(kept) in printed
    assert prediction_file.read_prediction(kept).n_obs == 42


def test_cancelling_writes_nothing(model, folder, monkeypatch, capsys):
    closed = []

    def predict_slide(*_, **__):
        try:
            yield Step("Sampling", 0, 10)
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    monkeypatch.setattr(prediction, "predict_slide", predict_slide)
    assert main([*TABLE, "--out", "out.h5ad"]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "cancelled"
    assert closed == [True]
    assert not (folder / "out.h5ad").exists()


def test_the_default_weights_are_the_models_default():
    assert build_parser().parse_args(["predict", "a.svs"]).weights == DEFAULT_WEIGHTS


@pytest.fixture
def section(folder, monkeypatch):
    """The same slide, table and counts as a folder, under the limit of a slide's size."""
    monkeypatch.setattr("napari_flag.discovery.kinds.SLIDE_SIDE_PX", 500)
    case = folder / "case"
    case.mkdir()
    for name in ("C9.png", "spots.tsv", "counts.tsv"):
        (folder / name).rename(case / name)
    return case


def test_a_folder_with_one_slide_is_predicted_with_its_spots_and_counts_and_that_is_said(
    model, section, folder, capsys
):
    assert main(["predict", "case", "--mpp", "2"]) == 0
    adata = prediction_file.read_prediction(folder / "C9_predicted.h5ad")
    assert list(adata.obs_names[:2]) == ["2x2", "2x3"]
    assert keys.MEASURED in adata.layers
    why = "C9.png is an RGB picture of 1,000 × 900 px; spots are read from spots.tsv (the only one)"
    assert why in capsys.readouterr().err
    made = adata.uns[keys.PROVENANCE]
    assert any(why in notice for notice in made[keys.NOTICES])
    assert made[keys.COMMAND].startswith(
        "napari-flag predict C9.png --spots spots.tsv --measured counts.tsv --mpp 2"
    )


def test_spots_and_counts_given_win_over_those_of_the_folder(model, section, folder):
    lines = (section / "spots.tsv").read_text().splitlines()
    (folder / "fewer.tsv").write_text("\n".join(lines[:10]) + "\n")
    assert main(["predict", "case", "--mpp", "2", "--spots", "fewer.tsv", "--out", "a.h5ad"]) == 0
    adata = prediction_file.read_prediction(folder / "a.h5ad")
    assert adata.n_obs == 9
    assert keys.MEASURED not in adata.layers  # the folder's counts are of the folder's spots
    (folder / "other.tsv").write_text((section / "counts.tsv").read_text().replace("\t4", "\t9"))
    assert main(["predict", "case", "--mpp", "2", "--measured", "other.tsv", "--out", "b.h5ad"]) == 0
    command = prediction_file.read_prediction(folder / "b.h5ad").uns[keys.PROVENANCE][keys.COMMAND]
    assert "--spots spots.tsv --measured other.tsv" in command


def test_a_folder_gives_the_same_prediction_in_python_as_on_the_command_line(model, section, folder):
    said = []
    found = nf.predict("case", mpp=2, progress=said.append)
    assert main(["predict", "case", "--mpp", "2"]) == 0
    written = prediction_file.read_prediction(folder / "C9_predicted.h5ad")
    assert list(found.obs_names) == list(written.obs_names)
    np.testing.assert_array_equal(found.layers[keys.MEASURED], written.layers[keys.MEASURED])
    notices = list(found.uns[keys.PROVENANCE][keys.NOTICES])
    assert notices == list(written.uns[keys.PROVENANCE][keys.NOTICES])
    assert "spots are read from spots.tsv" in notices[0]
    assert [step.notice for step in said].count(notices[0]) == 1
    with pytest.raises(
        UserError, match=r"shapes \(--shapes\) names an element of a SpatialData zarr, and case is none"
    ):
        nf.predict("case", mpp=2, shapes="spots")


def test_a_zero_byte_in_the_name_of_a_result_is_refused_before_any_work(model, folder, capsys):
    assert main(["predict", "C9.png", "--mpp", "2", "--out", "a\0b.h5ad"]) == 2
    said = capsys.readouterr().err
    assert "is no path here (a zero byte is in no name)" in said
    assert "Reading" not in said


@pytest.fixture
def odd_name(folder):
    """The slide under a name that is no UTF-8, as on old drives."""
    path = folder / os.fsdecode(b"C\xff9.png")
    try:
        (folder / "C9.png").rename(path)
    except OSError:
        pytest.skip("this system has no such names")
    return path


def test_a_slide_whose_name_is_no_unicode_is_predicted(model, odd_name, folder, capsys):
    line = ["predict", str(odd_name), "--spots", "spots.tsv", "--mpp", "2"]
    assert main(line) == 0
    assert "Wrote C\ufffd9_predicted.h5ad" in capsys.readouterr().out
    written = prediction_file.read_prediction(folder / "C\ufffd9_predicted.h5ad")
    assert prediction_file.slide_name(written) == "fake"
    assert "C\ufffd9.png" in prediction_file.provenance(written)[keys.COMMAND]
    assert main(line) == 0, "the same command once more"


def test_a_folder_with_several_slides_or_none_says_how_to_choose(model, section, folder, capsys):
    Image.new("RGB", (700, 300)).save(section / "C8.png")
    assert main(["predict", "case", "--mpp", "2"]) == 2
    message = capsys.readouterr().err
    assert "case holds 2 slides (C8.png, C9.png); give the file of one, with its spots and counts" in message
    assert "on the command line, e.g.: napari-flag predict case/C8.png" in message
    (folder / "empty").mkdir()
    assert main(["predict", "empty"]) == 2
    assert "empty holds no slide to predict" in capsys.readouterr().err


@pytest.mark.slow
def test_no_file_written_names_the_folders_of_what_it_was_made_from(model, folder):
    private = folder / "DOE_JOHN_1947"
    private.mkdir()
    for name in ("C9.png", "spots.tsv", "counts.tsv"):
        (folder / name).rename(private / name)
    at = [str(private / name) for name in ("C9.png", "spots.tsv", "counts.tsv")]
    out, results = str(folder / "out.h5ad"), folder / "results"
    assert main(["predict", at[0], "--spots", at[1], "--mpp", "2", "--out", out]) == 0
    assert main(["compare", out, at[2], "--out", str(results)]) == 0
    assert main(["export", out, "--to", "csv", "h5ad", "geojson", "ome-tiff", "--out", str(results)]) == 0
    written = [folder / "out.h5ad", *(path for path in results.rglob("*") if path.is_file())]
    assert len(written) >= 8
    for path in written:
        content = path.read_bytes()
        assert b"DOE_JOHN" not in content, path.name
        assert folder.name.encode() not in content, path.name
    # and the same command is known again, another one of the same names is not
    assert main(["predict", at[0], "--spots", at[1], "--mpp", "2", "--out", out]) == 0
    (folder / "C9.png").write_bytes((private / "C9.png").read_bytes())
    assert main(["predict", str(folder / "C9.png"), "--spots", at[1], "--mpp", "2", "--out", out]) == 2
