"""``napari-flag encoders``: what tiles can be read with, whether it is here, and how to get it."""

import argparse
import sys
from typing import TYPE_CHECKING, Any

from napari_flag.cli import arguments
from napari_flag.cli.terminal import ProgressLine, say, say_columns, say_json
from napari_flag.errors import UserError

if TYPE_CHECKING:
    from napari_flag.encoders.rows import EncoderRow

DOWNLOAD = """\
Downloads the weights from huggingface.co into the Hugging Face cache, after showing licence and
size. Gated weights must be asked for on their page first; log in with `hf auth login`, or set
HF_TOKEN. The token is only ever sent to the hub. No code is downloaded or run.
"""


def add_commands(commands: arguments.Commands) -> None:
    """Add ``encoders``."""
    encoders = arguments.add_command(
        commands, "encoders", list_encoders, summary="list, show or download encoders"
    ).add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = arguments.add_command(encoders, "list", list_encoders, summary="list the encoders")
    arguments.add_json(listing)
    show = arguments.add_command(
        encoders, "show", show_encoder, summary="show licence, access, tile and where the weights are"
    )
    show.add_argument("name", metavar="NAME", help="a name from `encoders list`")
    arguments.add_json(show)
    take = arguments.add_command(
        encoders,
        "download",
        download_encoder,
        summary="download the weights of an encoder",
        description=DOWNLOAD,
    )
    take.add_argument("name", metavar="NAME", help="a name from `encoders list`")
    take.add_argument("--yes", action="store_true", help="agree to the licence and do not ask")


def list_encoders(args: argparse.Namespace) -> int:
    """Print all encoders, a line each."""
    from napari_flag.encoders.registry import list_encoders

    told = [_tell(row) for row in list_encoders()]
    if args.json:
        say_json(told)
        return 0
    say_columns(
        [
            [
                row["name"],
                f"{row['dim']} features",
                f"{row['tile_um']:.0f} µm tile",
                row["licence"] + (", must be asked for" if row["gated"] else ""),
                row["where"] or "not on this computer",
            ]
            for row in told
        ]
    )
    return 0


def show_encoder(args: argparse.Namespace) -> int:
    """Print all there is to know of one encoder."""
    from napari_flag.encoders.hub import how_to_get
    from napari_flag.encoders.registry import find_encoder

    row = find_encoder(args.name)
    told = _tell(row)
    if args.json:
        say_json(told)
        return 0
    here = f"{told['where']}: {told['path']}" if told["path"] else told["where"]
    access = "must be asked for" if row.gated else "open"
    lines = [
        ["what", f"{row.title}, {row.about}"],
        ["licence", row.licence],
        ["access", f"{access}, {row.source}"],
        ["features", str(row.dim) + (f" ({told['pooling']})" if "pooling" in told else "")],
        ["tile", f"{row.tile_px} px at {row.mpp:g} µm/px ({told['tile_um']:.0f} µm)"],
    ]
    if row.recipe is not None:
        lines += [
            ["seen", told["seen"]],
            ["precision", f"{row.recipe.precision} on a GPU, float32 on a CPU"],
            ["code", "none from the hub is run"],
        ]
    lines.append(["weights", here or f"not on this computer; {how_to_get(row)}"])
    say(row.name)
    say_columns(lines, indent="  ")
    return 0


def download_encoder(args: argparse.Namespace) -> int:
    """Download the weights of one encoder, with consent."""
    from napari_flag.encoders import hub
    from napari_flag.encoders.registry import find_encoder
    from napari_flag.progress import finish

    row = find_encoder(args.name)
    if row.recipe is not None and (found := hub.find_weights(row)) is not None:
        say(f"The weights of {row.title} are here already ({found.where}: {found.path}).")
        return 0
    file, size = hub.check_access(row)
    much = f", {size / 1e9:.1f} GB" if size else ""
    say(f"{file} of {row.title}{much}, from {row.source}; licence: {row.licence}.")
    if not args.yes:
        _ask_consent(row)
    with ProgressLine() as line:
        path = finish(hub.download(row), line)
    say(f"Wrote {path}")
    return 0


def _ask_consent(row: "EncoderRow") -> None:
    if not sys.stdin.isatty():
        raise UserError(
            f"Nobody is there to agree to the licence of {row.title} ({row.licence}); read {row.source}, "
            "then run the command again with --yes."
        )
    sys.stdout.write("Download, and agree to that licence? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError(
            f"The weights of {row.title} were not downloaded, as you did not agree; nothing changed."
        )


def _tell(row: "EncoderRow") -> dict[str, Any]:
    """Return what is known of an encoder, and where its weights are on this computer."""
    from napari_flag.encoders.hub import find_weights

    told: dict[str, Any] = {
        "name": row.name,
        "title": row.title,
        "about": row.about,
        "dim": row.dim,
        "tile_px": row.tile_px,
        "um_per_px": row.mpp,
        "tile_um": round(row.tile_px * row.mpp, 1),
        "licence": row.licence,
        "gated": row.gated,
        "source": row.source,
        "remote_code": False,
    }
    if row.recipe is None:
        return told | {"where": row.source, "path": None}
    found = find_weights(row)
    size = row.recipe.resize_px or row.recipe.crop_px
    cut = "" if size == row.recipe.crop_px else f", centre {row.recipe.crop_px} px"
    resized = "as it is" if size == row.tile_px else f"resized to {size} px ({row.recipe.interpolation})"
    pooling = getattr(row.recipe.architecture, "pooling", None)
    return told | {
        "repository": row.recipe.repository,
        "files": list(row.recipe.files),
        "seen": f"{resized}{cut}",
        "precision": row.recipe.precision,
        **({"pooling": pooling.value} if pooling is not None else {}),
        "where": found.where if found else None,
        "path": str(found.path) if found else None,
    }
