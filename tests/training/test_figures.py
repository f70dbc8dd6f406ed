import argparse
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tests.fakes import fake_prediction

from flag_training.cli import add_commands
from flag_training.figures.command import draw_all
from flag_training.figures.dynamics import draw_dynamics, running_mean
from flag_training.figures.intervals import draw_calibration
from flag_training.figures.sources import find_logs, find_sections
from flag_training.figures.structure import clustered_order, draw_coexpression, draw_moran
from flag_training.figures.style import house_style
from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.results import write_prediction


def write_log(path, steps=40, held_out=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ["step,epoch,loss,denoising,alignment,validation,learning_rate,seconds"]
    for step in range(1, steps + 1):
        look = f"{2 / step:.4f}" if held_out and step % 10 == 0 else ""
        rows.append(f"{step},1,{1 / step:.4f},{1 / step:.4f},0.0,{look},0.001,{0.1 * step:.2f}")
    path.write_text("\n".join(rows) + "\n")


@pytest.fixture
def run(tmp_path):
    """A run folder as train and evaluate leave it."""
    folder = tmp_path / "run"
    write_log(folder / "fit-a" / "score.csv")
    (folder / "fit-a" / "score_epochs.csv").write_text("step,epoch,seconds\n1,1,0.3\n")
    (folder / "held_out").mkdir()
    for seed, name in enumerate(("C2", "C3")):
        adata = fake_prediction(seed=seed)
        adata.uns[keys.PROVENANCE][keys.SLIDE_NAME] = name
        write_prediction(adata, folder / "held_out" / f"{name}.h5ad")
    return folder


def test_logs_are_found_and_other_tables_are_not(run):
    (log,) = find_logs([run])
    assert log.name == "run/fit-a/score"
    assert log.curves() == ("loss", "validation", "learning_rate")  # denoising is all of it, alignment 0
    assert np.isfinite(log.columns["validation"]).sum() == 4


def test_a_single_log_may_be_named(run):
    assert [log.name for log in find_logs([run / "fit-a" / "score.csv"])] == ["fit-a/score"]


def test_each_column_has_a_panel_with_its_curve(run):
    logs = find_logs([run])
    figure = draw_dynamics([*logs, replace(logs[0], name="other")])
    panels = [panel for panel in figure.axes if panel.get_visible()]
    assert [panel.get_title(loc="left") for panel in panels][:2] == [
        "loss, all parts",
        "loss on held-out slides",
    ]
    assert len(panels[0].lines) >= 4  # faint and strong, two logs
    looks = panels[1].lines[0]
    assert list(looks.get_xdata()) == [10, 20, 30, 40]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["run/fit-a/score", "other"]


def test_many_logs_are_drawn_without_a_legend(run):
    logs = find_logs([run])
    assert not draw_dynamics([replace(logs[0], name=str(i)) for i in range(12)]).legends


def test_the_running_mean_is_that_of_what_there_is():
    np.testing.assert_allclose(running_mean(np.array([0.0, 3.0, 6.0]), 1), [1.5, 3.0, 4.5])


def test_sections_carry_truth_and_scores(run):
    first, second = find_sections([run])
    assert (first.name, second.name) == ("C2", "C3")
    assert first.truth.shape == first.predicted.shape == (64, 10)
    assert 0 < first.scores["SSC"] <= 1


def test_spots_that_were_not_measured_are_left_out(run):
    adata = fake_prediction()
    adata.layers[keys.MEASURED][:5] = np.nan
    write_prediction(adata, run / "held_out" / "C2.h5ad")
    assert find_sections([run / "held_out" / "C2.h5ad"])[0].truth.shape == (59, 10)


def test_the_moran_scatter_has_every_gene_and_the_identity(run):
    sections = find_sections([run])
    figure = draw_moran(sections)
    panel = figure.axes[0]
    np.testing.assert_allclose(
        panel.collections[0].get_offsets(),
        np.stack([sections[0].moran_truth, sections[0].moran_predicted], 1),
    )
    line = panel.lines[0]
    np.testing.assert_allclose(line.get_xdata(), line.get_ydata())
    assert f"SSC {sections[0].scores['SSC']:.2f}" in panel.get_title(loc="left")


def test_genes_that_rise_together_stand_together():
    pair = np.array([[1, 0.1, 0.9, 0.1], [0.1, 1, 0.1, 0.9], [0.9, 0.1, 1, 0.1], [0.1, 0.9, 0.1, 1]])
    order = clustered_order(pair).tolist()
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}


def test_truth_and_predictions_are_drawn_in_one_order(run):
    section = find_sections([run])[0]
    figure = draw_coexpression(replace(section, predicted=section.truth.copy()))
    truth, predicted, sample = (panel.images[0].get_array() for panel in figure.axes[:3])
    np.testing.assert_array_equal(truth, predicted)
    assert (truth != sample).any()
    assert "GSC 1.00" in figure.axes[1].get_title(loc="left")


def test_an_honest_spread_lies_on_the_diagonal(run):
    section, rng = find_sections([run])[0], np.random.default_rng(0)
    shape = (400, 50)
    mean, spread = np.full(shape, 20.0), np.full(shape, 2.0)
    honest = replace(section, predicted=mean, spread=spread, truth=mean + spread * rng.normal(size=shape))
    curve = draw_calibration([honest]).axes[0].lines[1]
    np.testing.assert_allclose(curve.get_ydata(), curve.get_xdata(), atol=0.02)


def test_everything_in_a_run_folder_is_written(run, tmp_path, capsys):
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())
    arguments = parser.parse_args(["figures", str(run), "--out", str(tmp_path / "out")])
    assert arguments.run(arguments) == 0
    names = ["calibration", "coexpression_C2", "coexpression_C3", "moran", "training"]
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == names
    assert capsys.readouterr().out.count("Wrote") == 5
    with Image.open(tmp_path / "out" / "moran.png") as picture:
        assert np.ptp(np.asarray(picture.convert("L"))) > 200  # something is on it


def test_predictions_without_spread_have_no_calibration(run):
    adata = fake_prediction()
    del adata.layers[keys.SPREAD]
    place = run / "alone.h5ad"
    write_prediction(adata, place)
    with house_style():
        assert "calibration" not in draw_all([place])


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(UserError, match="no training log and no held-out prediction"):
        draw_all([tmp_path])
    with pytest.raises(UserError, match="There is no"):
        draw_all([tmp_path / "none"])
