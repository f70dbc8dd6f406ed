"""A run that reads its slides from a store, or encodes them and keeps the features."""

from dataclasses import replace

import anndata
import numpy as np
import pytest
import torch
from tests.cohort_files import MPP, TinyEncoder, hest_folder
from tests.section_files import write_section
from tests.training.conftest import make_config

from flag_training.cohort import are_earlier, held_out, load_cohort, read_levels, read_panel, with_store
from flag_training.config import PriorConfig, SlideEntry, StoreConfig, read_config
from flag_training.evaluate import Plan, fold_cohort, folds_of
from flag_training.run_folders import earlier_features_file
from flag_training.store.building import Encoding, build_store
from flag_training.store.hest import find_metadata, hest_sources, read_metadata
from flag_training.store.panels import PanelRule
from flag_training.store.plan import StorePlan
from flag_training.store.sources import HUMAN
from flag_training.store.store import open_store
from napari_flag.encoders.embedded import TileNet
from napari_flag.errors import UserError
from napari_flag.progress import finish


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with the store ``tiny`` in it."""
    folder = tmp_path_factory.mktemp("data")
    hest = hest_folder(folder / "hest")
    sources = hest_sources([f"TST{i}" for i in range(1, 7)], read_metadata(find_metadata(hest)), hest, HUMAN)
    rule = PanelRule("top8", 8, exact=True, variable_genes=0)
    plan = StorePlan("tiny", HUMAN, sources, hest, panel=rule)
    finish(build_store(plan, folder / "tiny", Encoding(TinyEncoder(), views=2)))
    return folder


def test_the_panel_of_a_run_is_read_as_every_list_of_genes(tmp_path):
    (tmp_path / "panel.txt").write_text('\ufeffERBB2, "KRT8";ERBB2\n', encoding="utf-8")
    config = replace(make_config(), panel="panel.txt")
    assert read_panel(config, tmp_path) == ("ERBB2", "KRT8")
    with pytest.raises(UserError, match="There is no file"):
        read_panel(replace(config, panel="none.txt"), tmp_path)


def run_config(**changes):
    store = replace(StoreConfig("tiny", "tiny", "top8"), **changes)
    return replace(make_config(views=2), store=store)


def test_the_validation_part_stops_early_and_the_test_part_can_be_left_out(data):
    config = with_store(run_config(), data)
    split = open_store(data / "tiny").split()
    assert {entry.name for entry in config.slides} == {f"TST{i}" for i in range(1, 7)}
    assert config.fit.validation == split.validation
    assert held_out(config, data) == split.test
    trained = config.without(held_out(config, data))
    assert {entry.name for entry in trained.slides} == {*split.train, *split.validation}
    assert held_out(run_config(split=""), data) == ()
    assert with_store(make_config(), data) == make_config()


def test_the_cohort_is_that_of_the_store(data, tmp_path):
    config = with_store(run_config(), data)
    cohort = finish(load_cohort(config, data, tmp_path, None))
    store = open_store(data / "tiny")
    assert cohort.genes == store.panel("top8")
    slide, stored = cohort.slides[1], store.slide("TST2")
    counts = np.asarray(stored.counts()[:, list(cohort.genes)].X.todense())
    np.testing.assert_allclose(slide.expression, np.log2(counts + 1), rtol=1e-6)
    assert (slide.mpp, slide.pitch_um, slide.entry.patient) == (MPP, 200.0, "Patient 0")
    torch.testing.assert_close(cohort.features[1], torch.from_numpy(np.array(stored.features("tiny"))))
    graph = slide.graph(cohort.features[1][0].numpy())
    np.testing.assert_array_equal(graph.neighbours, stored.graph().neighbours)
    assert graph.likeness.any()


def notices_of(work):
    """What a person is shown while `work` is done."""
    steps = []
    finish(work, steps.append)
    return [step.notice for step in steps if step.notice]


@pytest.mark.parametrize("by", ["slides", "patients"])
def test_genes_are_not_chosen_with_counts_of_the_test_part_of_either_split(by, data, tmp_path):
    config = with_store(run_config(split=by), data)
    left_out = held_out(config, data)
    assert left_out
    assert not {*open_store(data / "tiny").panel_record("top8")["seen"]} & {*left_out}
    assert notices_of(load_cohort(config.without(left_out), data, tmp_path, None)) == []


def test_a_run_that_leaves_out_or_scores_what_the_genes_were_chosen_on_says_so(data, tmp_path):
    config = with_store(run_config(split=""), data)
    first, second = open_store(data / "tiny").panel_record("top8")["seen"]
    other = open_store(data / "tiny").split().test[0]
    [said] = notices_of(load_cohort(config.without((other, first)), data, tmp_path, None))
    assert said.startswith(f"The genes of the panel top8 were chosen with the counts of {first}, so scores")
    plan = Plan((first, other))
    [one, none] = [
        notices_of(fold_cohort(config, data, tmp_path, plan, fold)) for fold in folds_of(config, plan)
    ]
    assert one == [said]
    assert none == []
    [fold] = folds_of(config, Plan((first,), by_patient=True))
    [both] = notices_of(fold_cohort(config, data, tmp_path, plan, fold))
    assert f"the counts of {first}, {second}, so" in both
    assert (
        notices_of(
            load_cohort(
                with_store(run_config(split="", panel=""), data).without((first,)), data, tmp_path, None
            )
        )
        == []
    )


class Section:
    """A run of one section of four spots, under an encoder that was not trained, and its kept features.

    Others can be listed before it, of the same files.
    """

    def __init__(self, folder):
        self.folder, self.run = folder, folder / "run"
        self.write(seed=0)
        entry = SlideEntry("C2", "C", "C2.tif", "few.h5ad", None, 0.683)
        self.config = replace(make_config(views=2), slides=(entry,))
        self.listed = replace(self.config, slides=(replace(entry, name="C1"), entry))
        torch.manual_seed(0)
        self.net = TileNet()

    def write(self, seed):
        write_section(self.folder, "C2", seed)
        anndata.read_h5ad(self.folder / "C2.h5ad")[:4].copy().write_h5ad(self.folder / "few.h5ad")

    def load(self, config=None):
        """Return the features of the last section, what was said, and whether any slide was encoded."""
        steps = []
        [*_, views] = self.cohort(config, steps.append).features
        encoded = any(step.stage.startswith("Encoding") for step in steps)
        return views.numpy(), [step.notice for step in steps if step.notice], encoded

    def cohort(self, config=None, on_step=None):
        return finish(load_cohort(config or self.config, self.folder, self.run, self.net), on_step)

    def are_earlier(self):
        return are_earlier(self.cohort(), self.config, self.run, self.net)

    def kept(self):
        return sorted(self.run.iterdir())

    def keep_as_an_earlier_version(self, features):
        """Write features under the names of files, as they were once kept."""
        weights = b"".join(v.numpy().tobytes() for v in self.net.state_dict().values())
        self.run.mkdir(exist_ok=True)
        place = earlier_features_file(self.run, self.config.slides[0], 2, weights, self.config.colours)
        np.save(place, features)
        return place


@pytest.fixture
def section(tmp_path):
    return Section(tmp_path)


def test_kept_features_are_read_back_and_made_anew_for_another_image_of_the_same_name(section):
    first, said, encoded = section.load()
    assert (said, encoded, first.shape[:2]) == ([], True, (2, 4))
    again, said, encoded = section.load()
    np.testing.assert_array_equal(again, first)
    assert (said, encoded) == ([], False)
    section.write(seed=1)
    other, said, encoded = section.load()
    assert (said, encoded) == ([], True)
    assert np.abs(other - first).max() > 0.1
    assert len(section.kept()) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-100]),
        lambda path: np.save(path, np.zeros((2, 4, 1016), np.float32)),
        lambda path: path.write_bytes(b""),
    ],
    ids=["cut short", "zeros", "empty"],
)
def test_kept_features_that_are_damaged_are_made_anew_with_a_notice(section, damage):
    first, _, _ = section.load()
    [entry] = section.kept()
    damage(entry)
    again, said, encoded = section.load()
    np.testing.assert_array_equal(again, first)
    assert said == ["The kept features of C2 were damaged and are computed again."]
    assert encoded
    assert section.load()[1:] == ([], False)


def test_features_of_an_earlier_version_are_taken_where_the_encoder_makes_the_same(section):
    first, _, _ = section.load()
    section.kept()[0].unlink()
    rounded = first + np.float32(1e-4)
    section.keep_as_an_earlier_version(rounded)
    taken, said, _ = section.load()
    np.testing.assert_array_equal(taken, rounded)
    assert said == []
    np.testing.assert_array_equal(section.load()[0], rounded)


def test_features_of_an_earlier_version_that_are_of_something_else_are_made_anew_with_a_notice(section):
    first, _, _ = section.load()
    section.kept()[0].unlink()
    place = section.keep_as_an_earlier_version(np.zeros_like(first))
    found, [said], _ = section.load()
    np.testing.assert_array_equal(found, first)
    wrong = f"The features of C2 that an earlier version kept ({place.name}) are damaged or not those of its"
    assert said.startswith(wrong)
    assert section.load()[1:] == ([], False)
    place.write_bytes(b"no array")
    for entry in {*section.kept()} - {place}:
        entry.unlink()
    found, [said], encoded = section.load()
    np.testing.assert_array_equal(found, first)
    assert said.startswith(wrong)
    assert encoded


def test_features_of_an_earlier_version_are_taken_whatever_number_their_section_had(section):
    """Earlier versions drew the views by the place among the sections that were not left out."""
    others, _, _ = section.load(section.listed)
    for entry in section.kept():
        entry.unlink()
    first, _, _ = section.load()
    section.kept()[0].unlink()
    np.testing.assert_array_equal(others[0], first[0])
    assert np.abs(others[1] - first[1]).max() > 0.1
    section.keep_as_an_earlier_version(others)
    taken, said, _ = section.load()
    np.testing.assert_array_equal(taken, others)
    assert said == []
    assert section.are_earlier()


def test_a_section_is_not_encoded_again_where_one_before_it_is_left_out(section):
    whole, _, _ = section.load(section.listed)
    kept = section.kept()
    less, said, encoded = section.load(section.listed.without(("C1",)))
    np.testing.assert_array_equal(less, whole)
    assert (said, encoded) == ([], False)
    assert section.kept() == kept


def test_features_are_known_to_be_those_of_an_earlier_version_only_where_it_kept_the_same(section):
    first, _, _ = section.load()
    assert not section.are_earlier()
    section.keep_as_an_earlier_version(np.zeros_like(first))
    assert not section.are_earlier()
    section.keep_as_an_earlier_version(first)
    assert section.are_earlier()
    section.write(seed=1)
    assert not section.are_earlier()


def test_features_of_a_store_are_never_known_to_be_those_of_an_earlier_fit(data, tmp_path):
    config = with_store(run_config(), data)
    assert not are_earlier(finish(load_cohort(config, data, tmp_path, None)), config, tmp_path, None)


def test_more_views_than_there_are_are_refused(data, tmp_path):
    config = with_store(run_config(), data)
    with pytest.raises(UserError, match="encoded in 2 views and the run needs 3"):
        finish(load_cohort(replace(config, fit=replace(config.fit, views=3)), data, tmp_path, None))


def test_slides_encoded_with_other_weights_are_refused(data, tmp_path):
    import shutil

    shutil.copytree(data / "tiny", tmp_path / "tiny")
    from flag_training.store.store import read_record, write_record

    path = tmp_path / "tiny" / "slides" / "TST4" / "slide.json"
    record = read_record(path, "")
    record["stages"]["features-tiny"]["settings"]["fingerprint"] = "0" * 64
    write_record(path, record)
    config = with_store(run_config(), tmp_path)
    with pytest.raises(UserError, match="encoded with other weights"):
        finish(load_cohort(config, tmp_path, tmp_path, None))


def test_a_config_names_a_store_instead_of_slides(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text('name = "x"\n[store]\npath = "tiny"\nencoder = "uni"\npanel = "hmhvg200"\n')
    assert read_config(path).store == StoreConfig("tiny", "uni", "hmhvg200", "slides")


def run_with_prior(pattern="counts/*.tsv", letters=1):
    return replace(make_config(), prior=PriorConfig(pattern, letters))


def write_counts(folder, name, genes, counts):
    lines = ["\t".join(["", *genes])]
    lines += ["\t".join([f"{row}x1", *map(str, values)]) for row, values in enumerate(counts)]
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n")


def test_levels_are_those_of_the_counts_of_each_section(tmp_path):
    write_counts(tmp_path / "counts", "A1", ("ERBB2", "KRT8", "XIST"), [[0, 1, 5], [3, 7, 5]])
    write_counts(tmp_path / "counts", "B12", ("KRT8", "CD74"), [[1, 0], [1, 0]])
    first, second = finish(read_levels(run_with_prior(), tmp_path, ("KRT8", "ERBB2")))
    assert [(each.name, each.patient) for each in (first, second)] == [("A1", "A"), ("B12", "B")]
    np.testing.assert_allclose(first.location, [2, 1])  # log2 of 2 and 8, of 1 and 4
    np.testing.assert_allclose(first.scale, [1, 1])
    np.testing.assert_allclose(first.mean, [4, 1.5])
    np.testing.assert_array_equal(second.location, [1, np.nan])  # ERBB2 was not measured
    assert np.isnan(second.mean[1])


def test_levels_of_sections_that_the_config_leaves_out_are_not_read(tmp_path):
    for name in ("C1", "C6"):
        write_counts(tmp_path / "counts", name, ("KRT8",), [[1], [3]])
    config = run_with_prior()
    held = replace(config, prior=replace(config.prior, leave_out=("C6",)))
    assert [level.name for level in finish(read_levels(held, tmp_path, ("KRT8",)))] == ["C1"]
    levels = finish(read_levels(config, tmp_path, ("KRT8",)))
    assert [level.name for level in levels] == ["C1", "C6"], "of another cohort it is a section as any"


def test_a_patient_may_have_a_name_of_several_letters(tmp_path):
    write_counts(tmp_path / "counts", "P07_left.raw", ("KRT8",), [[1], [2]])
    (level,) = finish(read_levels(run_with_prior(letters=3), tmp_path, ("KRT8",)))
    assert (level.name, level.patient) == ("P07_left", "P07")


def test_a_pattern_that_no_file_fits_is_refused_and_none_reads_nothing(tmp_path):
    with pytest.raises(
        UserError, match=r"No file in .* fits nothing/\*\.tsv, .* under \[prior\]; correct it"
    ):
        finish(read_levels(run_with_prior("nothing/*.tsv"), tmp_path, ("KRT8",)))
    assert finish(read_levels(make_config(), tmp_path, ("KRT8",))) == ()


def test_a_run_of_a_store_has_its_prior_too(data, tmp_path):
    config = with_store(run_config(), data)
    genes = open_store(data / "tiny").panel("top8")
    write_counts(data / "counts", "A1", genes, [[1] * 8, [3] * 8])
    cohort = finish(load_cohort(replace(config, prior=PriorConfig("counts/*.tsv")), data, tmp_path, None))
    assert [each.name for each in cohort.others] == ["A1"]
    np.testing.assert_allclose(cohort.others[0].location, 1.5)
