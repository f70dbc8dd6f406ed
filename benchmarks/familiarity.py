"""How well the out-of-distribution score separates training tissue from other tissue, on real sections.

Every section is left out in turn, of its tile encoder and of the score, and judged; so is each patient, and
`--broken`, one of the sections, in ways that a scan or its µm/px can be wrong.  Writes JSON.

    python -m benchmarks.familiarity training/configs/her2st.toml --data DATA --run runs/her2st \
        --out docs/results/familiarity.json

Finished tile encoders and features in the run folder are used; what is missing is made.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from scipy.stats import mannwhitneyu

from flag_training.cohort import Cohort, load_cohort
from flag_training.config import RunConfig, read_config
from flag_training.stages.fit import tile_encoder
from flag_training.stages.training_tissue import AXES, fit_familiarity, left_out
from napari_flag.cli.terminal import ProgressLine
from napari_flag.encoders.embedded import EmbeddedEncoder, TileNet
from napari_flag.model.out_of_distribution import FAR, MOSTLY, SlideScore
from napari_flag.progress import Step, finish
from napari_flag.simulation import demo_slide, demo_table
from napari_flag.slides.slide import Slide, open_slide
from napari_flag.slides.spot_tables import read_spots
from napari_flag.slides.tiles import read_tiles
from napari_flag.slides.tissue import find_tissue

Tiles = npt.NDArray[np.uint8]
Features = npt.NDArray[np.float32]
Change = Callable[[Tiles], Tiles]

LUMA: Final = np.array((0.299, 0.587, 0.114))
MOST_BLANK: Final = 100


def darkened(*gains: float) -> Change:
    """Return what multiplies the optical density of R, G and B by `gains`."""
    levels = np.maximum(np.arange(256), 1)[:, None] / 255
    table = np.rint(255 * levels ** np.array(gains)).astype(np.uint8)
    return lambda tiles: np.stack([table[tiles[..., c], c] for c in range(3)], axis=-1)


def blurred(pixels: float) -> Change:
    """Return what blurs by a Gaussian of this standard deviation in px of 0.683 µm."""
    return lambda tiles: gaussian_filter(tiles, (0, pixels, pixels, 0))


def grey(tiles: Tiles) -> Tiles:
    """Return tiles without colour."""
    return np.repeat(np.rint(tiles @ LUMA).astype(np.uint8)[..., None], 3, axis=-1)


CHANGES: Final[dict[str, Change]] = {
    "half as dark": darkened(0.5, 0.5, 0.5),
    "twice as dark": darkened(2.0, 2.0, 2.0),
    "another hue (optical density of R × 1.8, B × 1.3)": darkened(1.8, 1.0, 1.3),
    "red and blue exchanged": lambda tiles: tiles[..., ::-1],
    "grey": grey,
    "inverted": lambda tiles: 255 - tiles,
    "blurred by 2 px": blurred(2),
    "blurred by 4 px": blurred(4),
}


def main() -> None:
    """Judge everything and write the table."""
    parser = argparse.ArgumentParser(description="Measure the out-of-distribution score.")
    parser.add_argument("config", type=Path, nargs="?", default=Path("training/configs/her2st.toml"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--run", type=Path, default=Path("runs/her2st"))
    parser.add_argument("--broken", default="C5", help="section that is also shown changed")
    parser.add_argument("--out", type=Path, default=Path("docs/results/familiarity.json"))
    args = parser.parse_args()
    if args.data is None:  # as `make bench` runs it
        sys.stdout.write("This needs the sections of her2st: give their folder with --data.\n")
        return
    config = read_config(args.config)
    bench = Bench(config, args.data, args.run)
    results: dict[str, object] = {
        "command": f"python -m benchmarks.familiarity {args.config} --data DATA --run {args.run}",
        "unlike_from": FAR,
        "warns_above_share": MOSTLY,
        "axes": AXES,
        "sections_left_out": bench.sections(),
        "patients_left_out": bench.patients(args.broken),
        f"{args.broken} changed, by a score that left it out": bench.broken(args.broken),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=2, ensure_ascii=False) + "\n", "utf-8")


class Bench:
    """What is judged, with features kept in the run folder."""

    def __init__(self, config: RunConfig, data: Path, run: Path) -> None:
        self.config, self.data, self.run = config, data, run
        self.line = ProgressLine()

    def sections(self) -> dict[str, object]:
        """Judge each section, plain and turned and re-stained, by a score and an encoder without it."""
        results = {}
        for entry in self.config.slides:
            _, cohort = self._without(entry.name)
            familiarity = fit_familiarity(_of(cohort, lambda name, left=entry.name: name != left))
            views = _features(cohort, entry.name)
            plain, *others = (familiarity.score(view) for view in views)
            results[entry.name] = _row(plain) | {"turned and re-stained": [_row(view) for view in others]}
        return results

    def patients(self, broken: str) -> dict[str, object]:
        """Judge each section by the other patients' alone; the encoder has left out one section only."""
        results = {}
        owner = {entry.name: entry.patient for entry in self.config.slides}
        for entry in self.config.slides:
            alone = list(owner.values()).count(entry.patient) == 1
            _, cohort = self._without(entry.name if alone else broken)
            rest = _of(cohort, lambda name, patient=entry.patient: owner[name] != patient)
            results[entry.name] = _row(fit_familiarity(rest).score(_features(cohort, entry.name)[0])) | {
                "judged_by": [slide.entry.name for slide in rest.slides]
            }
        return results

    def broken(self, name: str) -> dict[str, object]:
        """Judge changed tiles of one section, and other pictures, against the section as it is."""
        net, cohort = self._without(name)
        rest = _of(cohort, lambda other: other != name)
        familiarity = fit_familiarity(rest)
        plain = familiarity.score(_features(cohort, name)[0])
        results: dict[str, object] = {
            "as it is": _row(plain),
            "left_out_in_turn": len(left_out(rest)),
            "bytes": sum(t.numel() * t.element_size() for t in familiarity.tensors().values()),
        }
        for case, features in self._cases(name, net):
            results[case] = _row(familiarity.score(features), plain)
            self.line(Step(case, 1, 1, "cases"))
        return results

    def _cases(self, name: str, net: TileNet) -> Iterator[tuple[str, Features]]:
        entry = next(entry for entry in self.config.slides if entry.name == name)
        with open_slide(self.data / entry.image, entry.mpp) as slide:
            xy = read_spots(self.data / entry.spots, slide=slide).spots.xy
            stated = slide.mpp or EmbeddedEncoder.mpp
            for factor in (0.5, 1.46):
                wrong = slide.with_mpp(stated * factor, "wrong on purpose")
                yield f"µm/px stated × {factor}", self._encode(net, wrong, xy)
            for case, change in CHANGES.items():
                yield case, self._encode(net, slide, xy, change, case)
            yield "blank background", self._encode(net, slide, blank(slide))
        with open_slide(demo_slide()) as slide:
            xy = read_spots(demo_table(), slide=slide).spots.xy
            yield "synthetic slide of the demo", self._encode(net, slide, xy)
        overview = self.data.parent / "visium_v1_small" / "spatial" / "tissue_lowres_image.png"
        if overview.exists():
            with open_slide(overview, EmbeddedEncoder.mpp) as slide:
                width, height = slide.size
                xy = np.random.default_rng(0).uniform(0.1, 0.9, (60, 2)) * (width, height)
                yield "Visium overview image taken for a scan", self._encode(net, slide, xy)

    def _without(self, name: str) -> tuple[TileNet, Cohort]:
        """Return the tile encoder that has not seen section `name`, and the features of all under it."""
        net = finish(tile_encoder(self.config.without((name,)), self.data, self.run), self.line)
        return net, finish(load_cohort(self.config, self.data, self.run, net), self.line)

    def _encode(
        self,
        net: TileNet,
        slide: Slide,
        xy: npt.NDArray[np.float64],
        change: Change = np.ascontiguousarray,
        case: str = "",
    ) -> Features:
        """Encode tiles that `change` has changed; `case` names it."""
        encoder = EmbeddedEncoder(net)
        cache_key = repr((encoder.fingerprint, slide.path.name, slide.mpp, case)).encode() + xy.tobytes()
        place = self.run / f"changed_{hashlib.sha256(cache_key).hexdigest()[:12]}.npy"
        if place.exists():
            kept: Features = np.load(place)
            return kept
        found: list[Features] = []
        for tiles in read_tiles(slide, xy, size_px=encoder.tile_px, mpp=encoder.mpp, batch_size=4):
            found.append(encoder.encode(np.ascontiguousarray(change(tiles))))
            self.line(Step(f"Encoding {slide.name} {case}".strip(), 4 * len(found), len(xy)))
        np.save(place, np.concatenate(found))
        return np.concatenate(found)


def blank(slide: Slide) -> npt.NDArray[np.float64]:
    """Return at most `MOST_BLANK` places, an array pitch apart, whose tiles hold no tissue."""
    tissue, step = find_tissue(slide), round(200 / (slide.mpp or 1))
    grids = np.meshgrid(*(np.arange(step, side - step, step) for side in slide.size))
    xy = np.stack(grids, -1).reshape(-1, 2).astype(np.float64)
    around = [(dx, dy) for dx in (-step, 0, step) for dy in (-step, 0, step)]
    empty = ~np.any([tissue.contains(xy + shift) for shift in np.array(around)], axis=0)
    return xy[empty][:MOST_BLANK]


def _of(cohort: Cohort, wanted: Callable[[str], bool]) -> Cohort:
    kept = [i for i, slide in enumerate(cohort.slides) if wanted(slide.entry.name)]
    return replace(
        cohort,
        slides=tuple(cohort.slides[i] for i in kept),
        features=tuple(cohort.features[i] for i in kept),
    )


def _features(cohort: Cohort, name: str) -> Features:
    place = [slide.entry.name for slide in cohort.slides].index(name)
    views: Features = cohort.features[place].numpy()
    return views


def _row(judged: SlideScore, familiar: SlideScore | None = None) -> dict[str, object]:
    row: dict[str, object] = {
        "spots": len(judged.unlike),
        "share_unlike": round(judged.share, 3),
        "share_unlike_aligned": round(judged.share_aligned, 3),
        "median_score": round(float(np.median(judged.unlike)), 3),
        "warned": judged.mostly_unlike,
    }
    if familiar is not None:
        larger = mannwhitneyu(judged.distance, familiar.distance).statistic
        row["auc"] = round(float(larger) / len(judged.distance) / len(familiar.distance), 3)
    return row


if __name__ == "__main__":
    main()
