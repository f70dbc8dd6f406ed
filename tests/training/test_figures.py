import argparse
import os
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tests.fakes import fake_prediction

from flag_training.cli import add_commands, draw_all
from flag_training.figures import draw_dynamics, find, running_mean
from napari_flag import keys
from napari_flag.cli import main
from napari_flag.errors import UserError
from napari_flag.figures.style import house_style
from napari_flag.prediction_file import write_prediction


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
    (log,) = find([run]).logs
    assert log.name == "run/fit-a/score"
    assert log.curves() == ("loss", "validation", "learning_rate")  # denoising is all of it, alignment 0
    assert np.isfinite(log.columns["validation"]).sum() == 4


def test_a_single_log_may_be_named(run):
    assert [log.name for log in find([run / "fit-a" / "score.csv"]).logs] == ["fit-a/score"]


def test_each_column_has_a_panel_with_its_curve(run):
    logs = find([run]).logs
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
    logs = find([run]).logs
    assert not draw_dynamics([replace(logs[0], name=str(i)) for i in range(12)]).legends


def test_single_steps_far_beyond_the_others_do_not_flatten_a_panel(run):
    (log,) = find([run]).logs
    steps = np.arange(400.0)
    loss = 1 + 0.1 * np.sin(steps)
    loss[[50, 200]] = 90.0
    panel = draw_dynamics([replace(log, columns={"step": steps, "loss": loss})]).axes[0]
    low, high = panel.get_ylim()
    strong = panel.lines[1].get_ydata()
    assert low < 0.9
    assert strong.max() < high < 90, "the running mean is inside"


def test_the_running_mean_is_that_of_what_there_is():
    np.testing.assert_allclose(running_mean(np.array([0.0, 3.0, 6.0]), 1), [1.5, 3.0, 4.5])


def test_sections_carry_truth_and_scores(run):
    first, second = find([run]).sections
    assert (first.name, second.name) == ("C2", "C3")
    assert first.truth.shape == first.predicted.shape == (64, 10)
    assert 0 < first.sample_scores["SSC"] <= 1


@pytest.mark.slow
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
        assert "calibration" not in draw_all(find([place]))


def test_a_pipe_in_a_run_folder_is_named_instead_of_waited_for(run):
    os.mkfifo(run / "other.csv")
    [said] = find([run]).unread
    assert "other.csv is a pipe or a device" in said


def test_what_cannot_be_read_is_named_and_the_rest_is_drawn(run, tmp_path, capsys):
    broken = {"encoding.csv": "is no UTF-8 text", "quote.csv": "cannot be read as a CSV file", "cut.h5ad": ""}
    (run / "encoding.csv").write_text("step,loss\n", "utf-16")
    (run / "quote.csv").write_text('step,loss\n1,"' + 200_000 * "9")
    (run / "cut.h5ad").write_bytes((run / "held_out" / "C2.h5ad").read_bytes()[:5000])
    (run / "held_out" / "C2.h5ad").unlink()
    (run / "held_out" / "C3.h5ad").unlink()
    line = ["figures", str(run), "--out", str(tmp_path / "out")]
    assert main(line) == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["training.png"]
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == len(broken)
    for name, why in broken.items():
        assert any(f"Note: {run / name} is left out: " in note and why in note for note in notes)
    (run / "fit-a" / "score.csv").unlink()
    assert main([*line, "--overwrite"]) == 2
    assert "no training log and no held-out prediction" in capsys.readouterr().err


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(UserError, match="no training log and no held-out prediction"):
        draw_all(find([tmp_path]))
    with pytest.raises(UserError, match="There is no"):
        find([tmp_path / "none"])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("1,1e308\n2,-1e308\n3,1e400\n", "Its loss goes beyond any number of a training"),
        ("1e300,1\n-1e300,2\n", "Its step goes beyond any number of a training"),
        ("nan,nan\n", "no number but 0"),
        ("1,0\n", "no number but 0"),
    ],
)
def test_a_log_that_no_training_leaves_is_named_and_left_out(run, rows, said):
    (run / "odd.csv").write_text(f"step,loss\n{rows}")
    found = find([run])
    assert [log.name for log in found.logs] == ["run/fit-a/score"]
    assert said in found.unread[0]
    assert "odd.csv is left out" in found.unread[0]
    alone = ["figures", str(run / "odd.csv"), "--out", str(run / "drawn")]
    assert main(alone) == 2
    assert not (run / "drawn").exists()
