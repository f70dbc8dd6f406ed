import numpy as np
import pytest
import torch
from tests.training.conftest import make_config
from tests.training.test_denoising import make_network

from flag_training.stages.fit import _remember, fit
from flag_training.stages.validation import HeldOut, split_validation
from napari_flag.errors import UserError
from napari_flag.progress import finish


def names(cohort):
    return [slide.entry.name for slide in cohort.slides]


def test_named_sections_are_held_out(cohort):
    training, held_out = split_validation(cohort, make_config(validation=("C3",)).fit)
    assert names(training) == ["B4", "C2", "C4"]
    assert names(held_out) == ["C3"]
    assert torch.equal(held_out.features[0], cohort.features[2])


def test_a_share_is_drawn_by_the_seed(cohort):
    def drawn(seed):
        return names(split_validation(cohort, make_config(validation_share=0.3, seed=seed).fit)[1])

    assert drawn(0) == drawn(0)
    assert {len(drawn(seed)) for seed in range(4)} == {1}
    assert len({drawn(seed)[0] for seed in range(12)}) > 1


def test_nothing_is_held_out_unless_asked(cohort):
    training, held_out = split_validation(cohort, make_config().fit)
    assert names(training) == names(cohort)
    assert not held_out.slides


def test_sections_that_are_not_there_or_all_of_them_are_refused(cohort):
    with pytest.raises(UserError, match=r"names C9 for validation, but the run has B4"):
        split_validation(cohort, make_config(validation=("C9", "C2")).fit)
    with pytest.raises(UserError, match="none is left to train on"):
        split_validation(cohort, make_config(validation=tuple(names(cohort))).fit)


def test_a_look_is_repeatable_and_tells_better_parameters_from_worse(cohort):
    network = make_network()
    _remember(network, cohort, 300.0)
    look = HeldOut(
        network, split_validation(cohort, make_config(validation=("C3",)).fit)[1], 10, torch.device("cpu")
    )
    learning = torch.nn.ModuleDict({"gene_dit": network.gene_dit, "spatial_encoder": network.spatial_encoder})
    loud = look(learning)
    assert look(learning) == loud
    torch.nn.init.zeros_(network.gene_dit.final.weight)
    torch.nn.init.zeros_(network.gene_dit.final.bias)
    assert look(learning) < loud


def test_a_held_out_section_contributes_to_nothing(cohort, tmp_path):
    """Whatever its expression, the trained network is the same: only when to stop could differ."""
    from dataclasses import replace

    config = make_config(validation=("C3",), patience=0, check_every=3)
    other = replace(cohort.slides[2], expression=np.flip(cohort.slides[2].expression, 1).copy())
    changed = replace(cohort, slides=(*cohort.slides[:2], other, cohort.slides[3]))
    told = {}
    for name, given in (("one", cohort), ("two", changed)):
        network = finish(fit(given, config, tmp_path / name))
        told[name] = (
            network.get_buffer("slide_location"),
            network.get_buffer("eigenvalues"),
            network.mean_head.kernel.get_buffer("weights"),
        )
        rows = (tmp_path / name / "score.csv").read_text().splitlines()
        assert [bool(row.split(",")[5]) for row in rows[1:]] == [False, False, True] * 2
    for one, two in zip(*told.values(), strict=True):
        assert torch.equal(one, two)
