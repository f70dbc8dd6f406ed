import numpy as np
import pytest

from napari_flag.statistics.neighbours import FIRST_RING, array_graph


@pytest.mark.parametrize("lattice", ["square", "hex"])
def test_first_ring_neighbours_are_those_a_step_away_on_any_part_of_the_array(lattice):
    rng = np.random.default_rng(0)
    rows, cols = np.mgrid[-3:9, 5:25].reshape(2, -1)
    on = (rows + cols) % 2 == 0 if lattice == "hex" else np.ones(len(rows), bool)
    array = rng.permutation(np.column_stack([rows, cols])[on])[:80]
    places = [tuple(place) for place in array.tolist()]
    graph = array_graph(array, lattice).toarray()
    for i, (row, col) in enumerate(places):
        near = {(row + down, col + right) for down, right in FIRST_RING[lattice]} & set(places)
        assert {places[j] for j in np.flatnonzero(graph[i])} == near
        assert np.isclose(graph[i].sum(), 1.0 if near else 0.0)


def test_two_spots_at_one_array_position_are_refused():
    with pytest.raises(ValueError, match="share one array position"):
        array_graph(np.array([[0, 0], [0, 1], [0, 0]]), "square")
