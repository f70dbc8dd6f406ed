import numpy as np
import pytest
from tests.cohort_files import hest_cohort, hest_folder
from tests.training.gene_targets.test_learnt_vectors import write_tables

from flag_training.gene_targets.sections import counts_hash, find_sections, patient_of
from napari_flag.cli import main
from napari_flag.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return write_tables(tmp_path / "counts", ["B1", "C1", "C2"])


def names(*arguments, **values):
    return [section.name for section in find_sections(*arguments, **values)]


def test_the_name_without_its_number_is_the_patient():
    assert [patient_of(name) for name in ("C5", "P12-3", "P12_3", "42")] == ["C", "P12", "P12", "42"]


def test_all_sections_are_found_but_those_left_out(folder):
    assert names(folder) == ["B1", "C1", "C2"]
    assert names(folder, leave_out=["C1"]) == ["B1", "C2"]
    assert names(folder, leave_out_patients=["C"]) == ["B1"]
    assert names(folder, ["C2", "C1"], leave_out=["C1"]) == ["C2"]


def test_the_section_kept_back_for_scoring_is_refused_unless_left_out(folder):
    write_tables(folder, ["C6"])
    with pytest.raises(UserError, match="C6 is kept back for independent scoring"):
        find_sections(folder)
    with pytest.raises(UserError, match="C6 is kept back"):
        find_sections(folder, ["C6"])
    assert names(folder, leave_out=["C6"]) == ["B1", "C1", "C2"]
    assert names(folder, ["C1"]) == ["C1"]


def test_what_is_not_there_is_named(folder, tmp_path):
    with pytest.raises(UserError, match="no section or patient C9, Z; it has B1, C1, C2"):
        find_sections(folder, leave_out=["C9"], leave_out_patients=["Z"])
    with pytest.raises(UserError, match="are left out"):
        find_sections(folder, leave_out_patients=["B", "C"])
    with pytest.raises(UserError, match="no count tables"):
        find_sections(tmp_path / "none")


def test_a_hash_is_of_the_counts_not_of_how_they_are_stored(folder):
    one, two = (section.read() for section in find_sections(folder, ["C1", "C2"]))
    dense = one.copy()
    dense.X = dense.X.toarray()
    assert counts_hash(one) == counts_hash(dense) != counts_hash(two)
    dense.X[0, 0] += 1
    assert counts_hash(one) != counts_hash(dense)


def test_sections_of_a_store_are_found_with_their_patients(tmp_path):
    hest = hest_folder(tmp_path / "hest")
    cohort = hest_cohort(tmp_path / "tiny.toml")
    words = [cohort, "--hest", hest, "--out", tmp_path / "store", "--genes", 5]
    assert main(["prepare", *map(str, words)]) == 0
    sections = find_sections(tmp_path / "store")
    assert len(sections) == 6
    counts = sections[0].read()
    assert counts.X.sum() > 0
    assert "ERBB2" in counts.var_names
    patient = sections[0].patient
    left = find_sections(tmp_path / "store", leave_out_patients=[patient])
    assert patient not in {section.patient for section in left}
    assert np.issubdtype(counts.X.dtype, np.floating)
