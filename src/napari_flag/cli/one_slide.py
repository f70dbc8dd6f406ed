"""One slide of ``napari-flag predict``: from the words of a command to a prediction file."""

import argparse
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from napari_flag import keys
from napari_flag.cli.terminal import Words, fingerprint, recorded, write_or_rescue
from napari_flag.errors import UserError
from napari_flag.files import ending, place_in
from napari_flag.progress import Step, Steps

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.model.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Written:
    """A prediction that was written.

    Parameters
    ----------
    adata
        The prediction.
    out
        Where it is.
    replaced
        Whether an earlier result of the same command was replaced.
    """

    adata: "AnnData"
    out: Path
    replaced: bool


def predicting(args: argparse.Namespace, checkpoint: "Checkpoint | None" = None) -> Steps[Written]:
    """Do what a parsed command asks for, one slide: prepare, predict and write.

    Parameters
    ----------
    args
        As `cli.predict` parses them.
    checkpoint
        The weights that the arguments name, where they are loaded already.

    Raises
    ------
    UserError
        As `discovery.source_of`, `inputs.prepare` and `inputs.predict_inputs`, or when the file may not or
        cannot be written.
    """
    from napari_flag.exports.replacing import check_place
    from napari_flag.exports.spatial_data import check_free, place_in_store
    from napari_flag.inputs import predict_inputs, prepare, read_depth
    from napari_flag.model.checkpoint import Checkpoint, find_weights
    from napari_flag.prediction_file import is_unchanged, made_by
    from napari_flag.slides.slide import name_in_results

    args, said = with_source(args)
    out: Path = args.out or place_in(Path(), name_in_results(args.slide, args.keep_names), "_predicted.h5ad")
    command = command_of(args)
    identity = fingerprint(command)
    back = _goes_back(args, out)
    if checkpoint is None:
        checkpoint = Checkpoint.load(find_weights(args.weights))
    weights_sha256 = checkpoint.sha256
    depth = read_depth(args.depth)
    stated = {keys.COMMAND_HASH: identity, keys.WEIGHTS_HASH: weights_sha256}
    if back:
        table = place_in_store(args.slide)
        replaces = not args.overwrite and made_by(table, stated) and is_unchanged(table) is True
        with_shapes = _spots_in_zarr(args) is None
        check_free(args.slide, overwrite=args.overwrite or replaces, with_shapes=with_shapes)
    else:
        replaces = check_place(out, args.overwrite, lambda: made_by(out, stated))
    inputs = yield from prepare(
        args.slide,
        checkpoint,
        spots=args.spots,
        measured=args.measured,
        alignment=args.alignment,
        mpp=args.mpp,
        spacing_um=args.spacing,
        diameter_um=args.diameter,
        region=args.region,
        genes=args.genes,
        force=args.force,
        said=said,
    )
    with inputs.slide:
        adata = yield from predict_inputs(
            inputs,
            checkpoint,
            quality=args.quality,
            depth=depth,
            draws=args.draws,
            steps=args.steps,
            seed=args.seed,
            device=args.device,
            colours=args.colours,
            force=args.force,
            keep_names=args.keep_names,
            cluster=args.cluster,
        )
    yield Step("Writing", 0, 1, "files")
    adata.uns[keys.PROVENANCE] |= {
        keys.COMMAND: recorded(_without_weights_name(command, args, adata), args.keep_names),
        keys.COMMAND_HASH: identity,
    }
    if back:
        out = yield from _written_back(adata, args, overwrite=args.overwrite or replaces)
    else:
        write_or_rescue(adata, out)
    return Written(adata, out, replaces)


def _goes_back(args: argparse.Namespace, out: Path) -> bool:
    """Return whether the prediction becomes a table of the zarr it is made from; refuse others than h5ad."""
    from napari_flag.exports.spatial_data import check_installed
    from napari_flag.slides.formats import spatial_data

    if not out.is_dir():
        if ending(out) != ".h5ad":
            why = (
                "is not the SpatialData zarr that is predicted"
                if ending(out) == ".zarr"
                else "does not end in .h5ad, and a prediction is written in no other format"
            )
            raise UserError(f"{out} {why}; give --out an .h5ad.")
        return False
    of_store = spatial_data.element_of(args.slide, spatial_data.IMAGES)
    if of_store is None or of_store[0].path.resolve() != out.resolve():
        raise UserError(
            f"{out} is a folder, and a prediction can only become a table of the SpatialData zarr that is "
            "predicted; give --out an .h5ad."
        )
    check_installed()
    return True


def _spots_in_zarr(args: argparse.Namespace) -> Path | None:
    """Return the table or shapes of the slide's own zarr that spots were read from; None for others."""
    from napari_flag.slides.formats import spatial_data

    spots: Path | None = args.spots
    if spots is None or spatial_data.element_of(spots, spatial_data.TABLES, spatial_data.SHAPES) is None:
        return None
    return spots if spots.parents[1].resolve() == args.slide.parents[1].resolve() else None


def _written_back(adata: "AnnData", args: argparse.Namespace, *, overwrite: bool) -> Steps[Path]:
    """Make the prediction a table of its zarr; if that fails, it is kept as h5ad."""
    from napari_flag.exports.spatial_data import add_prediction
    from napari_flag.prediction_file import output_name

    try:
        return (yield from add_prediction(adata, args.slide, _spots_in_zarr(args), overwrite=overwrite))
    except UserError as error:
        endings = chain(["_predicted.h5ad"], (f"_predicted_{n}.h5ad" for n in count(2)))
        places = (place_in(Path(), output_name(adata), ending) for ending in endings)
        kept = next(place for place in places if not place.exists())
        write_or_rescue(adata, kept)
        raise UserError(f"{str(error).split(';')[0]}; the prediction was kept as {kept}.") from error


def with_source(args: argparse.Namespace) -> tuple[argparse.Namespace, tuple[str, ...]]:
    """Return the arguments with slide, spots and counts as `discovery.source_of` finds them; and notices."""
    from napari_flag.discovery import source_of

    found = source_of(
        args.slide, args.spots, args.measured, image=args.image, shapes=args.shapes, table=args.table
    )
    taken = {"slide": found.slide, "spots": found.spots, "measured": found.measured}
    return argparse.Namespace(**(vars(args) | taken)), found.notices


def command_of(args: argparse.Namespace) -> Words:
    """Return the command line that makes the same numbers: its options, in a fixed order."""
    from napari_flag.model.checkpoint import file_given

    words: list[str | Path] = ["napari-flag", "predict", args.slide]
    for name in ("spots", "measured", "alignment", "mpp", "spacing", "diameter", "region", "weights", "genes",
                 "quality", "depth", "draws", "steps", "seed", "colours"):  # fmt: skip
        value = getattr(args, name)
        if name == "weights":  # a name that is listed is one whatever lies in the working folder
            value = file_given(value) or value
        if value is not None:
            words += [f"--{name}", *map(_word, value if isinstance(value, tuple) else (value,))]
    words += ["--force"] if args.force else []
    return [*words, "--keep-names"] if args.keep_names else words


def _without_weights_name(command: Words, args: argparse.Namespace, adata: "AnnData") -> Words:
    """Return a command in which weights that may be named after a patient are called as in the prediction."""
    from napari_flag.slides.file_identity import why_personal

    if args.keep_names or why_personal(str(args.weights)) is None:
        return command
    called = str(adata.uns[keys.PROVENANCE].get(keys.WEIGHTS_NAME))
    return [called if word == args.weights else word for word in command]


def _word(value: object) -> str | Path:
    """Return a value as a word of a command; a path stays one."""
    if isinstance(value, Path):
        return value
    return repr(value).removesuffix(".0") if isinstance(value, float) else str(value)
