"""The commands that are killed, each on inputs so small that it ends within a second or two."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

OUT = "out"
"""Folder of all that a command writes, in the folder of its case."""


@dataclass(frozen=True)
class Command:
    """One command.

    Parameters
    ----------
    name
        As the table calls it.
    make
        Writes its inputs into a folder, ``in`` of every case.
    words
        Of the command line, run in the folder of the case.
    resumes
        Whether what a killed run finished is used by the next.
    """

    name: str
    make: Callable[[Path], object]
    words: tuple[str, ...]
    resumes: bool = False


def _prediction(folder: Path) -> None:
    from tests.fakes import counts_for, fake_prediction

    from napari_flag.prediction_file import write_prediction

    made = fake_prediction(n_spots=36, n_genes=6)
    write_prediction(made, folder / "predicted.h5ad")
    counts_for(made).write_h5ad(folder / "measured.h5ad")


def _slide(folder: Path) -> None:
    import numpy as np
    from PIL import Image
    from tests.tiny_weights import write_tiny_weights

    side, pitch = 4, 293
    rng = np.random.default_rng(0)
    image = np.full((pitch * (side + 1),) * 2 + (3,), 245, np.uint8)
    image[150:-150, 150:-150] = (190, 110, 170)
    image = np.clip(image + rng.integers(-12, 12, image.shape), 0, 255).astype(np.uint8)
    Image.fromarray(image).save(folder / "C9.png")
    rows = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"]
    places = [(x, y) for x in range(1, side + 1) for y in range(1, side + 1)]
    rows += [f"{x}\t{y}\t{x}\t{y}\t{pitch * x}\t{pitch * y}\t1" for x, y in places]
    (folder / "spots.tsv").write_text("\n".join(rows) + "\n")
    write_tiny_weights(folder / "tiny.safetensors")


def _legacy(folder: Path) -> None:
    from tests.cohort_files import st_folder
    from tests.tiny_weights import write_tiny_weights

    st_folder(folder / "data", names=("A1", "A2"), side=3)
    write_tiny_weights(folder / "tiny.safetensors")


CONFIG = """name = "tiny"
[store]
path = "tiny"
encoder = "phikon"
panel = "top8"
split = ""
[network]
mean_width = 16
mean_layers = 1
context_width = 16
context_layers = 1
width = 16
blocks = 2
[fit]
views = 1
branch_steps = 8
score_steps = 12
score_batch = 16
[machine]
accelerator = "cpu"
save_every = 3
[card]
title = "tiny"
"""


def _store(folder: Path) -> None:
    from tests.cohort_files import TinyEncoder, hest_folder

    from flag_training.store.building import Encoding, build_store
    from flag_training.store.hest import find_metadata, hest_sources, read_metadata
    from flag_training.store.panels import PanelRule
    from flag_training.store.plan import StorePlan
    from flag_training.store.sources import HUMAN
    from napari_flag.progress import finish

    hest = hest_folder(folder / "hest", samples=4)
    names = [f"TST{number}" for number in range(1, 5)]
    sources = hest_sources(names, read_metadata(find_metadata(hest)), hest, HUMAN)
    rule = PanelRule("top8", 8, exact=True, variable_genes=0)
    encoder = TinyEncoder()
    encoder.name = "phikon"  # the card states the licence of a name that is known
    finish(
        build_store(StorePlan("tiny", HUMAN, sources, hest, panel=rule), folder / "tiny", Encoding(encoder))
    )
    (folder / "config.toml").write_text(CONFIG)


def _sections(folder: Path) -> None:
    from tests.section_files import write_section

    (folder / "sections").mkdir()
    for seed in (11, 12):
        write_section(folder / "sections", f"S{seed}", seed)


def brief() -> None:
    """Have fits take few steps, and features without an encoder; for processes of their own."""
    import numpy as np
    import torch

    from flag_training import own_sections
    from flag_training.config import read_recipe
    from napari_flag.slides.formats import trial_reading

    sizes, values = read_recipe()
    few = replace(values, views=1, branch_steps=3, score_steps=2, score_batch=16)
    tiny = ("mean_width", "context_width", "width")
    small = sizes | dict.fromkeys(tiny, 16) | {"mean_layers": 1, "context_layers": 1, "blocks": 2}
    own_sections.read_recipe = lambda: (small, few)

    def features(slides, encoder, device, colours):
        yield own_sections.Step(own_sections.ENCODING, 0, 1)
        made = []
        for slide in slides:
            noise = np.random.default_rng(len(made)).normal(size=(len(slide.spots), 8))
            rows = np.hstack([slide.expression[:, :4], noise]).astype(np.float32)
            made.append(torch.from_numpy(rows)[None])
        return tuple(made)

    own_sections._features = features
    trial_reading.TrialReader._running = lambda reader: False  # it starts a process, and writes nothing


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "predict", _slide,
            ("predict", "in/C9.png", "--spots", "in/spots.tsv", "--mpp", "0.683", "--weights",
             "in/tiny.safetensors", "--out", "out/C9.h5ad", "--overwrite", "--device", "cpu"),
        ),
        Command(
            "compare", _prediction,
            ("compare", "in/predicted.h5ad", "in/measured.h5ad", "--out", "out", "--overwrite"),
        ),
        Command(
            "export", _prediction,
            ("export", "in/predicted.h5ad", "--to", "h5ad", "spatialdata", "geojson", "ome-tiff", "--out",
             "out", "--overwrite"),
        ),
        Command(
            "report", _prediction, ("report", "in/predicted.h5ad", "--out", "out", "--overwrite"),
        ),
        Command(
            "anonymise", _prediction,
            ("anonymise", "in/predicted.h5ad", "--out", "out/clean.h5ad", "--overwrite"),
        ),
        Command(
            "prepare", _legacy,
            ("prepare", "in/data", "--out", "out/store", "--mpp", "1", "--views", "1", "--encoder",
             "embedded", "--weights", "in/tiny.safetensors", "--device", "cpu"),
            resumes=True,
        ),
        Command(
            "train", _store,
            ("train", "in/config.toml", "--data", "in", "--run", "out/run", "--out", "out/tiny.safetensors",
             "--overwrite"),
            resumes=True,
        ),
        Command(
            "fit", _sections,
            ("fit", "in/sections", "--out", "out/mine.safetensors", "--device", "cpu", "--overwrite"),
            resumes=True,
        ),
        Command(
            "evaluate", _store,
            ("evaluate", "in/config.toml", "--data", "in", "--run", "out/run", "--test", "TST1", "--methods",
             "FLAG", "ridge", "--out", "out/scores.json", "--overwrite"),
            resumes=True,
        ),
    )
}  # fmt: skip


EXCEPTIONS = {
    "gene-targets": "one file, by `files.replacing`; its models are not here",
    "weights": "one file, by `checkpoint.save_checkpoint`, which `train` is killed in",
    "sweep": "a table that grows by `files.replacing`, from states that `evaluate` is killed in",
    "tables": "one file, by `files.write_text`",
    "figures": "pictures, each by `files.replacing`",
}
"""Commands with ``--out`` that are not killed, and why."""


def used(path: Path) -> str:
    """Return what is wrong with a file or zarr that a command wrote, "" where it is whole."""
    try:
        _open(path)
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        return f"{type(error).__name__}: {error}"[:200]
    return ""


def _open(path: Path) -> None:
    kind = path.suffix
    if kind == ".zarr":
        import spatialdata

        held = spatialdata.read_zarr(path)
        assert len(held.tables["table"].X) == len(held.shapes["spots"])
        held.tables["table"].to_df()
    elif kind == ".h5ad":
        import anndata

        anndata.read_h5ad(path).to_df()
    elif kind in (".json", ".geojson"):
        json.loads(path.read_text("utf-8"))
    elif kind == ".html":
        assert path.read_text("utf-8").rstrip().endswith("</html>")
    elif kind in (".csv", ".md", ".txt"):
        assert path.read_text("utf-8").endswith("\n"), "it ends within a line"
    elif kind in (".tif", ".tiff"):
        import tifffile

        tifffile.imread(path)
    elif kind == ".safetensors":
        from safetensors.numpy import load_file

        load_file(path)
    elif kind == ".pt":
        import torch

        torch.load(path, weights_only=True)
    elif kind in (".npy", ".npz"):
        import numpy as np

        found = np.load(path)
        if kind == ".npz":
            [found[name] for name in found.files]
