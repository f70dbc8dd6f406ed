"""``make soak``: a window in use for long (ARGS="--switches 20000 --rounds 40 --out runs/soak.md")."""

import argparse
import faulthandler
import os
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from tests.soak.curve import FLAT, GROWS, ROUNDS, SWITCHES, Mark, growths
from tests.soak.leaks import LEAKS
from tests.soak.result import write_result


def main() -> int:
    """Use a window, record it at marks, and say whether it stayed flat."""
    parser = argparse.ArgumentParser(prog="make soak")
    parser.add_argument("--switches", type=int, default=1_000_000, help="gene switches")
    parser.add_argument("--rounds", type=int, default=500, help="slides opened, predicted and closed")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=1e9, help="for each phase at most")
    parser.add_argument("--marks", type=int, default=50, help="of each phase")
    parser.add_argument("--out", type=Path, default=Path("runs/soak.md"), help="also .json and .png")
    parser.add_argument("--leak", choices=LEAKS, help="leak on purpose, to see that it is found")
    args = parser.parse_args()
    faulthandler.enable()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        home = Path(folder) / "home"
        os.environ |= {"XDG_CACHE_HOME": str(home / "cache"), "XDG_CONFIG_HOME": str(home / "config")}
        home.mkdir()
        try:
            return soak(args, Path(folder))
        except Exception:  # noqa: BLE001 - a window that stopped has failed
            traceback.print_exc()
            return 1


def soak(args: argparse.Namespace, folder: Path) -> int:
    """Do both phases in one window; return 0 where nothing was seen to grow and nothing went wrong."""
    from tests.soak.window import FRAME_EVERY, Window

    window = Window(folder, args.seed)
    marks: list[Mark] = []
    about: dict[str, Any] = {
        "arguments": _stated(args),
        "seed": args.seed,
        "frame_every": FRAME_EVERY,
        "asked": {},
        "done": {},
        "frames": {},
    }
    leak = LEAKS.get(args.leak, lambda window: None)

    def phase(name: str, total: int, step: Any, before: Any, after: Any) -> None:
        drawn, stop = window.frames, time.monotonic() + 60 * args.minutes
        about["asked"][name], done = total, 0
        for mark in range(args.marks + 1):
            until = round(total * mark / args.marks)
            before(mark)
            while done < until and time.monotonic() < stop:
                step(done)
                leak(window)
                done += 1
            after()
            if mark and done == (marks[-1].done if marks and marks[-1].phase == name else 0):
                break  # too few for another mark, or no time is left
            marks.append(Mark(name, done, round(time.monotonic() - window.begun, 1), window.measure()))
            about["done"][name], about["frames"][name] = done, window.frames - drawn
            write_result(args.out, marks, about)
            print(marks[-1], flush=True)  # noqa: T201 - this is a command

    if args.switches:
        window.open_prediction()
        phase(
            SWITCHES,
            args.switches,
            window.switch,
            lambda mark: window.side_by_side(mark % 2 == 1),
            window.same_view,
        )
        window.close_slides()
    if args.rounds:
        phase(ROUNDS, args.rounds, window.round, lambda mark: None, window.settle)
    heard = window.witness.take()
    found = growths(marks)
    for growth in found:
        if growth.verdict != FLAT:
            print(f"{growth.verdict.upper()} {growth}")  # noqa: T201 - this is a command
    for fault in heard:
        print(f"WRONG {fault}")  # noqa: T201 - this is a command
    window.close()
    grew = any(growth.verdict == GROWS for growth in found)
    return 1 if heard or grew or not found else 0


def _stated(args: argparse.Namespace) -> str:
    minutes = f" --minutes {args.minutes:g}" if args.minutes < 1e9 else ""
    return (
        f"--switches {args.switches} --rounds {args.rounds} --seed {args.seed}{minutes} --out {args.out.name}"
    )


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as in the tours: napari's window is not to be torn down by Python
