"""What the ablations take away is gone from the fitted network, up to its predictions."""

from dataclasses import replace

import numpy as np
import pytest
from tests.training.conftest import make_config

from flag_training.stages.fit import fit
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model.samplers import SamplerSettings
from napari_flag.progress import finish
from napari_flag.sampling import sample_expression


def fitted(cohort, folder, **switch):
    config = make_config(branch_steps=30, score_steps=10)
    return finish(fit(cohort, replace(config, network=config.network | switch), folder))


def predicted(network, slide, features, graph, draws=1):
    rows = np.arange(len(features))
    predictor = FlagPredictor(network, tuple("ABCDE"))
    encoded = predictor.encode(features, graph)
    settings = SamplerSettings(draws=draws)
    return finish(sample_expression(predictor, encoded, slide.spots.ids, rows, settings))


def correlation(one, other):
    return np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(one.T, other.T, strict=True)])


@pytest.mark.slow
def test_without_diffusion_draws_differ_by_depth_and_counting_alone(cohort, unseen, tmp_path):
    """Once the depth is known, and counts are many, there is one value left for all draws."""
    slide, features = unseen[0], unseen[1][0].numpy()
    network = fitted(cohort, tmp_path, diffusion=False)
    drawn = predicted(network, slide, features, slide.graph(features))
    assert correlation(drawn.mean, slide.expression) > 0.5
    network.get_buffer("depth").zero_()
    encoded = FlagPredictor(network, tuple("ABCDE")).encode(features, slide.graph(features))
    many = encoded.around(np.full(slide.expression.shape, 16.0))
    drawn = finish(many.draw(np.arange(36), slide.spots.ids, SamplerSettings(draws=3)))
    assert drawn.std(0).max() < 0.03  # of 65,000 counts


@pytest.mark.slow
def test_without_the_graph_where_spots_lie_changes_nothing(cohort, learnt, unseen, tmp_path):
    slide, features = unseen[0], unseen[1][0].numpy()
    moved = replace(slide.spots, xy=np.random.default_rng(0).permutation(slide.spots.xy))
    graphs = [slide.graph(features), replace(slide, spots=moved).graph(features)]
    alone = fitted(cohort, tmp_path, spatial_graph=False)
    here, there = (predicted(alone, slide, features, graph).mean for graph in graphs)
    np.testing.assert_allclose(here, there, atol=1e-4)
    assert correlation(here, slide.expression) > 0.5
    here, there = (predicted(learnt, slide, features, graph).mean for graph in graphs)
    assert not np.allclose(here, there, atol=0.05)
