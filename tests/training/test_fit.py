import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.training.conftest import make_config, make_slide

from flag_training.cohort import Cohort
from flag_training.stages.expectation import assign_folds
from flag_training.stages.fit import fit
from napari_flag.errors import UserError
from napari_flag.progress import finish


def losses_of(cohort, config, folder, stop_after=None):
    """Train; stop as a killed process would after some steps of the score loop."""
    losses = []
    work = fit(cohort, config, folder)
    for step in work:
        if step.partial is not None:
            losses.append(step.partial)
            if len(losses) == stop_after:
                work.close()
                return losses
    return losses


def test_sections_of_a_patient_are_left_out_whole_and_a_lone_one_in_strips(cohort):
    lone, *others = assign_folds(cohort.slides)
    assert sorted(np.bincount(lone).tolist()) == [12, 12, 12]
    assert [set(fold) for fold in others] == [{0}, {1}, {2}]


def test_a_killed_run_goes_on_as_if_it_had_not_been(cohort, tmp_path):
    config = make_config()
    whole = losses_of(cohort, config, tmp_path / "whole")
    first = losses_of(cohort, config, tmp_path / "killed", stop_after=4)
    rest = losses_of(cohort, config, tmp_path / "killed")
    assert first == pytest.approx(whole[:4], rel=1e-5)
    assert rest == pytest.approx(whole[-len(rest) :], rel=1e-4)
    assert len(rest) < len(whole)


def test_a_damaged_state_is_refused_with_a_sentence(cohort, tmp_path):
    losses_of(cohort, make_config(), tmp_path)
    (tmp_path / "score.pt").write_bytes(b"damaged")
    with pytest.raises(UserError, match="damaged"):
        finish(fit(cohort, make_config(), tmp_path))


def test_a_state_of_other_settings_is_refused(cohort, tmp_path):
    losses_of(cohort, make_config(), tmp_path)
    with pytest.raises(UserError, match="other settings"):
        finish(fit(cohort, make_config(score_rate=1e-4), tmp_path))


def test_the_same_seed_trains_the_same_network(cohort, tmp_path):
    one = finish(fit(cohort, make_config(), tmp_path / "1"))
    two = finish(fit(cohort, make_config(), tmp_path / "2"))
    for (name, a), b in zip(one.state_dict().items(), two.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_the_mean_head_learns_what_features_tell(cohort, tmp_path):
    network = finish(fit(cohort, make_config(branch_steps=60), tmp_path))
    slide, views = make_slide("C9", "C", 9)
    from napari_flag.model.graph import GraphTensors

    with torch.inference_mode():
        context = network.encode(views[0], GraphTensors.of(slide.graph(views[0].numpy())))
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
    network = finish(fit(silent, make_config(branch_steps=60), tmp_path))
    assert (network.get_buffer("spread") > 0.75).all()


def test_the_alignment_loss_pulls_tokens_towards_gene_vectors(cohort, tmp_path):
    path = tmp_path / "genes.safetensors"
    generator = torch.Generator().manual_seed(0)
    save_file({gene: torch.randn(12, generator=generator) for gene in "ABC"}, path)
    from flag_training.stages.alignment import Alignment

    config = make_config(alignment_targets=str(path)).fit
    alignment = Alignment.load(config, tuple("ABCDE"), 16)
    tokens = torch.randn(8, 5, 16, generator=generator)
    optimiser = torch.optim.Adam(alignment.parameters(), lr=1e-2)
    before = alignment(tokens).item()
    for _ in range(30):
        optimiser.zero_grad()
        loss = alignment(tokens)
        loss.backward()
        optimiser.step()
    assert -1 <= loss.item() < before - 0.2
    finish(fit(cohort, make_config(alignment_targets=str(path)), tmp_path / "run"))


def test_alignment_is_off_without_gene_vectors_and_refuses_useless_ones(tmp_path):
    from flag_training.stages.alignment import Alignment

    assert Alignment.load(make_config().fit, tuple("AB"), 16)(torch.randn(2, 2, 16)) == 0
    path = tmp_path / "genes.safetensors"
    save_file({"X": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="none of the 2 genes"):
        Alignment.load(make_config(alignment_targets=str(path)).fit, tuple("AB"), 16)
