"""Two viewers give the same answer where the colour of every spot stands for its value."""

import matplotlib
import numpy as np
from benchmarks.peers import MISREAD, misread, said_of

VIRIDIS = matplotlib.colormaps["viridis"]
VALUES = np.random.default_rng(0).gamma(2.0, size=500)
LIMITS = (float(VALUES.min()), float(VALUES.max()))


def coloured(values):
    return VIRIDIS((values - LIMITS[0]) / (LIMITS[1] - LIMITS[0]))


def test_values_are_read_off_colours_to_the_next_colour_of_the_map():
    assert misread(VALUES, coloured(VALUES), VIRIDIS, LIMITS) <= MISREAD
    beyond = np.append(VALUES, 2 * LIMITS[1])
    assert misread(beyond, coloured(beyond), VIRIDIS, LIMITS) <= MISREAD


def test_two_spots_that_changed_places_are_noticed_though_least_and_largest_keep_theirs():
    colours = coloured(VALUES)
    two = np.argsort(VALUES)[[100, 300]]
    colours[two] = colours[two[::-1]]
    assert misread(VALUES, colours, VIRIDIS, LIMITS) > 0.1


def test_a_colour_that_is_none_of_the_map_is_noticed():
    colours = coloured(VALUES)
    colours[7] = 1.0
    assert misread(VALUES, colours, VIRIDIS, LIMITS) == np.inf


def test_colours_that_do_not_follow_in_one_viewer_are_said():
    assert said_of(0.001, 0.002).startswith("colours of all spots follow")
    assert said_of(0.001, 0.4).startswith("colours of all spots do not follow")
