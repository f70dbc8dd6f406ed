"""Build a store: splits and gene panels of a cohort, chosen once and recorded, then its slides."""

import hashlib
import math
import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from shutil import rmtree
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from flag_training.cohort import draw_views
from flag_training.store.panels import PanelRule, select_panel
from flag_training.store.plan import StorePlan
from flag_training.store.reading import read_tables
from flag_training.store.sources import SlideSource, require_files
from flag_training.store.splits import split_patients, split_slides
from flag_training.store.store import (
    FORMAT,
    PREPARE,
    SLIDE_RECORD,
    SPLITS_RECORD,
    STORE_RECORD,
    TABLES,
    Store,
    StoredSlide,
    open_store,
    open_stored,
    read_record,
    write_record,
    write_weights,
)
from flag_training.store.writing import FeatureTask, forget, relative, write_features, write_tables
from napari_flag.encoders.registry import Encoder
from napari_flag.errors import UserError
from napari_flag.files import ending, place_in, refuse_special, replacing
from napari_flag.formatting import counted, first_of, resolution
from napari_flag.progress import Step, Steps
from napari_flag.slides.colours import SCANNED, Colours
from napari_flag.slides.formats.counts import GENE_IDS
from napari_flag.slides.slide import open_slide
from napari_flag.slides.tiles import COARSEST

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def write_splits(plan: StorePlan, store: Store) -> None:
    """Write both splits down, or refuse those of another seed: a split that changes is a leak."""
    rule = plan.split
    unknown = set(rule.for_test) - set(store.names)
    if unknown:
        raise UserError(
            f"The cohort holds {', '.join(sorted(unknown))} for testing but has no such slide; name "
            f"slides of it in for_test of the cohort file: {', '.join(store.names)}."
        )
    patients = {name: store.slide(name).patient for name in store.names}
    splits = {
        "slides": split_slides(
            store.names, rule.shares, np.random.default_rng([rule.seed, 0]), rule.for_test
        ),
        "patients": split_patients(
            patients, rule.shares, np.random.default_rng([rule.seed, 1]), rule.for_test
        ),
    }
    record = {
        "shares": list(rule.shares),
        "seed": rule.seed,
        "for_test": list(rule.for_test),
        "patients": patients,
        "splits": {
            by: {key: list(v) if isinstance(v, tuple) else v for key, v in asdict(split).items()}
            for by, split in splits.items()
        },
    }
    path = store.path / SPLITS_RECORD
    if path.exists():
        if read_record(path, f"delete it and {PREPARE}.") != record:
            raise UserError(
                f"{path} splits these slides otherwise than requested now; keep its seed and shares, or "
                "delete it to split again, and train everything again with it."
            )
        return
    write_record(path, record)


def chosen_on(plan: StorePlan, store: Store) -> tuple[set[str], set[str]]:
    """Return the slides that genes are chosen on, and those of them that a split does not train on.

    They are training slides of every split, so that no run under either has chosen its genes with counts that
    it tests on; of the split by slides where the splits share none; all where there is no split or all were
    requested.  Slides held for testing are never among them.
    """
    splits = [split for split in map(store.split, store.splits()) if not split.unmade]
    trained = set.intersection(*(set(split.train) for split in splits)) if splits else set(store.names)
    seen = trained or set(splits[0].train)
    if plan.panel_sees_all:
        seen = set(store.names)
    seen -= set(plan.split.for_test)
    return seen, seen - trained


def write_panel(plan: StorePlan, rule: PanelRule, store: Store) -> Steps[None]:
    """Choose the genes on the slides of `chosen_on`, and write down which these were."""
    seen, beyond = chosen_on(plan, store)
    chosen: dict[str, Any] = {
        "rule": asdict(rule),
        "seen": sorted(seen),
        "seen_beyond_training": sorted(beyond),
        "names_from": sorted(set(store.names) - set(plan.split.for_test)),
    }
    path = store.path / "panels" / f"{rule.name}.json"
    if path.exists():
        record = read_record(path, f"delete it and {PREPARE}.")
        if any(record[key] != value for key, value in chosen.items()):
            raise UserError(
                f"The panel {rule.name} of {store.path} was chosen otherwise than requested now; give the "
                "panel another name in the cohort file, or delete it."
            )
        return
    counts, known, ids = {}, [], {}
    for number, name in enumerate(chosen["names_from"]):
        yield Step("Choosing genes", number, len(chosen["names_from"]), "slides")
        slide = store.slide(name).counts()
        known.append(set(slide.var_names))
        ids.update({symbol: i for symbol, i in zip(slide.var_names, slide.var[GENE_IDS], strict=True) if i})
        if name in seen:
            counts[name] = slide
    genes = select_panel(counts, rule, set.intersection(*known))
    chosen["genes"] = [{"symbol": gene, "ensembl": ids.get(gene, "")} for gene in genes]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path.with_suffix(".txt")) as place:
        place.write_text("".join(f"{gene}\n" for gene in genes), "utf-8")
    write_record(path, chosen)


_STATE: Final = ".pt"
_INSIDE: Final = "encoder."
"""Beginning of the encoder's tensors in a weights file."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An encoder, and its weights where weights trained on its features must include them.

    Parameters
    ----------
    encoder
        Ready to encode.
    tensors
        Weights of the embedded encoder; empty for those that everyone can get.
    """

    encoder: Encoder
    tensors: Mapping[str, "Tensor"] = field(default_factory=dict)


def open_prepared(name: str, device: "torch.device", weights: Path | None, download: bool) -> Opened:
    """Open the encoder called `name` on `device`.

    Parameters
    ----------
    name
        As the registry has it.
    device
        Where it computes.
    weights
        Its weights.  Those of the embedded encoder are stored in a weights file (also by name:
        ``her2st``), or are the ``tile_encoder_….pt`` that a training run keeps.
    download
        Whether weights that are not here may be downloaded.

    Raises
    ------
    UserError
        When they are not here, damaged, or of another encoder.
    """
    from napari_flag.encoders.foundation.catalogue import EMBEDDED
    from napari_flag.encoders.foundation.state_dicts import read_tensors
    from napari_flag.encoders.registry import build_encoder, open_encoder
    from napari_flag.model.checkpoint import find_weights

    if name != EMBEDDED.name or weights is None:
        return Opened(open_encoder(name, device, weights=weights, download=download))
    if ending(weights) == _STATE:
        tensors = _trained(weights)
    else:
        inside = read_tensors(find_weights(str(weights))).items()
        tensors = {key.removeprefix(_INSIDE): value for key, value in inside if key.startswith(_INSIDE)}
    return Opened(build_encoder(name, tensors, device), tensors)


def _trained(path: Path) -> dict[str, "Tensor"]:
    """Return the network of a training state that `train` keeps of its tile encoder."""
    import torch

    refuse_special(path)
    try:
        with zipfile.ZipFile(path) as parts:
            if parts.testzip() is not None:
                raise ValueError("its checksums do not fit")
        saved: Any = torch.load(path, map_location="cpu", weights_only=True)
        tensors: dict[str, Tensor] = saved["states"]["net"]
    except (
        OSError, RuntimeError, KeyError, TypeError, ValueError, UnpicklingError, zipfile.BadZipFile
    ) as error:  # fmt: skip
        raise UserError(
            f"{path} holds no trained tile encoder ({error}); give the tile_encoder_….pt of a run folder, or "
            "a weights file."
        ) from error
    return tensors


@dataclass(frozen=True, slots=True)
class Encoding:
    """How features are made.

    Parameters
    ----------
    encoder
        What encodes.
    tensors
        Its weights where weights trained on its features must include them; kept in the store.
    views
        How many ways a slide is seen; the first is as it is.
    seed
        Draws the others, for each slide anew.
    batch_size
        Tiles at a time.
    coarsest
        How much coarser than the encoder's µm/px a slide may be: its tiles are enlarged so much.
    colours
        "scanned", or "srgb": pixels are converted by each slide's colour profile.
    """

    encoder: Encoder
    tensors: Mapping[str, "Tensor"] = field(default_factory=dict)
    views: int = 4
    seed: int = 0
    batch_size: int = 8
    coarsest: float = COARSEST
    colours: Colours = SCANNED

    def of(self, slide: str) -> FeatureTask:
        """Return the task for one slide; its views depend on its name, not on its neighbours."""
        digest = hashlib.sha256(f"{self.seed}:{slide}".encode()).digest()
        seed = int.from_bytes(digest[:8], "big")
        views = draw_views(self.views, seed)
        return FeatureTask(self.encoder, views, self.batch_size, self.coarsest, self.colours)


def build_store(
    plan: StorePlan, out: Path, encoding: Encoding | None = None, rebuild: Sequence[str] = ()
) -> Steps[Store]:
    """Make the store `out`, or resume it.

    Parameters
    ----------
    plan
        What to put in.
    out
        Folder of the store; created.
    encoding
        Makes features; None leaves them for another run.
    rebuild
        Entries to make anew: ``SLIDE`` or ``SLIDE/STAGE``, e.g. ``C2/features-uni``.

    Raises
    ------
    UserError
        When files are missing or do not fit, or an entry that is there is damaged or was made of
        other sources or settings.
    """
    require_files(plan.sources)
    _open_or_begin(plan, out)
    _forget(plan, out, rebuild)
    total = len(plan.sources)
    for number, source in enumerate(plan.sources):
        yield Step("Preparing slides", number, total, "slides")
        slide = yield from _tables(plan, source, out)
        for notice in slide.record["notices"]:
            yield Step(
                "Preparing slides", number, len(plan.sources), "slides", notice=f"{source.name}: {notice}"
            )
    store = open_store(out)
    write_splits(plan, store)
    if plan.panel is not None:
        yield from write_panel(plan, plan.panel, store)
    if encoding is not None:
        _refuse_coarse(store, encoding)
        yield from write_weights(store.path, encoding.encoder, encoding.tensors)
        for source in plan.sources:
            yield from _features(source, store, encoding.of(source.name))
    return store


def _open_or_begin(plan: StorePlan, out: Path) -> None:
    """Write the store's record, or refuse a store of another cohort."""
    names = [source.name for source in plan.sources]
    invalid = [
        name for name in names if not re.fullmatch(r"[\w.-]+", name) or place_in(out, name).name != name
    ]
    if invalid:
        raise UserError(
            f"{invalid[0]!r} cannot be the name of a folder; name slides with letters, digits, - and _."
        )
    if len(set(names)) < len(names):
        raise UserError(f"The cohort {plan.name} names a slide twice; give each slide its own name.")
    record = {"format": FORMAT, "name": plan.name, "species": plan.species, "slides": names}
    if not (out / STORE_RECORD).exists():
        write_record(out / STORE_RECORD, record)
    elif read_record(out / STORE_RECORD, "delete it and run this again; slides are kept.") != record:
        raise UserError(
            f"{out} is the store of another cohort, or of other slides of {plan.name}; choose another "
            "folder with --out."
        )


def _forget(plan: StorePlan, out: Path, rebuild: Sequence[str]) -> None:
    names = {source.name for source in plan.sources}
    for entry in rebuild:
        name, _, stage = entry.partition("/")
        if name not in names:
            raise UserError(
                f"There is no slide {name} to rebuild; the cohort has {', '.join(sorted(names))}."
            )
        folder = out / "slides" / name
        if not stage:
            rmtree(folder, ignore_errors=True)
        elif (folder / SLIDE_RECORD).exists():
            whole = f"rebuild the whole slide with: napari-flag prepare … --rebuild {name}"
            forget(folder, read_record(folder / SLIDE_RECORD, whole), stage)


def _tables(plan: StorePlan, source: SlideSource, out: Path) -> Steps[StoredSlide]:
    """Return the stored slide, checked if it was there, else read and written."""
    folder = out / "slides" / source.name
    stages: dict[str, Any] = {}
    if (folder / SLIDE_RECORD).exists():
        whole = f"rebuild the slide with: napari-flag prepare … --rebuild {source.name}"
        record = read_record(folder / SLIDE_RECORD, whole)
        stages = record["stages"]
        if TABLES in stages:
            _refuse_changed(record, source, plan.root)
            slide = open_stored(folder)
            for stage, name in slide.files():
                yield from slide.check(stage, name)
            return slide
    yield Step(f"Reading {source.name}", 0)
    with open_slide(source.image, source.mpp) as image:
        read = read_tables(source, image, plan.species, plan.gene_ids)
    yield from write_tables(folder, source, read, plan.root, stages)
    return open_stored(folder)


def _refuse_changed(record: Mapping[str, Any], source: SlideSource, root: Path) -> None:
    """Refuse a slide whose sources are not those it was made of, by name and size."""
    recorded = {entry["path"]: entry["bytes"] for entry in record["sources"]}
    found = {relative(path, root): path.stat().st_size for path in source.files()}
    if recorded != found:
        changed = sorted(recorded.items() ^ found.items())[0][0]
        raise UserError(
            f"{source.name} was prepared from other files ({changed} differs); give the same ones, or "
            f"rebuild the slide with: napari-flag prepare … --rebuild {source.name}"
        )


def _refuse_coarse(store: Store, encoding: Encoding) -> None:
    """Refuse slides too coarse for the encoder, all at once and before hours of work."""
    wanted = encoding.encoder.mpp
    mpp = {name: store.slide(name).mpp for name in store.names}
    coarse = [name for name in store.names if mpp[name] > encoding.coarsest * wanted]
    if coarse:
        most = max(mpp.values())
        raise UserError(
            f"{counted(len(coarse), 'slide')} ({first_of(coarse, 5)}) "
            f"{'has' if len(coarse) == 1 else 'have'} up to {resolution(most)}, too coarse for the "
            f"{resolution(wanted)} of {encoding.encoder.name}; agree to enlarge their tiles with --enlarge "
            f"{math.ceil(10 * most / wanted) / 10:g}, or choose an encoder for coarser slides."
        )


def _features(source: SlideSource, store: Store, task: FeatureTask) -> Steps[None]:
    """Encode a slide unless its features were made with the same settings."""
    slide = store.slide(source.name)
    done = slide.record["stages"].get(task.stage)
    if done is None:
        with open_slide(source.image) as image:
            seen = image.with_mpp(slide.mpp, slide.record["mpp_source"]).in_colours(task.colours)
            yield from write_features(slide, seen, task)
    elif done["settings"] != task.settings(slide):
        raise UserError(
            f"The {task.stage} of {source.name} were made with other settings (encoder weights, views, "
            "colours or seed); make them again with: napari-flag prepare … "
            f"--rebuild {source.name}/{task.stage}"
        )
    else:
        rmtree(slide.folder / f"{task.stage}.parts", ignore_errors=True)
