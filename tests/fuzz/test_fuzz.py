"""A few seconds of the fuzzer; `make fuzz` runs an hour of it."""

import pytest
from tests.fuzz.fuzzing import Child, fuzz
from tests.fuzz.kinds import KINDS

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
