"""µm/px from the lattice of an array, and spots that do not lie where it puts them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_flag.errors import UserError
from napari_flag.slides.lattice import (
    astray,
    drawn_diameter,
    estimate_mpp,
    mirrored,
    misplaced,
    pitch_of,
    pitch_px,
)
from napari_flag.slides.spot_tables import read_spots
from napari_flag.slides.spots import MANY, Lattice, Spots, typical_pitch

HER2ST = Path(__file__).parents[3] / "shared/data/her2st"


def array_spots(
    lattice: Lattice, pitch_px: float, *, jitter: float = 0, turn: float = 0, n: int = 16
) -> Spots:
    """Return spots on a turned, jittered array of known pitch."""
    rng = np.random.default_rng(3)
    array = np.stack(np.meshgrid(np.arange(n), np.arange(2 * n), indexing="ij"), -1).reshape(-1, 2)
    steps = np.array([1.0, 1.0])
    if lattice == "hex":
        array, steps = array[array.sum(axis=1) % 2 == 0], np.array([np.sqrt(3) / 2, 0.5])
    else:
        array = array[array[:, 1] < n]
    array = array[rng.random(len(array)) > 0.2]
    xy = (array * steps * pitch_px)[:, ::-1]
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    xy = xy @ rotation.T + 1000 + jitter * pitch_px * rng.standard_normal(xy.shape)
    return Spots(tuple(map(str, range(len(xy)))), xy, 100, 200, lattice, array)


@pytest.mark.parametrize("lattice", ["hex", "square"])
@pytest.mark.parametrize("turn", [0.0, 0.3, 1.4])
def test_resolution_is_fitted_to_jittering_spots(lattice: Lattice, turn: float) -> None:
    spots = array_spots(lattice, 290.0, jitter=0.05, turn=turn)
    assert estimate_mpp(spots) == pytest.approx(200 / 290, rel=0.005)


def test_a_few_misplaced_spots_do_not_matter() -> None:
    spots = array_spots("square", 290.0, jitter=0.03)
    xy = spots.xy.copy()
    xy[::25] += 900
    assert estimate_mpp(replace(spots, xy=xy)) == pytest.approx(200 / 290, rel=0.005)


def test_spots_without_an_array_or_pitch_are_refused() -> None:
    regular = array_spots("square", 290.0)
    with pytest.raises(UserError, match="places in an array are not known"):
        estimate_mpp(replace(regular, array=None))
    with pytest.raises(UserError, match="pitch of these spots in µm is not known"):
        estimate_mpp(replace(regular, pitch_um=None))
    assert regular.array is not None
    with pytest.raises(UserError, match="one line"):
        estimate_mpp(regular.take(regular.array[:, 0] == 3))
    shuffled = np.random.default_rng(1).permutation(regular.xy)
    with pytest.raises(UserError, match="do not follow"):
        estimate_mpp(replace(regular, xy=shuffled))


def test_real_sections_agree_where_nearest_distances_do_not() -> None:
    if not HER2ST.exists():
        pytest.skip("the her2st data are not beside the project")
    for section in ("B4", "C2", "C3", "C4", "C5"):
        spots = read_spots(HER2ST / f"spots/{section}_selection.tsv").spots
        fitted = estimate_mpp(spots)
        assert fitted == pytest.approx(0.686, abs=0.004)
        assert 200 / np.median(nearest(spots.xy)) > 1.05 * fitted


@pytest.mark.parametrize("lattice", ["hex", "square"])
def test_the_pitch_is_the_stated_one_else_that_of_the_fitted_lattice_else_of_nearest_spots(
    lattice: Lattice,
) -> None:
    spots = array_spots(lattice, 290.0, jitter=0.08)
    assert pitch_of(spots, 0.5) == 200
    assert pitch_px(spots, 0.5) == 400
    assert pitch_px(spots) == pytest.approx(290, rel=0.01)
    unstated = replace(spots, pitch_um=None)
    assert pitch_px(unstated, 0.5) == pitch_px(spots)
    assert pitch_of(unstated, 0.5) == 0.5 * pitch_px(spots)
    shuffled = np.random.default_rng(1).permutation(spots.xy)
    for unplaced in (replace(unstated, array=None), replace(unstated, xy=shuffled)):
        assert pitch_px(unplaced) == typical_pitch(unplaced.xy) < 0.95 * 290
    many = replace(array_spots(lattice, 290.0, jitter=0.08, n=100), pitch_um=None)
    assert len(many) > MANY
    assert pitch_px(many) == pytest.approx(290, rel=0.002)


def nearest(xy: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    return distance.min(axis=1)


# --- places that cannot be right --------------------------------------------------------------------


@pytest.mark.parametrize("lattice", ["hex", "square"])
@pytest.mark.parametrize("turn", [0.0, 0.1, np.pi / 2, 3.0])
def test_spots_of_a_real_array_raise_no_doubt_however_it_is_turned(lattice: Lattice, turn: float) -> None:
    for jitter in (0.0, 0.1):
        spots = array_spots(lattice, 200.0, jitter=jitter, turn=turn)
        assert misplaced(spots) is None
        assert not mirrored(spots)
    assert misplaced(replace(spots, array=None)) is None


@pytest.mark.parametrize("lattice", ["hex", "square"])
@pytest.mark.parametrize(
    "change", [np.diag([0.5, 1.0]), np.array([[0.6, 0], [0.3, 1]]), np.diag([1.0, 1.15])]
)
def test_an_array_of_which_one_axis_was_scaled_or_sheared_is_noticed_and_suggests_no_scale(
    lattice: Lattice, change: np.ndarray
) -> None:
    spots = array_spots(lattice, 200.0, jitter=0.05)
    skewed = replace(spots, xy=spots.xy @ change)
    said = misplaced(skewed)
    assert said is not None
    assert "times as far apart along one axis as along another" in said
    with pytest.raises(UserError, match="a coordinate was scaled or sheared"):
        estimate_mpp(skewed)
    assert misplaced(replace(skewed, pitch_um=None)) is None
    assert misplaced(replace(spots, xy=spots.xy @ np.diag([1.0, 1.03]))) is None


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_positions_shuffled_among_ids_are_noticed(share: float) -> None:
    spots = array_spots("hex", 200.0)
    rng = np.random.default_rng(0)
    some = rng.choice(len(spots), int(share * len(spots)), replace=False)
    xy = spots.xy.copy()
    xy[some] = xy[rng.permutation(some)]
    assert "ids and positions are mixed up" in (misplaced(replace(spots, xy=xy)) or "")


@pytest.mark.parametrize("lattice", ["hex", "square"])
def test_two_exchanged_spots_are_said_and_not_refused(lattice: Lattice) -> None:
    spots = array_spots(lattice, 200.0, jitter=0.1)
    assert astray(spots) is None
    xy = spots.xy.copy()
    xy[[3, 90]] = xy[[90, 3]]
    assert misplaced(replace(spots, xy=xy)) is None
    said = astray(replace(spots, xy=xy)) or ""
    assert said.startswith(f"2 of {len(spots)} spots lie more than a spot from where")
    assert "(such as 3)" in said


def test_all_spots_on_one_point_are_noticed_with_and_without_an_array() -> None:
    spots = array_spots("square", 200.0)
    for array in (spots.array, None):
        on_one = replace(spots, xy=np.full_like(spots.xy, 100.0), array=array)
        assert "share their place" in (misplaced(on_one) or "")


@pytest.mark.parametrize("turn", [0.0, 0.6])
def test_spots_that_lie_on_one_line_or_within_a_pixel_are_noticed(turn: float) -> None:
    spots = array_spots("square", 200.0)
    along = np.arange(len(spots))[:, None] * 30.0 * [np.cos(turn), np.sin(turn)]
    for array in (spots.array, None):
        assert "on one line" in (misplaced(replace(spots, xy=along, array=array)) or "")
        assert "are not pixels" in (misplaced(replace(spots, xy=along / 1e4, array=array)) or "")
    few = replace(spots, xy=along, array=None).take(np.arange(9))  # a person's choice of a row
    assert misplaced(few) is None


def test_ids_that_are_places_in_an_array_state_it_where_nothing_else_does() -> None:
    spots = array_spots("square", 200.0, jitter=0.1)
    assert spots.array is not None
    named = replace(spots, ids=tuple(f"{c}x{r}" for r, c in spots.array.tolist()), array=None)
    assert misplaced(named) is None
    assert not mirrored(named)
    shuffled = np.random.default_rng(1).permutation(spots.xy)
    assert "mixed up" in (misplaced(replace(named, xy=shuffled)) or "")
    assert mirrored(replace(named, xy=spots.xy[:, ::-1].copy()))
    pixels = replace(named, ids=tuple(f"{x:.0f}x{y:.0f}" for x, y in spots.xy.tolist()))
    assert misplaced(pixels) is None


def test_x_and_y_exchanged_lie_mirrored() -> None:
    spots = array_spots("hex", 200.0)
    assert mirrored(replace(spots, xy=spots.xy[:, ::-1].copy()))


def test_ids_written_row_by_column_are_noticed() -> None:
    spots = array_spots("square", 200.0)
    assert spots.array is not None
    named = replace(spots, ids=tuple(f"{c}x{r}" for r, c in spots.array.tolist()))
    assert misplaced(named) is None
    turned = replace(spots, ids=tuple(f"{r}x{c}" for r, c in spots.array.tolist()))
    assert "row × column" in (misplaced(turned) or "")


@pytest.mark.skipif(not HER2ST.is_dir(), reason="the HER2ST sections are not there")
@pytest.mark.parametrize("name", ["C5", "B4"])
def test_no_real_section_raises_a_doubt(name: str) -> None:
    spots = read_spots(next(HER2ST.glob(f"spots/{name}*"))).spots
    assert misplaced(spots) is None
    assert not mirrored(spots)


@pytest.mark.parametrize("count", [1, 3])
def test_spots_in_one_place_are_drawn_so_that_they_are_seen(count):
    ids = tuple(str(k) for k in range(count))
    alone = Spots(ids, np.full((count, 2), 700.0), None, None, "none", None)
    assert drawn_diameter(alone, 0.5) == 110  # 55 µm
    assert drawn_diameter(alone, None, (20_000, 30_000)) == 300
    assert drawn_diameter(alone, None) == 7
    assert drawn_diameter(replace(alone, diameter_um=10), 0.5) == 20
    assert drawn_diameter(replace(alone, pitch_um=200.0), 0.5) == pytest.approx(0.55 * 400)


def test_spots_without_um_per_px_are_drawn_with_the_stated_share_of_their_pitch():
    two = Spots(("a", "b"), np.array([[0.0, 0.0], [0.0, 80.0]]), 50.0, 200.0, "none", None)
    assert drawn_diameter(two, None) == 20
    assert drawn_diameter(replace(two, pitch_um=None), None) == pytest.approx(0.55 * 80)
