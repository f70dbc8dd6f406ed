"""Grids of spots, and µm/px from the array's lattice."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely

from napari_flag.errors import UserError
from napari_flag.slides.spot_tables import read_spots
from napari_flag.slides.spots import (
    Lattice,
    Spots,
    estimate_mpp,
    grid_over,
    mirrored,
    misplaced,
    typical_pitch,
)
from napari_flag.slides.tissue import Tissue

HER2ST = Path(__file__).parents[3] / "shared/data/her2st"
REGION = shapely.box(500, 400, 5500, 4400).difference(shapely.box(2000, 1500, 3500, 3000))


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
def test_a_grid_covers_a_region_but_not_its_hole(lattice: Lattice) -> None:
    spots = grid_over([REGION], 0.5, 100, 55, lattice)
    pitch_px = 200
    cell = pitch_px**2 * (np.sqrt(3) / 2 if lattice == "hex" else 1)
    assert len(spots) == pytest.approx(REGION.area / cell, rel=0.1)
    assert shapely.contains_xy(REGION, *spots.xy.T).all()
    assert (spots.diameter_um, spots.pitch_um, spots.lattice) == (55, 100, lattice)
    distance = np.linalg.norm(spots.xy[:, None] - spots.xy[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    assert distance.min(axis=1) == pytest.approx(pitch_px)


@pytest.mark.parametrize("lattice", ["hex", "square"])
def test_array_coordinates_name_the_spots_and_their_neighbours(lattice: Lattice) -> None:
    spots = grid_over([REGION], 0.5, 100, 55, lattice)
    assert spots.array is not None
    assert spots.ids == tuple(f"{r}_{c}" for r, c in spots.array)
    steps = {"hex": [(0, 2), (1, 1), (1, -1)], "square": [(0, 1), (1, 0)]}[lattice]
    at = {tuple(rc): xy for rc, xy in zip(spots.array.tolist(), spots.xy, strict=True)}
    for (row, col), xy in at.items():
        for down, across in steps:
            other = at.get((row + down, col + across))
            if other is not None:
                assert np.linalg.norm(other - xy) == pytest.approx(200)
                assert (other - xy)[1] >= 0


def test_a_part_has_the_spots_of_the_whole() -> None:
    whole = grid_over([REGION], 0.5, 100, 55)
    part = grid_over([shapely.box(600, 500, 1900, 1400)], 0.5, 100, 55)
    at = dict(zip(whole.ids, whole.xy.tolist(), strict=True))
    assert len(part) > 20
    assert all(at[i] == xy for i, xy in zip(part.ids, part.xy.tolist(), strict=True))


def test_a_grid_over_tissue_stays_on_it() -> None:
    mask = np.zeros((100, 120), bool)
    mask[20:80, 10:100] = True
    mask[40:60, 40:60] = False
    tissue = Tissue(mask, 20.0)
    spots = grid_over(tissue, 0.5, 50, 50, "square")
    assert tissue.contains(spots.xy).all()
    assert len(spots) == pytest.approx(mask.sum() * 400 / 100**2, rel=0.05)


def test_overlapping_regions_give_each_spot_once_and_none_off_the_slide() -> None:
    boxes = [shapely.box(-500, -500, 900, 900), shapely.box(300, 300, 1500, 1500)]
    spots = grid_over(boxes, 0.5, 100, 55, "square", slide_size=(1200, 1000))
    assert (spots.xy >= 0).all()
    assert (spots.xy < (1200, 1000)).all()
    assert len(set(spots.ids)) == len(spots)


@pytest.mark.parametrize(
    ("area", "spacing", "message"),
    [
        ([shapely.box(10, 10, 20, 20)], 100, "No spot fits"),
        ([], 100, "No region is drawn"),
        ([REGION], 0, "a diameter above 0 µm, not 0 µm and 55 µm; give e.g. 100 and 55"),
        ([shapely.box(0, 0, 1e5, 1e5)], 1, "larger spacing"),
    ],
)
def test_a_grid_without_spots_is_refused(area: list, spacing: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        grid_over(area, 0.5, spacing, 55)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("lattice", ["hex", "square"])
@pytest.mark.parametrize("turn", [0.0, 0.3, 1.4])
def test_resolution_is_fitted_to_jittering_spots(lattice: Lattice, turn: float, known: bool) -> None:
    spots = array_spots(lattice, 290.0, jitter=0.05, turn=turn)
    if not known:
        spots = replace(spots, array=None, lattice="none")
    assert estimate_mpp(spots) == pytest.approx(200 / 290, rel=0.005)


def test_a_few_misplaced_spots_do_not_matter() -> None:
    spots = array_spots("square", 290.0, jitter=0.03)
    xy = spots.xy.copy()
    xy[::25] += 900
    assert estimate_mpp(replace(spots, xy=xy)) == pytest.approx(200 / 290, rel=0.005)


def test_spots_without_a_lattice_or_pitch_are_refused() -> None:
    scattered = np.random.default_rng(0).random((400, 2)) * 5000
    spots = Spots(tuple(map(str, range(400))), scattered, pitch_um=100)
    with pytest.raises(UserError, match="no regular lattice"):
        estimate_mpp(spots)
    with pytest.raises(UserError, match="pitch"):
        estimate_mpp(replace(spots, pitch_um=None))
    regular = array_spots("square", 290.0)
    assert regular.array is not None
    with pytest.raises(UserError, match="one line"):
        estimate_mpp(regular.take(regular.array[:, 0] == 3))
    shuffled = np.random.default_rng(1).permutation(regular.xy)
    with pytest.raises(UserError, match="do not follow"):
        estimate_mpp(replace(regular, xy=shuffled))


def test_real_sections_agree_where_nearest_distances_do_not() -> None:
    if not HER2ST.exists():
        pytest.skip("the her2st data are not beside the project")
    from napari_flag.slides.spot_tables import read_spots

    for section in ("B4", "C2", "C3", "C4", "C5"):
        spots = read_spots(HER2ST / f"spots/{section}_selection.tsv").spots
        fitted = estimate_mpp(spots)
        assert fitted == pytest.approx(0.686, abs=0.004)
        assert estimate_mpp(replace(spots, array=None, lattice="none")) == pytest.approx(fitted, rel=1e-3)
        assert 200 / np.median(nearest(spots.xy)) > 1.05 * fitted


def nearest(xy: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(xy[:, None] - xy[None], axis=-1)
    np.fill_diagonal(distance, np.inf)
    return distance.min(axis=1)


def test_the_pitch_is_the_median_distance_to_the_nearest_spot_however_many_there_are():
    assert typical_pitch(np.array([[3.0, 4.0]])) == 1.0
    assert typical_pitch(np.array([[0.0, 0.0], [0.0, 7.0], [30.0, 0.0]])) == 7.0
    rows, cols = np.divmod(np.arange(120_000), 400)
    assert typical_pitch(np.column_stack([cols, rows]) * 12.0) == pytest.approx(12.0)


# --- places that cannot be right --------------------------------------------------------------------


@pytest.mark.parametrize("lattice", ["hex", "square"])
@pytest.mark.parametrize("turn", [0.0, 0.1, np.pi / 2, 3.0])
def test_spots_of_a_real_array_raise_no_doubt_however_it_is_turned(lattice: Lattice, turn: float) -> None:
    for jitter in (0.0, 0.1):
        spots = array_spots(lattice, 200.0, jitter=jitter, turn=turn)
        assert misplaced(spots) is None
        assert not mirrored(spots)
    assert misplaced(replace(spots, array=None)) is None


@pytest.mark.parametrize("share", [1.0, 0.1])
def test_positions_shuffled_among_ids_are_noticed(share: float) -> None:
    spots = array_spots("hex", 200.0)
    rng = np.random.default_rng(0)
    some = rng.choice(len(spots), int(share * len(spots)), replace=False)
    xy = spots.xy.copy()
    xy[some] = xy[rng.permutation(some)]
    assert "ids and positions are mixed up" in (misplaced(replace(spots, xy=xy)) or "")


def test_all_spots_on_one_point_are_noticed_with_and_without_an_array() -> None:
    spots = array_spots("square", 200.0)
    for array in (spots.array, None):
        on_one = replace(spots, xy=np.full_like(spots.xy, 100.0), array=array)
        assert "share their place" in (misplaced(on_one) or "")


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
