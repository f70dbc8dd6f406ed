import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from shapely import box

from napari_flag import workspace_file
from napari_flag.errors import UserError
from napari_flag.files import claim
from napari_flag.inputs import Grid
from napari_flag.slides.formats.geojson import Annotation
from napari_flag.workspace_file import (
    WorkspaceFile,
    WorkspacePrediction,
    WorkspaceSlide,
    autosave_folder,
    is_workspace,
    last_autosave,
    new_autosave,
    prune_autosaves,
    read_workspace,
    write_workspace,
)


def workspace(folder, elsewhere):
    holed = box(0, 0, 100, 80).difference(box(10, 10, 20, 20))
    regions = (
        Annotation("tumour", (holed, box(200, 0, 210, 10)), "Tumor", (255, 0, 128)),
        Annotation("", (box(5, 5, 6, 6),)),
    )
    first = WorkspaceSlide(
        "C5",
        folder / "images" / "C5.jpg",
        um_per_px=0.683,
        um_per_px_source="set by hand",
        table=elsewhere / "C5.tsv",
        measured=elsewhere / "C5_counts.tsv",
        predictions=(
            WorkspacePrediction("her2st · 10:04", folder / "a.h5ad"),
            WorkspacePrediction("her2st · 10:09", elsewhere / "b.h5ad"),
        ),
        shown=1,
        regions=regions,
    )
    second = WorkspaceSlide("Schnitt ä", folder / "D1.svs", grid=Grid(100.0, 55.0, "hex"))
    return WorkspaceFile(
        (first, second, WorkspaceSlide("lost", None)), 0, "ERBB2", "predicted", elsewhere / "own.gmt"
    )


@pytest.fixture
def places(tmp_path):
    folder, elsewhere = tmp_path / "work", tmp_path / "data"
    folder.mkdir(), elsewhere.mkdir()
    return folder, elsewhere


def test_a_workspace_comes_back_as_it_was(places):
    folder, elsewhere = places
    written = workspace(folder, elsewhere)
    write_workspace(written, folder / "w.json")
    assert is_workspace(folder / "w.json")
    read = read_workspace(folder / "w.json")
    assert [replace(s, regions=()) for s in read.slides] == [replace(s, regions=()) for s in written.slides]
    assert (read.current, read.gene, read.quantity) == (0, "ERBB2", "predicted")
    assert read.gene_sets == elsewhere / "own.gmt"
    for mine, yours in zip(read.slides[0].regions, written.slides[0].regions, strict=True):
        assert (mine.name, mine.classification, mine.colour) == (
            yours.name,
            yours.classification,
            yours.colour,
        )
        assert all(p.equals(q) for p, q in zip(mine.polygons, yours.polygons, strict=True))


def test_it_moves_with_the_files_beside_it_and_others_keep_their_place(places, tmp_path):
    folder, elsewhere = places
    write_workspace(workspace(folder, elsewhere), folder / "w.json")
    stored = json.loads((folder / "w.json").read_text())["slides"][0]
    assert stored["slide"] == "images/C5.jpg"
    assert stored["table"] == str(elsewhere / "C5.tsv")
    folder.rename(tmp_path / "moved")
    first = read_workspace(tmp_path / "moved" / "w.json").slides[0]
    assert first.slide == tmp_path / "moved" / "images" / "C5.jpg"
    assert first.predictions[1].path == elsewhere / "b.h5ad"


def test_files_that_are_gone_stay_in_it_and_are_listed(places):
    folder, elsewhere = places
    (folder / "D1.svs").touch()
    (elsewhere / "C5.tsv").touch()
    write_workspace(workspace(folder, elsewhere), folder / "w.json")
    read = read_workspace(folder / "w.json")
    assert [path.name for path in read.missing] == ["C5.jpg", "C5_counts.tsv", "a.h5ad", "b.h5ad", "own.gmt"]
    assert read.slides[0].slide == folder / "images" / "C5.jpg"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_only_its_owner_may_read_it_even_where_another_file_is_replaced(tmp_path):
    (tmp_path / "w.json").write_text("{}")
    (tmp_path / "w.json").chmod(0o644)
    write_workspace(WorkspaceFile(()), tmp_path / "w.json")
    assert stat.S_IMODE((tmp_path / "w.json").stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["w.json"]


def test_a_relative_name_counts_from_where_the_program_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    write_workspace(WorkspaceFile((WorkspaceSlide("a", Path("sub/../a.svs")),)), "sub/w.json")
    assert read_workspace("sub/w.json").slides[0].slide == tmp_path / "a.svs"


def test_a_name_that_is_no_unicode_comes_back(tmp_path):
    odd = WorkspaceSlide("a", Path(os.fsdecode(b"/data/\xff\xe4.svs")))
    write_workspace(WorkspaceFile((odd,)), tmp_path / "w.json")
    assert read_workspace(tmp_path / "w.json").slides == (odd,)


SLIDE = {"name": "a", "slide": "a.svs"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[]", "is no workspace"),
        ('{"type": "FeatureCollection"}', "is no workspace"),
        ('{"napari_flag_workspace": 1, "slides": [', "is damaged"),
        ('{"napari_flag_workspace": 1, "gene": NaN}', "is damaged"),
        ("[" * 100_000, "is damaged"),
        ({"napari_flag_workspace": 2}, "newer napari-flag .format 2, this one reads 1"),
        ({"napari_flag_workspace": "x"}, "is damaged"),
        ({"slides": 3}, "slides of the workspace is 3"),
        ({"slides": ["x"]}, "slides 1 of the workspace is 'x'"),
        ({"slides": [], "current": 0}, "current of the workspace is 0, of 0"),
        ({"slides": [SLIDE | {"slide": ""}]}, "slide of slides 1"),
        ({"slides": [SLIDE | {"slide": "a\0"}]}, "slide of slides 1"),
        ({"slides": [SLIDE | {"um_per_px": -1}]}, "um_per_px of slides 1 of the workspace is -1"),
        ({"slides": [SLIDE | {"um_per_px": "1"}]}, "um_per_px"),
        ({"slides": [SLIDE | {"shown": 0}]}, "shown"),
        ({"slides": [SLIDE | {"predictions": [{"name": "p"}]}]}, "has no path"),
        ({"slides": [SLIDE | {"grid": {"spacing_um": 1}}]}, "incomplete"),
        ({"slides": [SLIDE | {"regions": {"type": "Polygon", "coordinates": "x"}}]}, "is damaged"),
        ({"slides": [SLIDE | {"regions": {"a": 1}}]}, "is damaged"),
    ],
)
def test_what_is_no_sound_workspace_is_refused_in_one_sentence(tmp_path, content, reason):
    text = content if isinstance(content, str) else json.dumps({"napari_flag_workspace": 1} | content)
    (tmp_path / "w.json").write_text(text)
    with pytest.raises(UserError, match=reason) as caught:
        read_workspace(tmp_path / "w.json")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_file_too_large_or_not_there_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(workspace_file, "MOST_BYTES", 1000)
    (tmp_path / "w.json").write_text(" " * 1001)
    with pytest.raises(UserError, match="larger than"):
        read_workspace(tmp_path / "w.json")
    for path in (tmp_path / "gone.json", tmp_path):
        with pytest.raises(UserError):
            read_workspace(path)


# --- autosaves -----------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *_: tmp_path / "cache")
    return tmp_path / "cache"


def autosave(age, size=0):
    path = new_autosave()
    write_workspace(WorkspaceFile((), gene=f"G{age}"), path)
    (path.parent / "p.h5ad").write_bytes(b"x" * size)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def test_without_autosaves_there_is_none(cache):
    assert last_autosave() is None
    assert prune_autosaves() == ()


def test_the_last_autosave_is_the_one_written_last(cache):
    older, newest = autosave(20), autosave(10)
    autosave(30)
    assert last_autosave() == newest
    assert read_workspace(newest).gene == "G10"
    assert older.parent.parent == autosave_folder()
    if os.name != "nt":
        assert stat.S_IMODE(newest.parent.stat().st_mode) == 0o700


def test_what_a_running_session_autosaves_is_not_for_another_to_restore(cache):
    ended, running = autosave(20), autosave(10)
    release = claim(running.parent)
    assert last_autosave() == ended
    release()
    assert last_autosave() == running


def test_a_folder_whose_workspace_was_never_written_is_not_the_last(cache):
    kept = autosave(10)
    new_autosave()
    assert last_autosave() == kept


def test_old_autosaves_go_by_number_and_by_size_and_the_newest_stays(cache):
    paths = [autosave(age, 1000) for age in range(5)]
    assert set(prune_autosaves(10**9, keep=3)) == {path.parent for path in paths[3:]}
    assert prune_autosaves(10**9, keep=3) == ()
    prune_autosaves(2500, keep=3)
    assert [path.exists() for path in paths[:3]] == [True, True, False]
    prune_autosaves(1, keep=3)
    assert [path.exists() for path in paths[:3]] == [True, False, False]


def test_an_autosave_that_is_spared_stays_whatever_its_age(cache):
    paths = [autosave(age, 1000) for age in range(3)]
    assert prune_autosaves(0, keep=1, spare=paths[2].parent) == (paths[1].parent,)


def test_an_autosave_that_a_session_still_writes_to_stays_whatever_its_age(cache):
    paths = [autosave(age, 1000) for age in range(3)]
    release = claim(paths[2].parent)
    assert prune_autosaves(0, keep=1) == (paths[1].parent,)
    release()
    assert prune_autosaves(0, keep=1) == (paths[2].parent,)


def test_what_is_no_autosave_is_never_deleted(cache):
    autosave(10)
    other = autosave_folder() / "mine"
    other.mkdir()
    linked = autosave_folder() / "autosave-link"
    linked.symlink_to(other)
    prune_autosaves(0, keep=1)
    assert other.is_dir()
    assert linked.is_symlink()


def test_a_cache_that_cannot_be_written_is_said_in_one_sentence(tmp_path, cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(UserError, match="save it by hand"):
        new_autosave()
