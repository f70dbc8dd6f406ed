"""``import napari_flag as nf`` in a notebook: light, typed, and enough to go from a slide to files."""

import importlib
import inspect
import io
import pkgutil
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.fakes import counts_for, fake_prediction
from tests.foreign_files import write_hest_like
from tests.platform_files import xenium
from tests.section_files import write_section
from tests.tiny_weights import GENES

import napari_flag as nf
from napari_flag import fitting, keys, prediction_file
from napari_flag.fitting import FitSettings, Fitted, find_sections
from napari_flag.keys import DEFAULT_WEIGHTS
from napari_flag.progress import Step

ROOMS = [m.name for m in pkgutil.iter_modules(nf.__path__)]


@pytest.mark.parametrize("first", ["dir(napari_flag)", "from napari_flag.cli import main; main(['--help'])"])
def test_importing_it_or_asking_for_help_loads_none_of_the_heavy_packages(first):
    code = (
        f"import sys, napari_flag; {first};"
        "print(sorted({'torch', 'qtpy', 'napari', 'numpy', 'anndata', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_public_name_is_listed_and_loads():
    assert set(nf.__all__) <= set(dir(nf))
    assert all(getattr(nf, name) for name in nf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'predcit'"):
        nf.predcit  # noqa: B018


def test_no_submodule_replaces_a_public_name():
    assert set(ROOMS) & set(nf.__all__) == {"pl"}
    for room in (
        "prediction",
        "inputs",
        "prediction_file",
        "cli.predict",
        "analysis.compare",
        "exports.formats",
    ):
        importlib.import_module(f"napari_flag.{room}")
    assert all(callable(getattr(nf, name)) for name in ("predict", "compare", "export"))


def test_the_default_weights_are_the_models_default():
    assert inspect.signature(nf.predict).parameters["weights"].default == DEFAULT_WEIGHTS


@pytest.fixture
def tissue(tmp_path):
    rng = np.random.default_rng(0)
    image = np.full((700, 700, 3), 245, np.uint8)
    image[80:620, 80:620] = (190, 110, 170)
    image = np.clip(image + rng.integers(-12, 12, image.shape), 0, 255).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "C9.png")
    return tmp_path / "C9.png"


def test_a_slide_becomes_a_prediction_with_the_spots_in_memory_or_in_a_file(
    tissue, tiny_weights, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = ["id\tx_px\ty_px", *(f"s{i}\t{150 + 150 * (i % 2)}\t{150 + 150 * (i // 2)}" for i in range(4))]
    (tmp_path / "spots.tsv").write_text("\n".join(rows) + "\n")
    steps = []
    options = {"weights": tiny_weights, "quality": "fast", "device": "cpu"}
    from_files = nf.predict(tissue, tmp_path / "spots.tsv", mpp=1.0, progress=steps.append, **options)
    assert from_files.shape == (4, len(GENES))
    assert steps
    with nf.open_slide(tissue, mpp=1.0) as slide:
        table = nf.read_spots(tmp_path / "spots.tsv", slide=slide)
        in_memory = nf.predict(slide, table, genes=["HER2"], draws=2, **options)
        assert slide.thumbnail(10).size  # the caller's slide stays open
    np.testing.assert_allclose(in_memory.X, from_files[:, ["ERBB2"]].X, atol=1e-4)
    assert "sample_2" in in_memory.layers
    assert "sample_2" not in from_files.layers
    with pytest.raises(nf.UserError, match="how large a pixel is"):
        nf.predict(tissue, **options)


def test_the_solver_steps_are_those_given_and_no_quality_beside_them(
    tissue, tiny_weights, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    options = {"weights": tiny_weights, "mpp": 1.0, "spacing_um": 270, "device": "cpu", "progress": False}
    asked = nf.predict(tissue, steps=4, **options)
    assert asked.uns[keys.PROVENANCE][keys.STEPS] == 4
    fast = nf.predict(tissue, quality="fast", **options)
    np.testing.assert_array_equal(asked.layers[keys.SAMPLE], fast.layers[keys.SAMPLE])
    with pytest.raises(nf.UserError, match="quality fast and 4 steps both say"):
        nf.predict(tissue, steps=4, quality="fast", **options)
    with pytest.raises(nf.UserError, match="steps=0 is no whole number from 1 on"):
        nf.predict(tissue, steps=0, **options)


def test_a_run_is_compared_with_by_an_alignment_file_that_is_not_beside_it(tmp_path):
    xenium(tmp_path / "run")
    alignment = (tmp_path / "run" / "P5_he_imagealignment.csv").rename(tmp_path / "elsewhere.csv")
    prediction = fake_prediction(25, n_genes=20)
    with pytest.raises(nf.UserError, match="alignment"):
        nf.compare(prediction, tmp_path / "run", progress=False)
    steps = []
    found = nf.compare(prediction, tmp_path / "run", alignment=alignment, progress=steps.append)
    assert found.genes == 4
    assert any("by elsewhere.csv" in step.notice for step in steps if step.notice)


def test_what_a_person_insists_on_has_one_name_in_predict_and_compare():
    insisting = [inspect.signature(function).parameters["force"] for function in (nf.predict, nf.compare)]
    assert [(p.kind, p.default) for p in insisting] == [(inspect.Parameter.KEYWORD_ONLY, False)] * 2


def test_without_spots_a_grid_like_the_weights_array_is_predicted(
    tissue, tiny_weights, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = nf.predict(tissue, weights=tiny_weights, mpp=1.0, spacing_um=270, quality="fast", device="cpu")
    assert found.uns[keys.PROVENANCE][keys.LATTICE] == "square"
    assert found.n_obs == pytest.approx(540**2 / 270**2, abs=1)


def test_files_and_objects_are_compared_alike(tmp_path):
    prediction = fake_prediction(n_spots=49, n_genes=8)
    counts = counts_for(prediction)
    prediction_file.write_prediction(prediction, tmp_path / "p.h5ad")
    counts.write_h5ad(tmp_path / "m.h5ad")
    here = nf.compare(prediction, counts).scores["X"].values
    assert nf.compare(str(tmp_path / "p.h5ad"), tmp_path / "m.h5ad").scores["X"].values == here


def test_progress_is_drawn_in_a_terminal_unless_it_is_not_wanted(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    prediction = fake_prediction(n_spots=49, n_genes=8)
    for progress, drawn in ((True, True), (False, False)):
        monkeypatch.setattr(sys, "stderr", Terminal())
        nf.compare(prediction, counts_for(prediction), progress=progress)
        assert bool(sys.stderr.getvalue()) is drawn


def test_exports_go_by_the_ending_and_replace_nothing_unasked(tmp_path):
    prediction = fake_prediction(n_spots=49, n_genes=4)
    place = tmp_path / "out.csv"
    assert nf.export(prediction, place, genes=["ERBB2"]) == place
    assert "ERBB2" in place.read_text().splitlines()[0]
    with pytest.raises(nf.UserError, match="already exists"):
        nf.export(prediction, place)
    assert nf.export(prediction, str(place), overwrite=True) == place
    with pytest.raises(nf.UserError, match="which format"):
        nf.export(prediction, tmp_path / "out.xyz")
    assert list(Path(tmp_path).iterdir()) == [place]


def test_an_export_never_replaces_the_prediction_it_is_made_of(tmp_path):
    place = tmp_path / "self.h5ad"
    prediction_file.write_prediction(fake_prediction(n_spots=49, n_genes=4), place)
    before = place.read_bytes()
    with pytest.raises(nf.UserError, match=r"self\.h5ad is the prediction itself"):
        nf.export(place, str(place), overwrite=True, genes=["ERBB2"])
    assert place.read_bytes() == before


def test_a_place_that_cannot_be_written_is_said_before_an_export_or_a_fit_computes_anything(tmp_path):
    prediction, seen = fake_prediction(n_spots=49, n_genes=4), []
    (tmp_path / "file").touch()
    for name in ("out.csv", "out.zarr", "out.h5ad"):
        with pytest.raises(nf.UserError, match="no folder can be made in it"):
            nf.export(prediction, tmp_path / "file" / name, progress=seen.append)
    (tmp_path / "s").mkdir()
    for seed in (11, 12):
        write_section(tmp_path / "s", f"S{seed}", seed)
    with pytest.raises(nf.UserError, match="no folder can be made in it"):
        nf.fit(tmp_path / "s", tmp_path / "file" / "mine.safetensors", progress=seen.append)
    assert seen == []
    assert nf.export(prediction, tmp_path / "new" / "inner" / "out.csv").is_file()


def test_an_export_is_written_under_the_ending_of_its_format_only(tmp_path):
    prediction = fake_prediction(n_spots=49, n_genes=4)
    with pytest.raises(nf.UserError, match=r"y\.csv does not end in \.h5ad, as h5ad is written"):
        nf.export(prediction, tmp_path / "y.csv", to="h5ad")
    with pytest.raises(nf.UserError, match="which format"):
        nf.export(prediction, tmp_path / "y.csv", to="h5")
    assert nf.export(prediction, tmp_path / "y.ome.tiff", to="ome-tiff").exists()


def test_one_gene_may_be_given_as_a_text(tmp_path):
    prediction = fake_prediction(n_spots=49, n_genes=4)
    kept = nf.read_prediction(nf.export(prediction, tmp_path / "one.h5ad", genes="HER2"))
    assert list(kept.var_names) == ["ERBB2"]


def test_the_unit_of_another_models_file_can_be_given_wherever_a_file_can(tmp_path):
    prediction = fake_prediction(n_spots=49, n_genes=8)
    path, counts = write_hest_like(prediction, tmp_path / "stpath.h5ad"), counts_for(prediction)
    with pytest.raises(nf.UserError, match="unit="):
        nf.compare(path, counts)
    given = nf.compare(path, counts, unit="log1p").scores["X"].values["PCC"]
    assert given == pytest.approx(nf.compare(prediction, counts).scores["X"].values["PCC"], abs=1e-6)
    out = nf.export(path, tmp_path / "out.h5ad", unit="log1p")
    np.testing.assert_allclose(nf.read_prediction(out).X, prediction.X, rtol=1e-6)


class FakeTraining:
    """Records what it is asked for and returns it as if it were fitted."""

    def __init__(self):
        self.asked = []

    def fit_sections(self, sections, out, settings, *, leave_out=(), run=None, source=None):
        self.run = run
        self.asked.append((tuple(sections), out, settings, tuple(leave_out), source))
        yield Step(fitting.SCORING, 1, 2, "sections")
        names = tuple(section.name for section in sections)
        return Fitted(out, None, {"title": out.stem}, ("A",), names, out.with_suffix(".fit") / "scores.md")


def test_measured_sections_are_fitted_from_a_folder_or_from_memory_as_on_the_command_line(
    tmp_path, monkeypatch
):
    training = FakeTraining()
    monkeypatch.setattr(fitting, "load_training", lambda: training)
    place, out = tmp_path / "lung", tmp_path / "mine.safetensors"
    place.mkdir()
    for seed in (11, 12):
        write_section(place, f"S{seed}", seed)
    shutil.copy(place / "S11.tif", place / "S13.tif")  # without a table
    steps = []
    fitted = nf.fit(place, out, leave_out=["S12"], progress=steps.append)
    assert fitted.card["title"] == "mine"
    sections, notices = find_sections(place)
    assert training.asked[-1] == (sections, out, FitSettings(), ("S12",), "lung")
    assert training.run is None
    assert [step.notice for step in steps if step.notice] == list(notices) != []
    nf.fit(sections, str(out), genes=["A", "B"], encoder="uni", diffusion=True, seed=3, progress=False)
    settings = FitSettings("uni", ("A", "B"), diffusion=True, seed=3)
    assert training.asked[-1] == (sections, out, settings, (), None)
    nf.fit(place, out, mpp=0.5, run=str(tmp_path / "states"), progress=False)
    assert training.run == tmp_path / "states"
    assert {section.mpp for section in training.asked[-1][0]} == {0.5}
    assert training.asked[-1][-1] is None  # the list beside the scores says at which µm/px


def test_fitting_without_its_packages_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(fitting, "NEEDED", ("no_such_package",))
    with pytest.raises(nf.UserError, match=r"no_such_package.*pip install"):
        nf.fit(tmp_path, tmp_path / "mine.safetensors")
