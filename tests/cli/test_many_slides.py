"""A list of slides is predicted slide by slide as by their own commands, continued, and reported."""

import json
import os
import shutil
import signal
import threading
import time

import numpy as np
import pandas as pd
import pytest
from tests.cli.test_predict_command import fake_predict_slide
from tests.cli.test_predict_command import folder as folder  # a slide, its spots and their counts
from tests.cli.test_predict_command import model as model  # a fake model behind the real readers
from tests.dask_workers import threads
from tests.section_files import write_section

from napari_flag import cluster, keys, prediction
from napari_flag.cli import main
from napari_flag.cli.main import build_parser
from napari_flag.cli.many_slides import FAILED, KEPT, WRITTEN, listed_slides, predict_one, task_of
from napari_flag.errors import UserError
from napari_flag.prediction_file import read_prediction
from napari_flag.progress import finish

NAMES = ["S1", "S2", "S3"]


@pytest.fixture
def cohort(model, folder):
    """Three slides in a list, the second with spots; the current folder."""
    for name in NAMES:
        shutil.copy(folder / "C9.png", folder / f"{name}.png")
    lines = ["name,slide,spots,mpp", "S1,S1.png,,2", "S2,S2.png,spots.tsv,2", "S3,S3.png,,2"]
    (folder / "slides.csv").write_text("\n".join(lines) + "\n")
    return folder


ALL = ["predict", "--manifest", "slides.csv", "--out", "done"]


def report_of(folder):
    return pd.read_csv(folder / "done" / "report.csv").set_index("name")


def content(path):
    """All that a prediction says, its provenance included."""
    adata = read_prediction(path)
    values = {name: np.asarray(adata.layers[name]).tobytes() for name in sorted(adata.layers)}
    made = {key: str(value) for key, value in adata.uns[keys.PROVENANCE].items()}
    return [*adata.obs_names], adata.X.tobytes(), values, made


def refuse_to_predict(*_, **__):
    raise AssertionError("predicted again")
    yield


@pytest.mark.slow
def test_each_slide_becomes_what_its_own_command_makes(cohort, capsys):
    assert main([*ALL, "--seed", "3", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said[WRITTEN], said[KEPT], said[FAILED]) == (3, 0, 0)
    own = ["predict", "S2.png", "--spots", "spots.tsv", "--mpp", "2", "--seed", "3", "--out", "own.h5ad"]
    assert main(own) == 0
    assert content("own.h5ad") == content("done/S2.h5ad")
    report = report_of(cohort)
    assert list(report.index) == NAMES
    assert set(report["status"]) == {WRITTEN}
    assert report.loc["S2", ["spots", "genes", "prediction"]].tolist() == [42, 20, "S2.h5ad"]
    assert (report["seconds"] >= 0).all()


@pytest.mark.slow
def test_run_again_it_keeps_what_is_there_and_does_the_rest(cohort, monkeypatch, capsys):
    assert main(ALL) == 0
    before = {path.name: path.stat().st_mtime_ns for path in (cohort / "done").glob("S*.h5ad")}
    (cohort / "done" / "S3.h5ad").unlink()
    assert main(ALL) == 0
    captured = capsys.readouterr()
    assert "2 of 3 slides have their predictions already" in captured.err
    assert "Wrote 1 prediction in done" in captured.out
    assert report_of(cohort)["status"].tolist() == [KEPT, KEPT, WRITTEN]
    monkeypatch.setattr(prediction, "predict_slide", refuse_to_predict)
    assert main(ALL) == 0
    assert set(report_of(cohort)["status"]) == {KEPT}
    assert all((cohort / "done" / name).stat().st_mtime_ns == before[name] for name in ("S1.h5ad", "S2.h5ad"))


def test_the_report_of_a_run_that_is_continued_keeps_what_was_said_of_each_slide(cohort, monkeypatch, capsys):
    def noticed(slide, *args, **kwargs):
        adata = yield from fake_predict_slide(slide, *args, **kwargs)
        adata.uns[keys.PROVENANCE][keys.NOTICES] = ["One, of its scale.", f"Another of {slide.name}."]
        return adata

    monkeypatch.setattr(prediction, "predict_slide", noticed)
    stated = ["seconds", "spots", "genes", "prediction", "message"]
    assert main(ALL) == 0
    first = report_of(cohort)
    assert [text.endswith(f"Another of {name}.") for name, text in first["message"].items()] == [True] * 3
    capsys.readouterr()
    (cohort / "done" / "S3.h5ad").unlink()
    assert main([*ALL, "--json"]) == 0
    again = report_of(cohort)
    assert again["status"].tolist() == [KEPT, KEPT, WRITTEN]
    pd.testing.assert_frame_equal(again.loc[["S1", "S2"], stated], first.loc[["S1", "S2"], stated])
    said = json.loads(capsys.readouterr().out)["slides"]
    assert [slide["spots"] for slide in said] == first["spots"].tolist()
    (cohort / "done" / "report.csv").unlink()  # or the files were made one by one
    assert main(ALL) == 0
    pd.testing.assert_frame_equal(report_of(cohort)[stated[1:]], first[stated[1:]])
    assert report_of(cohort)["seconds"].isna().all()


def test_features_that_will_not_all_be_kept_are_said_before_the_first_slide(cohort, monkeypatch, capsys):
    def run(gigabytes):
        monkeypatch.setenv("NAPARI_FLAG_FEATURES_GB", str(gigabytes))
        assert main([*ALL, "--overwrite"]) == 0
        return [line for line in capsys.readouterr().err.splitlines() if "Features of these slides" in line]

    size = 4 * 1016 * 42 / 1e9  # of S2, which alone lists its spots
    (said,) = run(0.99 * size)
    assert "Set NAPARI_FLAG_FEATURES_GB=1 in the environment to keep all." in said
    assert run(1.01 * size) == []


@pytest.mark.slow
def test_an_earlier_report_that_was_changed_by_hand_states_no_seconds(cohort):
    assert main(ALL) == 0
    report = cohort / "done" / "report.csv"
    heading = report.read_text().splitlines()[0]
    for line in ("S1,written,soon,42,20,S1.h5ad,", "S1", "\xff"):
        report.write_bytes(f"{heading}\n{line}\n".encode("latin-1"))
        assert main(ALL) == 0
        found = report_of(cohort)
        assert found["seconds"].isna().all()
        assert (found["genes"] == 20).all()


@pytest.mark.slow
def test_what_the_command_of_one_slide_made_is_kept_too(cohort, capsys):
    (cohort / "done").mkdir()
    assert main(["predict", "S1.png", "--mpp", "2", "--out", "done/S1.h5ad"]) == 0
    assert main(ALL) == 0
    assert report_of(cohort)["status"].tolist() == [KEPT, WRITTEN, WRITTEN]


def test_a_corrupt_slide_is_reported_and_the_others_are_done(cohort, capsys):
    (cohort / "S2.png").write_bytes((cohort / "S2.png").read_bytes()[:300])
    assert main(ALL) == 1
    captured = capsys.readouterr()
    assert "Note: S2 failed: " in captured.err
    assert "1 failed (S2)" in captured.out
    report = report_of(cohort)
    assert report["status"].tolist() == [WRITTEN, FAILED, WRITTEN]
    assert "S2.png" in report.loc["S2", "message"]
    assert not (cohort / "done" / "S2.h5ad").exists()
    shutil.copy(cohort / "S1.png", cohort / "S2.png")
    assert main(ALL) == 0
    assert report_of(cohort)["status"].tolist() == [KEPT, WRITTEN, KEPT]


def test_the_report_names_no_folder_and_no_patient(cohort, capsys):
    (cohort / "ward").mkdir()
    write_section(cohort / "ward", "Doe_Jane_1961-04-23", 1)
    (cohort / "ward" / "S9.png").write_bytes((cohort / "S2.png").read_bytes()[:300])
    ward = cohort / "ward" / "slides.csv"
    ward.write_text("slide,spots\nDoe_Jane_1961-04-23.tif,Doe_Jane_1961-04-23.h5ad\nS9.png,\n")
    assert main(["predict", "--manifest", str(ward), "--out", "named"]) == 1
    written = (cohort / "named" / "report.csv").read_text()
    assert "S9.png" in written
    assert "Jane" not in written + " ".join(path.name for path in (cohort / "named").iterdir())
    assert str(cohort) not in written
    assert "look like a patient's" in capsys.readouterr().err
    assert main(["predict", "--manifest", str(ward), "--out", "kept", "--keep-names"]) == 1
    assert (cohort / "kept" / "Doe_Jane_1961-04-23.h5ad").exists()


def test_a_fault_of_ours_on_one_slide_stops_no_other(cohort, monkeypatch, capsys):
    def faulty(slide, *args, **kwargs):
        if slide.path.name == "S1.png":
            raise ZeroDivisionError("oh")
        return (yield from fake_predict_slide(slide, *args, **kwargs))

    monkeypatch.setattr(prediction, "predict_slide", faulty)
    assert main(ALL) == 1
    assert report_of(cohort)["status"].tolist() == [FAILED, WRITTEN, WRITTEN]
    assert "ZeroDivisionError: oh" in report_of(cohort).loc["S1", "message"]


def test_a_folder_called_like_the_weights_does_not_take_their_place(cohort):
    (cohort / "her2st").mkdir()
    args = build_parser().parse_args([*ALL])
    [first, *_] = listed_slides(args.manifest)[0]
    task = task_of(first, args, "1" * 64)
    assert task.args.weights == "her2st"
    assert finish(predict_one(task)).status == WRITTEN


@pytest.mark.slow
def test_results_of_other_settings_are_refused_before_anything_is_done(cohort, monkeypatch, capsys):
    assert main(ALL) == 0
    before = content("done/S1.h5ad")
    monkeypatch.setattr(prediction, "predict_slide", refuse_to_predict)
    assert main([*ALL, "--seed", "4"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("3 files in done (S1.h5ad, S2.h5ad, S3.h5ad) are no results of this very command")
    assert content("done/S1.h5ad") == before
    monkeypatch.setattr(prediction, "predict_slide", fake_predict_slide)
    assert main([*ALL, "--seed", "4", "--overwrite"]) == 0
    assert content("done/S1.h5ad") != before


@pytest.mark.slow
def test_cancelled_it_says_how_far_it_came_and_continues(cohort, monkeypatch, capsys):
    def cancelled(slide, *args, **kwargs):
        if slide.path.name == "S2.png":
            raise KeyboardInterrupt
        return (yield from fake_predict_slide(slide, *args, **kwargs))

    monkeypatch.setattr(prediction, "predict_slide", cancelled)
    assert main(ALL) == 130
    assert "cancelled with 1 slide predicted in done" in capsys.readouterr().err
    assert report_of(cohort).index.tolist() == ["S1"]
    monkeypatch.setattr(prediction, "predict_slide", fake_predict_slide)
    assert main(ALL) == 0
    assert report_of(cohort)["status"].tolist() == [KEPT, WRITTEN, WRITTEN]


@pytest.mark.slow
def test_on_workers_the_predictions_are_the_same(cohort, capsys):
    assert main(ALL) == 0
    kept = {name: content(f"done/{name}.h5ad") for name in NAMES}
    (cohort / "done" / ".S1.h5ad.1-2.part").write_bytes(b"of a worker that was killed")
    (cohort / "S3.png").write_bytes(b"no picture")
    with threads() as workers:
        assert main([*ALL, "--overwrite", "--cluster", workers.scheduler_address]) == 1
    assert {name: content(f"done/{name}.h5ad") for name in NAMES} == kept
    assert report_of(cohort)["status"].tolist() == [WRITTEN, WRITTEN, FAILED]
    assert list((cohort / "done").glob(".*.part")) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--manifest", "slides.csv"], "give a folder for them with --out"),
        (["--manifest", "slides.csv", "--out", "C9.png"], "C9.png is a file"),
        ([*ALL[1:], "--spots", "spots.tsv"], "--spots belongs to one slide"),
        ([*ALL[1:], "--depth", "counts.tsv"], "--depth takes a number"),
        ([*ALL[1:], "--cluster", "local:many"], "names no number of processes"),
        (["--manifest", "nothing.csv", "--out", "done"], "nothing.csv cannot be read"),
        ([*ALL[1:], "--weights", "nobody"], 'no weights called "nobody"'),
        (["C9.png", *ALL[1:]], "not allowed with argument"),
        (["C9.png", "--cluster", "local:0"], "names no number of processes"),
    ],
)
def test_what_has_no_meaning_for_several_slides_is_refused(cohort, capsys, words, said):
    assert main(["predict", *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(cohort.rglob("*.h5ad"))
    assert not (cohort / "done").exists()


def test_a_missing_dask_is_said_before_anything_is_done(cohort, monkeypatch, capsys):
    monkeypatch.setattr(cluster, "find_spec", lambda _: None)
    assert main([*ALL, "--cluster", "local:2"]) == 2
    assert 'pip install "napari-flag[dask]"' in capsys.readouterr().err
    assert not (cohort / "done").exists()


def test_a_report_of_someone_elses_is_not_replaced(cohort, capsys):
    (cohort / "done").mkdir()
    (cohort / "done" / "report.csv").write_text("my,report\n")
    assert main(ALL) == 2
    assert "was not written by napari-flag" in capsys.readouterr().err
    assert (cohort / "done" / "report.csv").read_text() == "my,report\n"


def test_a_folder_is_a_list_of_the_slides_in_it(tmp_path):
    for seed in (1, 2):
        write_section(tmp_path, f"S{seed}", seed)
    slides, _ = listed_slides(tmp_path)
    assert [(one.name, one.image.name, one.spots.name) for one in slides] == [
        ("S1", "S1.tif", "S1.h5ad"),
        ("S2", "S2.tif", "S2.h5ad"),
    ]


def test_a_list_without_a_line_is_refused(tmp_path):
    (tmp_path / "slides.csv").write_text("image,spots\n")
    with pytest.raises(UserError, match=r"slides\.csv lists no slide; give a line per slide"):
        listed_slides(tmp_path / "slides.csv")


@pytest.mark.parametrize(
    ("other", "said"),
    [({"version": "0.0.0"}, "install the same version"), ({"weights_sha256": "2" * 64}, "are not those of")],
)
def test_a_worker_with_another_program_or_weights_predicts_nothing(cohort, other, said):
    from dataclasses import replace

    args = build_parser().parse_args(ALL)
    task = task_of(listed_slides(cohort / "slides.csv")[0][0], args, "1" * 64)
    outcome = finish(predict_one(replace(task, **other)))
    assert outcome.status == FAILED
    assert said in outcome.message


# --- real processes ------------------------------------------------------------------------------


@pytest.fixture
def sections(tmp_path, tiny_weights, monkeypatch):
    """Six small sections with their spots in the current folder, and a command with tiny weights for them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "slides").mkdir()
    for seed in range(6):
        write_section(tmp_path / "slides", f"S{seed}", seed)

    def command(out, *more):
        words = ["predict", "--manifest", "slides", "--weights", str(tiny_weights), "--device", "cpu"]
        return [*words, "--out", out, "--draws", "2", *more]

    return command


@pytest.mark.slow
def test_tiles_of_one_slide_spread_over_processes_make_the_same_file(sections, tmp_path, tiny_weights):
    def predict(out, *more):
        words = ["predict", "slides/S0.tif", "--spots", "slides/S0.h5ad", "--weights", str(tiny_weights)]
        assert main([*words, "--device", "cpu", "--out", out, *more]) == 0
        return content(tmp_path / out)

    here = predict("here.h5ad")
    shutil.rmtree(tmp_path / "cache")  # or features would only be read
    assert predict("spread.h5ad", "--cluster", "local:2") == here


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_processes_however_many_and_killed_in_mid_run_make_the_same_files(sections, tmp_path):
    assert main(sections("here")) == 0
    names = sorted(path.name for path in (tmp_path / "here").glob("*.h5ad"))
    assert len(names) == 6
    expected = {name: content(tmp_path / "here" / name) for name in names}
    shutil.rmtree(tmp_path / "cache")  # or features would only be read
    with cluster.connected("local:2") as client:
        killed = []

        def kill_one_at_work():
            while not killed:
                for worker, tasks in client.processing().items():
                    pid = client.run(os.getpid, workers=[worker])[worker]
                    if tasks and list((tmp_path / "two").glob("S*.h5ad")):
                        os.kill(pid, signal.SIGKILL)
                        killed.append(pid)
                        break
                time.sleep(0.1)

        thread = threading.Thread(target=kill_one_at_work, daemon=True)
        thread.start()
        assert main(sections("two", "--cluster", client.scheduler.address)) == 0
        thread.join(5)
    assert killed
    assert {name: content(tmp_path / "two" / name) for name in names} == expected
    report = pd.read_csv(tmp_path / "two" / "report.csv")
    assert report["name"].tolist() == [name.removesuffix(".h5ad") for name in names]
    assert set(report["status"]) == {WRITTEN}
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == [*names, "report.csv"]
