from pathlib import Path

import numpy as np
import pytest

from flag_training.gene_targets.gene_table import GeneTable
from flag_training.gene_targets.learnt_vectors import (
    Section,
    agreement,
    average_correlations,
    cosines,
    factor,
    learn_vectors,
    section_correlations,
)
from flag_training.gene_targets.sections import find_sections
from napari_flag.errors import UserError
from napari_flag.progress import finish

HER2ST = Path(__file__).resolve().parents[4] / "shared" / "data" / "her2st"
GENES = ("A", "B", "C", "D")


def section(name="C1", seed=0, spots=4000, loading=((1, 1, -1, 0),), depth=0.0):
    """Counts whose log rates follow hidden factors with `loading`, and a depth that all genes share."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(spots, len(loading)))
    common = depth * rng.normal(size=(spots, 1))
    rates = np.exp(4 + 0.5 * hidden @ np.array(loading, float) + common)
    return Section(name, name[0], rng.poisson(rates).astype(float))


def write_tables(folder, names, genes=GENES, spots=30):
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        values = section(name, seed, spots).counts[:, : len(genes)].astype(int)
        rows = [f"{i}x1\t" + "\t".join(map(str, row)) for i, row in enumerate(values)]
        (folder / f"{name}.tsv").write_text("\t" + "\t".join(genes) + "\n" + "\n".join(rows) + "\n")
    return folder


def test_cosines_are_the_correlations_of_the_counts():
    one = section()
    correlations, known = average_correlations([one])
    found = cosines(factor(correlations).astype(np.float32))
    expected = np.corrcoef(np.log2(one.counts + 1).T)
    assert known.all()
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert found[0, 1] > 0.9 > -0.9 > found[0, 2]
    assert abs(found[0, 3]) < 0.05


def test_shares_of_the_panel_leave_depth_out():
    deep = section(depth=1.0, loading=((1, 1, -1, -1),))
    with_depth = section_correlations(deep)[0]
    without = section_correlations(deep, relative=True)[0]
    assert with_depth[0, 2] > 0.5
    assert without[0, 2] < -0.6


def test_patients_count_alike_however_many_sections_they_have():
    same, other = ((1, 1, -1, 0),), ((1, -1, 1, 0),)
    many = [section(f"C{i}", i, loading=same) for i in range(1, 5)]
    mixed = average_correlations([*many, section("D1", 9, loading=other)])[0]
    assert abs(mixed[0, 1]) < 0.05  # +0.96 and -0.96
    alone = average_correlations([*many, section("C5", 9, loading=other)])[0]
    assert alone[0, 1] > 0.6  # z of 4 against 1 in one patient


def test_sections_count_by_their_spots():
    large = section("C1", 1, spots=4000)
    small = section("C2", 2, spots=40, loading=((1, -1, 1, 0),))
    assert average_correlations([large, small])[0][0, 1] > 0.9


def test_few_spots_are_shrunk_towards_nothing():
    rng = np.random.default_rng(0)
    noise = Section("C1", "C", rng.poisson(50, (12, 30)).astype(float))
    raw = np.corrcoef(np.log2(noise.counts + 1).T)
    shrunk = average_correlations([noise])[0]
    outside = ~np.eye(30, dtype=bool)
    assert np.abs(shrunk[outside]).mean() < 0.4 * np.abs(raw[outside]).mean()
    np.testing.assert_array_equal(np.diag(shrunk), 1)


def test_a_gene_that_never_varies_has_no_vector_and_one_absent_somewhere_is_learnt_elsewhere():
    one, two = section("C1", 1), section("C2", 2)
    one.counts[:, 0] = np.nan
    for each in (one, two):
        each.counts[:, 3] = 0
    correlations, known = average_correlations([one, two])
    assert known.tolist() == [True, True, True, False]
    np.testing.assert_allclose(correlations[0, 1], average_correlations([two])[0][0, 1], atol=0.01)


def test_short_vectors_keep_what_matters_most():
    correlations = average_correlations([section(loading=((1, 1, -1, 0), (0, 0, 0, 1)))])[0]
    short = factor(correlations, 2)
    assert short.shape == (4, 2)
    np.testing.assert_allclose(short @ short.T, correlations, atol=0.1)


def test_a_tables_agreement_is_one_with_what_it_learnt_from_and_low_with_another_programme():
    one = section(loading=((1, 1, -1, 0),))
    vectors = factor(average_correlations([one])[0]).astype(np.float32)
    table = GeneTable(GENES, vectors, (), {})
    assert agreement(table, one) > 0.999
    assert agreement(table, section(seed=3, loading=((1, -1, 1, 0),))) < 0.2


def test_a_section_with_few_spots_is_refused():
    with pytest.raises(UserError, match="C1 has 3 spots"):
        average_correlations([section(spots=3)])


def test_the_record_names_the_sections_and_the_same_counts_give_the_same_table(tmp_path):
    folder = write_tables(tmp_path, ["B1", "C1", "C2", "C5"])
    sections = find_sections(folder, leave_out=["C5"])
    one, two = (finish(learn_vectors(sections, [*GENES, "N"])) for _ in range(2))
    assert one.source["sections"] == ["B1", "C1", "C2"]
    assert one.source["patients"] == ["B", "C"]
    assert set(one.source["counts"]) == {"B1", "C1", "C2"}
    assert one.missing == ("N",)
    assert one.source == two.source
    assert one.vectors.tobytes() == two.vectors.tobytes()
    fewer = finish(learn_vectors(find_sections(folder, leave_out=["C5", "C2"]), GENES))
    assert fewer.vectors.tobytes() != one.vectors.tobytes()


def test_what_is_left_out_does_not_change_the_table(tmp_path):
    folder = write_tables(tmp_path, ["C1", "C2"])
    before = finish(learn_vectors(find_sections(folder, leave_out=["C2"]), GENES))
    write_tables(tmp_path, ["C2"])  # other counts
    after = finish(learn_vectors(find_sections(folder, leave_out=["C2"]), GENES))
    assert before.vectors.tobytes() == after.vectors.tobytes()


@pytest.mark.skipif(not HER2ST.exists(), reason="needs ../shared/data/her2st")
@pytest.mark.slow
def test_sections_of_a_patient_tell_the_held_out_sections_co_expression():
    from flag_training.gene_targets.learnt_vectors import panel_counts

    panel = (HER2ST / "panel_hmhvg200.txt").read_text().split()
    table = finish(learn_vectors(find_sections(HER2ST / "counts", ["C2", "C3", "C4"]), panel))
    (held_out,) = find_sections(HER2ST / "counts", ["C5"])
    assert agreement(table, panel_counts(held_out, held_out.read(), table.genes)) > 0.85
