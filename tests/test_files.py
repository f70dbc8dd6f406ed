import csv
import errno
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.kills.drives import make_read_only, mounts, own_drive

from napari_flag import files
from napari_flag.errors import UserError


def test_the_hash_of_a_file_is_that_of_its_bytes_as_they_lie(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    assert files.sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.parametrize(
    ("name", "ending", "zipped"),
    [
        ("a.tsv", ".tsv", False), ("A.TSV", ".tsv", False), ("a.Tsv.GZ", ".tsv.gz", True),
        ("a.ome.tif", ".tif", False), ("a.gz", ".gz", True), ("a", "", False), ("v1.2/a", "", False),
    ],
)  # fmt: skip
def test_an_ending_is_in_lower_case_and_has_that_of_a_compressed_file_before_gz(name, ending, zipped):
    assert files.ending(name) == files.ending(Path(name)) == ending
    assert files.is_zipped(Path(name)) == zipped


def test_an_ending_is_added_only_where_it_is_lacking():
    for given, named in (("A", "A.h5ad"), ("A.h5ad", "A.h5ad"), ("A.H5AD", "A.H5AD"), ("A.v2", "A.v2.h5ad")):
        assert files.with_ending(Path("out") / given, ".h5ad") == Path("out") / named


def test_files_of_an_ending_are_found_in_any_case_by_name(tmp_path):
    for name in ("b.dcm", "a.DCM", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in files.files_ending(tmp_path, ".dcm")] == ["a.DCM", "b.dcm"]
    assert files.files_ending(tmp_path / "none", ".dcm") == []


def test_a_place_that_cannot_be_written_is_known_before_the_work(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        files.check_writable(tmp_path / "nowhere" / "out.h5ad")
    with pytest.raises(UserError, match="is a folder"):
        files.check_writable(tmp_path)
    files.check_writable(tmp_path / "out.h5ad")
    files.check_writable(tmp_path / "new" / "deeper" / "out.h5ad", folder_is_made=True)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file is a file, so no folder can be made in it"):
        files.check_writable(tmp_path / "file" / "new" / "out.h5ad", folder_is_made=True)


def test_a_read_only_folder_is_known_before_the_work(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UserError, match="permission denied"):
        files.check_writable(tmp_path / "out.h5ad")


def test_tables_and_json_are_read_by_anyone(tmp_path):
    table = pd.DataFrame({"gene": ["HLA-A", "µ"], "pcc": [0.123456789, np.nan]})
    files.write_table(table, tmp_path / "genes.csv")
    assert (tmp_path / "genes.csv").read_text(encoding="utf-8") == ("gene,pcc\nHLA-A,0.123457\nµ,\n")
    files.write_json({"PCC": None}, tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {"PCC": None}


@pytest.mark.parametrize(
    "name",
    [
        "../outside/T", "..", ".", "", "/etc/passwd", "C:\\Windows\\x", "a\0b", "CON", "nul.txt", "com1.A",
        "a/../../b", ".hidden", "x" * 300, "µ" * 300, "name.", " ", "line\nbreak", "\u202egpj.exe", "\ud800",
        "a:stream", "tab\t", "...", "<script>", "x/",
    ],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder_or_cannot_be_written(tmp_path, name):
    folder = tmp_path / "out"
    folder.mkdir()
    place = files.place_in(folder, name, "_expression.csv")
    assert place.parent == folder
    assert place.resolve().parent == folder.resolve()
    assert not place.name.startswith(".")
    assert place.name.split(".")[0].upper() not in {"CON", "NUL", "COM1"}
    assert len(place.name.encode()) < 200
    files.write_text("x", place)
    assert [p.name for p in folder.iterdir()] == [place.name]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_plain_name_stays_as_it_is(tmp_path):
    for name in ("C5", "P3 section 2", "BC23277_D2", "Tumör-1", "T.1"):
        assert files.place_in(tmp_path, name, ".h5ad") == tmp_path / f"{name}.h5ad"


def test_two_names_stay_two_files(tmp_path):
    names = ["a/b", "a_b", "a:b", "x" * 300, "x" * 301, "a/b ", "..", "__"]
    assert len({files.place_in(tmp_path, name) for name in names}) == len(names)


def folder_of(text):
    def write(place):
        place.mkdir()
        (place / "a").write_text(text)

    return write


@pytest.mark.parametrize("exchanged", [True, False])
def test_a_folder_is_replaced_only_by_a_whole_one(tmp_path, monkeypatch, exchanged):
    if not exchanged:  # a system or a drive that cannot
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    files.write_whole(tmp_path / "store", folder_of("old"))
    files.write_whole(tmp_path / "store", folder_of("new"))
    assert (tmp_path / "store" / "a").read_text() == "new"
    replace = files.os.replace

    def fails_at_the_last_step(source, target):
        if str(source).endswith(".part"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    monkeypatch.setattr(files.os, "replace", fails_at_the_last_step)
    with pytest.raises(UserError, match="no space"):
        files.write_whole(tmp_path / "store", folder_of("newer"))
    assert (tmp_path / "store" / "a").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_where_the_system_can_the_old_folder_never_leaves_its_place(tmp_path, monkeypatch):
    files.write_whole(tmp_path / "store", folder_of("old"))
    if not files._exchange(tmp_path / "store", tmp_path / "store"):
        pytest.skip("this file system cannot exchange two folders")
    replaced = []
    monkeypatch.setattr(files.os, "replace", lambda *places: replaced.append(places))
    files.write_whole(tmp_path / "store", folder_of("new"))
    assert (tmp_path / "store" / "a").read_text() == "new"
    assert replaced == []


def left_by(process, folder, name, what):
    """Write what a process that is `process` would have left unfinished, and return its place."""
    place = files._unfinished(folder / name, what)
    files._OURS.discard(place.name)
    left = place.with_name(place.name.replace(f"-{os.getpid()}-", f"-{process}-"))
    left.mkdir()
    (left / "a").write_text(what)
    return left


@pytest.fixture
def dead():
    """The number of a process that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ended.pid


def test_what_a_killed_run_left_is_deleted_by_the_next_in_that_folder(tmp_path, dead):
    left_by(dead, tmp_path, "out.zarr", "part")
    (tmp_path / ".own.part").write_text("a person's own")
    files.write_whole(tmp_path / "other", folder_of("new"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".own.part", "other"]


def test_what_another_process_is_writing_stays(tmp_path):
    left = left_by(os.getppid(), tmp_path, "out.zarr", "part")
    with files.replacing(tmp_path / "a") as place:
        place.write_text("ours")
        files.sweep(tmp_path)
        assert place.exists()
    assert sorted(tmp_path.iterdir()) == sorted([left, tmp_path / "a"])


def test_unfinished_files_of_another_computer_stay_for_a_week(tmp_path, dead, monkeypatch):
    left = left_by(dead, tmp_path, "out.zarr", "part")
    monkeypatch.setattr(files.platform, "node", lambda: "another")
    files.sweep(tmp_path)
    assert left.exists()
    os.utime(left, (1, 1))
    files.sweep(tmp_path)
    assert not left.exists()


def test_a_folder_that_was_moved_aside_when_the_run_was_killed_comes_back(tmp_path, dead):
    left_by(dead, tmp_path, "out.zarr", "before")
    left_by(dead, tmp_path, "out.zarr", "part")
    files.sweep(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["out.zarr"]
    assert (tmp_path / "out.zarr" / "a").read_text() == "before"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EDQUOT, "quota"), "quota exceeded"),
        (OSError("[Errno 28] Can't write data (file write failed: errno = 28, message = 'x')"), "no space"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "no space"),
        (OSError("it is gone"), "it is gone"),
        (OSError("99 requested and 7 written"), "only a part"),
        (RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 9 vs 7"), "only a part"),
        (RuntimeError("basic_ios::clear: iostream error"), "only a part"),
    ],
)
def test_what_the_system_refused_is_said_whatever_library_wrote(tmp_path, error, reason):
    def write(place):
        place.write_text("half")
        raise error

    (tmp_path / "a").write_text("old")
    with pytest.raises(UserError, match=f"cannot be written .*{reason}.*make room"):
        files.write_whole(tmp_path / "a", write)
    assert [p.read_text() for p in tmp_path.iterdir()] == ["old"]


def test_a_fault_of_ours_is_not_taken_for_the_disk_s(tmp_path):
    def write(place):
        raise RuntimeError("a fault")

    with pytest.raises(RuntimeError, match="a fault"):
        files.write_whole(tmp_path / "a", write)


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.tsv")
    for read in (files.read_bytes, files.read_text, files.refuse_special):
        with pytest.raises(UserError, match="is a pipe or a device"):
            read(tmp_path / "pipe.tsv")
    with pytest.raises(UserError, match="is a pipe or a device"):
        files.read_bytes(Path("/dev/zero"))


def test_a_pipe_in_a_folder_is_found_at_any_depth(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").write_text("x")
    files.refuse_special_in(tmp_path)
    os.mkfifo(tmp_path / "a" / "b" / "0.0")
    with pytest.raises(UserError, match="is a pipe or a device"):
        files.refuse_special_in(tmp_path)


def test_a_link_to_a_folder_in_a_zarr_is_refused_since_what_it_holds_is_anything(tmp_path):
    (tmp_path / "else").mkdir()
    os.mkfifo(tmp_path / "else" / ".zattrs")
    (tmp_path / "t.zarr" / "a").mkdir(parents=True)
    (tmp_path / "t.zarr" / "a" / "x").write_text("x")
    (tmp_path / "t.zarr" / "file").symlink_to(tmp_path / "t.zarr" / "a" / "x")
    files.refuse_special_in(tmp_path / "t.zarr")
    (tmp_path / "t.zarr" / "a" / "obs").symlink_to(tmp_path / "else", target_is_directory=True)
    with pytest.raises(UserError, match="is a link to another folder"):
        files.refuse_special_in(tmp_path / "t.zarr")


def test_a_link_to_itself_is_refused_wherever_it_stands_in_a_folder(tmp_path):
    for number in range(9):
        (tmp_path / f"{number}").symlink_to(f"{number}")
    with pytest.raises(UserError, match=r"\d cannot be looked at \(too many levels"):
        files.refuse_special_in(tmp_path)


@pytest.mark.parametrize("spoil", [lambda data: data[:-9], lambda data: data[:20] + bytes(9) + data[29:]])
def test_a_compressed_file_that_is_damaged_is_an_error_of_reading(tmp_path, spoil):
    (tmp_path / "t.tsv.gz").write_bytes(spoil(gzip.compress(b"Tumour\t1\n" * 99)))
    with pytest.raises(OSError, match="cut short or damaged"):
        files.read_text(tmp_path / "t.tsv.gz")


def test_a_few_bytes_that_unzip_to_a_hundred_million_are_refused_before_they_are(tmp_path, monkeypatch):
    with gzip.open(tmp_path / "bomb.tsv.gz", "wb") as stream:
        for _ in range(100):
            stream.write(b"0\t" * 500_000)
    with pytest.raises(UserError, match=r"bomb\.tsv\.gz takes .* kB and holds more than .* once unzipped"):
        files.read_bytes(tmp_path / "bomb.tsv.gz")
    counts = np.random.default_rng(0).poisson(0.02, 20_000_000).astype(np.uint8)
    sparse = b"\t".join(b"%d" % value for value in counts.tolist())
    with gzip.open(tmp_path / "counts.tsv.gz", "wb") as stream:
        stream.write(sparse)
    assert files.read_bytes(tmp_path / "counts.tsv.gz") == sparse, "ordinary counts, one in fifty above 0"


def test_no_more_is_unzipped_than_was_asked_for(tmp_path):
    (tmp_path / "bomb.tsv.gz").write_bytes(gzip.compress(bytes(5_000_000)))
    with pytest.raises(UserError, match="more than 1 MB once unzipped"):
        files.read_bytes(tmp_path / "bomb.tsv.gz", 2**20)
    (tmp_path / "long.txt").write_bytes(bytes(2**20 + 1))
    with pytest.raises(UserError, match="more than 1 MB, too much"):
        files.read_bytes(tmp_path / "long.txt", 2**20)
    assert len(files.read_bytes(tmp_path / "bomb.tsv.gz")) == 5_000_000


@pytest.mark.parametrize(
    "data", ["Tumör\t1".encode("latin-1"), "x\t1".encode("utf-16"), "x\t1".encode("utf-16-le"), b"a\0b"]
)
def test_text_in_another_encoding_is_named(tmp_path, data):
    (tmp_path / "t.tsv").write_bytes(data)
    with pytest.raises(UserError, match="no UTF-8 text"):
        files.read_text(tmp_path / "t.tsv")


def test_a_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "t.tsv").write_bytes("\ufeffTumör".encode())
    assert files.read_text(tmp_path / "t.tsv") == "Tumör"


def test_a_csv_with_a_cell_too_long_to_be_one_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("name,image\na," + "b" * 200_000 + "\n")
    with pytest.raises(UserError, match=r"t\.csv cannot be read as a CSV file \(field larger"):
        files.read_csv(tmp_path / "t.csv")


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 200_000, "1" * 5000])
def test_json_without_end_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"deeply|digits"):
        files.parse_json(text)


@pytest.mark.parametrize("text", ["a = " + "[" * 100_000, "a =", "a = 2026-13-01"])
def test_toml_that_is_none_or_without_end_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"deeply|Invalid|Expected"):
        files.parse_toml(text)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', b'[{"b": {"\\u001b": 1, "\\u001b": 2}}]'])
def test_json_that_states_a_name_twice_in_one_place_is_a_value_error(text):
    with pytest.raises(ValueError, match=r'it states "[a␛]" twice in one place'):
        files.parse_json(text)
    assert files.parse_json('[{"a": 1}, {"a": {"a": 2}}]') == [{"a": 1}, {"a": {"a": 2}}]


@pytest.mark.parametrize("text", [r'a = "x\u0000"', r'a = [{b = ["\U00000000"]}]', r'"a\u0000" = 1'])
def test_toml_with_a_zero_byte_in_a_text_is_a_value_error(text):
    with pytest.raises(ValueError, match="holds a zero byte, which is in no name and no path"):
        files.parse_toml(text)


def test_toml_may_spell_the_escape_of_a_zero_byte():
    assert files.parse_toml(r"a = 'C:\u0000'") == {"a": r"C:\u0000"}


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "-", "=HYPERLINK(1)"])
def test_text_that_a_spreadsheet_would_run_gets_an_apostrophe_and_comes_back(text):
    assert files.safe_cell(text) == f"'{text}"
    assert files.raw_cell(files.safe_cell(text)) == text


@pytest.mark.parametrize(
    "value", ["-1.5", "+3", "-1e-7", "ERBB2", "10x13", "", "'quoted'", -2.5, None, "HLA-A"]
)
def test_numbers_and_plain_text_stay_as_they_are(value):
    assert files.safe_cell(value) is value
    if isinstance(value, str):
        assert files.raw_cell(value) == value


def test_a_table_holds_no_formula_in_any_cell_or_heading(tmp_path):
    table = pd.DataFrame(
        {
            "spot": ["=1+1", "-3"],
            "label": pd.Categorical(["@tumour", "stroma"]),
            "+GENE": [-1.5, 2.0],
            "n": [1, -2],
        }
    )
    table = pd.concat([table, table[["spot"]]], axis=1)  # a gene may be called like a column
    files.write_table(table, tmp_path / "t.csv")
    rows = list(csv.reader((tmp_path / "t.csv").open(newline="")))
    assert rows == [
        ["spot", "label", "'+GENE", "n", "spot"],
        ["'=1+1", "'@tumour", "-1.5", "1", "'=1+1"],
        ["-3", "stroma", "2", "-2", "-3"],
    ]
    assert list(table.columns) == ["spot", "label", "+GENE", "n", "spot"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\r=3", "␍=3"),
        ("a\r=1+1", "a␍=1+1"),
        ("\t=1", "␉=1"),
        ("a\n@x", "a␊@x"),
        ("a\u202eb\x1b[2J", "a\ufffdb␛[2J"),
    ],
)
def test_no_cell_begins_a_row_or_turns_what_follows(tmp_path, text, shown):
    """Some programs begin a row after a lone return, and CSV quotes neither that nor direction marks."""
    assert files.safe_cell(text) == shown
    files.write_table(pd.DataFrame({"spot": [text], text: ["x"]}), tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_bytes().decode().splitlines() == [f"spot,{shown}", f"{shown},x"]


def test_every_writer_of_csv_guards_its_cells():
    """A log of a training run holds numbers alone, under headings of its own."""
    root = Path(__file__).resolve().parents[1]
    writers = re.compile(r"csv\.(writer|DictWriter)\(|\.to_csv\(")
    found = {
        path.name
        for folder in ("src", "training")
        for path in (root / folder).rglob("*.py")
        if writers.search(text := path.read_text("utf-8")) and "safe_cell" not in text
    }
    assert found == {"run_log.py"}


def _hdf5(place):
    import h5py

    with h5py.File(place, "w") as file:
        file["x"] = np.random.default_rng(0).random(500_000)


def _safetensors(place):
    from safetensors.numpy import save_file

    save_file({"x": np.ones(500_000)}, place)


def _numpy(place):
    with place.open("wb") as stream:
        np.save(stream, np.ones(500_000))


def _folder(place):
    place.mkdir()
    for number in range(500):
        (place / str(number)).write_bytes(bytes(4096))


@pytest.mark.parametrize(
    "write", [_hdf5, _safetensors, _numpy, _folder, lambda p: p.write_text("x" * 3_000_000)]
)
def test_a_drive_that_is_full_or_read_only_is_a_sentence_and_keeps_what_it_has(tmp_path, write):
    """On a drive of a megabyte, mounted for a process of its own."""
    if sys.platform != "linux" or not mounts():
        pytest.skip("no process may mount a drive of its own here")
    said = tmp_path / "said.txt"
    process = os.fork()
    if process == 0:
        with said.open("w") as stream:
            own_drive(tmp_path, 2**20)
            (tmp_path / "out").write_text("old")
            (tmp_path / "folder").mkdir()
            target = tmp_path / ("folder" if write is _folder else "out")
            for read_only in (False, True):
                if read_only:
                    make_read_only(tmp_path)
                try:
                    files.write_whole(target, write)
                except UserError as error:
                    stream.write(f"{error}\n")
            stream.write(" ".join(sorted(path.name for path in tmp_path.iterdir())))
            stream.write(" " + (tmp_path / "out").read_text())
        os._exit(0)
    os.waitpid(process, 0)
    full, locked, left = said.read_text().splitlines()
    assert re.search(r"cannot be written \((no space left on device|only a part of it)", full)
    assert "cannot be written (read-only file system)" in locked
    assert left == "folder out old"
