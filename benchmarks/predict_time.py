r"""How long one prediction takes, against earlier versions: checkouts of this repository, taken in turns.

Every run is a fresh process with an empty cache, from slide file to prediction file, on the default device
with each version's default draws.

    git worktree add --detach ../earlier COMMIT
    python -m benchmarks.predict_time --checkout ../earlier \
        --slide images/C5.jpg --spots spots/C5_selection.tsv --mpp 0.683
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parents[1]


def predict(checkout: Path, args: argparse.Namespace) -> dict[str, float]:
    """Predict once with the code of `checkout`; return seconds, processor seconds and peak GB."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "napari_flag", "predict", str(args.slide.resolve())]
        command += ["--spots", str(args.spots.resolve()), "--mpp", str(args.mpp)]
        command += ["--out", f"{folder}/predicted.h5ad"]
        paths = os.pathsep.join(str(checkout / part) for part in ("src", "training"))
        environment = os.environ | {"PYTHONPATH": paths, "XDG_CACHE_HOME": folder}
        started = time.perf_counter()
        with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"{checkout} ended with {process.returncode}")
        seconds = time.perf_counter() - started
        return {"s": seconds, "cpu_s": used.ru_utime + used.ru_stime, "peak_gb": used.ru_maxrss / 1e6}


def main() -> None:
    """Print the medians of each version and the ratio to the first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkout", type=Path, nargs="+", required=True, help="earlier versions")
    parser.add_argument("--slide", type=Path, required=True)
    parser.add_argument("--spots", type=Path, required=True)
    parser.add_argument("--mpp", type=float, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON to write")
    args = parser.parse_args()
    checkouts = [*(path.resolve() for path in args.checkout), HERE]
    runs: dict[Path, list[dict[str, float]]] = {path: [] for path in checkouts}
    for _ in range(args.rounds):
        for path in checkouts:
            runs[path].append(predict(path, args))
    result: dict[str, Any] = {"slide": args.slide.name, "rounds": args.rounds, "versions": []}
    for path, found in runs.items():
        commit = subprocess.run(
            ["git", "-C", str(path), "show", "-s", "--format=%s"], capture_output=True, text=True, check=True
        ).stdout.strip()
        medians = {name: round(statistics.median(run[name] for run in found), 2) for name in found[0]}
        result["versions"].append({"commit": commit} | medians)
    result["ratio"] = round(result["versions"][-1]["s"] / result["versions"][0]["s"], 3)
    sys.stdout.write(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
