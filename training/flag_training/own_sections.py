"""Weights from a person's own measured sections, without a config: `napari_flag.fitting` asks for them.

The encoder is one that is there, whose features are in the cache that predictions use, or is trained anew, on
all sections and once without each that is scored.  Expectation and residuals are fitted in closed form and
with small graph branches, by the recipe of the shipped weights; the gene transformer is trained on request.
Every section is left out in turn and scored beside floors and controls before weights are written, and the
scores stand on their card.  A fit that was stopped goes on where it was.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pandas as pd
import torch

from flag_training.cohort import Cohort, TrainingSlide, fingerprint, load_cohort, read_slide
from flag_training.config import RunConfig, SlideEntry, read_recipe
from flag_training.evaluate import Fold, Outcome, Plan, fold_cohort, keep, score_fold
from flag_training.methods.controls import IMAGE_BLIND
from flag_training.methods.floors import LEARNED_FLOORS
from flag_training.result_tables import markdown, metrics_of, read_results, results_of
from flag_training.run_folders import states_folder
from flag_training.stages.fit import fit, tile_encoder, write_weights
from flag_training.stages.tile_encoder import TileEncoderConfig
from flag_training.store.panels import PanelRule, select_panel
from napari_flag import __version__, keys
from napari_flag.cli.terminal import fingerprint as fingerprint_of
from napari_flag.encoders.embedded import EmbeddedEncoder
from napari_flag.encoders.features import choose_device, extract_features
from napari_flag.encoders.registry import Encoder, find_encoder, open_encoder
from napari_flag.errors import UserError
from napari_flag.files import check_writable, write_json, write_whole
from napari_flag.fitting import (
    CHOOSING,
    ENCODING,
    FITTING,
    GENES,
    NO_PATIENT,
    PANEL_FILE,
    SCORING,
    SECTIONS_FILE,
    TRAINED_HERE,
    FitSettings,
    Fitted,
    MeasuredSection,
    SectionLook,
    encoder_of,
    look_at_all,
    named_in_results,
    to_score,
    why_too_few,
    write_list,
)
from napari_flag.gene_names import names_in
from napari_flag.model.checkpoint import Checkpoint, check_name, file_given, find_weights
from napari_flag.model.flag import Flag
from napari_flag.progress import Step, Steps, describe_step
from napari_flag.slides.colours import SCANNED, Colours
from napari_flag.slides.file_identity import state_of
from napari_flag.slides.slide import open_slide
from napari_flag.slides.spot_tables import read_measured, read_spots

if TYPE_CHECKING:
    from anndata import AnnData

_SPLIT: Final = (
    "trained on every section listed; held-out scores come from runs that left sections out, with genes "
    "chosen on all of them and "
)


@dataclass(frozen=True, slots=True)
class UnsavedWeights:
    """Weights that were fitted and scored, and are not written yet.

    Parameters
    ----------
    scores
        As of `napari_flag.fitting.Fitted`.
    network, tensors, encoder
        What was fitted, the tensors of the encoder that go into the file with it, and the encoder's name.
    cohort, config
        What it was fitted to.
    outcome, plan
        The scores as they were found.
    sections, left_out, settings
        What was asked for.
    identity
        The hash by which a repetition is known (`identity_of`).
    """

    scores: pd.DataFrame
    network: Flag
    tensors: dict[str, torch.Tensor]
    encoder: str
    cohort: Cohort
    config: RunConfig
    outcome: Outcome
    plan: Plan
    sections: tuple[MeasuredSection, ...]
    left_out: tuple[str, ...]
    settings: FitSettings
    identity: str

    def save(self, out: Path, run: Path | None = None, source: str | None = None) -> Steps[Fitted]:
        """Write the weights with their card, and beside them a page of scores and the list of sections.

        Parameters
        ----------
        out
            The weights file.
        run
            Folder of the page, ``scores.json`` and ``sections.csv``; None takes one beside `out`.
        source
            What the card's command names as the sections; None takes ``sections.csv``, which has them as they
            were used.
        """
        check_name(out)
        check_writable(out, folder_is_made=True)
        run = run or run_folder(out)
        run.mkdir(parents=True, exist_ok=True)
        command = self.settings.command(source or SECTIONS_FILE, out, self.left_out if source else ())
        json, page = run / "scores.json", run / "scores.md"
        made = {keys.COMMAND_HASH: self.identity}
        results = results_of(self.outcome, self.plan, command) | made
        write_json(results, json)
        text = markdown([read_results(json)], f"{out.stem}, sections left out")
        write_whole(page, lambda place: place.write_text(text, "utf-8"))
        write_list(self.sections, run / SECTIONS_FILE)
        if isinstance(self.settings.genes, tuple):
            _write_genes(run / PANEL_FILE, self.settings.genes)
        held_out = {keys.CARD_HELD_OUT: metrics_of([results])}
        config = replace(
            self.config,
            name=out.stem,
            panel=None,  # a file of the states; the card must not tell where they lie
            card={"title": out.stem, **self.config.card, keys.COMMAND: command, **made, **held_out},
        )
        yield from write_weights(out, self.network, self.tensors, self.encoder, self.cohort, config)
        names = tuple(section.name for section in self.sections)
        return Fitted(out, self.scores, Checkpoint.load(out).card, self.cohort.genes, names, page)


def run_folder(out: Path) -> Path:
    """Return the folder of states and scores of weights at `out` where no other is named."""
    return out.with_suffix(".fit")


def fit_sections(
    sections: Sequence[MeasuredSection],
    out: Path,
    settings: FitSettings | None = None,
    *,
    leave_out: Sequence[str] = (),
    run: Path | None = None,
    source: str | None = None,
) -> Steps[Fitted]:
    """Fit weights, score them on each section left out in turn, and write them.

    Parameters
    ----------
    sections, settings, leave_out
        As `score_and_fit` takes them.
    out, source
        As `UnsavedWeights.save` takes them; what is at `out` is replaced, so ask
        `exports.replacing.check_place` first.
    run
        Folder of states and scores; None takes one beside `out`.

    Raises
    ------
    UserError
        As `score_and_fit`, or when `out` is no name of weights or cannot be written.
    """
    check_name(out)  # before hours of work
    check_writable(out, folder_is_made=True)
    run = run or run_folder(out)
    unsaved = yield from score_and_fit(sections, run, settings, leave_out=leave_out)
    return (yield from unsaved.save(out, run, source))


def identity_of(
    sections: Sequence[MeasuredSection], settings: FitSettings, leave_out: Sequence[str] = ()
) -> str:
    """Return the hash by which a repetition of a fit is known: of sections with whole paths, and settings.

    How they were named, by folder, list or in Python, does not count, nor does the device.
    """
    words: list[str | Path] = ["napari-flag", "fit"]
    for section in sections:
        words += [section.name, section.patient, section.image, section.spots]
        words += [section.counts or "", "" if section.mpp is None else repr(section.mpp)]
    encoder, genes = file_given(settings.encoder) or settings.encoder, settings.genes
    words += ["--encoder", encoder, "--genes", *(genes if isinstance(genes, tuple) else [genes or ""])]
    words += ["--leave-out", *sorted(leave_out), "--seed", str(settings.seed), settings.colours or ""]
    words += ["--diffusion"] if settings.diffusion else []
    return fingerprint_of([*words, "--keep-names"] if settings.keep_names else words)


def score_and_fit(
    sections: Sequence[MeasuredSection],
    run: Path,
    settings: FitSettings | None = None,
    *,
    leave_out: Sequence[str] = (),
) -> Steps[UnsavedWeights]:
    """Score each section left out in turn, then fit to all of them; nothing is written but states.

    Parameters
    ----------
    sections
        The sections (`napari_flag.fitting.find_sections`).
    run
        Folder of the states; what was finished under the same sections and settings is not done again.
    settings
        Encoder, panel, …; None takes the defaults.
    leave_out
        Names of sections that contribute to nothing.

    Yields
    ------
    Steps; after each section left out, the scores so far are the ``partial``.

    Raises
    ------
    UserError
        When sections, genes or encoder are missing or do not fit each other.
    """
    settings = settings or FitSettings()
    unknown = set(leave_out) - {section.name for section in sections}
    if unknown:
        raise UserError(f"There is no section {', '.join(sorted(unknown))} to leave out; check the names.")
    asked = [section for section in sections if section.name not in leave_out]
    if reason := why_too_few(asked):
        raise UserError(reason)
    looks = yield from _checked(asked, encoder_of(settings.encoder))
    used, notices = named_in_results([look.section for look in looks], settings.keep_names)
    for notice in notices:
        yield Step(CHOOSING, 0, notice=notice)
    unused, _ = named_in_results([s for s in sections if s.name in leave_out], settings.keep_names)
    entries = tuple(_entry(section, look.mpp) for section, look in zip(used, looks, strict=True))
    genes = yield from _panel(entries, settings.genes)
    slides = yield from _read(entries, genes)
    states = run / f"states-{_digest(slides, genes)}"
    source = _source_of(settings, slides, genes, states)
    config = _config(entries, settings, states / PANEL_FILE)
    outcome, plan = yield from _scored(source, slides, config, states)
    whole = yield from source(None, config)
    network = yield from _in_one(
        fit(whole.cohort, config, states_folder(states, config, fingerprint(whole.cohort))), FITTING, 0, 1
    )
    yield Step(FITTING, 1, 1, "fits")
    config = replace(config, card=_card(whole, settings))
    table = scores_table(outcome)
    return UnsavedWeights(
        table, network, whole.tensors, whole.name, whole.cohort, config, outcome, plan, used,
        tuple(section.name for section in unused), settings, identity_of(sections, settings, leave_out),
    )  # fmt: skip


def scores_table(outcome: Outcome) -> pd.DataFrame:
    """Return a row per section, kind and method, with a column per metric."""
    rows = [
        {"section": record.section, "kind": record.kind, "method": record.method} | record.scores
        for record in outcome.records
    ]
    return pd.DataFrame(rows)


# --- sections, genes ------------------------------------------------------------------------------


def _checked(sections: Sequence[MeasuredSection], encoder: str) -> Steps[tuple[SectionLook, ...]]:
    """Look at every section; return what was found, doubts having been said."""
    looks = yield from look_at_all(sections, encoder)
    for look in looks:
        if look.problem is not None:
            raise UserError(look.problem)
    for look in looks:
        for doubt in look.doubts:
            yield Step(CHOOSING, 0, notice=doubt)
    return looks


def _entry(section: MeasuredSection, mpp: float | None) -> SlideEntry:
    """Return a section as training reads it, with µm per level-0 pixel of its image."""
    counts = None if section.counts is None else str(section.counts)
    return SlideEntry(section.name, section.patient, str(section.image), str(section.spots), counts, mpp)


def _panel(entries: Sequence[SlideEntry], panel: tuple[str, ...] | Path | None) -> Steps[tuple[str, ...]]:
    """Return the genes that were named, or choose them by the counts of the sections."""
    if isinstance(panel, Path):
        panel = names_in(panel)
    if panel is not None:
        if not panel:
            raise UserError("The list of genes names no gene; write one symbol a line.")
        return tuple(dict.fromkeys(panel))
    counts: dict[str, AnnData] = {}
    for number, entry in enumerate(entries):
        yield Step(CHOOSING, number, len(entries), "sections", detail=entry.name)
        found = read_measured(entry.counts) if entry.counts else read_spots(entry.spots).measured
        assert found is not None  # it was looked at
        counts[entry.name] = found
    shared = set.intersection(*(set(found.var_names) for found in counts.values()))
    if not shared:
        raise UserError(
            "The sections have no gene in common, so no panel can be chosen; check that all name genes alike "
            "(symbols, not Ensembl ids)."
        )
    if len(shared) <= GENES:
        return tuple(sorted(shared))
    return select_panel(counts, PanelRule(genes=GENES, exact=True))


def _write_genes(path: Path, genes: Sequence[str]) -> None:
    text = "".join(f"{gene}\n" for gene in genes)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda place: place.write_text(text, "utf-8"))


def _read(entries: Sequence[SlideEntry], genes: tuple[str, ...]) -> Steps[tuple[TrainingSlide, ...]]:
    slides = []
    for number, entry in enumerate(entries):
        yield Step(CHOOSING, number, len(entries), "sections", detail=entry.name)
        slide, training, _ = read_slide(entry, Path(), genes)
        slide.close()
        slides.append(training)
    return tuple(slides)


def _digest(slides: Sequence[TrainingSlide], genes: Sequence[str]) -> str:
    """Return letters that differ for other genes, spots, counts, µm/px, patients, images, or versions."""
    digest = hashlib.sha256("\n".join((__version__, *genes)).encode())
    for slide in slides:
        stated = (slide.entry.name, slide.entry.patient, slide.mpp, *state_of(Path(slide.entry.image)))
        digest.update(repr((stated, slide.spots.ids, slide.spots.pitch_um)).encode())
        digest.update(slide.spots.xy.tobytes())
        digest.update(slide.expression.tobytes())
    return digest.hexdigest()[:12]


# --- features -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Encoded:
    """Sections with their features.

    Parameters
    ----------
    cohort
        All of them.
    name, weights
        Of the encoder: what it is called, and their SHA-256.
    tensors
        Of the encoder, where it goes into the weights.
    """

    cohort: Cohort
    name: str
    weights: str
    tensors: dict[str, torch.Tensor]


_Source = Callable[[Fold | None, RunConfig], Steps[_Encoded]]
"""Fold (None for all sections) and run → features; an encoder trained here saw no image left out."""


def _source_of(
    settings: FitSettings, slides: tuple[TrainingSlide, ...], genes: tuple[str, ...], states: Path
) -> _Source:
    if settings.encoder == TRAINED_HERE:
        _write_genes(states / PANEL_FILE, genes)

        def trained_here(fold: Fold | None, config: RunConfig) -> Steps[_Encoded]:
            if fold is not None:
                cohort = yield from fold_cohort(config, Path(), states, Plan(fold.test), fold)
                return _Encoded(cohort, EmbeddedEncoder.name, "", {})
            net = yield from tile_encoder(config, Path(), states)
            cohort = yield from load_cohort(config, Path(), states, net)
            encoder = EmbeddedEncoder(net)
            return _Encoded(cohort, encoder.name, encoder.weights, net.state_dict())

        return trained_here
    kept: list[_Encoded] = []

    def as_it_is(fold: Fold | None, config: RunConfig) -> Steps[_Encoded]:
        if not kept:
            where = choose_device(settings.device)
            encoder, tensors = _open(settings.encoder, where)
            features = yield from _features(slides, encoder, where, config.colours)
            cohort = Cohort(slides, features, genes)
            kept.append(_Encoded(cohort, encoder.name, encoder.weights, tensors))
        return kept[0]

    return as_it_is


def _open(name: str, device: torch.device) -> tuple[Encoder, dict[str, torch.Tensor]]:
    """Return the encoder, and the tensors that go into the weights with it."""
    if encoder_of(name) == name:
        return open_encoder(name, device), {}
    checkpoint = Checkpoint.load(find_weights(name))
    return checkpoint.build_encoder(device), checkpoint.part("encoder.")


def _features(
    slides: Sequence[TrainingSlide], encoder: Encoder, device: torch.device, colours: Colours
) -> Steps[tuple[torch.Tensor, ...]]:
    """Encode sections; their features are in the cache where a prediction made them."""
    features, done = [], 0
    total = sum(len(training.spots) for training in slides)
    for training in slides:
        with open_slide(training.entry.image, training.mpp).in_colours(colours) as slide:
            work = extract_features(
                slide, training.spots.xy, encoder, encoder_hash=encoder.fingerprint, device=device
            )
            found = yield from _counted(work, training.entry.name, done, total)
        features.append(torch.from_numpy(found)[None])
        done += len(training.spots)
    return tuple(features)


def _counted(work: Steps[Any], name: str, before: int, total: int) -> Steps[Any]:
    """Count the spots of one section among those of all."""
    try:
        while True:
            step = next(work)
            yield Step(ENCODING, before + step.done, total, notice=step.notice, detail=name)
    except StopIteration as stop:
        return stop.value
    finally:
        work.close()


# --- fitting and scoring --------------------------------------------------------------------------


def _colours(settings: FitSettings) -> Colours:
    """Return the colours asked for, else those of the weights whose encoder is taken, else as scanned."""
    if settings.colours is not None:
        return settings.colours
    if settings.encoder == TRAINED_HERE or encoder_of(settings.encoder) == settings.encoder:
        return SCANNED
    return Checkpoint.load(find_weights(settings.encoder)).colours


def _config(entries: tuple[SlideEntry, ...], settings: FitSettings, panel: Path) -> RunConfig:
    """Return the recipe of the shipped weights; features from the cache are one view of each tile."""
    network, values = read_recipe()
    here = settings.encoder == TRAINED_HERE
    values = replace(
        values,
        views=values.views if here else 1,
        score_steps=values.score_steps if settings.diffusion else 0,
        seed=settings.seed,
    )
    return RunConfig(
        "own sections", str(panel) if here else None, entries, (), network, values, TileEncoderConfig(), {},
        colours=_colours(settings),
    )  # fmt: skip


def _card(encoded: _Encoded, settings: FitSettings) -> dict[str, Any]:
    here = settings.encoder == TRAINED_HERE
    row = find_encoder(encoded.name)
    return {
        "tissue": "tissue of a user's own sections",
        "patients": sorted({slide.entry.patient for slide in encoded.cohort.slides} - {NO_PATIENT}),
        "encoder": {"name": row.name, "licence": row.licence, "fingerprint": encoded.weights},
        "split": _SPLIT
        + ("encoders that saw no image left out" if here else "an encoder that was not trained again"),
        "not_for": "diagnosis or any clinical decision; other tissues, stains, platforms than its sections'",
    }


def _scored(
    source: _Source, slides: Sequence[TrainingSlide], config: RunConfig, states: Path
) -> Steps[tuple[Outcome, Plan]]:
    """Leave sections out in turn."""
    names = [slide.entry.name for slide in slides]
    methods = {name: ("floor", method) for name, method in LEARNED_FLOORS.items()}
    if all(slide.spots.array is not None for slide in slides):  # pasting goes by array position
        methods |= {name: ("image-blind", method) for name, method in IMAGE_BLIND.items()}
    plan = Plan(to_score(names), methods=methods, seeds=(config.fit.seed,))
    found = Outcome((), ())
    for number, name in enumerate(plan.test):
        fold = Fold((name,), (name,))
        work = _fold(source, config, states, plan, fold)
        found += yield from _in_one(work, SCORING, number, len(plan.test), name)
        table = scores_table(found)
        yield Step(SCORING, number + 1, len(plan.test), "sections", partial=table, detail=name)
    return found, plan


def _fold(source: _Source, config: RunConfig, states: Path, plan: Plan, fold: Fold) -> Steps[Outcome]:
    """Score a fold, or read its scores where it was scored before."""
    encoded = yield from source(fold, config)
    names = [slide.entry.name for slide in encoded.cohort.slides if slide.entry.name not in fold.left_out]
    features = fingerprint(keep(encoded.cohort, names))
    place = states_folder(states, config.without(fold.left_out), features).with_suffix(".json")
    if place.exists():
        kept = read_results(place)
        return Outcome(tuple(kept["records"]), tuple(kept["comparisons"]))
    found = yield from score_fold(encoded.cohort, config, states, plan, fold)
    write_json(results_of(found, plan, ""), place)
    return found


def _in_one(work: Steps[Any], stage: str, done: int, total: int, name: str = "") -> Steps[Any]:
    """Show the stages of `work` as the detail of one unit of `stage`; encoding tiles keeps its own."""
    unit = "sections" if name else "fits"
    try:
        while True:
            step = next(work)
            if step.stage == ENCODING:
                yield step
                continue
            detail = describe_step(replace(step, detail=""), None)
            detail = f"{name}: {detail}" if name else detail
            yield Step(stage, done, total, unit, notice=step.notice, detail=detail)
    except StopIteration as stop:
        return stop.value
    finally:
        work.close()
