"""Moran's I of many genes against squidpy's, and its memory for a whole transcriptome.

    python -m benchmarks.moran --out docs/results/moran_benchmark.json

Both run on one thread, in one process, one after the other in turn after a warm-up, on the same values and
graph: a hexagonal section of 5,000 spots.  Writes JSON.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
from scipy import sparse

from napari_flag.progress import finish
from napari_flag.statistics.moran import moran_test
from napari_flag.statistics.neighbours import array_graph

ROWS: Final = 50
COLUMNS: Final = 100
GENES: Final = 200
PERMUTATIONS: Final = 100
TRANSCRIPTOME: Final = 20_000
ONE_THREAD: Final = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}


def main() -> None:
    """Time both, measure memory in a process of its own, and write JSON."""
    parser = argparse.ArgumentParser(description="Time Moran's I against squidpy's.")
    parser.add_argument("--out", type=Path, help="JSON; printed only, when not given")
    args = parser.parse_args()
    if not ONE_THREAD.items() <= os.environ.items():  # read when numpy is imported: begin anew
        again = subprocess.run([sys.executable, *sys.argv], env=os.environ | ONE_THREAD, check=False)
        sys.exit(again.returncode)
    results = json.dumps(
        {
            "command": "python -m benchmarks.moran --out docs/results/moran_benchmark.json",
            "spots": ROWS * COLUMNS,
            "genes": GENES,
            "threads": 1,
            "without permutations": against(0, 21),
            f"with {PERMUTATIONS} permutations": against(PERMUTATIONS, 3),
            f"{TRANSCRIPTOME} genes": memory(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            "versions": {name: version(name) for name in ("numpy", "scipy", "squidpy", "scanpy", "numba")},
        },
        indent=2,
        ensure_ascii=False,
    )
    print(results)
    if args.out:
        args.out.write_text(results + "\n", "utf-8")


def section(genes: int) -> tuple[np.ndarray, sparse.csr_array]:
    """Return (n, genes) float32 log2(count + 1) of random counts, and the graph of the section."""
    array = np.array([(row, 2 * col + row % 2) for row in range(ROWS) for col in range(COLUMNS)])
    values = np.random.default_rng(0).integers(0, 6, (len(array), genes), dtype=np.int8).astype(np.float32)
    values += 1
    return np.log2(values, out=values), array_graph(array, "hex")


def squidpy_and_ours(
    values: np.ndarray, weights: sparse.csr_array, permutations: int
) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray]]:
    """Return Moran's I of the (n, genes) `values` as squidpy computes it, and as we do."""
    import anndata
    import squidpy

    adata = anndata.AnnData(values)
    adata.obsp["spatial_connectivities"] = sparse.csr_matrix(weights)
    settings = {"n_perms": permutations, "seed": 0} if permutations else {}

    def theirs() -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = squidpy.gr.spatial_autocorr(
                adata, mode="moran", copy=True, n_jobs=1, show_progress_bar=False, **settings
            )
        return table.loc[adata.var_names, "I"].to_numpy()

    def ours() -> np.ndarray:
        return finish(moran_test(values, weights, permutations=permutations))["I"].to_numpy()

    return theirs, ours


def against(permutations: int, rounds: int) -> dict[str, object]:
    """Run both in turn, after one round that is not counted, and compare medians and minima."""
    theirs, ours = squidpy_and_ours(*section(GENES), permutations)
    apart = float(np.abs(theirs() - ours()).max())
    spent = np.array([[clock(theirs), clock(ours)] for _ in range(rounds)])
    median, least = np.median(spent, axis=0), spent.min(axis=0)
    return {
        "squidpy_ms": round(1e3 * median[0], 2),
        "napari_flag_ms": round(1e3 * median[1], 2),
        "times_faster": round(median[0] / median[1], 1),
        "times_faster_by_minima": round(least[0] / least[1], 1),
        "rounds": rounds,
        "largest_difference_of_I": apart,
    }


def clock(work: Callable[[], object]) -> float:
    """Return seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory() -> dict[str, object]:
    """Test a whole transcriptome, and report how much memory the test takes besides the values themselves."""
    values, weights = section(TRANSCRIPTOME)
    results: dict[str, object] = {"values_MB": values.nbytes >> 20}
    for permutations in (0, PERMUTATIONS):
        tracemalloc.start()
        seconds = clock(lambda many=permutations: finish(moran_test(values, weights, permutations=many)))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        results[f"{permutations} permutations"] = {
            "seconds": round(seconds, 1),
            "peak_MB": round(peak / 2**20, 1),
        }
    return results


if __name__ == "__main__":
    main()
