import csv
from dataclasses import replace
from pathlib import Path

import pytest
from tests.training.conftest import make_config
from tests.training.store_run import make_store_run

from flag_training.evaluate import Plan
from flag_training.sweep import REPORTED, best_first, check_sections, read_grid, sweep, with_values
from napari_flag.cli import main
from napari_flag.errors import UserError
from napari_flag.progress import finish


def test_every_combination_is_tried():
    grid = read_grid(["fit.score_steps=100,300", "network.width=64,96", "fit.alignment_centred=true"])
    assert len(grid) == 4
    assert grid[0] == {"fit.score_steps": 100, "network.width": 64, "fit.alignment_centred": True}


@pytest.mark.parametrize("word", ["fit.score_steps", "network.width="])
def test_a_word_that_varies_nothing_is_refused(word):
    with pytest.raises(UserError, match="does not say what to vary"):
        read_grid([word])


def test_values_reach_their_table():
    config = with_values(make_config(), {"fit.score_rate": 0.5, "network.width": 8, "encoder.steps": 3})
    assert config.fit.score_rate == 0.5
    assert config.network["width"] == 8
    assert config.encoder.steps == 3


@pytest.mark.parametrize("key", ["fit.nothing", "nothing", "samples", "card.title", "network.nothing"])
def test_a_value_that_there_is_not_is_refused(key):
    with pytest.raises(UserError, match=f"no value {key} to vary"):
        with_values(make_config(), {key: 1})


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"fit.score_steps": float("inf")}, "fit.score_steps cannot be inf"),
        ({"fit.views": "two"}, "views under fit is “two” and should be a whole number"),
        ({"network.heads": 0}, "cannot be divided among heads 0"),
        ({"network.width": "wide"}, "width under network"),
    ],
)
def test_a_value_of_another_kind_is_refused(values, said):
    with pytest.raises(UserError, match=said):
        with_values(make_config(), values)


def test_width_and_heads_are_held_to_each_other_only_together():
    config = with_values(make_config(), {"network.width": 10, "network.heads": 5})
    assert (config.network["width"], config.network["heads"]) == (10, 5)


def test_a_table_that_cannot_be_written_is_said_before_anything_is_trained(tmp_path, capsys):
    config = Path(__file__).parents[2] / "training" / "configs" / "her2st.toml"
    line = ["sweep", str(config), "--data", str(tmp_path), "--run", str(tmp_path / "run"), "--unseen", "C5"]
    line += ["--vary", "fit.ema=0", "--validate", "C2", "--out", str(tmp_path)]
    assert main(line) == 2
    assert "is a folder, so nothing can be written there" in capsys.readouterr().err


def test_a_sweep_does_not_choose_on_test_sections():
    with pytest.raises(UserError, match="C5 is kept for the test"):
        check_sections(["C4", "C5"], ["C5"])
    with pytest.raises(UserError, match="name the test sections"):
        check_sections(["C4"], [])


def test_rows_that_are_there_are_not_computed_again(tmp_path):
    """A finished table needs neither slides nor a fit: there are none here."""
    grid, table = read_grid(["fit.score_steps=4,10"]), tmp_path / "sweep.csv"
    scores = [dict.fromkeys(REPORTED, 0.5) | {"PCC": pcc, "ES fair": es} for pcc, es in ((0.6, 9), (0.5, 8))]
    table.write_text(
        f"fit.score_steps,section,seed,{','.join(REPORTED)},seconds\n"
        + "".join(
            f"{steps},C2,0,{','.join(str(value) for value in stated.values())},9\n"
            for steps, stated in zip((4, 10), scores, strict=True)
        )
    )
    config = replace(make_config(), slides=_entries())
    rows = finish(sweep(config, tmp_path, tmp_path, Plan(("C2",), unseen=("C5",)), grid, table))
    assert [row["PCC"] for row in rows] == ["0.6", "0.5"]
    assert [values["fit.score_steps"] for values, _ in best_first(rows, grid)] == [
        10,
        4,
    ]  # ES fair


def test_a_table_of_another_sweep_is_refused(tmp_path):
    table = tmp_path / "sweep.csv"
    table.write_text("width,section\n")
    with pytest.raises(UserError, match="sweep over other values"):
        finish(
            sweep(
                make_config(),
                tmp_path,
                tmp_path,
                Plan(("C2",), ("C5",)),
                read_grid(["fit.score_steps=4"]),
                table,
            )
        )


def _entries():
    from flag_training.config import SlideEntry

    return tuple(SlideEntry(name, name[0], "", "") for name in ("B4", "C2", "C5"))


@pytest.mark.slow
def test_a_sweep_is_fitted_scored_and_written(tmp_path):
    config, data = make_store_run(tmp_path)
    table = tmp_path / "sweep.csv"
    plan = Plan(("TST1",), unseen=("TST4",))
    rows = finish(sweep(config, data, tmp_path, plan, read_grid(["fit.score_steps=2,3"]), table))
    with table.open() as file:
        written = list(csv.DictReader(file))
    assert [row["fit.score_steps"] for row in written] == ["2", "3"]
    assert len(rows) == 2
    assert all(float(row["MSE"]) > 0 and float(row["ES"]) > 0 for row in written)
