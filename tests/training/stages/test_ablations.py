"""What the ablations take away is gone from the fitted network, up to its predictions."""

from dataclasses import replace

import numpy as np
from tests.training.conftest import make_config

from flag_training.stages.fit import fit
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model.samplers import SamplerSettings
from napari_flag.progress import finish
from napari_flag.sampling import sample_expression


def fitted(cohort, folder, **switch):
    config = make_config(branch_steps=30, score_steps=10)
    return finish(fit(cohort, replace(config, network=config.network | switch), folder))


def predicted(network, slide, features, graph, samples=2):
    rows = np.arange(len(features))
    predictor = FlagPredictor(network, tuple("ABCDE"))
    encoded = predictor.encode(features, graph)
    settings = SamplerSettings(samples=samples)
    return finish(sample_expression(predictor, encoded, slide.spots.ids, rows, settings))


def correlation(one, other):
    return np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(one.T, other.T, strict=True)])


def test_without_diffusion_every_sample_is_the_mean_and_the_mean_is_learnt(cohort, unseen, tmp_path):
    slide, features = unseen[0], unseen[1][0].numpy()
    drawn = predicted(fitted(cohort, tmp_path, diffusion=False), slide, features, slide.graph(features))
    np.testing.assert_allclose(drawn.sample, drawn.mean, atol=1e-5)
    assert correlation(drawn.mean, slide.expression) > 0.5


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
