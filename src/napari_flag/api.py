"""The functions of ``import napari_flag`` for scripts and notebooks: each runs to its end and returns.

They take what is in memory or its file, and call what the command line and the docks call.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from napari_flag import keys
from napari_flag.progress import ProgressBar, Step, Steps, finish

if TYPE_CHECKING:
    from anndata import AnnData
    from shapely.geometry.base import BaseGeometry

    from napari_flag.analysis.compare import Comparison
    from napari_flag.fitting import Fitted, MeasuredSection
    from napari_flag.model.checkpoint import Checkpoint
    from napari_flag.prediction import Quality
    from napari_flag.slides.colours import Colours
    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import Spots, SpotTable


Progress: TypeAlias = bool | Callable[[Step], None]
"""Whether a bar is drawn, or what is called with every step."""


def predict(
    slide: "Slide | str | Path",
    spots: "SpotTable | Spots | str | Path | None" = None,
    *,
    measured: "AnnData | str | Path | None" = None,
    alignment: str | Path | None = None,
    image: str | None = None,
    shapes: str | None = None,
    table: str | None = None,
    weights: "Checkpoint | str | Path" = keys.DEFAULT_WEIGHTS,
    mpp: float | None = None,
    spacing_um: float | None = None,
    diameter_um: float | None = None,
    region: "Sequence[BaseGeometry] | str | Path | None" = None,
    genes: Iterable[str] | Path | None = None,
    quality: "Quality" = keys.DEFAULT_QUALITY,
    depth: "float | AnnData | str | Path | None" = None,
    draws: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    colours: "Colours | None" = None,
    force: bool = False,
    keep_names: bool = False,
    progress: Progress = True,
) -> "AnnData":
    """Predict the expression of a slide.

    Parameters
    ----------
    slide
        A slide, or its file, which is closed again; or a folder with one slide (Space Ranger's output, legacy
        ST, HEST-1k, a SpatialData zarr), of which spots and counts are taken too.
    spots
        Spots, or the table, folder or h5ad they are in; None takes those of the folder, else lays a grid over
        the tissue that is like the array of the weights.
    measured
        Raw counts of these spots, or their file, to attach; None takes those of the table or folder.  A
        Visium HD, Xenium or CosMx folder is pooled into the spots.
    alignment
        3 × 3 matrix (CSV) from pixels of the H&E to pixels of the Xenium or CosMx image; None takes the one
        beside the measurement.
    image, shapes, table
        Names of elements of a SpatialData zarr; None takes the only one.
    weights
        Name (``napari-flag weights list``) or file of the weights, or weights already loaded.
    mpp
        µm per pixel of the full-resolution slide, also where `slide` is Space Ranger's smaller copy of it;
        None takes the file's, else the table's.
    spacing_um, diameter_um
        Centre-to-centre distance and diameter of the spots in µm; None takes the weights' or the table's.
    region
        Polygons in level-0 pixels, or a GeoJSON file, to predict in; numbers are those of the whole slide.
    genes
        Symbols or aliases to keep, or a text file (a `Path`) with one a line; None keeps all.
    quality
        Solver steps: "fast" 4, "balanced" 6, "best" 10, with which the weights were scored.
    depth
        What is known of the slide's depth: the mean total count of the weights' genes in a spot, or raw
        counts of some of its spots, or their file; None expects that of the training slides.
    draws
        Joint draws to make: ``layers["sample"]``, ``layers["sample_2"]`` …; 8 are needed to score them.  None
        makes one, or none with weights of a method that states an expectation only.
    steps
        Solver steps, where the weights do not fix them; None takes those of `quality`.
    seed
        Of the draws; ``X`` does not depend on it.
    device
        "auto", "cpu", "cuda", "cuda:1" or "mps".
    colours
        "scanned", or "srgb" to convert pixels by the slide's colour profile; None takes those that the
        weights were trained on.
    force
        Use weights made for simulated slides on another slide, spots that look misplaced, or counts that look
        scaled or mixed up all the same, with a notice.
    keep_names
        Keep a name of the slide that looks like a patient's; otherwise a neutral one takes its place.
    progress
        True draws a bar in terminals and notebooks, False nothing; a function is called with every
        `progress.Step`.

    Returns
    -------
    AnnData (spots × genes), ``X`` float32 log2(count + 1); see docs/prediction-file.md.

    Raises
    ------
    UserError
        Says in one sentence what is missing or wrong and what to do.
    """
    from napari_flag.discovery import source_of
    from napari_flag.inputs import predict_inputs, prepare, read_depth
    from napari_flag.model.checkpoint import Checkpoint, find_weights

    found = source_of(slide, spots, measured, image=image, shapes=shapes, table=table)
    checkpoint = Checkpoint.load(find_weights(str(weights))) if isinstance(weights, str | Path) else weights
    preparing = prepare(
        found.slide,
        checkpoint,
        spots=found.spots,
        measured=found.measured,
        alignment=alignment,
        mpp=mpp,
        spacing_um=spacing_um,
        diameter_um=diameter_um,
        region=region,
        genes=genes,
        force=force,
        said=found.notices,
    )
    known = read_depth(depth)
    with _reporting(progress) as on_step:
        inputs = finish(preparing, on_step)
        try:
            work = predict_inputs(
                inputs,
                checkpoint,
                quality=quality,
                depth=known,
                draws=draws,
                steps=steps,
                seed=seed,
                device=device,
                colours=colours,
                force=force,
                keep_names=keep_names,
            )
            return finish(work, on_step)
        finally:
            if isinstance(slide, str | Path):
                inputs.slide.close()


def read_prediction(path: str | Path, *, unit: str | None = None) -> "AnnData":
    """Read a prediction of this package, or of any model.

    Parameters
    ----------
    path
        An h5ad with positions and expression, or a table of a SpatialData zarr; it is never changed.
    unit
        "log2p1" for log2(count + 1), "log1p" for ln(count + 1), or "counts": what another model's file holds,
        where it does not say so itself.

    Returns
    -------
    AnnData (spots × genes), ``X`` float32 log2(count + 1); see docs/prediction-file.md.

    Raises
    ------
    UserError
        When the file cannot be read, has no positions, or its unit is not known or not the one given.
    """
    from napari_flag.foreign_prediction import read_any_prediction

    return read_any_prediction(path, unit)


def compare(
    predicted: "AnnData | str | Path",
    measured: "AnnData | str | Path",
    *,
    unit: str | None = None,
    alignment: str | Path | None = None,
    force: bool = False,
    progress: Progress = True,
) -> "Comparison":
    """Score a prediction against measured counts on the spots and genes they share.

    Parameters
    ----------
    predicted
        A prediction, or its h5ad.
    measured
        Raw counts with spot ids as rows, or a file or folder of them (h5ad, Space Ranger, ST table); Visium
        HD, Xenium and CosMx folders are pooled into the spots of the prediction.
    unit
        What the file of a prediction holds, as `read_prediction` takes it.
    alignment
        As of `predict`; for a Xenium or CosMx folder alone.
    force
        Compare counts that look scaled or mixed up, or spots that look misplaced, all the same, with a
        notice.
    progress
        As of `predict`.

    Raises
    ------
    UserError
        When a file cannot be read, too few spots or genes match, or counts or places of spots look wrong.
    """
    from napari_flag.analysis.compare import comparing
    from napari_flag.discovery import counts_for

    beside = Path(predicted).expanduser() if isinstance(predicted, str | Path) else None
    adata = prediction_of(predicted, unit)
    with _reporting(progress) as on_step:
        if isinstance(measured, str | Path):
            measured, notices = finish(
                counts_for(adata, measured, beside=beside, alignment=alignment), on_step
            )
            if on_step is not None:
                for notice in notices:
                    on_step(Step("Reading measured counts", 1, notice=notice))
        return finish(comparing(adata, measured, force=force), on_step)


def export(
    prediction: "AnnData | str | Path",
    path: str | Path,
    *,
    to: str | None = None,
    unit: str | None = None,
    genes: str | Sequence[str] | Path | None = None,
    gene_sets: str | Path | None = None,
    slide: "Slide | None" = None,
    overwrite: bool = False,
    force: bool = False,
    keep_names: bool = False,
    progress: Progress = True,
) -> Path:
    """Write a prediction, with its spatial structure, for another program.

    Parameters
    ----------
    prediction
        A prediction, or its h5ad.
    path
        The file, or for SpatialData the folder, to write; the folder it is to be in is made if needed.
    to
        "h5ad", "spatialdata", "geojson", "ome-tiff" or "csv"; None goes by the ending of `path`.
    unit
        What the file of a prediction holds, as `read_prediction` takes it.
    genes
        Symbols or aliases to keep, or one, or a text file (a `Path`) with one a line; None keeps all.
    gene_sets
        GMT file of the sets that ``obsm["gene_set_scores"]`` holds a score of in each spot; None keeps those
        scored in the prediction, or takes the bundled ones.
    slide
        The slide, for formats that hold the image.
    overwrite
        Replace what is at `path`, if this program wrote it.
    force
        Write also a prediction whose spots look misplaced, which records it among its notices.
    keep_names
        As of `predict`.
    progress
        As of `predict`.

    Raises
    ------
    UserError
        When spots look misplaced, the format or a gene is unknown, `gene_sets` cannot be read, `path` has the
        ending of another format or is the prediction itself, the slide is another one, or `path` cannot be
        written.
    """
    from napari_flag.analysis.pathways import read_gmt
    from napari_flag.exports import formats
    from napari_flag.exports.replacing import check_place
    from napari_flag.slide_identity import doubt_about, refuse_other_size, without_personal_names

    path = Path(path).expanduser()
    sets = None if gene_sets is None else read_gmt(Path(gene_sets).expanduser())
    places = [(formats.format_for(path, to), path)]
    source = Path(prediction).expanduser() if isinstance(prediction, str | Path) else None
    check_place(path, overwrite, source=source)
    predicted = prediction_of(prediction, unit)
    if slide is not None:
        refuse_other_size(predicted, slide)
    adata, said = without_personal_names(predicted, keep_names)
    doubt = None if slide is None else doubt_about(adata, slide)
    exporting = formats.export(adata, places, genes=genes, gene_sets=sets, slide=slide, force=force)
    with _reporting(progress) as on_step:
        if on_step is not None:
            for notice in (*said, *(() if doubt is None else (doubt,))):
                on_step(Step("Exporting", 0, notice=notice))
        [written] = finish(exporting, on_step)
    return written


def fit(
    sections: "str | Path | Sequence[MeasuredSection]",
    out: str | Path,
    *,
    mpp: float | None = None,
    encoder: str = keys.DEFAULT_WEIGHTS,
    genes: Iterable[str] | Path | None = None,
    leave_out: Sequence[str] = (),
    run: str | Path | None = None,
    diffusion: bool = False,
    seed: int = 0,
    device: str = "auto",
    colours: "Colours | None" = None,
    keep_names: bool = False,
    overwrite: bool = False,
    progress: Progress = True,
) -> "Fitted":
    """Fit weights to measured sections, having scored each of them left out, and write them.

    A fit that was stopped goes on where it was when it is called again with the same `out` or `run`.

    Parameters
    ----------
    sections
        A folder with slides, spots and counts, a CSV that lists them (columns name, patient, image, spots,
        counts, mpp), or sections in memory.
    out
        The weights file (``.safetensors``) to write.
    mpp
        µm per pixel of the full-resolution slides, where a list does not state it; None takes that of their
        files.
    encoder
        An encoder of ``napari-flag encoders list``, weights whose encoder is taken, or "new", which trains
        one on these sections and once more without each that is left out.
    genes
        Symbols to predict, or a text file (a `Path`) with one a line; None chooses 200 with high mean and
        variance.
    leave_out
        Names of sections that contribute to nothing.
    run
        Folder of states and scores; None takes one beside `out`.
    diffusion
        Train the gene transformer too; its worth on few sections is small.
    seed
        Seeds everything.
    device
        "auto", "cpu", "cuda", …; where tiles are encoded.
    colours
        "scanned", or "srgb" to convert pixels by each slide's colour profile, as slides predicted with the
        weights will be; None takes those that the encoder's weights were trained on, else as scanned.
    keep_names
        Keep names of sections and patients that look like a patient's, which weights and scores otherwise
        call ``anonymous-…``.
    overwrite
        Replace weights at `out`; without this, only those of the same call are replaced.
    progress
        As of `predict`.

    Returns
    -------
    Where the weights are, their card, and a table of scores on sections left out, beside controls.

    Raises
    ------
    UserError
        When a section cannot be used, there are fewer than two, or packages of ``napari-flag[training]`` are
        missing.
    """
    from napari_flag.exports.replacing import check_place, repeats
    from napari_flag.fitting import FitSettings, find_sections, load_training
    from napari_flag.gene_names import names_in
    from napari_flag.model.checkpoint import check_name
    from napari_flag.slides.file_identity import name_of

    training, source = load_training(), None
    if isinstance(sections, str | Path):
        place = Path(sections).expanduser()
        source = name_of(place.resolve(), keep_names) if mpp is None else None
        sections, notices = find_sections(place, mpp)
    else:
        notices = ()
    panel = genes if genes is None or isinstance(genes, Path) else names_in(genes)
    settings = FitSettings(encoder, panel, diffusion, seed, device, colours, keep_names)
    target = Path(out).expanduser()
    check_name(target)
    asked = sections, settings, leave_out
    check_place(target, overwrite, lambda: repeats(target, training.identity_of(*asked)))
    with _reporting(progress) as on_step:
        if on_step is not None:
            for notice in notices:
                on_step(Step("Looking at sections", 0, notice=notice))
        work: Steps[Fitted] = training.fit_sections(
            sections,
            target,
            settings,
            leave_out=leave_out,
            run=None if run is None else Path(run).expanduser(),
            source=source,
        )
        return finish(work, on_step)


@contextmanager
def _reporting(progress: Progress) -> Iterator[Callable[[Step], None] | None]:
    """Yield what is called with every step; a bar is cleared at the end."""
    if progress is True:
        with ProgressBar() as bar:
            yield bar
    else:
        yield progress or None


def prediction_of(given: "AnnData | str | Path", unit: str | None = None) -> "AnnData":
    """Return a prediction in memory as it is, that of a file as `read_prediction` reads it."""
    return read_prediction(given, unit=unit) if isinstance(given, str | Path) else given
