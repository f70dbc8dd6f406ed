"""``napari-flag weights``: what there is to predict with."""

import argparse
from typing import Any

from napari_flag import keys
from napari_flag.cli import arguments
from napari_flag.cli.terminal import say, say_columns, say_json
from napari_flag.errors import UserError


def add_commands(commands: arguments.Commands) -> None:
    """Add ``weights``."""
    weights = arguments.add_command(
        commands, "weights", list_weights, summary="list, show or import weights"
    ).add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = arguments.add_command(weights, "list", list_weights, summary="list the weights")
    arguments.add_json(listing)
    show = arguments.add_command(
        weights,
        "show",
        show_weights,
        summary="show what weights were trained on, how well they do, and what they are not for",
    )
    show.add_argument("name", metavar="NAME|FILE", help="a name from `weights list`, or a file")
    arguments.add_json(show)
    take = arguments.add_command(
        weights,
        "import",
        import_weights,
        summary="copy a weights file to where every command and the dock find it by name",
    )
    take.add_argument("file", metavar="FILE.safetensors", type=arguments.path)


def list_weights(args: argparse.Namespace) -> int:
    """Print name, tissue and genes of all weights; one that cannot be read does not hide the rest."""
    from napari_flag.model import checkpoint

    rows: list[dict[str, Any]] = []
    for name, path in checkpoint.list_weights():
        row: dict[str, Any] = {"name": name, "file": str(path)}
        try:
            found = checkpoint.Checkpoint.load(path)
        except UserError as error:
            row["problem"] = str(error)
        else:
            row |= {
                "title": found.card.get("title", ""),
                "tissue": found.card.get("tissue", ""),
                "genes": len(found.genes),
                "encoder": found.encoder,
                "sha256": found.sha256,
                "default": name == checkpoint.DEFAULT,
            }
        rows.append(row)
    if args.json:
        say_json(rows)
    elif not rows:
        say("There are no weights; import some with: napari-flag weights import FILE.safetensors")
    else:
        say_columns([_weights_row(row) for row in rows])
    return 0


def _weights_row(row: dict[str, Any]) -> list[str]:
    if "problem" in row:
        return [row["name"], "", row["problem"]]
    title = row["title"] or row["tissue"] or "no description"
    default = " (default)" if row["default"] else ""
    return [row["name"] + default, f"{row['genes']:,} genes", title]


def show_weights(args: argparse.Namespace) -> int:
    """Print the data card of one weights file."""
    from napari_flag.model.checkpoint import Checkpoint, describe_entries, find_weights

    path = find_weights(args.name)
    found = Checkpoint.load(path)
    result: dict[str, Any] = {"name": found.name, "file": str(path), "sha256": found.sha256}
    result |= {"encoder": found.encoder, "genes": list(found.genes), "card": found.card}
    result["use"] = keys.RESEARCH_USE_ONLY
    if args.json:
        say_json(result)
        return 0
    say(f"{found.name}: {keys.RESEARCH_USE_ONLY}")
    say_columns(
        [
            ["file", str(path)],
            ["sha256", found.sha256],
            ["encoder", found.encoder],
            *([name, text] for name, text in describe_entries(found.card)),
            [f"{len(found.genes):,} genes", " ".join(found.genes)],
        ],
        indent="  ",
    )
    return 0


def import_weights(args: argparse.Namespace) -> int:
    """Copy a weights file, checked, to the user's weights folder."""
    from napari_flag.model.checkpoint import import_weights

    target = import_weights(args.file)
    say(f"Imported as {target.stem} ({target}); use it with --weights {target.stem}.")
    return 0
