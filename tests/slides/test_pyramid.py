"""The cached pyramid of slides that have none."""

import errno
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests import slide_files
from tests.slide_files import picture

from napari_flag import cache as kept
from napari_flag.errors import UserError
from napari_flag.files import unfinished
from napari_flag.progress import Step, finish
from napari_flag.slides.formats import pyramid, readers
from napari_flag.slides.slide import build_pyramid, napari_levels, needs_pyramid, open_slide

IMAGE = picture(1501, 1203)


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat these small images as slides."""
    monkeypatch.setattr(pyramid, "SMALL", 600)
    monkeypatch.setattr(pyramid, "SMALLEST", 400)
    monkeypatch.setattr(pyramid, "TILE", 256)


@pytest.fixture
def jpeg(tmp_path: Path) -> Path:
    return slide_files.plain_image(tmp_path / "slide.jpg", IMAGE, quality=90)


def files(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.is_file()] if folder.exists() else []


def test_a_jpeg_gets_all_levels_and_loses_nothing(jpeg: Path, tmp_path: Path) -> None:
    with open_slide(jpeg, mpp=0.7) as slide:
        expected = slide.read_region(-50, -50, 1700, 1400)
        assert needs_pyramid(slide)
        with finish(build_pyramid(slide, tmp_path / "cache")) as built:
            assert built.levels == ((1501, 1203), (751, 602), (376, 301))
            assert built.downsamples == (1.0, 2.0, 4.0)
            assert (built.mpp, built.mpp_source, built.name) == (0.7, "set by hand", "slide")
            assert (built.read_region(-50, -50, 1700, 1400) == expected).all()
            assert not needs_pyramid(built)
            level = built.read_region(0, 0, 375, 300, level=2)
            blocks = built.read_region(0, 0, 1500, 1200).reshape(300, 4, 375, 4, 3)
            assert abs(level - blocks.mean(axis=(1, 3))).max() <= 2


@pytest.mark.parametrize("compression", [None, "lzw"])
def test_a_tiff_without_pyramid_gets_one(compression: str | None, tmp_path: Path) -> None:
    path = slide_files.plain_tiff(tmp_path / "visium.tif", IMAGE, compression=compression)
    built = finish(build_pyramid(open_slide(path), tmp_path / "cache"))
    with built:
        assert built.levels == ((1501, 1203), (751, 602), (376, 301))
        assert (built.read_region(0, 0, 1501, 1203) == IMAGE).all()
        assert abs(built.read_region(0, 0, 375, 300, 2).mean() - IMAGE.mean()) < 1


def test_a_slide_with_a_pyramid_is_left_alone(tmp_path: Path) -> None:
    with open_slide(slide_files.pyramid_tiff(tmp_path / "s.tif", IMAGE)) as slide:
        assert not needs_pyramid(slide)
        assert finish(build_pyramid(slide, tmp_path / "cache")) is slide
        assert not (tmp_path / "cache").exists()


def test_opening_again_takes_the_cache_until_the_file_changes(jpeg: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    finish(build_pyramid(open_slide(jpeg), cache)).close()
    (first,) = files(cache)
    steps: list[Step] = []
    finish(build_pyramid(open_slide(jpeg), cache), steps.append).close()
    assert not any(step.unit == "tiles" or step.notice for step in steps)
    slide_files.plain_image(jpeg, 255 - IMAGE, quality=90)
    os.utime(jpeg, ns=(1, 1))
    with finish(build_pyramid(open_slide(jpeg), cache)) as built:
        assert abs(built.read_region(0, 0, 1501, 1203).mean() - (255 - IMAGE).mean()) < 2
    (second,) = files(cache)
    assert first != second


def test_a_slide_in_a_folder_gets_another_pyramid_once_a_file_in_it_is_written_anew(tmp_path: Path) -> None:
    cache, folder = tmp_path / "cache", tmp_path / "dicom"
    folder.mkdir()
    for image in (IMAGE, 255 - IMAGE):
        other = slide_files.dicom_slide(tmp_path / "other.dcm", image)
        (folder / "level0.dcm").write_bytes(other.read_bytes())
        with finish(build_pyramid(open_slide(folder), cache)) as built:
            small = built.read_region(0, 0, 375, 300, level=2)
            assert abs(small.mean() - image.mean()) < 2


def test_a_full_cache_drops_what_was_unused_for_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"

    def entry(name: str) -> Path | None:
        return kept.find(cache, pyramid.cache_key(tmp_path / f"{name}.png"))

    for name in ("a", "b", "c"):
        path = slide_files.plain_image(tmp_path / f"{name}.png", picture(700, 650, seed=ord(name)))
        finish(build_pyramid(open_slide(path), cache)).close()
        os.utime(entry(name), (ord(name), ord(name)))
    largest = max(file.stat().st_size for file in files(cache))
    monkeypatch.setitem(kept.MOST_BYTES, "pyramids", 3.5 * largest)
    finish(build_pyramid(open_slide(tmp_path / "a.png"), cache)).close()  # used again
    last = slide_files.plain_image(tmp_path / "d.png", picture(700, 650, seed=9))
    finish(build_pyramid(open_slide(last), cache)).close()
    assert [name for name in "abcd" if entry(name)] == ["a", "c", "d"]


@pytest.mark.parametrize("damage", ["cut", "text", "other", "one bit"])
def test_a_damaged_cache_is_built_again_and_that_is_said(damage: str, jpeg: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with finish(build_pyramid(open_slide(jpeg), cache)) as built:
        expected = built.read_region(0, 0, 1501, 1203)
    (file,) = files(cache)
    stored = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(stored[: len(stored) // 2])
    elif damage == "text":
        file.write_text("not a pyramid")
    elif damage == "other":
        slide_files.pyramid_tiff(file, picture(300, 200))
    else:  # as a disk does it
        before = file.stat()
        stored[len(stored) // 2] ^= 16
        file.write_bytes(stored)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    steps: list[Step] = []
    with finish(build_pyramid(open_slide(jpeg), cache), steps.append) as built:
        assert (built.read_region(0, 0, 1501, 1203) == expected).all()
    assert [step.notice for step in steps if step.notice] == [
        "The kept image pyramid of slide.jpg was damaged and is built again."
    ]
    assert len(files(cache)) == 1


def test_cancelled_it_leaves_nothing_behind(
    jpeg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pyramid, "TICK_S", 0.01)
    slow = readers.halved
    monkeypatch.setattr(pyramid, "halved", lambda pixels: (time.sleep(0.05), slow(pixels))[1])
    cache = tmp_path / "cache"
    with open_slide(jpeg) as slide:
        steps = build_pyramid(slide, cache)
        seen = [next(steps) for _ in range(12)]
        start = time.perf_counter()
        steps.close()
        assert time.perf_counter() - start < 1
        assert seen[-1].unit == "tiles"
        time.sleep(0.2)
        assert files(cache) == []
        # The slide given can still be used.
        assert slide.read_region(0, 0, 10, 10).shape == (10, 10, 3)


def test_a_cache_folder_that_cannot_be_written_is_reported(jpeg: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with open_slide(jpeg) as slide, pytest.raises(UserError, match="choose another cache folder"):
        finish(build_pyramid(slide, blocked / "cache"))


def test_a_disk_that_fills_up_is_reported_and_leaves_nothing(
    jpeg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pyramid._Scratch, "append", full)
    with open_slide(jpeg) as slide, pytest.raises(UserError, match=r"no space left.*free space there"):
        finish(build_pyramid(slide, tmp_path / "cache"))
    assert files(tmp_path / "cache") == []


def test_what_a_killed_run_left_in_the_cache_is_swept(jpeg: Path, tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    with unfinished(tmp_path / "cache" / "x") as place:
        left = place.with_name(place.name.replace(f"-{os.getpid()}-", f"-{ended.pid}-"))
    left.mkdir(parents=True)
    finish(build_pyramid(open_slide(jpeg), tmp_path / "cache")).close()
    assert len(files(tmp_path / "cache")) == 1


def test_two_processes_that_build_one_pyramid_both_have_it(jpeg: Path, tmp_path: Path) -> None:
    """The first is held until the second has finished, and then another makes room."""
    one, other = open_slide(jpeg), open_slide(jpeg)
    steps = build_pyramid(one, tmp_path / "cache")
    next(steps)
    with finish(build_pyramid(other, tmp_path / "cache")) as second, finish(steps) as first:
        assert len(files(tmp_path / "cache")) == 1
        files(tmp_path / "cache")[0].unlink()
        assert (first.read_region(0, 0, 90, 90) == second.read_region(0, 0, 90, 90)).all()
    notices: list[Step] = []
    finish(build_pyramid(open_slide(jpeg), tmp_path / "cache"), notices.append).close()
    assert [step.notice for step in notices if step.notice] == []


def test_a_slide_whose_name_is_no_unicode_has_a_pyramid(jpeg: Path, tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"s\xff.jpg")
    try:
        jpeg.rename(odd)
    except OSError:
        pytest.skip("this system has no such names")
    finish(build_pyramid(open_slide(odd), tmp_path / "cache")).close()
    assert len(files(tmp_path / "cache")) == 1


def test_a_truncated_jpeg_is_reported_and_caches_nothing(jpeg: Path, tmp_path: Path) -> None:
    jpeg.write_bytes(jpeg.read_bytes()[:20000])
    with open_slide(jpeg) as slide, pytest.raises(UserError, match=r"slide\.jpg .*damaged"):
        finish(build_pyramid(slide, tmp_path / "cache"))
    assert files(tmp_path / "cache") == []


def test_an_image_that_does_not_fit_in_memory_is_refused_before_it_is_decoded(
    jpeg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from types import SimpleNamespace

    import psutil

    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10**6))
    with (
        open_slide(jpeg) as slide,
        pytest.raises(UserError, match="which needs about"),
    ):
        finish(build_pyramid(slide, tmp_path / "cache"))


def test_napari_shows_the_levels_without_reading_the_whole_slide(jpeg: Path, tmp_path: Path) -> None:
    components = pytest.importorskip("napari.components")
    with finish(build_pyramid(open_slide(jpeg), tmp_path / "cache")) as built:
        counted = slide_files.CountedReader(built.reader)
        levels = napari_levels(replace(built, reader=counted))
        viewer = components.ViewerModel()
        layer = viewer.add_image(levels, multiscale=True, rgb=True, contrast_limits=(0, 255))
        assert (layer.rgb, layer.multiscale, len(layer.level_shapes)) == (True, True, 3)
        assert layer.get_value((600.0, 700.0)) is not None
        assert 0 < counted.pixels < 1501 * 1203 / 2
