"""``make kills``: seven commands killed 200 times (ARGS="--kills 40 --commands predict fit --seed 2")."""

import argparse
import gc
import tempfile
from pathlib import Path

from tests.kills.commands import COMMANDS
from tests.kills.killing import kill_often, table_of, warm


def main() -> int:
    parser = argparse.ArgumentParser(prog="make kills")
    parser.add_argument("--kills", type=int, default=200, help="of each command")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="one case by its number")
    parser.add_argument("--seconds", type=float, default=1e9, help="of each command at most")
    args = parser.parse_args()
    warm()
    all_counts = []
    for name in args.commands:
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            counts = kill_often(COMMANDS[name], Path(folder), args.kills, args.seed, args.only, args.seconds)
        all_counts.append(counts)
        for line in counts.found:
            print(line, flush=True)  # noqa: T201 - this is a command
        print(table_of([counts]).splitlines()[-1], flush=True)  # noqa: T201 - this is a command
    print(table_of(all_counts), flush=True)  # noqa: T201 - this is a command
    gc.unfreeze()  # or libraries that count their objects at exit call the frozen ones leaks
    return min(sum(len(counts.found) for counts in all_counts), 1)


if __name__ == "__main__":
    raise SystemExit(main())
