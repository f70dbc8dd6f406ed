import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.conftest import make_config

from flag_training.cohort import Cohort
from flag_training.stages.expectation import assign_folds
from flag_training.stages.fit import fit
from napari_flag.errors import UserError
from napari_flag.model.graph import GraphTensors
from napari_flag.progress import finish


def stopped_after(count, work):
    """Stop a fit after `count` batches of the score stage, as a killed process would."""
    seen = 0
    for step in work:
        seen += step.stage == "Training the gene transformer"
        if seen == count:
            work.close()
            return


def rows_of(folder):
    """Return the log of the score stage without the seconds it took."""
    with (folder / "score.csv").open() as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.fixture
def finished(fitted, tmp_path):
    """A copy of a finished run, to be damaged."""
    return Path(shutil.copytree(fitted.folder, tmp_path / "run"))


def test_sections_of_a_patient_are_left_out_whole_and_a_lone_one_in_strips(cohort):
    lone, *others = assign_folds(cohort.slides)
    assert sorted(np.bincount(lone).tolist()) == [12, 12, 12]
    assert [set(fold) for fold in others] == [{0}, {1}, {2}]


def test_a_stopped_run_goes_on_with_the_same_losses(cohort, fitted, tmp_path):
    stopped_after(4, fit(cohort, make_config(), tmp_path))
    losses = []
    finish(fit(cohort, make_config(), tmp_path), lambda step: losses.append(step.partial))
    rest = [loss for loss in losses if loss is not None]
    assert rest == pytest.approx(fitted.losses[-len(rest) :], rel=1e-4)
    assert 0 < len(rest) < len(fitted.losses)
    assert [row["loss"] for row in rows_of(tmp_path)] == [row["loss"] for row in rows_of(fitted.folder)]


def test_a_run_stopped_within_an_epoch_goes_on_with_the_same_rows(cohort, tmp_path):
    """Four slides: an epoch is a step of three batches and a step of one."""
    config = make_config(save_every=3, slides_per_batch=1, accumulate=3, score_steps=8, branch_steps=1)
    finish(fit(cohort, config, tmp_path / "whole"))
    whole = rows_of(tmp_path / "whole")
    assert [row["epoch"] for row in whole] == list("11223344")
    stopped_after(11, fit(cohort, config, tmp_path / "stopped"))  # in the sixth step; saved at the third
    assert rows_of(tmp_path / "stopped") == whole[:5]
    finish(fit(cohort, config, tmp_path / "stopped"))
    assert rows_of(tmp_path / "stopped") == whole


def test_a_damaged_state_is_refused_with_a_sentence(cohort, finished):
    (finished / "score.pt").write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged"):
        finish(fit(cohort, make_config(), finished))


def test_a_state_of_other_settings_is_refused(cohort, finished):
    with pytest.raises(UserError, match="other settings"):
        finish(fit(cohort, make_config(score_rate=1e-4), finished))


def test_the_same_seed_trains_the_same_network(cohort, fitted, tmp_path):
    again = finish(fit(cohort, make_config(), tmp_path))
    for (name, a), b in zip(fitted.network.state_dict().items(), again.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_the_mean_head_predicts_an_unseen_section_from_its_features(learnt, unseen):
    slide, views = unseen
    with torch.inference_mode():
        context = learnt.encode(views[0], GraphTensors.of(slide.graph(views[0].numpy())))
        guess = context.expression(torch.zeros_like(context.expected), torch.arange(36)).numpy()
    r = [np.corrcoef(guess[:, g], slide.expression[:, g])[0, 1] for g in range(5)]
    assert np.mean(r) > 0.6


def test_residuals_are_those_of_spots_the_head_did_not_see(cohort, tmp_path):
    """With features that say nothing, what is left must be all of the expression's spread."""
    rng = np.random.default_rng(0)
    silent = Cohort(
        cohort.slides,
        tuple(torch.from_numpy(rng.normal(size=f.shape).astype(np.float32)) for f in cohort.features),
        cohort.genes,
    )
    network = finish(fit(silent, make_config(branch_steps=30, score_steps=1), tmp_path))
    assert (network.get_buffer("spread") > 0.75).all()
