import numpy as np
import pytest

from napari_flag import keys
from napari_flag.simulation import simulate
from napari_flag.simulation.programmes import GENES, PROGRAMMES


@pytest.fixture(scope="module")
def section():
    return simulate(5, size_px=1000)


def darkness(image, xy, radius):
    """Mean optical density of the red band around each spot: hematoxylin, near enough."""
    density = -np.log10(np.maximum(image[..., 0], 1) / 255)
    rows, cols = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([density[(cols - x) ** 2 + (rows - y) ** 2 < radius**2].mean() for x, y in xy])


def test_the_same_seed_gives_the_same_slide_and_another_seed_another():
    first, again, other = (simulate(s, size_px=400) for s in (1, 1, 2))
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.counts.X, again.counts.X)
    assert first.spots.ids == again.spots.ids
    assert (first.image != other.image).mean() > 0.5


@pytest.mark.slow
def test_counts_and_spots_belong_together(section):
    assert tuple(section.counts.obs_names) == section.spots.ids
    np.testing.assert_array_equal(section.counts.obsm[keys.SPATIAL], section.spots.xy)
    np.testing.assert_array_equal(
        section.counts.obs[[keys.ARRAY_ROW, keys.ARRAY_COL]].to_numpy(), section.spots.array
    )
    assert tuple(section.counts.var_names) == GENES
    assert (np.round(section.counts.X) == section.counts.X).all()
    assert section.counts.X.min() >= 0


def test_spots_form_a_hexagonal_array_of_the_stated_pitch(section):
    spots = section.spots
    gaps = np.linalg.norm(spots.xy[:, None] - spots.xy[None], axis=2) * section.mpp
    steps = np.abs(spots.array[:, None] - spots.array[None])
    first_ring = (steps == (0, 2)).all(axis=2) | (steps == (1, 1)).all(axis=2)
    np.testing.assert_allclose(gaps[first_ring], 100.0, rtol=1e-6)
    np.fill_diagonal(gaps, np.inf)
    assert gaps.min() == pytest.approx(100.0)
    assert ((spots.xy >= 0) & (spots.xy < section.image.shape[0])).all()


@pytest.mark.slow
def test_tissue_is_stained_and_glass_is_white():
    image = simulate(15, size_px=1000).image.astype(float)
    corners = np.concatenate([image[:40, :40], image[-40:, -40:], image[:40, -40:], image[-40:, :40]])
    assert np.percentile(corners.min(axis=-1), 95) > 225
    red, green, blue = image.reshape(-1, 3).mean(axis=0)
    assert green < red
    assert green < blue


def test_genes_follow_what_is_drawn(section):
    table = section.counts
    dark = darkness(section.image, section.spots.xy, 27.5 / section.mpp)
    logged = np.log2(table.to_df() + 1)
    assert np.corrcoef(dark, logged["KRT8"])[0, 1] > 0.4
    assert np.corrcoef(dark, logged["ADIPOQ"])[0, 1] < -0.2
    epithelium = table.obs["n tumour"] + table.obs["n in situ"] + table.obs["n luminal"]
    assert np.corrcoef(epithelium, logged["EPCAM"])[0, 1] > 0.7
    assert np.corrcoef(table.obs["n adipocyte"], logged["PLIN1"])[0, 1] > 0.7


def test_genes_of_a_programme_go_together_more_than_genes_of_two(section):
    logged = np.log2(section.counts.to_df() + 1)
    within = logged[["COL1A1", "COL1A2", "COL3A1"]].corr().to_numpy()[np.triu_indices(3, 1)].mean()
    across = logged[["COL1A1", "KRT8"]].corr().iloc[0, 1]
    assert within > across + 0.5


def test_counts_vary_more_than_poisson_and_agree_with_their_rate(section):
    rate, counts = section.counts.layers["rate"], section.counts.X
    assert counts.sum() == pytest.approx(rate.sum(), rel=0.05)
    busy = rate > 5
    assert ((counts - rate)[busy] ** 2 / rate[busy]).mean() > 1.3


def test_what_is_not_drawn_is_smooth_across_neighbours(section):
    hidden = np.log(section.counts.layers["rate"] / section.counts.layers["visible"])
    hidden = hidden - hidden.mean(axis=1, keepdims=True)
    steps = np.abs(section.spots.array[:, None] - section.spots.array[None])
    i, j = np.nonzero((steps == (1, 1)).all(axis=2))
    stroma = hidden[:, [GENES.index(g) for g in PROGRAMMES["stroma"]]].mean(axis=1)
    assert np.corrcoef(stroma[i], stroma[j])[0, 1] > 0.5


def test_every_gene_belongs_to_exactly_one_programme():
    assert sorted(g for genes in PROGRAMMES.values() for g in genes) == sorted(GENES)


@pytest.mark.slow
@pytest.mark.parametrize("mpp", [0.5, 1.0])
def test_other_resolutions_show_the_same_tissue_density(mpp):
    coarse = simulate(9, size_px=round(500 / mpp), mpp=mpp)
    assert coarse.image.shape == (round(500 / mpp), round(500 / mpp), 3)
    assert coarse.mpp == mpp
    assert 8 <= len(coarse.spots) <= 30
