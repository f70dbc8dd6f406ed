"""Registry of export formats, and `export`, which writes any of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from napari_flag import keys
from napari_flag.analysis.structure import GeneSets
from napari_flag.anonymous_prediction import columns_of_others
from napari_flag.errors import UserError
from napari_flag.exports.contents import (
    choose_genes,
    clashing_columns,
    known_columns,
    with_structure,
    write_csv,
)
from napari_flag.exports.ome_tiff import write_ome_tiff
from napari_flag.exports.qupath import write_geojson
from napari_flag.exports.replacing import refuse_columns
from napari_flag.exports.spatial_data import check_installed, with_valid_names, write_spatial_data
from napari_flag.files import ending, make_folder, place_in
from napari_flag.formatting import first_of
from napari_flag.gene_names import symbols_of
from napari_flag.prediction_doubts import record_misplaced, refuse_misplaced, wrong_in
from napari_flag.prediction_file import output_name, write_prediction, written_by
from napari_flag.progress import Step, Steps, finish
from napari_flag.slide_identity import without_personal_names

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide


Write: TypeAlias = "Callable[[AnnData, Path, Slide | None], Steps[None]]"
"""Writes a prediction to a path, replacing what is there; the slide is for formats that hold the image."""


def write_h5ad(adata: "AnnData", path: Path) -> Steps[None]:
    """Write `adata` with all its results as h5ad, for scanpy and squidpy.

    Raises
    ------
    UserError
        When the file cannot be written.
    """
    yield Step("Writing the h5ad", 0, None)
    write_prediction(adata, path)


def _without_picture(write: "Callable[[AnnData, Path], Steps[None]]") -> Write:
    return lambda adata, path, slide: write(adata, path)


@dataclass(frozen=True, slots=True)
class Format:
    """A format to export in.

    Parameters
    ----------
    name
        As ``export --to`` spells it.
    suffix
        Of the file, or of the folder.
    summary
        For whom it is, in a few words.
    write
        See `Write`.
    check
        Raises a `UserError` where a program that the format needs is not installed.
    """

    name: str
    suffix: str
    summary: str
    write: Write
    check: Callable[[], None] = lambda: None

    @property
    def ending(self) -> str:
        """What a name in this format ends in, whatever stands before: ``.tif`` of ``.ome.tif``."""
        return ending(f"x{self.suffix}")


FORMATS: Final = (
    Format("h5ad", ".h5ad", "AnnData for scanpy and squidpy", _without_picture(write_h5ad)),
    Format(
        "spatialdata",
        ".zarr",
        "SpatialData for napari-spatialdata and squidpy",
        write_spatial_data,
        check_installed,
    ),
    Format("geojson", ".geojson", "spots and domains for QuPath", _without_picture(write_geojson)),
    Format("ome-tiff", ".ome.tif", "maps for Fiji, QuPath and napari", _without_picture(write_ome_tiff)),
    Format("csv", "_expression.csv", "a table with a row per spot", _without_picture(write_csv)),
)


def find_format(name: str) -> Format:
    """Return the format called `name`.

    Raises
    ------
    KeyError
        When there is none.
    """
    return {known.name: known for known in FORMATS}[name]


def format_for(path: Path, name: str | None = None) -> Format:
    """Return the format to write at `path`: the one called `name`, or of the path's ending.

    Raises
    ------
    UserError
        When there is none, or the format is written under another ending.
    """
    known = {each.name: each for each in FORMATS}
    of_path = ending(path).replace(".tiff", ".tif")
    if name is None:
        name = next((each.name for each in FORMATS if each.ending == of_path), "")
    if name not in known:
        raise UserError(
            f"{path.name} does not say which format to write; give to= one of {', '.join(known)}."
        )
    if known[name].ending != of_path:
        raise UserError(
            f"{path.name} does not end in {known[name].ending}, as {name} is written; give a path that does, "
            "or another format with to=."
        )
    return known[name]


def place_of(adata: "AnnData", wanted: Format, folder: Path) -> Path:
    """Return where the export of `adata` goes: the slide's name in `folder`."""
    return place_in(folder, output_name(adata), wanted.suffix)


def export(
    adata: "AnnData",
    places: Sequence[tuple[Format, Path]],
    *,
    genes: Sequence[str] | Path | None = None,
    gene_sets: GeneSets | None = None,
    slide: "Slide | None" = None,
    force: bool = False,
    identity: str | None = None,
) -> Steps[tuple[Path, ...]]:
    """Write `adata`, with its structure, in several formats and return the paths; their folders are made.

    A step with a path as its partial result says that what belongs there is written.

    Parameters
    ----------
    adata
        A prediction; not changed.
    places
        Each format and where it goes; what is there is replaced, so ask first.
    genes
        Symbols or aliases of those to keep, or a text file (a `Path`) with one a line; None keeps all.
    gene_sets
        As `sets` of `contents.with_structure`.
    slide
        The slide, for formats that hold the image.
    force
        Write also a prediction whose spots look misplaced, which records it among its notices.
    identity
        The hash by which a repetition of the command is known; None where it was not the command line.

    Raises
    ------
    UserError
        When spots look misplaced, a gene is unknown, a format's program is not installed, or a place cannot
        be written.
    """
    for wanted, path in places:  # before any work
        wanted.check()
        if wanted.ending == ".csv":
            refuse_columns(path, known_columns(adata))
            if clashing := clashing_columns(adata):
                notice = (
                    f"{first_of(clashing, 3)} in obs is called as a column that every table has, so the "
                    "table is without it; rename it to have it there."
                )
                yield Step("Exporting", 0, len(places), "formats", notice=notice)
        for notice in with_valid_names(adata)[1] if wanted.ending == ".zarr" else ():
            yield Step("Exporting", 0, len(places), "formats", notice=notice)
    refuse_misplaced(adata, force)
    said = _others_in(adata) if {wanted.ending for wanted, _ in places} & _WITH_COLUMNS else ()
    for notice in (*said, *wrong_in(adata)):
        yield Step("Exporting", 0, notice=notice)
    known = [str(gene) for gene in adata.var_names]
    symbols = None if genes is None else symbols_of(known, genes)
    complete = yield from with_structure(adata, gene_sets)
    record_misplaced(complete)
    chosen = written_by(choose_genes(complete, symbols), identity)
    for done, (wanted, path) in enumerate(places, 1):
        make_folder(path.parent)
        yield from wanted.write(chosen, path, slide)
        yield Step("Exporting", done, len(places), "formats", partial=path)
    return tuple(path for _, path in places)


_WITH_COLUMNS: Final = {".h5ad", ".zarr", ".csv"}
"""Endings of what holds all columns of ``obs``."""


def _others_in(adata: "AnnData") -> tuple[str, ...]:
    """Return a notice of the columns of ``obs`` that go along though this program did not write them."""
    ours = (keys.DOMAIN, keys.LABEL)
    others = [name for name in columns_of_others(adata) if name.removesuffix(keys.OF_MEASURED) not in ours]
    if not others:
        return ()
    return (
        f"The columns {first_of(others, 10)} of obs were not written by napari-flag and are exported as they "
        "are; look into them before you hand the file on.",
    )


def save_h5ad(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Save the prediction that the layer shows, all genes, as h5ad."""
    write_prediction(written_by(_prediction_of(options)), path)
    return [str(path)]


def save_csv(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Save the prediction that the layer shows as a table: a row per spot, a column per gene."""
    return _finish(write_csv, path, options)


def save_geojson(path: str, data: Any, options: dict[str, Any]) -> list[str]:
    """Save the prediction that the layer shows as QuPath objects: spots with their measurements."""
    return _finish(write_geojson, path, options)


def _finish(write: "Callable[[AnnData, Path], Steps[None]]", path: str, options: dict[str, Any]) -> list[str]:
    finish(write(written_by(_prediction_of(options)), Path(path)))
    return [str(path)]


def _prediction_of(options: dict[str, Any]) -> Any:
    adata = options.get("metadata", {}).get(keys.LAYER_ADATA)
    if adata is None:
        raise UserError(
            f"The layer “{options.get('name', '')}” shows no prediction, so there is nothing to "
            "save of it in this format; select a gene layer and save again."
        )
    return without_personal_names(adata)[0]
