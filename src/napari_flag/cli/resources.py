"""``napari-flag encoders``, ``weights``, ``cache``, ``doctor``, ``demo``: what is here, how to get more."""

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_flag import keys
from napari_flag.cache import MOST_BYTES, variable_of
from napari_flag.cli import terminal
from napari_flag.cli.terminal import say, say_columns, say_json, watch
from napari_flag.errors import UserError
from napari_flag.formatting import counted, data_size, length, resolution

if TYPE_CHECKING:
    from napari_flag.encoders.foundation.catalogue import EncoderRow


DOWNLOAD = """\
Downloads the weights from huggingface.co into the Hugging Face cache, after showing licence and
size. Gated weights must be asked for on their page first; log in with `hf auth login`, or set
HF_TOKEN. The token is only ever sent to the hub. No code is downloaded or run.
"""


def add_encoders(commands: terminal.Commands) -> None:
    """Add ``encoders``."""
    encoders = terminal.add_command(
        commands, "encoders", list_encoders, summary="list, show or download encoders"
    ).add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = terminal.add_command(encoders, "list", list_encoders, summary="list the encoders")
    terminal.add_json(listing)
    show = terminal.add_command(
        encoders, "show", show_encoder, summary="show licence, access, tile and where the weights are"
    )
    show.add_argument("name", metavar="NAME", help="a name from `encoders list`")
    terminal.add_json(show)
    take = terminal.add_command(
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

    described = [_describe(row) for row in list_encoders()]
    if args.json:
        say_json(described)
        return 0
    say_columns(
        [
            [
                row["name"],
                f"{row['dim']} features",
                f"{length(row['tile_um'])} tile",
                row["licence"] + (", must be asked for" if row["gated"] else ""),
                row["where"] or "not on this computer",
            ]
            for row in described
        ]
    )
    return 0


def show_encoder(args: argparse.Namespace) -> int:
    """Print the catalogue entry of one encoder."""
    from napari_flag.encoders.foundation.hub import how_to_get
    from napari_flag.encoders.registry import find_encoder

    row = find_encoder(args.name)
    described = _describe(row)
    if args.json:
        say_json(described)
        return 0
    here = f"{described['where']}: {described['path']}" if described["path"] else described["where"]
    access = "must be asked for" if row.gated else "open"
    lines = [
        ["what", f"{row.title}, {row.about}"],
        ["licence", row.licence],
        ["access", f"{access}, {row.source}"],
        ["features", str(row.dim) + (f" ({described['pooling']})" if "pooling" in described else "")],
        ["tile", f"{row.tile_px} px at {resolution(row.mpp)} ({length(described['tile_um'])})"],
    ]
    if row.recipe is not None:
        lines += [
            ["seen", described["seen"]],
            ["precision", f"{row.recipe.precision} on a GPU, float32 on a CPU"],
            ["code", "none from the hub is run"],
        ]
    lines.append(["weights", here or f"not on this computer; {how_to_get(row)}"])
    say(row.name)
    say_columns(lines, indent="  ")
    return 0


def download_encoder(args: argparse.Namespace) -> int:
    """Download the weights of one encoder, with consent."""
    from napari_flag.encoders.foundation import hub
    from napari_flag.encoders.registry import find_encoder

    row = find_encoder(args.name)
    if row.recipe is not None and (found := hub.find_weights(row)) is not None:
        say(f"The weights of {row.title} are here already ({found.where}: {found.path}).")
        return 0
    file, size = hub.check_access(row)
    much = f", {data_size(size)}" if size else ""
    say(f"{file} of {row.title}{much}, from {row.source}; licence: {row.licence}.")
    if not args.yes:
        _ask_consent(row)
    path = watch(hub.download(row))
    say(f"Wrote {path}")
    return 0


def _ask_consent(row: "EncoderRow") -> None:
    if not sys.stdin.isatty():
        raise UserError(
            f"The licence of {row.title} ({row.licence}) cannot be agreed to without a terminal; read "
            f"{row.source}, then run the command again with --yes."
        )
    sys.stdout.write("Download, and agree to that licence? [y/N] ")
    sys.stdout.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError(
            f"The weights of {row.title} were not downloaded, as you did not agree; nothing changed."
        )


def _describe(row: "EncoderRow") -> dict[str, Any]:
    """Return the catalogue entry of an encoder, and where its weights are on this computer."""
    from napari_flag.encoders.foundation.hub import find_weights

    described: dict[str, Any] = {
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
        return described | {"where": row.source, "path": None}
    found = find_weights(row)
    size = row.recipe.resize_px or row.recipe.crop_px
    cut = "" if size == row.recipe.crop_px else f", centre {row.recipe.crop_px} px"
    resized = "as it is" if size == row.tile_px else f"resized to {size} px ({row.recipe.interpolation})"
    pooling = getattr(row.recipe.architecture, "pooling", None)
    return described | {
        "repository": row.recipe.repository,
        "files": list(row.recipe.files),
        "seen": f"{resized}{cut}",
        "precision": row.recipe.precision,
        **({"pooling": pooling.value} if pooling is not None else {}),
        "where": found.where if found else None,
        "path": str(found.path) if found else None,
    }


def add_weights(commands: terminal.Commands) -> None:
    """Add ``weights``."""
    weights = terminal.add_command(
        commands, "weights", list_weights, summary="list, show or import weights"
    ).add_subparsers(title="commands", metavar="COMMAND", required=True)
    listing = terminal.add_command(weights, "list", list_weights, summary="list the weights")
    terminal.add_json(listing)
    show = terminal.add_command(
        weights,
        "show",
        show_weights,
        summary="show what weights were trained on, how well they do, and what they are not for",
    )
    show.add_argument("name", metavar="NAME|FILE", help="a name from `weights list`, or a file")
    terminal.add_json(show)
    take = terminal.add_command(
        weights,
        "import",
        import_weights,
        summary="copy a weights file to where every command and the window find it by name",
        description=IMPORT_DESCRIPTION,
    )
    take.add_argument("file", metavar="FILE", type=terminal.path, help="a .safetensors file, or a checkpoint")
    published = take.add_argument_group("a checkpoint of the published FLAG code")
    published.add_argument(
        "--config", metavar="YAML", type=terminal.path, help="the configuration it was trained with"
    )
    published.add_argument(
        "--genes", metavar="FILE", type=terminal.path, help="its panel, one symbol a line, in its order"
    )
    published.add_argument(
        "--mpp", metavar="UM", type=terminal.positive, help="µm per pixel of the slides it was trained on"
    )
    published.add_argument(
        "--out",
        metavar="FILE.safetensors",
        type=terminal.path,
        help="weights file to write, in a folder that is made if needed (default: where every command finds "
        "it by name)",
    )
    take.add_argument(
        "--overwrite", action="store_true", help="replace FILE.safetensors of --out if napari-flag wrote it"
    )


def list_weights(args: argparse.Namespace) -> int:
    """Print name, tissue and genes of all weights; one that cannot be read does not hide the rest."""
    from napari_flag.model import checkpoint

    rows: list[dict[str, Any]] = []
    for name, path in checkpoint.list_weights():
        row: dict[str, Any] = {"name": name, "file": str(path)}
        try:
            found = checkpoint.Checkpoint.look(path)
        except UserError as error:
            row["problem"] = str(error)
        else:
            row |= {
                "title": found.card.get("title", ""),
                "tissue": found.card.get("tissue", ""),
                "method": found.method_name,
                "genes": len(found.genes),
                "encoder": found.encoder,
                "sha256": found.sha256,
                "default": name == keys.DEFAULT_WEIGHTS,
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
        return [row["name"], "", "", row["problem"]]
    title = row["title"] or row["tissue"] or "no description"
    default = " (default)" if row["default"] else ""
    return [row["name"] + default, row["method"], counted(row["genes"], "gene"), title]


def show_weights(args: argparse.Namespace) -> int:
    """Print the data card of one weights file."""
    from napari_flag.model.checkpoint import Checkpoint, describe_entries, find_weights

    path = find_weights(args.name)
    found = Checkpoint.load(path)
    result: dict[str, Any] = {"name": found.name, "file": str(path), "sha256": found.sha256}
    result |= {"method": found.method_name, "encoder": found.encoder}
    result |= {"genes": list(found.genes), "card": found.card}
    result["use"] = keys.RESEARCH_USE_ONLY
    if args.json:
        say_json(result)
        return 0
    say(f"{found.name}: {keys.RESEARCH_USE_ONLY}")
    say_columns(
        [
            ["file", str(path)],
            ["sha256", found.sha256],
            *([] if keys.CARD_METHOD in found.card else [["method", found.method_name]]),
            ["encoder", found.encoder],
            *([name, text] for name, text in describe_entries(found.card)),
            [counted(len(found.genes), "gene"), " ".join(found.genes)],
        ],
        indent="  ",
    )
    return 0


IMPORT_DESCRIPTION = """\
Of a checkpoint (.pt) that the published FLAG code trained, be it FLAG, joint or node-only diffusion, a
weights file is written that predicts as its test script does: with the averaged parameters, in windows of
the crop size, X the mean of 8 draws of 100 Heun steps. Only tensors are read from it; nothing in it is run.
The encoder it was trained on has to be on this computer.
"""


def import_weights(args: argparse.Namespace) -> int:
    """Copy a weights file, checked, to the user's weights folder, or write one from a checkpoint."""
    from napari_flag.files import ending
    from napari_flag.model.checkpoint import import_weights

    if args.overwrite and args.out is None:
        raise UserError("--overwrite replaces the file of --out; give --out too, or leave it out.")
    given = {"--config": args.config, "--genes": args.genes, "--mpp": args.mpp}
    if ending(args.file) != ".safetensors" or any(value is not None for value in (*given.values(), args.out)):
        return _import_published(args, [name for name, value in given.items() if value is None])
    target = import_weights(args.file)
    say(f"Imported as {target.stem} ({target}); use it with --weights {target.stem}.")
    return 0


def _import_published(args: argparse.Namespace, lacking: list[str]) -> int:
    from napari_flag.files import ending
    from napari_flag.model.checkpoint import check_name, free_place

    if ending(args.file) == ".safetensors":
        raise UserError(
            f"{args.file} is a safetensors file, which is imported as it is; leave out --config, --genes, "
            "--mpp and --out, which belong to a checkpoint (.pt)."
        )
    if lacking:
        raise UserError(
            f"{args.file} is no .safetensors file; to import a checkpoint of the published FLAG code, give "
            f"{', '.join(lacking)} too."
        )
    from napari_flag.exports.replacing import check_place
    from napari_flag.methods.published_checkpoint import import_published

    out = args.out or free_place(args.file.stem)
    check_name(out)
    check_place(out, args.overwrite)
    import_published(args.file, args.config, args.genes, args.mpp, out)
    name = out if args.out else out.stem
    say(f"Wrote {out}; use it with --weights {name}.")
    return 0


def add_cache(commands: terminal.Commands) -> None:
    """Add ``cache``."""
    parser = terminal.add_command(
        commands,
        "cache",
        run_cache,
        summary="show how much is kept of slides seen before, or clear it",
        description="Features, overviews and image pyramids of slides are kept so that they need not be made "
        "again. Clearing them costs time at the next use and nothing else. "
        f"{', '.join(map(variable_of, MOST_BYTES))} in the environment set how many gigabytes may stay.",
    )
    parser.add_argument(
        "--clear",
        nargs="*",
        choices=list(MOST_BYTES),
        metavar="KIND",
        help=f"delete what is kept: {', '.join(MOST_BYTES)} (all, when none is named)",
    )
    terminal.add_json(parser)


def run_cache(args: argparse.Namespace) -> int:
    """Print what is in the cache, and clear it where asked."""
    from napari_flag import cache

    cleared = args.clear is not None
    most = {name: cache.most_bytes(name) for name in MOST_BYTES}
    found = cache.clear(tuple(args.clear) or tuple(MOST_BYTES)) if cleared else cache.contents()
    if args.json:
        rows = [
            {"kind": k.name, "folder": str(k.folder), "files": k.entries, "bytes": k.size}
            | {"most": most[k.name]}
            for k in found
        ]
        say_json({"cleared": cleared, "kinds": rows})
        return 0
    say_columns(
        [
            [
                kind.name,
                counted(kind.entries, "file"),
                data_size(kind.size),
                "cleared" if cleared else f"at most {data_size(most[kind.name])}",
                str(kind.folder),
            ]
            for kind in found
        ]
    )
    return 0


SIGNS = {"good": "ok", "warning": "note", "bad": "FAIL"}


def add_doctor(commands: terminal.Commands) -> None:
    """Add ``doctor``."""
    parser = terminal.add_command(
        commands,
        "doctor",
        run_doctor,
        summary="check that everything is there, and what it will run on",
        description="Exit code 0: predictions will run; 2: something needs putting right.",
    )
    parser.add_argument(
        "--gated",
        nargs="*",
        metavar="ENCODER",
        help="also ask huggingface.co whether this account may download these encoders (all that must be "
        "asked for, when none is named); needs the network",
    )
    terminal.add_json(parser)


def run_doctor(args: argparse.Namespace) -> int:
    """Run all checks and print them; 2 when one is bad."""
    from napari_flag.doctor import examine

    findings = list(examine(args.gated))
    bad = sum(finding.state == "bad" for finding in findings)
    if args.json:
        say_json([asdict(finding) for finding in findings])
    else:
        say_columns([[SIGNS[f.state], f.what, f.sentence] for f in findings])
        say()
        say(f"{bad} to put right." if bad else "Everything needed to predict is there.")
    return 2 if bad else 0


DEMO_DESCRIPTION = """\
Opens napari on a bundled synthetic H&E slide, predicts it with weights made for such slides, and
shows prediction beside truth. Without a display it writes the screenshot and says where.
"""


def add_demo(commands: terminal.Commands) -> None:
    """Add ``demo``."""
    parser = terminal.add_command(
        commands,
        "demo",
        run_demo,
        summary="open the bundled synthetic slide, predict it, and show prediction beside truth",
        description=DEMO_DESCRIPTION,
    )
    parser.add_argument(
        "--screenshot",
        metavar="PNG",
        type=terminal.path,
        help="write a picture of the window here and close it again (default: the window stays open)",
    )


def run_demo(args: argparse.Namespace) -> int:
    """Show the demo."""
    from napari_flag.gui.demo_window import run_demo

    return int(run_demo(screenshot=args.screenshot))
