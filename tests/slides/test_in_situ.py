"""Xenium and CosMx, in folders made by `tests.platform_files` in the layout their instruments write."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.platform_files import ALIGNMENT, GENES, MPP, SIDE_PX, TISSUE, cosmx, xenium

from napari_flag.errors import UserError
from napari_flag.progress import finish
from napari_flag.slides.formats import in_situ
from napari_flag.slides.pooling import Picture
from napari_flag.slides.spot_tables import measured_at, needs_pooling
from napari_flag.slides.spots import Spots
from napari_flag.slides.tissue import Tissue

IMAGE = Picture(Path("he.tif"), (SIDE_PX, SIDE_PX))
CENTRES = np.random.default_rng(8).uniform(220, 980, (25, 2))
SPOTS = Spots(tuple(f"s{i}" for i in range(25)), CENTRES / MPP, 55.0, 100.0)


def tissue():
    mask = np.zeros((SIDE_PX // 10, SIDE_PX // 10), bool)
    mask[TISSUE[1] // 10 : TISSUE[3] // 10, TISSUE[0] // 10 : TISSUE[2] // 10] = True
    return Tissue(mask, 10.0)


def pooled(path, **options):
    return finish(measured_at(path, SPOTS, MPP, IMAGE, tissue=tissue(), **options))


def check(counts, truth):
    assert sorted(counts.var_names) == sorted(GENES)  # and no control
    assert counts.n_obs > 20
    expected = [truth.in_disc(CENTRES[int(name[1:])], 55.0) for name in counts.obs_names]
    np.testing.assert_array_equal(counts[:, GENES].X.toarray(), expected)
    assert counts.X.sum() > 50


@pytest.mark.parametrize("csv", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_xenium_transcripts_pool_as_a_sum_one_by_one_does(csv, old, tmp_path, monkeypatch):
    monkeypatch.setattr(in_situ, "BATCH_POINTS", 1200)
    if csv and old:
        old = False  # text has no bytes
    truth = xenium(tmp_path / "run", csv=csv, old=old)
    counts, said = pooled(tmp_path / "run")
    check(counts, truth["transcripts"])
    assert "Xenium: placed on he.tif by P5_he_imagealignment.csv, turned by 90° clockwise." in said[0]
    assert "100 % of the counts" in said[1]


def test_without_micrometres_per_pixel_nothing_is_pooled(tmp_path):
    xenium(tmp_path / "run")
    with pytest.raises(UserError, match=r"run is pooled .* but the µm/px of he\.tif are not known; give"):
        finish(measured_at(tmp_path / "run", SPOTS, None, IMAGE))


def test_xenium_cells_pool_as_a_sum_one_by_one_does(tmp_path):
    truth = xenium(tmp_path / "run")
    check(pooled(tmp_path / "run/cells.parquet")[0], truth["cells"])
    (tmp_path / "run/transcripts.parquet").unlink()
    check(pooled(tmp_path / "run")[0], truth["cells"])


@pytest.mark.parametrize("gz", [False, True])
def test_cosmx_transcripts_and_cells_pool_as_a_sum_one_by_one_does(gz, tmp_path, monkeypatch):
    monkeypatch.setattr(in_situ, "BATCH_POINTS", 1200)
    monkeypatch.setattr(in_situ, "CELLS_VALUES", 1000)
    truth = cosmx(tmp_path / "run", gz=gz)
    counts, said = pooled(tmp_path / "run")
    check(counts, truth["transcripts"])
    assert not any("µm/px" in sentence for sentence in said)
    [cells] = (tmp_path / "run").glob("*metadata_file*")
    check(pooled(cells)[0], truth["cells"])


def test_transcripts_of_low_quality_and_controls_are_no_counts(tmp_path):
    truth = xenium(tmp_path / "run", n=4000)
    everywhere = Spots(("all",), np.array([[SIDE_PX / 2, SIDE_PX / 2]]), 700.0, None)
    counts, _ = finish(measured_at(tmp_path / "run", everywhere, MPP, IMAGE))
    assert counts.X.sum() == truth["transcripts"].in_disc(np.array([600.0, 600.0]), 700.0).sum()


def test_without_an_alignment_file_nothing_is_placed(tmp_path):
    xenium(tmp_path / "run")
    found = tmp_path / "run/P5_he_imagealignment.csv"
    given = found.rename(tmp_path / "elsewhere.csv")
    with pytest.raises(UserError, match=r"none is there.*--alignment"):
        pooled(tmp_path / "run")
    assert pooled(tmp_path / "run", alignment=given)[0].n_obs > 20
    for name in ("one_alignment.csv", "two_alignment.csv"):
        (tmp_path / name).write_bytes(given.read_bytes())
    with pytest.raises(UserError, match=r"2 are there \(one_alignment.csv, two_alignment.csv\)"):
        pooled(tmp_path / "run")


def test_an_alignment_the_other_way_round_is_refused_as_not_registered(tmp_path):
    xenium(tmp_path / "run")
    np.savetxt(tmp_path / "run/P5_he_imagealignment.csv", np.linalg.inv(ALIGNMENT), delimiter=",")
    with pytest.raises(UserError, match="not registered"):
        pooled(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (np.linalg.inv(TURN := np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])), "csv."),
        (TURN, "turned by 180° clockwise."),
        (TURN @ TURN, "turned by 270° clockwise."),
        (np.diag([1, -1, 1.0]), "mirrored, which is right only where either picture was flipped."),
    ],
)
def test_how_an_alignment_turns_and_mirrors_is_said(change, said, tmp_path):
    xenium(tmp_path / "run")
    np.savetxt(tmp_path / "run/P5_he_imagealignment.csv", change @ ALIGNMENT, delimiter=",")
    assert in_situ.located_run(in_situ.find_run(tmp_path / "run"), IMAGE).alignment.endswith(said)


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("csv", [False, True])
def test_transcripts_that_are_listed_again_are_refused(csv, many, tmp_path, monkeypatch):
    monkeypatch.setattr(in_situ, "BATCH_POINTS", 1200)
    monkeypatch.setattr(in_situ, "MOST_NAMED", 500 if many else 10**6)
    xenium(tmp_path / "run", csv=csv)
    pooled(tmp_path / "run")
    [path] = (tmp_path / "run").glob("transcripts.*")
    frame = pd.read_csv(path) if csv else pd.read_parquet(path)
    twice = pd.concat([frame, frame])
    twice.to_csv(path, index=False) if csv else twice.to_parquet(path)
    with pytest.raises(UserError, match=r"lists 50 % of its transcripts \(transcript_id\) again"):
        pooled(tmp_path / "run")


def test_micrometres_of_image_and_alignment_that_differ_are_said(tmp_path):
    xenium(tmp_path / "run")
    _, said = finish(measured_at(tmp_path / "run", SPOTS, 0.25, IMAGE))
    assert any("By its alignment the image has 0.499 µm/px, not 0.25" in sentence for sentence in said)


@pytest.mark.parametrize("text", ["", "1,2\n3,4\n", "a,b,c\n", "1,0,0\n0,1,0\n5,0,1\n"])
def test_what_is_no_affine_is_refused(text, tmp_path):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UserError, match="Xenium Explorer exports"):
        in_situ.read_alignment(tmp_path / "m.csv")


def test_several_cosmx_slides_in_one_folder_are_not_mixed(tmp_path):
    cosmx(tmp_path / "run", gz=False)
    (tmp_path / "run/S2_tx_file.csv").write_text("fov\n")
    with pytest.raises(UserError, match=r"several files \*tx_file"):
        pooled(tmp_path / "run")


def test_a_damaged_file_is_named(tmp_path):
    xenium(tmp_path / "run")
    (tmp_path / "run/transcripts.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(UserError, match=r"transcripts.parquet could not be read"):
        pooled(tmp_path / "run")


def test_counts_named_by_spot_need_no_pooling(tmp_path):
    assert not needs_pooling(tmp_path / "counts.tsv")
    assert not needs_pooling(tmp_path)


def changed(folder, pattern, change):
    """Write the one table of `folder` that is called so anew."""
    [path] = folder.glob(pattern)
    change(pd.read_csv(path).astype(object)).to_csv(path, index=False)


def set_to(column, value, rows=slice(3, 4)):
    def change(frame):
        frame.iloc[rows, frame.columns.get_loc(column)] = value
        return frame

    return change


@pytest.mark.parametrize(
    ("pattern", "change", "said"),
    [
        ("*exprMat*", set_to("ESR1", -5, slice(None)), "holds negative numbers"),
        ("*exprMat*", set_to("ESR1", 0.37, slice(None)), "0.37, which is not a whole count"),
        ("*exprMat*", set_to("ESR1", "many"), "have no number in column 'ESR1'"),
        ("*exprMat*", set_to("ESR1", None), "empty cells where counts should be"),
        ("*exprMat*", lambda frame: pd.concat([frame, frame.iloc[5:8]]), "names 3 cells more than once"),
        ("*metadata*", lambda frame: pd.concat([frame, frame.iloc[:2]]), "names 2 cells more than once"),
    ],
)
@pytest.mark.parametrize("rows", [10**6, 100])
def test_counts_of_cells_that_are_not_raw_or_stated_twice_are_refused(
    pattern, change, said, rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(in_situ, "CELLS_VALUES", rows)
    cosmx(tmp_path / "run", gz=False)
    for path in (tmp_path / "run").glob("*tx_file*"):
        path.unlink()
    changed(tmp_path / "run", pattern, change)
    with pytest.raises(UserError, match=said):
        pooled(tmp_path / "run")


@pytest.mark.parametrize(
    ("make", "pattern", "change", "said"),
    [
        (cosmx, "*tx_file*", set_to("x_global_px", "abc"), "have no number in column 'x_global_px'"),
        (cosmx, "*tx_file*", set_to("x_global_px", None), "have no number in column 'x_global_px'"),
        (cosmx, "*tx_file*", set_to("x_global_px", "inf"), "have no number in column 'x_global_px'"),
        (cosmx, "*tx_file*", set_to("fov", "abc"), "have no number in column 'fov'"),
        (cosmx, "*tx_file*", set_to("fov", 1e300), r"1e\+300 as a field of view"),
        (cosmx, "*fov_positions*", set_to("x_global_mm", "abc", 1), "no number in column 'x_global_mm'"),
        (xenium, "transcripts*", set_to("qv", "abc"), "have no number in column 'qv'"),
        (xenium, "transcripts*", set_to("is_gene", "maybe"), "something else than true and false"),
    ],
)
def test_a_column_of_transcripts_that_holds_no_numbers_is_named(make, pattern, change, said, tmp_path):
    make(tmp_path / "run", **({"gz": False} if make is cosmx else {"csv": True}))
    changed(tmp_path / "run", pattern, change)
    with pytest.raises(UserError, match=said):
        pooled(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_to("x_centroid", "abc"), "have no number in column 'x_centroid'"),
        (lambda frame: pd.concat([frame, frame.iloc[:1]]), "names 1 cell more than once"),
    ],
)
def test_cells_without_a_place_or_named_twice_are_refused(change, said, tmp_path):
    xenium(tmp_path / "run", csv=True)
    [path] = (tmp_path / "run").glob("transcripts*")
    path.unlink()
    changed(tmp_path / "run", "cells*", change)
    with pytest.raises(UserError, match=said):
        pooled(tmp_path / "run")


@pytest.mark.parametrize("size", ["0", "-0.2125", "NaN"])
def test_a_pixel_without_a_size_places_nothing(size, tmp_path):
    xenium(tmp_path / "run")
    (tmp_path / "run" / "experiment.xenium").write_text(f'{{"pixel_size": {size}}}')
    with pytest.raises(UserError, match="pixel_size"):
        pooled(tmp_path / "run")


def test_a_column_of_lists_or_dates_is_no_column_of_places(tmp_path):
    xenium(tmp_path / "run")
    path = tmp_path / "run" / "transcripts.parquet"
    frame = pd.read_parquet(path)
    frame.assign(feature_name=[["ESR1"]] * len(frame)).to_parquet(path)
    with pytest.raises(UserError, match="its column feature_name holds lists"):
        pooled(tmp_path / "run")


def test_rows_of_transcripts_that_are_longer_than_the_heading_are_refused(tmp_path):
    cosmx(tmp_path / "run", gz=False)
    [path] = (tmp_path / "run").glob("*tx_file*")
    heading, _, rows = path.read_text().partition("\n")
    path.write_text(f"{heading}\n" + rows.replace("\n", ",1\n"))
    with pytest.raises(UserError, match="more cells than its heading"):
        pooled(tmp_path / "run")
