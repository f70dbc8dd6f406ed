"""A person in the workspace with three slides, in random order; each tour in a process of its own."""

import pytest
from tests.gui.tours import SEEDS, play

SHORT = 25


@pytest.mark.slow
@pytest.mark.parametrize("seed", [101])
def test_a_short_tour_loses_nothing_and_draws_nothing_on_the_wrong_tissue(qapp, seed):
    played = play(seed, SHORT)
    assert played.status == 0, played.said


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_a_long_tour_loses_nothing_and_draws_nothing_on_the_wrong_tissue(qapp, seed):
    played = play(seed)
    assert played.status == 0, played.said
