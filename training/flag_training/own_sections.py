"""Weights from a person's own measured sections, without a config: ``napari-flag fit``.

Sections are found in a folder as a drop on napari finds them, or listed in a CSV.  The encoder is one that is
there, not trained anew, so that features come from the cache that predictions use.  Expectation and residuals
are fitted in closed form and with small graph branches; the gene transformer is trained on request.  Every
section is left out in turn and scored beside floors and controls before weights are written, and the scores
stand on their card.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from flag_training.cohort import Cohort, read_slide
from flag_training.config import FitConfig, RunConfig, SlideEntry
from flag_training.evaluate import Fold, Outcome, Plan, score_fold
from flag_training.methods.controls import IMAGE_BLIND
from flag_training.methods.floors import LEARNED_FLOORS
from flag_training.result_tables import metrics_of, read_results, results_of
from flag_training.run_folders import states_folder
from flag_training.stages.fit import fit, write_weights
from flag_training.stages.tile_encoder import TileEncoderConfig
from flag_training.store.panels import PanelRule, select_panel
from napari_flag.discovery.folders import discover
from napari_flag.encoders.features import choose_device, extract_features
from napari_flag.encoders.registry import Encoder, find_encoder, list_encoders, open_encoder
from napari_flag.errors import UserError
from napari_flag.files import write_json
from napari_flag.model.checkpoint import Checkpoint, find_weights
from napari_flag.progress import Step, Steps
from napari_flag.slides.spot_tables import read_measured, read_spots

if TYPE_CHECKING:
    from anndata import AnnData

COLUMNS: Final = ("name", "patient", "image", "spots", "counts", "mpp")
"""Of a manifest; ``image`` and ``spots`` must be there, paths are relative to the file."""
GENES: Final = 200
"""Size of the panel that is chosen."""
SCORE_STEPS: Final = 600
"""Steps of the gene transformer where it is trained."""
NO_PATIENT: Final = "not stated"
"""Patient of sections whose patient is not known; they count as of one."""
_MOST_SCORED: Final = 8
_FEWEST: Final = 2
_NETWORK: Final[dict[str, Any]] = {"width": 64, "mlp_ratio": 2.0, "context_dropout": 0.5}
"""Sizes that differ from the network's defaults: those of the shipped weights."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """What `fit_sections` made.

    Parameters
    ----------
    weights
        The file.
    scores
        JSON file of `result_tables.results_of`; its page is `result_tables.markdown`.
    sections
        Names of the sections trained on.
    genes
        The panel.
    """

    weights: Path
    scores: Path
    sections: tuple[str, ...]
    genes: tuple[str, ...]


def read_sections(source: Path, mpp: float | None = None) -> tuple[SlideEntry, ...]:
    """Return the measured sections of a folder, or of a CSV file that lists them.

    Parameters
    ----------
    source
        A folder as `discovery.folders.discover` understands it, or a CSV with the header `COLUMNS`.
    mpp
        µm per pixel of images that do not say it.

    Raises
    ------
    UserError
        When fewer than two measured sections are there, or a line names no file.
    """
    entries = _listed(source, mpp) if source.is_file() else _found(source, mpp)
    names = [entry.name for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"{source} has two sections called {', '.join(twice)}; give each its own name.")
    if len(entries) < _FEWEST:
        raise UserError(
            f"{source} has {len(entries)} section(s) with measured counts, and {_FEWEST} are needed, so that "
            "one can be left out and scored; add sections, or list them in a CSV with the columns "
            f"{', '.join(COLUMNS)}."
        )
    return entries


def fit_sections(
    entries: Sequence[SlideEntry],
    out: Path,
    *,
    run: Path | None = None,
    encoder: str = "her2st",
    panel: Path | None = None,
    leave_out: Sequence[str] = (),
    diffusion: bool = False,
    seed: int = 0,
    device: str = "auto",
    command: str = "",
) -> Steps[Fitted]:
    """Fit weights to measured sections and score them on each section left out in turn.

    Parameters
    ----------
    entries
        The sections (`read_sections`).
    out
        Weights file to write.
    run
        Folder of states and scores; None takes one beside `out`.
    encoder
        An encoder of ``napari-flag encoders list``, or weights whose encoder is taken.
    panel
        File of gene symbols, one a line; None chooses `GENES` of high mean and high variance.
    leave_out
        Sections that contribute to nothing.
    diffusion
        Whether to train the gene transformer.
    seed
        Seeds everything.
    device
        "auto", "cpu", "cuda", …; where tiles are encoded.
    command
        What the card says made the weights.

    Raises
    ------
    UserError
        When sections, genes or encoder are missing or do not fit each other.
    """
    unknown = set(leave_out) - {entry.name for entry in entries}
    if unknown:
        raise UserError(f"There is no section {', '.join(sorted(unknown))} to leave out; check the names.")
    used = tuple(entry for entry in entries if entry.name not in leave_out)
    run = run or out.with_suffix(".fit")
    genes = yield from _panel(used, panel)
    where = choose_device(device)
    chosen, tensors = _open(encoder, where)
    cohort = yield from _cohort(used, genes, chosen, where)
    config = _config(out.stem, used, chosen, diffusion, seed, command)
    scores = run / "scores.json"
    outcome, plan = yield from _scored(cohort, config, run)
    run.mkdir(parents=True, exist_ok=True)
    write_json(results_of(outcome, plan, command), scores)
    config = replace(config, card=config.card | {"held_out_scores": metrics_of([read_results(scores)])})
    network = yield from fit(cohort, config, states_folder(run, config, chosen.fingerprint[:8]))
    yield from write_weights(out, network, tensors, chosen.name, cohort, config)
    return Fitted(out, scores, tuple(entry.name for entry in used), genes)


def _found(folder: Path, mpp: float | None) -> tuple[SlideEntry, ...]:
    entries = []
    for section in discover(folder).sections:
        if section.table is not None:
            counts = str(section.measured) if section.measured else None
            table = str(section.table)
            entries.append(SlideEntry(section.name, NO_PATIENT, str(section.slide), table, counts, mpp))
    return tuple(entries)


def _listed(path: Path, mpp: float | None) -> tuple[SlideEntry, ...]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as a CSV file ({error}); save it as UTF-8 CSV.") from error
    entries = []
    for number, row in enumerate(rows, start=2):
        cells = {key: (row.get(key) or "").strip() for key in COLUMNS}
        if not cells["image"] or not cells["spots"]:
            raise UserError(
                f"Line {number} of {path} names no image or no spots; the columns are {', '.join(COLUMNS)}, "
                "of which image and spots must be filled."
            )
        image, spots, counts = (
            str(path.parent / cells[key]) if cells[key] else None for key in ("image", "spots", "counts")
        )
        assert image is not None  # both were seen to be there
        assert spots is not None
        try:
            resolution = float(cells["mpp"]) if cells["mpp"] else mpp
        except ValueError as error:
            raise UserError(
                f"Line {number} of {path} has {cells['mpp']} as µm per pixel, which is no number; correct it."
            ) from error
        name = cells["name"] or Path(image).name.split(".")[0]
        entries.append(SlideEntry(name, cells["patient"] or NO_PATIENT, image, spots, counts, resolution))
    return tuple(entries)


def _panel(entries: Sequence[SlideEntry], panel: Path | None) -> Steps[tuple[str, ...]]:
    """Return the genes of the file, or choose them by the counts of the sections."""
    if panel is not None:
        try:
            return tuple(dict.fromkeys(panel.read_text("utf-8").split()))
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"The list of genes {panel} cannot be read ({error}); check the path.") from error
    counts: dict[str, AnnData] = {}
    for number, entry in enumerate(entries):
        yield Step("Choosing genes", number, len(entries), "sections")
        found = read_measured(entry.counts) if entry.counts else read_spots(entry.spots).measured
        if found is None:
            raise UserError(
                f"{entry.name} has no measured counts, so nothing can be learnt from it; leave it out or "
                "add them."
            )
        counts[entry.name] = found
    shared = set.intersection(*(set(found.var_names) for found in counts.values()))
    if len(shared) <= GENES:
        return tuple(sorted(shared))
    return select_panel(counts, PanelRule(genes=GENES, exact=True))


def _open(name: str, device: torch.device) -> tuple[Encoder, dict[str, torch.Tensor]]:
    """Return the encoder, and the tensors that go into the weights with it."""
    if name in {row.name for row in list_encoders() if row.recipe is not None}:
        return open_encoder(name, device), {}
    checkpoint = Checkpoint.load(find_weights(name))
    return checkpoint.build_encoder(device), checkpoint.part("encoder.")


def _cohort(
    entries: Sequence[SlideEntry], genes: tuple[str, ...], encoder: Encoder, device: torch.device
) -> Steps[Cohort]:
    """Read sections; their features are in the cache where a prediction made them."""
    slides, features = [], []
    for entry in entries:
        slide, training, _ = read_slide(entry, Path(), genes)
        with slide:
            found = yield from extract_features(
                slide,
                training.spots.xy,
                encoder,
                encoder_hash=encoder.fingerprint,
                device=device,
            )
        slides.append(training)
        features.append(torch.from_numpy(found)[None])
    return Cohort(tuple(slides), tuple(features), genes)


def _config(
    name: str, entries: tuple[SlideEntry, ...], encoder: Encoder, diffusion: bool, seed: int, command: str
) -> RunConfig:
    row = find_encoder(encoder.name)
    card = {
        "title": name,
        "tissue": "as its sections are; fitted by a user",
        "encoder": {"name": row.name, "licence": row.licence, "fingerprint": encoder.fingerprint},
        "split": "trained on every section listed; held-out scores come from runs that left sections out, "
        "with genes chosen on all of them and an encoder that was not trained anew",
        "not_for": "diagnosis or any clinical decision; other tissues, stains, platforms than its sections'",
        "command": command,
    }
    values = FitConfig(
        views=1,
        score_steps=SCORE_STEPS if diffusion else 0,
        score_rate=5e-4,
        score_decay=0.05,
        shrinkage=0.2,
        seed=seed,
    )
    return RunConfig(name, None, entries, (), dict(_NETWORK), values, TileEncoderConfig(), card)


def _scored(cohort: Cohort, config: RunConfig, run: Path) -> Steps[tuple[Outcome, Plan]]:
    """Leave sections out in turn, at most `_MOST_SCORED` of them."""
    names = [slide.entry.name for slide in cohort.slides]
    step = -(-len(names) // _MOST_SCORED)
    methods = {name: ("floor", method) for name, method in LEARNED_FLOORS.items()}
    if all(slide.spots.array is not None for slide in cohort.slides):  # pasting goes by array position
        methods |= {name: ("image-blind", method) for name, method in IMAGE_BLIND.items()}
    plan = Plan(tuple(names[::step]), methods=methods, seeds=(config.fit.seed,))
    found = Outcome((), ())
    for name in plan.test:
        found += yield from score_fold(cohort, config, run, plan, Fold((name,), (name,)))
    return found, plan
