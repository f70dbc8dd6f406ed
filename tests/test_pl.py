"""``nf.pl``: what is drawn is what the docks draw, into the caller's axes, or a sentence says why not."""

import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from tests.fakes import FakeSlide, add_draws, fake_prediction

import napari_flag as nf
from napari_flag import keys
from napari_flag.analysis.coexpression import correlate
from napari_flag.analysis.compare import section_of
from napari_flag.layers.gene_values import GeneValues
from napari_flag.layers.local_map import LocalMap, MapKind
from napari_flag.prediction_file import write_prediction
from napari_flag.progress import finish


@pytest.fixture(autouse=True)
def _no_window():
    with mpl.rc_context({"backend": "agg"}):
        plt.switch_backend("agg")
        yield
    plt.close("all")


@pytest.fixture
def prediction():
    return fake_prediction(n_spots=64, n_genes=8)


def discs(ax):
    return ax.collections[0].get_facecolors()


def bar_label(ax):
    return next(other.get_ylabel() for other in ax.figure.axes if other is not ax)


def test_a_gene_is_drawn_into_the_callers_axes_which_come_back(prediction):
    figure, ax = plt.subplots()
    assert nf.pl.gene(prediction, "ERBB2", ax=ax, slide=FakeSlide()) is ax
    assert ax.get_title(loc="left") == "ERBB2, predicted"
    assert keys.EXPRESSION_UNITS in bar_label(ax)
    assert len(discs(ax)) == prediction.n_obs
    assert plt.get_fignums() == [figure.number]


def test_every_picture_is_drawn_of_a_file_as_of_what_is_in_it(prediction, tmp_path):
    path = tmp_path / "p.h5ad"
    write_prediction(prediction, path)
    gene = prediction.var_names[0]
    for draw in (
        lambda given: nf.pl.gene(given, gene),
        lambda given: nf.pl.moran(given, gene),
        lambda given: nf.pl.side_by_side(given, gene)[0, 0],
    ):
        here, there = (discs(draw(given)) for given in (prediction, str(path)))
        np.testing.assert_allclose(there, here, rtol=1e-5)
    here, there = (nf.pl.moran_scatter(given).collections[0].get_offsets() for given in (prediction, path))
    np.testing.assert_allclose(there, here, rtol=1e-5)
    here, there = (nf.pl.coexpression(given).images[0].get_array() for given in (prediction, path))
    np.testing.assert_allclose(there, here, rtol=1e-4)


def test_without_axes_a_figure_is_made_for_each(prediction):
    assert nf.pl.gene(prediction, "ERBB2").figure is not nf.pl.gene(prediction, "ERBB2").figure


def test_darker_and_lighter_follow_the_values_between_the_limits_given(prediction):
    ax = nf.pl.gene(prediction, "ERBB2", vmin=0, vmax=100, cmap="gray")
    values = np.asarray(prediction[:, "ERBB2"].X).ravel()
    np.testing.assert_allclose(discs(ax)[:, 0], values / 100, atol=0.01)
    with pytest.raises(nf.UserError, match="vmin and vmax"):
        nf.pl.gene(prediction, "ERBB2", vmin=0)


def test_an_alias_is_understood_and_an_unknown_gene_is_explained(prediction):
    assert nf.pl.gene(prediction, "HER2").get_title(loc="left").startswith("ERBB2")
    with pytest.raises(nf.UserError, match="NOTAGENE is not among"):
        nf.pl.gene(prediction, "NOTAGENE")


@pytest.mark.parametrize(
    ("layer", "word"),
    [("measured", "measured"), ("sd", "spread"), ("difference", "difference"), ("sample_2", "one draw")],
)
def test_every_layer_of_the_file_can_be_shown(prediction, layer, word):
    add_draws(prediction, 2)
    ax = nf.pl.gene(prediction, "ERBB2", layer=layer)
    assert word in ax.get_title(loc="left")


def test_the_second_draw_is_not_the_first(prediction):
    add_draws(prediction, 2)
    first, second = (discs(nf.pl.gene(prediction, "ERBB2", layer=n)) for n in ("sample", "sample_2"))
    assert not np.allclose(first, second)


def test_a_layer_that_is_not_there_is_refused_with_what_is(prediction):
    with pytest.raises(nf.UserError, match=r"no layer “counts”; choose X .* difference"):
        nf.pl.gene(prediction, "ERBB2", layer="counts")
    with pytest.raises(nf.UserError, match="no measured expression"):
        nf.pl.side_by_side(fake_prediction(measured=False), "ERBB2")
    with pytest.raises(nf.UserError, match="no measured expression"):
        nf.pl.moran_scatter(fake_prediction(measured=False))


def test_prediction_and_measurement_share_one_scale(prediction):
    axes = nf.pl.side_by_side(prediction, ["ERBB2", prediction.var_names[1]])
    assert axes.shape == (2, 2)
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["predicted", "measured"]
    prediction.layers[keys.MEASURED][:] = prediction.X
    above, below = nf.pl.side_by_side(prediction, "ERBB2")[:, 0]
    np.testing.assert_array_equal(discs(above), discs(below))


def test_predicted_beside_measured_is_refused_where_nothing_was_measured(prediction):
    prediction.layers[keys.MEASURED][:] = np.nan
    for draw in (lambda: nf.pl.side_by_side(prediction, "ERBB2"), lambda: nf.pl.moran_scatter(prediction)):
        with pytest.raises(nf.UserError, match="no measured expression"):
            draw()


@pytest.mark.parametrize("clusters", [False, True])
def test_local_moran_is_that_of_the_docks(prediction, clusters):
    from napari.components import ViewerModel

    from napari_flag.analysis.spatial import find_classes
    from napari_flag.figures.gene_figure import local_figure
    from napari_flag.layers.gene_map import GeneMap

    viewer = ViewerModel()
    gene_map = GeneMap(viewer)
    local = LocalMap(viewer, gene_map)
    gene_map.set_prediction(prediction)
    gene_map.show(["ERBB2"])
    local.set_kind(MapKind.CLASSES if clusters else MapKind.LOCAL)
    if clusters:
        local.set_found(finish(find_classes(local.missing())), local.shared.of)
    there = local_figure(local, prediction, None).axes[0]
    here = nf.pl.moran(prediction, "ERBB2", clusters=clusters)
    np.testing.assert_allclose(discs(here), discs(there))
    assert here.get_title(loc="left") == there.get_title(loc="left")


def test_local_moran_of_a_standard_deviation_is_refused(prediction):
    with pytest.raises(nf.UserError, match="expression level"):
        nf.pl.moran(prediction, "ERBB2", layer="sd")


def test_the_scatter_has_the_numbers_of_the_report(prediction):
    ax = nf.pl.moran_scatter(prediction)
    section = section_of(prediction)
    points = ax.collections[0].get_offsets()
    np.testing.assert_allclose(points, np.stack([section.moran_truth, section.moran_sample], 1))


def test_the_heat_map_is_of_the_genes_named_else_of_the_most_variable(prediction):
    named = list(prediction.var_names[:3])
    shown = nf.pl.coexpression(prediction, named).images[0].get_array()
    np.testing.assert_allclose(shown, finish(correlate(prediction, named)).triangles(), equal_nan=True)
    assert nf.pl.coexpression(prediction).images[0].get_array().shape == (8, 8)


def test_genes_are_ranked_by_how_much_they_vary():
    prediction = fake_prediction(n_genes=4)
    prediction.X = prediction.X * np.array([0, 3, 1, 2], np.float32)
    variances = prediction.X.var(axis=0)
    expected = [prediction.var_names[i] for i in np.argsort(-variances)]
    assert list(GeneValues(prediction).ranked()) == expected


@pytest.mark.slow
def test_drawing_in_a_notebook_needs_neither_torch_nor_a_window_system():
    code = (
        "import sys, napari_flag as nf; from napari_flag import pl; assert nf.pl is pl;"
        "from tests.fakes import fake_prediction; import matplotlib; matplotlib.use('agg');"
        "nf.pl.gene(fake_prediction(), 'ERBB2'); nf.pl.coexpression(fake_prediction());"
        "print(sorted({'torch', 'qtpy', 'napari', 'PyQt6'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_dollar_in_the_name_of_a_gene_is_no_formula_in_the_callers_axes(prediction):
    named = prediction.copy()
    named.var_names = [r"$\frac{a$", *prediction.var_names[1:]]
    axes = plt.figure().subplots()
    drawn = nf.pl.gene(named, r"$\frac{a$", ax=axes, show=False)
    drawn.figure.canvas.draw()
    assert r"$\frac{a$" in drawn.get_title(loc="left")
