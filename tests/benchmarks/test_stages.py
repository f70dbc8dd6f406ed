"""The floors of the benchmark of stages are the products that the networks make."""

import subprocess
import sys

import pytest
import torch
from benchmarks.stages import Product, Stage, bare, encoder_products, in_turns, table

COUNTED = """
import sys
import torch
from torch.utils.flop_counter import FlopCounterMode
from benchmarks.stages import encoder_products, transformer_products
from napari_flag.encoders.embedded import TileNet
from napari_flag.model.config import FlagConfig
from napari_flag.model.flag import Flag

def counted(work):
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()

net = TileNet().eval()
images = torch.zeros(2, 3, 60, 60)
print(counted(lambda: net(images)), sum(p.flops for p in encoder_products(2, 60)))
for covariance in (True, False):
    config = FlagConfig(
        features=6, genes=10, slides=1, width=16, heads=2, blocks=2, mlp_ratio=2.0, context_width=8,
        landmarks=3, members=1, covariance=covariance,
    )
    flag = Flag(config).eval()
    x, sigma = torch.zeros(3, 10), torch.ones(3)
    work = lambda: flag.denoise(x, sigma, torch.zeros(3, 16), x)
    print(counted(work), sum(p.flops for p in transformer_products(config, 3)))
"""


@pytest.mark.slow
def test_the_products_are_those_that_pytorch_counts():
    # in a process of its own: PyTorch's counter loads a compiler, which must not be loaded under a window
    said = subprocess.run([sys.executable, "-c", COUNTED], capture_output=True, text=True, check=True).stdout
    pairs = [line.split() for line in said.splitlines()]
    assert len(pairs) == 3
    for counted, formula in pairs:
        assert counted == formula
        assert int(counted) > 0


def test_bare_products_are_made_into_memory_that_is_there():
    products = [*encoder_products(1, 8), Product(3, 4, 5, 6)]
    bare(products)()
    assert products[-1].flops == 2 * 3 * 4 * 5 * 6


def test_a_stage_and_its_floor_are_measured_in_turns_and_the_ratio_is_shown():
    called = []
    numbers = torch.ones(400, 400)

    def work(name, times):
        called.append(name)
        for _ in range(times):
            numbers @ numbers

    stage = Stage("s", "tile", 10, lambda: work("ours", 20), lambda: work("floor", 1), "products", 10**9)
    ((ours, floor),) = in_turns([stage], 2)
    assert called == ["ours", "floor"] * 3
    assert ours > floor > 0
    row = table([stage], [(0.4, 0.1)]).splitlines()[-1]
    assert row == "| s | tile | 40 | 10 | **4.00** | 2 | 10 | products |"


@pytest.mark.parametrize("begun", [0, 2])
def test_a_table_is_written_between_its_own_markers_only(tmp_path, begun):
    from benchmarks.tables import write_between

    page = tmp_path / "README.md"
    marked = "<!-- begin a -->\nold\n<!-- end a -->"
    page.write_text(f"before\n{marked}\nafter\n" if not begun else "nothing\n")
    if begun:
        with pytest.raises(ValueError, match="no markers"):
            write_between("a", "new", page)
        return
    write_between("a", "new", page)
    assert page.read_text() == "before\n<!-- begin a -->\nnew\n<!-- end a -->\nafter\n"
