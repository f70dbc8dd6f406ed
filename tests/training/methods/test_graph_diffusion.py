"""FLAG's two relatives, and FLAG in its published form, as methods."""

from dataclasses import replace

import numpy as np
import pytest

from flag_training.cohort import Cohort
from flag_training.methods import Fitted, blinded
from flag_training.methods.graph_diffusion import (
    FlagDiffusion,
    JointDiffusion,
    NodeDiffusion,
    OracleDiffusion,
    OracleNodes,
)
from flag_training.methods.learning import Descent
from napari_flag.progress import finish

pytest.importorskip("torch_geometric")
COMMON = {
    "window_um": 600.0, "kernel_um": 200.0, "width": 16, "blocks": 1, "head_width": 4, "batch": 2,
    "solver_steps": 6, "samples": 2, "training": Descent(4, 1e-3, clip=1.0),
}  # fmt: skip
FORMS = {"node-only": NodeDiffusion, "joint": JointDiffusion, "FLAG": FlagDiffusion}
"""What is common to all, and is enough of all to be learned: `test_published` trains each further."""


@pytest.fixture(scope="module")
def one(cohort):
    return Cohort(cohort.slides[:1], cohort.features[:1], cohort.genes)


def small(name, **values):
    genes = {"heads": 2, "gene_blocks": 1, "tap": 1, "projector": 8} if name == "FLAG" else {}
    return FORMS[name](**COMMON | genes | values)


@pytest.mark.parametrize("name", FORMS)
def test_as_published_nothing_is_scaled_and_it_predicts(name, one):
    fitted = finish(small(name, scaled=False).fit(one, 0))
    assert isinstance(fitted, Fitted)
    assert not any("spread" in key for key in fitted.network.state_dict())
    assert np.isfinite(fitted(blinded(one.slides[0]), one.features[0][0].numpy())).all()


def test_edges_are_named_by_what_they_are():
    assert small("joint").name == "joint diffusion"
    assert small("joint", centre="sum").name == "joint diffusion, edges centred as published"


@pytest.mark.slow
def test_oracle_edges_look_at_the_truth_and_are_no_method(one):
    slide, features = one.slides[0], one.features[0][0].numpy()
    oracle = finish(OracleDiffusion(**COMMON).fit(one, 0))
    assert not isinstance(oracle, Fitted)
    found = oracle(slide, features)
    assert np.isfinite(found).all()
    with pytest.raises(FloatingPointError, match="not numbers"):
        oracle(blinded(slide), features)
    shuffled = replace(slide, expression=slide.expression[::-1].copy())
    assert (oracle(shuffled, features) != found).any()


def test_oracle_edges_are_those_of_the_window(one):
    """A spot of another window changes nothing."""
    slide, features = one.slides[0], one.features[0][0].numpy()
    network = OracleDiffusion(**COMMON).network(5, 8)
    assert isinstance(network, OracleNodes)
    oracle = OracleDiffusion(**COMMON).fitted(network.eval(), one)
    changed = slide.expression.copy()
    inside = slide.places.windows(600.0)[0]
    changed[inside[0]] = 0
    apart = oracle(slide, features) != oracle(replace(slide, expression=changed), features)
    assert set(np.flatnonzero(apart.any(1))) <= set(inside)
    assert apart.any()
