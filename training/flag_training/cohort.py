"""Slides of a run → features in several views, expression and graph."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from flag_training.config import RunConfig, SlideEntry, StoreConfig
from flag_training.run_folders import earlier_features_file, features_key
from flag_training.store.store import Store, StoredSlide, open_store, read_weights
from napari_flag import cache
from napari_flag.encoders.embedded import EmbeddedEncoder, TileNet
from napari_flag.encoders.features import halve
from napari_flag.encoders.registry import Encoder
from napari_flag.errors import UserError
from napari_flag.files import make_folder, refuse_special, unfinished
from napari_flag.formatting import first_of
from napari_flag.gene_names import names_in
from napari_flag.model.graph import Places, SpotGraph, build_graph, likeness
from napari_flag.progress import Step, Steps
from napari_flag.slides.colours import SCANNED, Colours
from napari_flag.slides.file_identity import content_hash
from napari_flag.slides.slide import Slide, open_slide
from napari_flag.slides.spot_tables import read_measured, read_spots
from napari_flag.slides.spots import Spots
from napari_flag.slides.tiles import COARSEST, read_tiles

FloatArray = npt.NDArray[np.float32]

_STAIN_JITTER: Final = 0.12
"""Spread of the log gain of each optical-density channel of a view."""
_BATCH: Final = 8
_READING: Final = "Reading kept features"
_LEVELS: Final = "Reading counts of all patients"
_ROUNDING: Final = 0.01
"""By how much kept features may differ from those computed now; they spread by about .5."""


@dataclass(frozen=True, slots=True)
class TrainingSlide:
    """All that training needs of one slide.

    Parameters
    ----------
    entry
        Name, patient, files.
    spots
        Spots with measured expression, in order.
    mpp
        µm per level-0 pixel.
    expression
        (n, G) float32 log2(count + 1).
    neighbours
        Neighbour lists where they are known already; the likeness in them is not used.
    """

    entry: SlideEntry
    spots: Spots
    mpp: float
    expression: FloatArray
    neighbours: SpotGraph | None = None

    def graph(self, features: FloatArray) -> SpotGraph:
        """Return the spatial graph under `features` (n, d) of one view."""
        if self.neighbours is not None:
            known = self.neighbours
            return replace(known, likeness=likeness(features, known.neighbours, known.present))
        return build_graph(self.places, features)

    @property
    def places(self) -> Places:
        """Where the spots lie."""
        return Places.of(self.spots, self.mpp, self.pitch_um)

    @property
    def pitch_um(self) -> float:
        """Array pitch in µm."""
        if self.spots.pitch_um is None:
            raise UserError(
                f"The spot table of {self.entry.name} does not say how far its spots are apart, so "
                "no graph can be built; use a table with array coordinates."
            )
        return self.spots.pitch_um


@dataclass(frozen=True, slots=True)
class SectionLevel:
    """What the counts of a section say of its level, with or without an image.

    Parameters
    ----------
    name, patient
        The section, and whose it is.
    location, scale
        (G,) mean and standard deviation over spots of log2(count + 1); NaN for genes not measured.
    mean
        (G,) mean count.
    """

    name: str
    patient: str
    location: FloatArray
    scale: FloatArray
    mean: FloatArray

    @classmethod
    def of(cls, name: str, patient: str, expression: FloatArray) -> "SectionLevel":
        """Measure (n, G) log2(count + 1)."""
        return cls(name, patient, expression.mean(0), expression.std(0), (np.exp2(expression) - 1).mean(0))


@dataclass(frozen=True, slots=True)
class Cohort:
    """The slides of a run with their features.

    Parameters
    ----------
    slides
        With their spots and expression.
    features
        Per slide (views, n, d).
    genes
        The panel.
    others
        Levels of further sections, of which only counts are known.
    """

    slides: tuple[TrainingSlide, ...]
    features: tuple[Tensor, ...]
    genes: tuple[str, ...]
    others: tuple[SectionLevel, ...] = ()


def fingerprint(cohort: Cohort) -> str:
    """Return eight letters of the features, so that no state of other features is resumed."""
    digest = hashlib.sha256()
    for views in cohort.features:
        digest.update(views.numpy().tobytes())
    return digest.hexdigest()[:8]


def load_cohort(config: RunConfig, data: Path, run: Path, net: TileNet | None) -> Steps[Cohort]:
    """Read slides, counts and features of a run's sections.

    Parameters
    ----------
    config
        The run; of its store where it has one, else from the files it names.
    data
        Folder that the config's paths are relative to.
    run
        Folder where features are kept, under the encoder's hash.
    net
        The trained tile encoder; not needed with a store, whose features are there.
    """
    if config.store is not None:
        if notice := panel_notice(config, data, config.fit.left_out):
            yield Step("Reading the store", 0, len(config.slides), "slides", notice=notice)
        names = [entry.name for entry in config.slides]
        stored = yield from load_stored(config.store, data, names, config.fit.views)
        return replace(stored, others=(yield from read_levels(config, data, stored.genes)))
    if net is None:
        raise ValueError("a run without a store encodes its slides, which takes a tile encoder")
    encoder, weights = EmbeddedEncoder(net), _weights_of(net)
    panel = read_panel(config, data)
    slides, features = [], []
    genes: tuple[str, ...] = ()
    for entry in config.slides:
        slide, training, genes = read_slide(entry, data, panel, config.colours)
        seed = config.number_of(entry.name)
        former = earlier_features_file(run, entry, config.fit.views, weights, config.colours)
        with slide:
            views = yield from _kept_views(
                slide, training, encoder, config.fit.views, seed, config.colours, run, former
            )
        slides.append(training)
        features.append(torch.from_numpy(views))
        panel = panel or genes
    others = yield from read_levels(config, data, genes)
    return Cohort(tuple(slides), tuple(features), genes, others)


def _kept_views(
    slide: Slide,
    training: TrainingSlide,
    encoder: EmbeddedEncoder,
    views: int,
    seed: int,
    colours: Colours,
    run: Path,
    former: Path,
) -> Steps[FloatArray]:
    """Return the features of a slide that are kept in `run`, or encode the slide and keep them.

    Parameters
    ----------
    slide, training, encoder, views, seed, colours
        What they are made of.
    run
        The folder.
    former
        Where earlier versions kept them without saying of which pixels, nor by which seed.  They are taken,
        so that fits made on them can go on, where view 0, which no seed changes, is what the encoder makes of
        the slide now but for rounding.
    """
    name, shape = training.entry.name, (views, len(training.spots), encoder.dim)
    image = content_hash(slide.path)
    key = features_key(
        name, str(image), training.spots.xy, training.mpp, views, seed, encoder.fingerprint, colours
    )
    entry = None if image is None else cache.find(run, key)
    if entry is not None:
        whole = yield from cache.is_whole(entry, _READING)
        if whole and (found := _load_views(entry, shape)) is not None:
            return found
        cache.discard(entry)
        notice = f"The kept features of {name} were damaged and are computed again."
        yield Step(_READING, 0, None, "slides", notice=notice)
    made = None
    if former.exists():
        found = _load_views(former, shape)
        if found is not None:
            plain = yield from slide_views(slide, training.spots, encoder, 1, seed)
            made = found if np.allclose(found[:1], plain, rtol=0, atol=_ROUNDING) else None
        if made is None:
            notice = (
                f"The features of {name} that an earlier version kept ({former.name}) are damaged or not "
                "those of its image and spots, so they are computed again; fits on other features are not "
                "continued."
            )
            yield Step(_READING, 0, None, "slides", notice=notice)
    if made is None:
        made = yield from slide_views(slide, training.spots, encoder, views, seed)
    if image is not None:
        make_folder(run)
        with unfinished(run / f"{key}.npy") as place:
            with place.open("wb") as stream:
                np.save(stream, made)
            yield from cache.store(place, run, key, ".npy", _READING)
    return made


def are_earlier(cohort: Cohort, config: RunConfig, run: Path, net: TileNet | None) -> bool:
    """Return whether the features of `cohort` are those that an earlier version kept in `run`, of all slides.

    Of a store, which has no `net`, an earlier version kept none there.
    """
    if net is None:
        return False
    weights = _weights_of(net)
    for entry, views in zip(config.slides, cohort.features, strict=True):
        former = earlier_features_file(run, entry, config.fit.views, weights, config.colours)
        found = _load_views(former, (views.shape[0], views.shape[1], views.shape[2]))
        if found is None or not np.array_equal(found, views.numpy()):
            return False
    return True


def _weights_of(net: TileNet) -> bytes:
    """Return what earlier versions knew a tile encoder by."""
    return b"".join(v.numpy().tobytes() for v in net.state_dict().values())


def _load_views(path: Path, shape: tuple[int, int, int]) -> FloatArray | None:
    """Return the (views, n, d) features in a file; None where it is damaged or holds something else."""
    try:
        refuse_special(path)
        with path.open("rb") as stream:
            found = np.load(stream, allow_pickle=False)
    except (UserError, OSError, ValueError, EOFError):
        return None
    if not isinstance(found, np.ndarray) or found.shape != shape or found.dtype != np.float32:
        return None
    return found if np.isfinite(found).all() else None


def read_levels(config: RunConfig, data: Path, genes: Sequence[str]) -> Steps[tuple[SectionLevel, ...]]:
    """Read the levels of the sections of the run's prior, () without one.

    Raises
    ------
    UserError
        When the pattern fits no file.
    """
    if config.prior is None:
        return ()
    there = sorted(data.glob(config.prior.counts))
    files = [path for path in there if _section_of(path) not in config.prior.leave_out]
    if not files:
        raise UserError(
            f"No file in {data} fits {config.prior.counts}, which the config names under [prior]; correct it "
            "there, or leave [prior] out."
        )
    found = []
    for number, path in enumerate(files):
        yield Step(_LEVELS, number, len(files), "sections")
        counts = read_measured(path)
        place = {gene: i for i, gene in enumerate(counts.var_names)}
        known = [i for i, gene in enumerate(genes) if gene in place]
        block = counts[:, [place[genes[i]] for i in known]].X
        dense = np.asarray(block.todense() if hasattr(block, "todense") else block, np.float32)
        expression = np.full((len(dense), len(genes)), np.nan, np.float32)
        expression[:, known] = np.log2(dense + 1)
        name = _section_of(path)
        found.append(SectionLevel.of(name, name[: config.prior.patient_letters], expression))
    return tuple(found)


def _section_of(path: Path) -> str:
    """Return the section that a file of counts is named after."""
    return path.name.split(".")[0]


def read_panel(config: RunConfig, data: Path) -> tuple[str, ...] | None:
    """Return the genes of the run's panel file, None when it names none."""
    if config.panel is None:
        return None
    return tuple(dict.fromkeys(names_in(data / config.panel)))


def read_slide(
    entry: SlideEntry, data: Path, panel: Sequence[str] | None, colours: Colours = SCANNED
) -> tuple[Slide, TrainingSlide, tuple[str, ...]]:
    """Open one slide with its spots and counts.

    Returns
    -------
    The open slide, what training needs of it, and the genes.

    Raises
    ------
    UserError
        When files do not fit each other or lack genes of the panel.
    """
    slide = open_slide(data / entry.image, entry.mpp).in_colours(colours)
    table = read_spots(data / entry.spots, slide=slide)
    counts = read_measured(data / entry.counts) if entry.counts else table.measured
    if counts is None or slide.mpp is None:
        lacking = "measured expression" if counts is None else "µm per pixel"
        raise UserError(f"{entry.name} has no {lacking}, so it cannot be trained on; add it to the config.")
    place = {name: row for row, name in enumerate(counts.obs_names)}
    keep = np.array([i for i, name in enumerate(table.spots.ids) if name in place])
    genes = tuple(panel or counts.var_names)
    absent = [gene for gene in genes if gene not in counts.var_names]
    if absent or not len(keep):
        lacking = f"genes {', '.join(absent[:5])}" if absent else "spots of the table"
        raise UserError(f"The counts of {entry.name} lack {lacking}; check that the files belong together.")
    spots = table.spots.take(keep)
    block = counts[[place[name] for name in spots.ids], list(genes)].X
    dense = np.asarray(block.todense() if hasattr(block, "todense") else block, np.float32)
    return slide, TrainingSlide(entry, spots, slide.mpp, np.log2(dense + 1)), genes


def slide_views(slide: Slide, spots: Spots, encoder: Encoder, views: int, seed: int) -> Steps[FloatArray]:
    """Encode a slide as it is, and turned and re-stained as a whole.

    Returns
    -------
    (views, n, d) float32; view 0 is the slide as it is.
    """
    return (yield from encode_views(slide, spots.xy, encoder, draw_views(views, seed)))


@dataclass(frozen=True, slots=True)
class View:
    """How every tile of a slide is seen alike: turned by quarters, then mirrored, then re-stained.

    Parameters
    ----------
    quarters
        Quarter turns, counter-clockwise.
    mirrored
        Whether left and right change places.
    log_gain
        Log of the gain of the optical density of R, G and B.
    """

    quarters: int = 0
    mirrored: bool = False
    log_gain: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def of(self, tiles: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return (b, h, w, 3) `tiles` as this view shows them."""
        seen = np.rot90(tiles, self.quarters, (1, 2))
        return _restained(seen[:, :, ::-1] if self.mirrored else seen, np.array(self.log_gain))


def draw_views(views: int, seed: int) -> tuple[View, ...]:
    """Return `views` views: the slide as it is, then others drawn by `seed`."""
    generator = np.random.default_rng(seed)
    drawn = [View()]
    for _ in range(views - 1):
        quarters, mirrored = int(generator.integers(4)), bool(generator.integers(2))
        gain = generator.normal(0, _STAIN_JITTER, 3) + generator.normal(0, _STAIN_JITTER)
        drawn.append(View(quarters, mirrored, (float(gain[0]), float(gain[1]), float(gain[2]))))
    return tuple(drawn)


def encode_views(
    slide: Slide,
    xy: npt.NDArray[np.float64],
    encoder: Encoder,
    views: Sequence[View],
    batch_size: int = _BATCH,
    coarsest: float = COARSEST,
) -> Steps[FloatArray]:
    """Encode the tiles around `xy` (n, 2) in each of `views`: (views, n, d) float32.

    `coarsest` is how much coarser than the encoder's µm/px the slide may be.
    """
    features = np.empty((len(views), len(xy), encoder.dim), np.float32)
    stage, done = f"Encoding {slide.name}", 0
    while done < len(xy):
        tiles = read_tiles(
            slide,
            xy[done:],
            size_px=encoder.tile_px,
            mpp=encoder.mpp,
            batch_size=batch_size,
            coarsest=coarsest,
        )
        try:
            for batch in tiles:
                for number, view in enumerate(views):
                    features[number, done : done + len(batch)] = encoder.encode(view.of(batch))
                    yield Step(stage, done, len(xy))
                done += len(batch)
                yield Step(stage, done, len(xy))
        except torch.cuda.OutOfMemoryError:
            batch_size = halve(batch_size, "tiles")
            torch.cuda.empty_cache()
            notice = f"GPU memory ran out; continuing with {batch_size} tiles at a time."
            yield Step(stage, done, len(xy), notice=notice)
    return features


def _restained(tiles: npt.NDArray[np.uint8], log_gain: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Scale optical densities of uint8 RGB `tiles` by ``exp(log_gain)`` per channel."""
    if not log_gain.any():
        return np.ascontiguousarray(tiles)
    levels = np.maximum(np.arange(256), 1) / 255
    table = np.rint(255 * levels[:, None] ** np.exp(log_gain)).astype(np.uint8)  # (256, 3)
    return np.stack([table[tiles[..., channel], channel] for channel in range(3)], axis=-1)


def with_store(config: RunConfig, data: Path) -> RunConfig:
    """Return `config` with the slides of its store, and those to stop early by.

    A run without a store is returned as it is.  With a split, its validation part is held out for
    early stopping unless the config names sections itself; take `held_out` away before training.

    Parameters
    ----------
    config
        Values of the run.
    data
        Folder that the store's path is relative to.
    """
    if config.store is None:
        return config
    store = open_store(data / config.store.path)
    fit = config.fit
    if config.store.split and not fit.validation:
        fit = replace(fit, validation=store.split(config.store.split).part("validation"))
    return replace(config, slides=tuple(_entry(store.slide(name)) for name in store.names), fit=fit)


def held_out(config: RunConfig, data: Path) -> tuple[str, ...]:
    """Return the test part of the run's split: never trained on, never stopped by; () without a split."""
    if config.store is None or not config.store.split:
        return ()
    return open_store(data / config.store.path).split(config.store.split).part("test")


def panel_notice(config: RunConfig, data: Path, left_out: Sequence[str]) -> str | None:
    """Return a sentence where genes of a store were chosen with counts of what a run leaves out; else None.

    Parameters
    ----------
    config
        The run; only a panel of a store records the slides that it was chosen on.
    data
        Folder that the store's path is relative to.
    left_out
        Sections that are scored, or kept out of training.
    """
    if config.store is None or not config.store.panel:
        return None
    seen = open_store(data / config.store.path).panel_record(config.store.panel)["seen"]
    met = sorted(set(left_out) & set(seen))
    if not met:
        return None
    return (
        f"The genes of the panel {config.store.panel} were chosen with the counts of {first_of(met, 5)}, so "
        "scores of what is left out here are not of genes chosen without it; to have those, name such slides "
        "under for_test in the cohort file and prepare another store."
    )


def load_stored(config: StoreConfig, data: Path, names: Sequence[str], views: int) -> "Steps[Cohort]":
    """Read slides of a store: expression of its panel, and features of its encoder.

    Parameters
    ----------
    config
        Which store, encoder and panel.
    data
        Folder that the store's path is relative to.
    names
        Slides to read.
    views
        Views of each slide to take.

    Raises
    ------
    UserError
        When an entry is damaged, a slide lacks genes or views, or slides were encoded with other weights.
    """
    store = open_store(data / config.path)
    panel = store.panel(config.panel) if config.panel else ()
    slides, features = [], []
    for number, name in enumerate(names):
        yield Step("Reading the store", number, len(names), "slides")
        stored = store.slide(name)
        found = stored.features(config.encoder)
        if len(found) < views:
            raise UserError(
                f"{name} was encoded in {len(found)} views and the run needs {views}; set fit.views, or "
                "prepare the store again with --views."
            )
        training, genes = _training_slide(stored, panel)
        if panel and genes != panel:
            raise AssertionError("a slide's genes are the panel's")
        panel = panel or genes
        slides.append(training)
        features.append(torch.from_numpy(np.array(found[:views])))
    _refuse_mixed(store, config.encoder, names)
    return Cohort(tuple(slides), tuple(features), panel)


def stored_encoder(config: StoreConfig, data: Path) -> tuple[str, dict[str, torch.Tensor]]:
    """Return the encoder's name and the weights that must go into the checkpoint with the model."""
    return config.encoder, read_weights(data / config.path, config.encoder)


def _training_slide(stored: StoredSlide, panel: Sequence[str]) -> "tuple[TrainingSlide, tuple[str, ...]]":
    counts = stored.counts()
    genes = tuple(panel or counts.var_names)
    absent = [gene for gene in genes if gene not in counts.var_names]
    if absent:
        raise UserError(
            f"{stored.name} lacks genes of the panel ({', '.join(absent[:5])}); choose the genes again with "
            "this slide in the cohort, or leave it out."
        )
    expression = np.log2(np.asarray(counts[:, list(genes)].X.todense(), np.float32) + 1)
    return TrainingSlide(_entry(stored), stored.spots, stored.mpp, expression, stored.graph()), genes


def _entry(stored: StoredSlide) -> SlideEntry:
    """Describe a stored slide; one whose patient is not known counts as a patient of its own."""
    image = str(stored.record["sources"][0]["path"])
    return SlideEntry(stored.name, stored.patient or stored.name, image, image, mpp=stored.mpp)


def _refuse_mixed(store: Store, encoder: str, names: Sequence[str]) -> None:
    """Refuse features of different weights or precision: features would then identify the slide."""
    prints = {store.slide(name).feature_settings(encoder)["fingerprint"]: name for name in names}
    if len(prints) > 1:
        one, other = list(prints.values())[:2]
        raise UserError(
            f"{one} and {other} were encoded with other weights of {encoder}, or in other precision on "
            "another kind of device; make the features of one again "
            f"with: napari-flag prepare … --rebuild {one}/features-{encoder}"
        )
