"""A few seconds of the fuzzer; `make fuzz` runs an hour of it."""

import h5py
import numpy as np
import pytest
from tests.fuzz.fuzzing import Child, Counts, fuzz, page_of
from tests.fuzz.kinds import KINDS, Altered, Used, altered_arrays, altered_lines, wrongly_read

SECONDS = 10.0
"""For all kinds together, beyond starting their process."""


@pytest.fixture(scope="module")
def child():
    with Child() as started:
        yield started


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_no_changed_file_crashes_hangs_or_is_our_fault(kind, tmp_path, child):
    counts = fuzz(kind, tmp_path / "f", child, seed=0, seconds=SECONDS / len(KINDS))
    assert counts.found == []
    assert counts.ends["tried"] >= 3


def test_what_is_read_otherwise_than_the_change_explains_is_silently_wrong():
    good = Used((), {"a": {"x": 1.0, "y": 2.0}, "b": {"x": 3.0, "y": 4.0}})

    def wrong(rows, altered):
        return wrongly_read(altered, good, Used((), rows)) or ""

    other = {"a": {"x": 1.0, "y": 2.0}, "b": {"x": 9.0, "y": 4.0}}
    assert wrong(dict(good.rows), Altered(0)) == ""
    assert wrong(other, Altered(1, 0, frozenset([9.0, 4.0]))) == ""
    assert "1 rows are read otherwise where 0 may be" in wrong(other, Altered(0))
    assert "which the file does not state" in wrong(other, Altered(1, 0, frozenset([8.0, 4.0])))
    lost = {name: {"x": row["x"]} for name, row in good.rows.items()}
    assert "where 0 may be others" in wrong(lost, Altered(2))
    assert wrong(lost, Altered(2, 1)) == ""


def test_what_a_change_may_alter_is_what_differs_between_the_files(tmp_path):
    good, case = tmp_path / "good.tsv", tmp_path / "case.tsv"
    good.write_text("x\ty\n1\t2\n3\t4\n")
    case.write_text("x\ty\n1\t2\n3\t5.6\n")
    found = altered_lines(good, case)
    assert (found.rows, found.columns) == (1, 0)
    assert {1.0, 2.0, 3.0, 5.6} <= found.numbers
    assert 4.0 not in found.numbers
    case.write_text("x\tz\n1\t2\n3\t4\n")
    assert (altered_lines(good, case).rows, altered_lines(good, case).columns) == (0, 1)
    for path, values in ((tmp_path / "good.h5", [1, 2, 3]), (tmp_path / "case.h5", [1, 2, 9])):
        with h5py.File(path, "w") as file:
            file["X"], file["var/names"] = np.array(values), np.array([b"a", b"b"])
    assert altered_arrays(tmp_path / "good.h5", tmp_path / "case.h5") == Altered(2)


def test_the_page_has_the_counts_of_each_kind_and_seed_and_what_was_found():
    one, other = Counts("GMT"), Counts("GMT")
    one.add("refused", "seed 1 case 0")
    other.add("silently wrong", "seed 2 case 0", "3 rows\nare others")
    page = page_of({1: [one], 2: [other]}, 'make fuzz ARGS="--seeds 1 2"')
    assert page.startswith("# Files changed by chance\n\nWritten by `make fuzz ARGS")
    assert "\n| GMT | 2 | 1 | 0 | 0 | 0 | 0 | 0 | 1 |" in page
    assert "\n| seed 1 | 1 | 1 | 0 | 0 | 0 | 0 | 0 | 0 |" in page
    assert "\n- `GMT, seed 2 case 0: silently wrong 3 rows are others`\n" in page
