import pytest
import torch

from napari_flag.model import gene_dit
from napari_flag.model.gene_dit import MOST_GENES, GeneDiT

GENES, CONTEXT = 7, 4


def make(genes=GENES, **sizes):
    torch.manual_seed(0)
    dit = GeneDiT(genes, CONTEXT, width=16, heads=2, blocks=2, **sizes).eval()
    for parameter in dit.parameters():  # no layer may be silent in these tests
        torch.nn.init.normal_(parameter, std=0.15)
    return dit


@pytest.fixture
def _few_are_many(monkeypatch):
    """Genes of a small panel attend to each other through summaries."""
    monkeypatch.setattr(gene_dit, "MOST_GENES", GENES - 1)


def inputs(genes=GENES):
    generator = torch.Generator().manual_seed(1)
    x, level = torch.randn(2, 3, genes, generator=generator)
    return x, torch.randn(3, CONTEXT, generator=generator), torch.randn(3, generator=generator), level


def ask(dit, x, spatial, depth, level, noise=0.2):
    with torch.no_grad():
        return dit(x, torch.full((3,), noise), dit.condition(spatial, depth), level)[0]


def assert_equivariant(dit):
    x, spatial, depth, level = inputs()
    order = torch.randperm(GENES, generator=torch.Generator().manual_seed(2))
    before = ask(dit, x, spatial, depth, level)
    with torch.no_grad():
        dit.name.copy_(dit.name[order])
    after = ask(dit, x[:, order], spatial, depth, level[:, order])
    torch.testing.assert_close(after, before[:, order], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(after, before, atol=1e-2)


def test_permuting_names_and_values_of_genes_permutes_the_output():
    assert_equivariant(make())


@pytest.mark.usefixtures("_few_are_many")
def test_permuting_genes_permutes_the_output_through_summaries_too():
    assert_equivariant(make(summaries=3))


def heard(dit):
    """How much the first gene's output moves with the last gene's value."""
    x, spatial, depth, level = inputs()
    other = x.clone()
    other[:, -1] += 3
    return (ask(dit, other, spatial, depth, level) - ask(dit, x, spatial, depth, level))[:, 0].abs().max()


def test_a_gene_hears_the_others():
    assert heard(make()) > 1e-3


@pytest.mark.usefixtures("_few_are_many")
def test_a_gene_hears_the_others_through_summaries():
    assert heard(make(summaries=3)) > 1e-3


def test_summaries_are_there_beyond_the_largest_panel_that_is_seen_whole_and_only_there():
    def summaries(genes):
        return {k: v.shape for k, v in make(genes, summaries=5).state_dict().items() if "summaries" in k}

    assert summaries(MOST_GENES) == {}
    assert summaries(MOST_GENES + 1) == {f"blocks.{n}.summaries": (5, 16) for n in range(2)}


def test_a_large_panel_costs_as_many_weights_as_it_has_summaries():
    """1,500 genes: what genes attend to is 5 summaries, not 1,500 genes."""
    dit = make(1500, summaries=5)
    keys, values = dit.blocks[0]._summarised(torch.randn(3, 2, 1500, 8), torch.randn(3, 2, 1500, 8))
    assert keys.shape == values.shape == (3, 2, 5, 8)
    assert ask(dit, *inputs(1500)).shape == (3, 1500)


@pytest.mark.parametrize("changed", range(4), ids=["value", "context", "depth", "level"])
def test_everything_asked_about_reaches_the_output(changed):
    dit, given = make(), list(inputs())
    before = ask(dit, *given)
    given[changed] = given[changed] + 1
    assert not torch.allclose(ask(dit, *given), before, atol=1e-3)


def test_the_noise_level_reaches_the_output():
    dit = make()
    assert not torch.allclose(ask(dit, *inputs(), noise=0.7), ask(dit, *inputs()), atol=1e-3)


def test_depths_of_nearly_empty_spots_look_alike():
    dit, (x, spatial, depth, level) = make(), inputs()
    here, there = (ask(dit, x, spatial, torch.full_like(depth, low), level) for low in (-4.0, -9.0))
    torch.testing.assert_close(here, there)


def test_an_untrained_transformer_says_nothing():
    torch.manual_seed(0)
    dit = GeneDiT(GENES, CONTEXT, width=16, heads=2, blocks=2).eval()
    assert ask(dit, *inputs()).eq(0).all()
