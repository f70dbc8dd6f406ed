"""``make fuzz``: an hour of changed files, and their counts (ARGS="--seconds 60 --seeds 4 5 --kind GMT")."""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.fuzzing import Child, Counts, fuzz, kinds_named, page_of, table_of


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz")
    parser.add_argument("--seconds", type=float, default=3600.0, help="for all kinds and seeds together")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--kind", nargs="+", default=[], help="only these")
    parser.add_argument("--only", type=int, help="one case by its number")
    parser.add_argument("--out", type=Path, help="also write the counts of each kind here, as Markdown")
    args = parser.parse_args()
    kinds = kinds_named(args.kind)
    each = args.seconds / len(kinds) / len(args.seeds)
    wrong = 0
    by_seed: dict[int, list[Counts]] = {}
    for seed, child in ((seed, Child()) for seed in args.seeds):
        counts = by_seed[seed] = []
        for kind in kinds:
            with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
                found = fuzz(kind, Path(folder) / "f", child, seed=seed, seconds=each, only=args.only)
            counts.append(found)
            for line in found.found:
                print(line, flush=True)  # noqa: T201 - this is a command
        child.close()
        wrong += sum(len(c.found) for c in counts)
        print(f"seed {seed}\n{table_of(counts)}\n", flush=True)  # noqa: T201 - this is a command
    if args.out is not None:
        command = f'make fuzz ARGS="{" ".join(sys.argv[1:])}"'
        args.out.write_text(page_of(by_seed, command), encoding="utf-8")
    return min(wrong, 1)


if __name__ == "__main__":
    raise SystemExit(main())
