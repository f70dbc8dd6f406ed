"""Nothing that is written says who made it, where, from which folder, or what stands on the slide's label.

Every kind of output is made from a slide in a telling folder, under the name of a patient, and each of its
bytes is searched, also those that are compressed.
"""

import base64
import getpass
import io
import json
import platform
import re
import socket
import uuid

import h5py
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image
from tests import slide_files
from tests.cli.test_predict_command import FakeCheckpoint
from tests.fakes import SOME_GENES

from napari_flag import keys, prediction, prediction_file, preflight
from napari_flag.cli import main
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.progress import Step

FOLDER, LABEL, USER, HOST = "secret_user_folder", "secretlabeltext", "secretlogin", "secret-workstation"
PATIENT = ("smith", "1964-03-12")
SECRETS = (FOLDER, LABEL, USER, HOST, *PATIENT, f"{uuid.getnode():012x}")
NAME = "Smith_John_1964-03-12"


class FullCheckpoint(FakeCheckpoint):
    """As much of a `Checkpoint` as provenance records."""

    method = method_name = "FLAG"


def recorded_prediction(slide, spots, checkpoint, *, seed, **_):
    """`prediction.predict_slide`'s contract, with the provenance and the picture of the real one."""
    yield Step("Reading tiles", 0, len(spots))
    x = np.random.default_rng(seed).gamma(2.0, 1.0, (len(spots), len(SOME_GENES))).astype(np.float32)
    x += np.sin(spots.xy[:, :1] / 200).astype(np.float32) ** 2 * 3
    made = prediction_file.describe_run(slide, spots, checkpoint, None, None, "cpu", ())
    made[keys.SPOT_PITCH_UM] = spots.pitch_um or 200.0
    sample = np.log2(np.rint(np.exp2(x) - 1) + 1).astype(np.float32)
    layers = {keys.SAMPLE: sample, keys.SPREAD: np.ones_like(x)}
    adata = prediction_file.build_prediction(x, spots, SOME_GENES, made, layers=layers)
    prediction_file.add_thumbnail(adata, slide)
    return adata


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A slide with label and macro, its spots and counts, where a user keeps them; the user is another."""
    for name in ("USER", "LOGNAME", "USERNAME", "LNAME"):
        monkeypatch.setenv(name, USER)
    monkeypatch.setenv("HOSTNAME", HOST)
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    monkeypatch.setattr(platform, "node", lambda: HOST)
    assert getpass.getuser() == USER
    monkeypatch.setattr(Checkpoint, "load", lambda path: FullCheckpoint())
    monkeypatch.setattr(prediction, "predict_slide", recorded_prediction)
    monkeypatch.setattr(preflight, "COARSEST", 4.0)
    private = tmp_path / FOLDER
    private.mkdir()
    image = slide_files.tissue_picture(1000, 900, (100, 100, 900, 800))
    slide_files.aperio_svs(private / f"{NAME}.svs", image, mpp=2.0, private=LABEL)
    assert LABEL.encode() in (private / f"{NAME}.svs").read_bytes()
    spots = [(x, y) for x in range(2, 9) for y in range(2, 8)]
    rows = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"]
    rows += [f"{x}\t{y}\t{x}\t{y}\t{100 * x}\t{100 * y}\t1" for x, y in spots]
    (private / f"{NAME}_spots.tsv").write_text("\n".join(rows) + "\n")
    rng = np.random.default_rng(0)
    counts = ["\t" + "\t".join(SOME_GENES)]
    counts += [f"{x}x{y}\t" + "\t".join(map(str, rng.poisson(4 + 3 * (x % 3), 20))) for x, y in spots]
    (private / f"{NAME}_counts.tsv").write_text("\n".join(counts) + "\n")
    monkeypatch.chdir(private)
    return private


# --- every byte ----------------------------------------------------------------------------------


def texts_of(path):
    """Every byte of an output, also of what is compressed in it, as texts to be searched."""
    data = path.read_bytes()
    yield data.decode("latin-1")
    if path.suffix == ".h5ad":
        with h5py.File(path) as file:
            yield from _in_groups(file)
    elif path.suffix == ".tif":
        with tifffile.TiffFile(path) as tiff:
            for page in tiff.pages:
                yield " ".join(f"{tag.name} {tag.value}" for tag in page.tags)
                yield page.asarray().tobytes().decode("latin-1")
    elif path.suffix == ".png":
        yield from _in_picture(data)
    elif path.suffix in (".html", ".svg"):
        for found in re.finditer(rb"base64,([A-Za-z0-9+/=\s]+)", data):
            yield from _in_picture(base64.b64decode(found[1]))


def _in_groups(group):
    texts = [group.name, json.dumps({key: str(value) for key, value in group.attrs.items()})]

    def visit(name, held):
        texts.append(name)
        texts.extend(str(value) for value in held.attrs.values())
        if not hasattr(held, "shape"):
            return
        values = np.asarray(held[...])
        texts.append(
            str(values.tolist()) if values.dtype.kind in "OSTUV" else values.tobytes().decode("latin-1")
        )

    if isinstance(group, h5py.Group):
        group.visititems(visit)
    else:
        for name, held in group.members(max_depth=None):
            visit(name, held)
    return texts


def _in_picture(data):
    with Image.open(io.BytesIO(data)) as picture:
        yield str(picture.info)
        yield picture.tobytes().decode("latin-1")


def leaks(folder):
    """{file: what it says that it must not} over all files in a folder."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        seen = {
            s
            for text in (str(path.relative_to(folder)), *texts_of(path))
            for s in SECRETS
            if s in text.lower()
        }
        if seen:
            found[path.relative_to(folder).as_posix()] = seen
    for store in folder.glob("*.zarr"):
        seen = {
            s for text in _in_groups(zarr.open_group(store, mode="r")) for s in SECRETS if s in text.lower()
        }
        if seen:
            found[store.name] = seen
    return found


def run(out, folder, *extra):
    """Every command that writes, as a person in `folder` would type it."""
    slide, counts = f"{NAME}.svs", f"{folder}/{NAME}_counts.tsv"
    first, second = str(out / "first.h5ad"), str(out / "second.h5ad")
    assert main(["predict", str(folder / slide), "--spots", f"{NAME}_spots.tsv", "--out", first, *extra]) == 0
    assert main(["predict", str(folder), "--seed", "2", "--out", second, *extra]) == 0
    formats = ["h5ad", "spatialdata", "geojson", "ome-tiff", "csv"]
    exported = ["export", first, "--to", *formats, "--out", str(out), "--measured", counts, "--slide", slide]
    assert main([*exported, *extra]) == 0
    assert main(["report", first, "--out", str(out), *extra]) == 0
    (folder / "mine.gmt").write_text("\t".join(["Luminal", "na", *SOME_GENES[:6]]) + "\n")
    scored = ["--out", str(out / "scored"), "--gene-sets", "mine.gmt", "--set", "Luminal", *extra]
    assert main(["compare", first, counts, *scored]) == 0
    assert main(["compare", first, second, "--measured", counts, "--out", str(out), *extra]) == 0


@pytest.mark.slow
def test_no_output_says_who_made_it_where_or_of_whom(folder, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    run(out, folder)
    endings = {"".join(path.suffixes[-2:]) for path in out.rglob("*") if path.is_file()}
    assert {".h5ad", ".html", ".geojson", ".ome.tif", ".csv", ".json", ".md", ".png", ".svg"} <= endings
    assert list(out.glob("*.zarr"))
    assert leaks(out) == {}
    assert "--keep-names" in capsys.readouterr().err


def test_kept_names_stay_and_folders_and_labels_do_not(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    line = [
        "predict",
        f"{NAME}.svs",
        "--spots",
        f"{NAME}_spots.tsv",
        "--out",
        str(out / "p.h5ad"),
        "--keep-names",
    ]
    assert main(line) == 0
    assert leaks(out) == {"p.h5ad": set(PATIENT)}
    made = prediction_file.read_prediction(out / "p.h5ad").uns[keys.PROVENANCE]
    assert made[keys.SLIDE_NAME] == NAME
    assert made[keys.COMMAND].endswith("--keep-names")


def test_a_result_without_a_place_is_not_named_after_a_patient(folder):
    assert main(["predict", f"{NAME}.svs", "--spots", f"{NAME}_spots.tsv"]) == 0
    [written] = folder.glob("*.h5ad")
    assert re.fullmatch(r"anonymous-[0-9a-f]{8}_predicted\.h5ad", written.name)
    assert not [secret for text in texts_of(written) for secret in SECRETS if secret in text.lower()]


def test_the_search_finds_what_is_hidden_in_compressed_parts(tmp_path):
    """So that an empty list of leaks says something."""
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        text = np.array([f"/home/{USER}"] * 500, dtype=object)
        file.create_dataset("uns/x", data=text, dtype=h5py.string_dtype(), compression="gzip")
    zarr.open_group(tmp_path / "b.zarr", mode="w").create_array(
        "x", data=np.frombuffer(LABEL.encode(), np.uint8)
    )
    tifffile.imwrite(tmp_path / "c.tif", np.zeros((4, 4), np.uint8), description=f"User {USER}")
    expected = {"a.h5ad": {USER}, "b.zarr": {LABEL}, "c.tif": {USER}}
    assert {name: seen for name, seen in leaks(tmp_path).items() if name in expected} == expected
