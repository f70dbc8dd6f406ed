"""Pooled counts are compared with sums that add one point at a time."""

from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from tests.platform_files import Truth

from napari_flag.errors import UserError
from napari_flag.progress import finish
from napari_flag.slides.pooling import Batch, LocatedCounts, Picture, pool
from napari_flag.slides.spots import Spots
from napari_flag.slides.tissue import Tissue

MPP = 0.5
IMAGE = Picture(Path("he.tif"), (2000, 2000))


def located(um, counts, *, batches=3, to_image=None, field=None, fields=None, um_per_unit=None):
    """Counts at points (µm on the image) in several batches."""
    to_image = np.diag([1.0, 1.0, 1.0]) if to_image is None else to_image
    px = np.column_stack([um / MPP, np.ones(len(um))])
    own = (px @ np.linalg.inv(to_image).T)[:, :2]

    def read():
        for part in np.array_split(np.arange(len(um)), batches):
            yield Batch(
                own[part], sparse.csr_matrix(counts[part]), None if field is None else field[part], len(part)
            )

    names = tuple(f"G{i}" for i in range(counts.shape[1]))
    return LocatedCounts(
        "Fake", "points", Path("run"), names, read, to_image, "by a matrix.", len(um), um_per_unit, fields
    )


def discs(xy_um, diameter):
    return Spots(tuple(f"s{i}" for i in range(len(xy_um))), np.asarray(xy_um) / MPP, diameter, 60.0)


def points(n=4000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 1000, (n, 2)), rng.poisson(1.0, (n, 3))


@pytest.mark.parametrize("diameter", [30.0, 55.0, 250.0])  # apart, touching and overlapping several times
def test_a_disc_holds_what_a_sum_point_by_point_does(diameter):
    um, counts = points()
    centres = np.random.default_rng(1).uniform(150, 850, (40, 2))
    pooled, _ = finish(pool(located(um, counts), discs(centres, diameter), MPP, IMAGE))
    truth = Truth(um, counts)
    assert list(pooled.obs_names) == [f"s{i}" for i in range(40)]
    np.testing.assert_array_equal(pooled.X.toarray(), [truth.in_disc(c, diameter) for c in centres])


def test_the_rim_of_a_disc_belongs_to_it():
    um = np.array(
        [[500.0, 500.0], [550.0, 500.0], [500.0, 550.0], [550.0 + 1e-6, 500.0], [0, 0], [1000, 1000]]
    )
    pooled, _ = finish(pool(located(um, np.ones((6, 1), int)), discs([[500.0, 500.0]], 100.0), MPP, IMAGE))
    assert pooled.X.toarray().tolist() == [[3]]


def grid(side, rows, columns):
    array = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    ids = tuple(f"{r}_{c}" for r, c in array)
    return Spots(ids, (array[:, ::-1] + 0.5) * side / MPP, side, side, "square", array, laid=True)


@pytest.mark.slow
def test_a_grid_square_holds_what_a_sum_point_by_point_does_and_no_point_twice():
    um, counts = points()
    um[:200] = np.round(um[:200] / 50) * 50  # on edges and corners
    spots = grid(50.0, range(1, 19), range(1, 19))
    pooled, _ = finish(pool(located(um, counts), spots, MPP, IMAGE))
    truth = Truth(um, counts)
    corners = spots.array[:, ::-1] * 50.0
    np.testing.assert_array_equal(pooled.X.toarray(), [truth.in_square(c, 50.0) for c in corners])
    within = ((um >= 50) & (um < 950)).all(1)
    assert pooled.X.sum() == counts[within].sum()


def test_squares_turned_against_the_image_are_refused():
    spots = grid(50.0, range(1, 5), range(1, 5))
    turned = Spots(spots.ids, spots.xy + 3.0, 50.0, 50.0, "square", spots.array)
    with pytest.raises(UserError, match="--spacing 50 --diameter 50"):
        finish(pool(located(*points()), turned, MPP, IMAGE))


def test_an_affine_places_the_points_exactly():
    um, counts = points()
    turn = np.array([[0.0, 2.5, 40.0], [-2.5, 0.1, 3000.0], [0, 0, 1]])
    centres = np.random.default_rng(1).uniform(150, 850, (20, 2))
    pooled, _ = finish(pool(located(um, counts, to_image=turn), discs(centres, 55.0), MPP, IMAGE))
    np.testing.assert_array_equal(pooled.X.toarray(), [Truth(um, counts).in_disc(c, 55.0) for c in centres])


def test_spots_that_were_not_imaged_whole_have_no_counts_instead_of_zeros():
    um, counts = points()
    right = um[:, 0] > 500
    centres = [[250.0, 500.0], [490.0, 500.0], [750.0, 500.0], [985.0, 500.0]]
    pooled, said = finish(pool(located(um[right], counts[right]), discs(centres, 55.0), MPP, IMAGE))
    assert list(pooled.obs_names) == ["s2"]
    assert "3 spots that do not lie whole in what was measured" in said[-1]


def test_a_gap_between_fields_of_view_was_not_measured_but_a_narrow_seam_was():
    um, counts = points(20000)
    wide = ((um[:, 0] > 600) & (um[:, 0] < 700)) | ((um[:, 0] > 300) & (um[:, 0] < 310))
    field = np.digitize(um[:, 0], [305, 650])
    centres = [[305.0, 500.0], [650.0, 500.0], [450.0, 500.0]]
    run = located(um[~wide], counts[~wide], field=field[~wide])
    pooled, _ = finish(pool(run, discs(centres, 55.0), MPP, IMAGE))
    assert list(pooled.obs_names) == ["s0", "s2"]


def tissue(share):
    """Tissue over the left `share` of 1000 µm."""
    mask = np.zeros((100, 100), bool)
    mask[:, : round(share * 100)] = True
    return Tissue(mask, 20.0)


@pytest.mark.parametrize(("share", "says"), [(1.0, "100 % of the counts"), (0.7, "check the registration")])
def test_the_share_of_counts_on_tissue_is_said(share, says):
    spots = discs([[300.0, 500.0]], 55.0)
    _, said = finish(pool(located(*points()), spots, MPP, IMAGE, tissue(share)))
    assert says in " ".join(said)


def test_counts_that_mostly_miss_the_tissue_are_refused():
    with pytest.raises(UserError, match=r"Only 2\d % of the counts .* not registered .*--alignment"):
        finish(pool(located(*points()), discs([[300.0, 500.0]], 55.0), MPP, IMAGE, tissue(0.25)))


def test_an_alignment_of_another_scale_is_doubted():
    spots = discs([[300.0, 500.0]], 55.0)
    _, said = finish(pool(located(*points(), um_per_unit=0.7), spots, MPP, IMAGE))
    assert any("has 0.7 µm/px, not 0.5" in sentence for sentence in said)
    _, said = finish(pool(located(*points(), um_per_unit=0.5), spots, MPP, IMAGE))
    assert not any("µm/px" in sentence for sentence in said)


def test_nothing_measured_where_the_spots_are_is_refused():
    with pytest.raises(UserError, match="None of the 1 spots lies in what run measured"):
        finish(pool(located(*points()), discs([[5000.0, 500.0]], 55.0), MPP, IMAGE))


def test_spots_without_a_diameter_ask_for_it():
    with pytest.raises(UserError, match="--diameter"):
        finish(pool(located(*points()), discs([[500.0, 500.0]], None), MPP, IMAGE))
