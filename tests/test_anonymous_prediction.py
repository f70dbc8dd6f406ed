import json

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from tests.fakes import add_draws, fake_prediction
from tests.test_slide_identity import EARLIER, everything_in, made_on, slide_at

from napari_flag import keys
from napari_flag.analysis.structure import write_structure
from napari_flag.anonymous_prediction import anonymised, columns_of_others, known_provenance
from napari_flag.prediction_file import output_name, read_prediction, read_regions, write_prediction
from napari_flag.progress import finish

SECRETS = ("Smith", "jsmith", "/home/", "ws-lab")


def test_an_earlier_prediction_loses_name_folders_and_the_hash_of_its_command(tmp_path):
    adata = made_on(slide_at(tmp_path / "A1.svs"))
    made = adata.uns[keys.PROVENANCE]
    del made[keys.SLIDE_HASH]
    made[keys.COMMAND] = (
        "napari-flag predict '/home/Jane Roe/slides/A1.svs' --spots 'C:\\Users\\jroe\\Doe_Jane.tsv' --mpp 0.5"
    )
    made[keys.COMMAND_HASH] = "f" * 64
    made[keys.NOTICES] = ["The folder /home/Jane Roe/slides cannot be read.", "A1 has 0.5 µm/px and/or 20×."]
    adata.uns[keys.SPATIAL]["A1"]["metadata"] = {"source_image_path": "/home/jroe/slides/A1.svs"}
    clean = anonymised(adata).adata
    assert not any(word in everything_in(clean) for word in ("A1", "Jane", "jroe", "home", "Users", "Doe"))
    made = clean.uns[keys.PROVENANCE]
    assert keys.COMMAND_HASH not in made
    assert made[keys.COMMAND].endswith("--spots anonymous.tsv --mpp 0.5")
    assert made[keys.NOTICES][1].endswith("has 0.5 µm/px and/or 20×.")
    write_prediction(clean, tmp_path / "clean.h5ad")
    assert output_name(read_prediction(tmp_path / "clean.h5ad")).startswith("anonymous-")
    assert made[keys.WEIGHTS_HASH] == adata.uns[keys.PROVENANCE][keys.WEIGHTS_HASH]


def test_all_earlier_predictions_on_one_slide_get_one_neutral_name_and_others_another():
    """They have no hash of the slide, but a small picture of it."""
    adata, other = fake_prediction(36), fake_prediction(36)
    other.uns[keys.SPATIAL]["fake"]["images"]["hires"][0, 0] = 0
    name = output_name(anonymised(adata).adata)
    assert name == output_name(anonymised(adata[:5].copy()).adata)
    assert name != output_name(anonymised(other).adata)


def test_a_prediction_without_a_picture_is_named_after_its_spots():
    adata = read_prediction(EARLIER)
    assert adata.uns[keys.SPATIAL]["demo_slide"]["images"] == {}
    assert output_name(anonymised(adata).adata) == output_name(anonymised(adata.copy()).adata) != "demo_slide"


def texts_in(path):
    """Every name, attribute and text in an h5ad."""
    found = []

    def look(name, held):
        found.append(name)
        found.extend(f"{key} {value}" for key, value in held.attrs.items())
        if isinstance(held, h5py.Dataset):
            found.append(str(held[()].tolist() if held.shape else held[()]))

    with h5py.File(path) as file:
        file.visititems(look)
    return "\n".join(found)


def test_all_that_this_program_writes_is_there_and_nothing_is_said(tmp_path):
    adata = add_draws(fake_prediction(49, 30), 3)
    finish(write_structure(adata))
    adata.uns[keys.PROVENANCE] |= {
        keys.DEVICE: "cuda:0",
        keys.SAMPLER: "dpmpp_2m",
        keys.METHOD: "FLAG without graph",
        keys.COLOURS: "srgb",
        keys.VERSIONS: {"python": "3.11.7", "torch": "2.15.0+cpu", "numpy": "not installed"},
        keys.FAMILIARITY: {keys.UNLIKE_FROM: 0.95, keys.SHARE_UNLIKE: 0.1, keys.SHARE_UNLIKE_ALIGNED: 0.1},
        keys.NOTICES: ["1 spot lies off the tissue."],
    }
    write_prediction(adata, tmp_path / "in.h5ad")
    before = read_prediction(tmp_path / "in.h5ad")
    clean = anonymised(before)
    assert (clean.left_out, clean.as_they_were) == ((), ())
    write_prediction(clean.adata, tmp_path / "out.h5ad")
    after = read_prediction(tmp_path / "out.h5ad")
    for part in ("obs", "layers", "obsm", "obsp", "uns"):
        assert set(getattr(after, part)) == set(getattr(before, part))
    assert set(after.uns[keys.PROVENANCE]) == set(before.uns[keys.PROVENANCE])
    assert (after.X == before.X).all()
    assert (after.obsm[keys.SPATIAL] == before.obsm[keys.SPATIAL]).all()
    pd.testing.assert_frame_equal(after.uns[keys.MORAN], before.uns[keys.MORAN])
    assert list(after.uns[keys.SPATIAL]) == [output_name(after)]


def hostile():
    """A prediction with names and folders in every place where something can be written."""
    adata = fake_prediction(49, 8)
    finish(write_structure(adata))
    made = adata.uns[keys.PROVENANCE]
    made |= {
        "user": "jsmith",
        "inputs": {"slide": "/home/jsmith/Smith.svs"},
        keys.TRAINING_SLIDES: ["/home/jsmith/her2st-C2", "jsmith/C5", "Smith_John", "her2st-C3"],
        keys.VERSIONS: {"host": "ws-lab", "numpy": "2.0 /home/jsmith", "torch": "2.15.0"},
        keys.ENCODER: "/home/jsmith/encoder",
        keys.SAMPLER: "Smith John",
        keys.METHOD: "FLAG /home/jsmith",
        keys.LATTICE: "ws-lab",
        keys.COLOURS: "ws-lab",
        keys.DEVICE: "ws-lab:0",
        keys.MPP_SOURCE: "/home/jsmith/mpp.json",
        keys.WEIGHTS_NAME: "Smith_John_1950-03-04",
        keys.NOT_FOR_DIAGNOSIS: "Smith's",
        keys.FAMILIARITY: {
            keys.SHARE_UNLIKE: 0.9, keys.SHARE_UNLIKE_ALIGNED: 0.1,
            keys.UNLIKE_WARNING: "Smith", "by": "jsmith",
        },
    }  # fmt: skip
    own = adata.uns[keys.SPATIAL]["fake"]
    own["images"]["Smith"] = own["images"]["hires"]
    own["scalefactors"]["jsmith"] = 1.0
    own |= {
        "metadata": {"source_image_path": "/home/jsmith/Smith.svs", "by": "Smith"},
        "path": "/home/jsmith",
    }
    adata.uns[keys.SPATIAL]["Smith"] = {"images": {}, "scalefactors": {}}
    adata.uns[keys.STRUCTURE]["by"] = "jsmith"
    adata.uns["spatial_neighbors"]["params"]["description"] = "of jsmith"
    adata.uns[keys.MARKERS]["params"]["groupby"] = "Smith"
    adata.uns[keys.MORAN]["Smith"] = 1.0
    adata.uns[keys.DOMAIN_METHOD] = "ws-lab"
    adata.uns["leiden"] = {"by": "jsmith"}
    adata.var["Smith"] = 1
    adata.layers["Smith"] = adata.X
    adata.layers[f"{keys.SAMPLE}_2"] = np.full(adata.shape, "jsmith", dtype=object)
    adata.varm["Smith"] = np.zeros((8, 2))
    adata.varp["Smith"] = np.zeros((8, 8))
    adata.obsm["Smith"] = np.zeros((49, 2))
    adata.obsp["Smith"] = sparse.eye(49, format="csr")
    adata.raw = adata.copy()
    adata.obs.index.name = "Smith"
    adata.var.index.name = "Smith"
    return adata


def test_what_is_not_known_is_left_out_and_named(tmp_path):
    adata = hostile()
    clean = anonymised(adata)
    write_prediction(clean.adata, tmp_path / "out.h5ad")
    written = texts_in(tmp_path / "out.h5ad")
    assert [secret for secret in SECRETS if secret in written] == []
    made = 'uns["napari_flag"]'
    assert set(clean.left_out) == {
        f'{made}["user"]', f'{made}["inputs"]', f'{made}["versions"]["host"]', f'{made}["versions"]["numpy"]',
        f'{made}["encoder"]', f'{made}["sampler"]', f'{made}["method"]', f'{made}["lattice"]',
        f'{made}["colours"]', f'{made}["device"]', f'{made}["use"]', f'{made}["familiarity"]["by"]',
        'uns["spatial"]["Smith"]', 'uns["spatial"]["fake"]["images"]["Smith"]',
        'uns["spatial"]["fake"]["scalefactors"]["jsmith"]', 'uns["spatial"]["fake"]["metadata"]["by"]',
        'uns["spatial"]["fake"]["path"]', 'uns["napari_flag_structure"]', 'uns["spatial_neighbors"]',
        'uns["rank_genes_groups"]', 'uns["moranI"]', 'uns["napari_flag_domains"]', 'uns["leiden"]',
        'var["Smith"]', 'layers["Smith"]', 'layers["sample_2"]', 'varm["Smith"]', 'varp["Smith"]',
        'obsm["Smith"]', 'obsp["Smith"]', "raw",
    }  # fmt: skip
    stated = clean.adata.uns[keys.PROVENANCE]
    assert stated[keys.TRAINING_SLIDES] == ["her2st-C2", "C5", "anonymous", "her2st-C3"]
    assert stated[keys.VERSIONS] == {"torch": "2.15.0"}
    assert stated[keys.WEIGHTS_NAME] == "anonymous-00000000"
    assert stated[keys.FAMILIARITY][keys.UNLIKE_WARNING].startswith("90 % of the spots look unlike")
    assert "jsmith" in everything_in(adata)  # not changed


def test_columns_labels_and_sets_of_a_person_stay_and_are_named():
    adata = fake_prediction(49, 8)
    adata.obs["pathologist"] = "jdoe"
    adata.obs[keys.LABEL] = pd.Categorical(["tumour"] * 49)
    adata.obs[keys.DOMAIN] = pd.Categorical(["1"] * 49, categories=["1", "of Smith"])
    adata.obs[keys.DISTANCE] = "near"
    adata.obs[keys.UNLIKE] = 0.5
    adata.obsm[keys.GENE_SETS] = pd.DataFrame({"mine": np.zeros(49)}, index=adata.obs_names)
    clean = anonymised(adata)
    assert clean.left_out == ()
    named = ["pathologist", keys.LABEL, keys.DOMAIN, keys.DISTANCE]
    assert clean.as_they_were == (f'obsm["{keys.GENE_SETS}"]', *(f'obs["{name}"]' for name in named))
    assert columns_of_others(clean.adata) == tuple(named)
    pd.testing.assert_frame_equal(clean.adata.obs, adata.obs)


def test_a_column_that_is_there_twice_is_named_twice():
    adata = fake_prediction(49, 8)
    adata.obs["a"] = "jdoe"
    adata.obs = pd.concat([adata.obs, adata.obs[["a"]]], axis=1)
    assert columns_of_others(adata) == ("a", "a")


def test_regions_keep_their_outlines_and_names_and_nothing_else(tmp_path):
    ring = [[0, 0], [100, 0], [100, 100], [0, 0]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"name": "tumour of fake", "user": "jsmith"},
    }
    adata = fake_prediction(9)
    made = adata.uns[keys.PROVENANCE]
    made[keys.REGIONS] = json.dumps({"type": "FeatureCollection", "features": [feature]})
    clean = anonymised(adata)
    [region] = read_regions(clean.adata)
    assert region.name == f"tumour of {output_name(clean.adata)}"
    assert clean.as_they_were == ("the names of its regions",)
    assert "jsmith" not in everything_in(clean.adata)
    made[keys.REGIONS] = "no json of jsmith"
    assert anonymised(adata).left_out == ('uns["napari_flag"]["regions"]',)


@pytest.mark.parametrize("unit", ["log2p1", "of jsmith"])
def test_the_file_of_another_program_is_called_as_its_slide(unit):
    adata = fake_prediction(9)
    source = {
        keys.READ_FILE: "scan of jsmith.h5ad",
        keys.READ_UNIT: unit,
        keys.READ_UNIT_FROM: "/home/x says",
    }
    adata.uns[keys.PROVENANCE][keys.READ_FROM] = source
    clean = anonymised(adata)
    assert "jsmith" not in everything_in(clean.adata)
    assert "/home" not in everything_in(clean.adata)
    if unit == "log2p1":
        stated = clean.adata.uns[keys.PROVENANCE][keys.READ_FROM]
        assert stated[keys.READ_FILE] == f"{output_name(clean.adata)}.h5ad"
        assert clean.left_out == ()
    else:
        assert 'uns["napari_flag"]["read_from"]' in clean.left_out


def test_known_entries_are_told_from_others():
    adata = fake_prediction(9)
    adata.uns[keys.PROVENANCE] |= {"user": "jsmith", keys.STEPS: "six"}
    known, others = known_provenance(adata)
    assert others == ('uns["napari_flag"]["user"]', 'uns["napari_flag"]["steps"]')
    assert set(known) == set(adata.uns[keys.PROVENANCE]) - {"user", keys.STEPS}
