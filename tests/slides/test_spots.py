"""Grids of spots, and how far apart spots lie."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from tests.fakes import FakeSlide

from napari_flag.errors import UserError
from napari_flag.slides import spots as spots_module
from napari_flag.slides.spots import (
    Lattice,
    grid_over,
    inside,
    refuse_outside,
    refuse_repeated,
    typical_pitch,
)
from napari_flag.slides.tissue import Tissue

REGION = shapely.box(500, 400, 5500, 4400).difference(shapely.box(2000, 1500, 3500, 3000))


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


def test_the_pitch_is_the_median_distance_to_the_nearest_spot_however_many_there_are():
    assert typical_pitch(np.array([[3.0, 4.0]])) == 1.0
    assert typical_pitch(np.array([[0.0, 0.0], [0.0, 7.0], [30.0, 0.0]])) == 7.0
    rows, cols = np.divmod(np.arange(120_000), 400)
    assert typical_pitch(np.column_stack([cols, rows]) * 12.0) == pytest.approx(12.0)


def test_a_spot_is_inside_where_one_of_several_regions_holds_it():
    boxes = [
        shapely.box(0, 0, 10, 10),
        shapely.box(5, 5, 20, 20),
        shapely.box(20, 5, 30, 20),
        shapely.Polygon(),
    ]
    crossed = shapely.Polygon([(40, 0), (50, 10), (50, 0), (40, 10)])
    xy = np.array(
        [[7, 7], [1, 1], [19, 19], [20, 10], [0, 5], [30, 6], [11, 1], [49, 5], [45, 9], [-1, 0]], float
    )
    expected = [True, True, True, True, False, False, False, True, False, False]
    assert inside([*boxes, crossed], xy).tolist() == expected
    assert inside([], xy).tolist() == [False] * len(xy)


def test_hundreds_of_rings_that_cross_each_other_are_not_united(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    discs = [shapely.Point(*centre).buffer(400) for centre in random.uniform(0, 1000, (300, 2))]
    rings, xy = [disc.difference(disc.buffer(-9)) for disc in discs], random.uniform(0, 1000, (2000, 2))
    expected = np.any([shapely.contains_xy(ring, *xy.T) for ring in rings], axis=0)
    monkeypatch.setattr(shapely, "union_all", None)
    assert (inside(rings, xy) == expected).all()
    monkeypatch.setattr(spots_module, "MOST_TESTS", 10_000)
    with pytest.raises(UserError, match="The 300 regions cover each other so often"):
        inside(rings, xy)


def test_a_repeated_name_of_a_megabyte_is_cut_in_the_message():
    with pytest.raises(UserError, match="such as aaaa") as error:
        refuse_repeated(["a" * 1_000_000] * 2, "The spot table")
    assert len(str(error.value)) < 300


def test_places_of_hundreds_of_digits_are_written_short():
    xy = np.array([[10.0, 10.0], [1e308, -1e300]])
    with pytest.raises(UserError, match=r"x 10 to 1e\+308, y -1e\+300 to 10 px") as error:
        refuse_outside(xy, FakeSlide(1000, 800), Path("spots.tsv"))
    assert len(str(error.value)) < 300
