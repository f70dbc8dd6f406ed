from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from tests import slide_files
from tests.cohort_files import ENSEMBL, MPP, hd_bins, hest_folder, st_folder, visium

from flag_training.gene_targets.gene_table import read_gene_ids
from flag_training.store.hest import find_metadata, hest_sources, read_metadata
from flag_training.store.reading import name_genes, read_labels, read_tables
from flag_training.store.sources import HUMAN, SlideSource, find_sources, require_files
from napari_flag.errors import UserError
from napari_flag.slides.slide import open_slide


def tables_of(source, **kwargs):
    with open_slide(source.image, source.mpp) as slide:
        return read_tables(source, slide, HUMAN, **kwargs)


def with_mpp(source):
    return replace(source, mpp=MPP)


def test_legacy_st_is_found_with_labels_and_whose_it_is_is_not_guessed(tmp_path):
    a1, a2 = find_sources(st_folder(tmp_path))
    assert (a1.name, a1.patient) == ("A1", None)
    assert a1.labels is not None
    assert a2.labels is None
    read = tables_of(with_mpp(a1))
    assert len(read.spots) == 24  # one of 25 has no counts
    assert read.spots.ids == tuple(read.counts.obs_names)
    assert (read.spots.lattice, read.spots.pitch_um) == ("square", 200.0)
    assert set(read.labels) == {"cancer", "stroma"}
    assert any("no counts" in notice for notice in read.notices)


def test_a_space_ranger_folder_needs_its_image(tmp_path):
    outs = visium(tmp_path / "section" / "outs")
    with pytest.raises(UserError, match="--image"):
        find_sources(outs)
    (source,) = find_sources(outs, outs / "full.png")
    assert source.name == "section"
    names = [path.name for path in source.files()]
    assert names == [
        "full.png", "tissue_positions.csv", "scalefactors_json.json", "filtered_feature_bc_matrix.h5",
    ]  # fmt: skip
    read = tables_of(with_mpp(source))
    assert (read.spots.lattice, read.spots.pitch_um, read.technology) == ("hex", 100.0, "Visium")
    assert list(read.counts.var["gene_ids"]) == ENSEMBL


def test_visium_hd_bins_state_their_own_scale(tmp_path):
    bins = hd_bins(tmp_path / "hd")
    (source,) = find_sources(bins, tmp_path / "hd" / "full.png")
    read = tables_of(source)
    assert (read.mpp, read.mpp_source) == (MPP, "Space Ranger's microns_per_pixel")
    assert (read.spots.lattice, read.spots.pitch_um) == ("square", 16.0)
    with pytest.raises(UserError, match="several sizes"):
        find_sources(tmp_path / "hd" / "binned_outputs", tmp_path / "hd" / "full.png")


def test_hest_takes_the_metadatas_scale_and_leaves_out_a_spot_beyond_the_image(tmp_path):
    folder = hest_folder(tmp_path, samples=1)
    adata = anndata.read_h5ad(folder / "st" / "TST1.h5ad")
    adata.obsm["spatial"][3, 0] = 9999
    adata.write_h5ad(folder / "st" / "TST1.h5ad")
    (source,) = hest_sources(("TST1",), read_metadata(find_metadata(folder)), folder, HUMAN)
    read = tables_of(source)
    assert read.mpp == MPP
    assert len(read.spots) == read.counts.n_obs == 24
    assert any("1 of 25 spots lie beyond the image" in notice for notice in read.notices)
    adata.obsm["spatial"] += 500
    adata.write_h5ad(folder / "st" / "TST1.h5ad")
    with pytest.raises(UserError, match="lie outside"):
        tables_of(source)


def test_an_unknown_scale_is_refused_with_what_the_array_suggests_and_taken_only_if_asked(tmp_path):
    source, _ = find_sources(st_folder(tmp_path))
    with pytest.raises(UserError, match=r"the spots' array suggests 4,"):
        tables_of(source)
    read = tables_of(replace(source, mpp_from_spots=True))
    assert read.mpp == pytest.approx(MPP)
    assert "as asked for" in read.mpp_source


def test_spots_without_an_array_tell_no_scale_even_if_asked(tmp_path):
    image = slide_files.plain_image(tmp_path / "a.png", slide_files.picture(200, 200))
    (tmp_path / "a.csv").write_text("id,x_px,y_px\na,50,50\nb,100,50\n")
    (tmp_path / "counts.csv").write_text("id,ACTB,KRT8\na,1,2\nb,0,3\n")
    source = SlideSource("a", None, image, tmp_path / "a.csv", tmp_path / "counts.csv", pitch_um=100.0)
    with pytest.raises(UserError, match="form no array"):
        tables_of(replace(source, mpp_from_spots=True))


def test_a_doubtful_scale_is_said(tmp_path):
    source, _ = find_sources(st_folder(tmp_path))
    notices = tables_of(replace(source, mpp=1.0)).notices
    assert any("the spots' array suggests 4" in notice for notice in notices)


def test_a_folder_that_is_nothing_and_files_that_are_missing_are_sentences(tmp_path):
    with pytest.raises(UserError, match="no source napari-flag knows"):
        find_sources(tmp_path)
    gone = SlideSource("a", None, tmp_path / "a.tif", tmp_path / "a.h5ad")
    with pytest.raises(UserError, match=r"There is no .*a\.tif"):
        require_files([gone])


def genes(names, ids=None):
    adata = anndata.AnnData(sparse.csr_matrix(np.ones((2, len(names)), np.float32)))
    adata.var_names = names
    if ids:
        adata.var["gene_ids"] = ids
    return adata


def test_symbols_lose_their_genome_and_gain_ensembl_ids():
    known = {"ERBB2": "ENSG00000000001", "KRT8": "ENSG00000000002"}
    named = name_genes(genes(["GRCh38_ERBB2", "ENSG00000000002.7", "XYZ"]), "s", HUMAN, known)
    assert list(named.var_names) == ["ERBB2", "KRT8", "XYZ"]
    assert list(named.var["gene_ids"]) == ["ENSG00000000001", "ENSG00000000002", ""]
    named = name_genes(genes(["ERBB2", "ACTB"], ["ENSG00000000001.4", "nonsense"]), "s", HUMAN, {})
    assert list(named.var["gene_ids"]) == ["ENSG00000000001", ""]


def test_ids_of_a_table_with_versions_are_stored_without(tmp_path):
    path = tmp_path / "features.tsv"
    path.write_text("ENSG00000284770.2\tTBCE\tGene Expression\nENSG00000285053.1\tTBCE\tGene Expression\n")
    named = name_genes(genes(["TBCE", "ENSG00000284770.9"]), "s", HUMAN, read_gene_ids(path))
    assert list(named.var["gene_ids"]) == ["ENSG00000284770"] * 2


@pytest.mark.parametrize(
    "names", [["Actb", "Krt8", "ACTB"], ["GRCm38_Actb", "X"], ["ENSMUSG00000000001", "X"]]
)
def test_a_mouse_is_refused_where_the_cohort_is_human(names):
    with pytest.raises(UserError, match="not human"):
        name_genes(genes(names), "slide7", HUMAN, {})
    assert name_genes(genes(names), "slide7", "Mus musculus", {}).n_vars == len(names)


def test_human_genes_with_small_letters_pass():
    assert name_genes(genes(["C1orf112", "KRT8", "ACTB"]), "s", HUMAN, {}).n_vars == 3


def test_labels_of_several_sections_in_one_table_without_header(tmp_path):
    path = tmp_path / "barcode_level_layer_map.tsv"
    path.write_text("AAAC-1\t151507\tL1\nAAAG-1\t151507\tWM\nAAAC-1\t151508\tL6\n")
    assert read_labels(path, "151507", ["AAAG-1", "AAAC-1", "ACGT-1"]) == ("WM", "L1", "")
    assert read_labels(path, "151508", ["AAAC-1"]) == ("L6",)
    with pytest.raises(UserError, match="labels no spot of 151509"):
        read_labels(path, "151509", ["AAAC-1"])


def test_labels_joined_by_rounded_places_and_empty_ones(tmp_path):
    path = tmp_path / "labels.csv"
    frame = pd.DataFrame({"x": [1.02, 1.98, None], "y": [3.0, 3.01, None], "label": ["tumour", None, "fat"]})
    frame.to_csv(path, index=False)
    assert read_labels(path, "s", ["1x3", "2x3"]) == ("tumour", "")
    path.write_text("a,label\n1,x\n")
    with pytest.raises(UserError, match="no labels of spots"):
        read_labels(path, "s", ["1x3"])


def test_a_table_without_counts_or_pitch_cannot_be_trained_on(tmp_path):
    image = slide_files.plain_image(tmp_path / "a.png", slide_files.picture(200, 200))
    (tmp_path / "a.csv").write_text("id,x_px,y_px\na,50,50\nb,100,50\n")
    source = SlideSource("a", None, image, tmp_path / "a.csv", mpp=MPP)
    with pytest.raises(UserError, match="no raw counts"):
        tables_of(source)
    (tmp_path / "counts.csv").write_text("id,ACTB,KRT8\na,1,2\nb,0,3\n")
    with pytest.raises(UserError, match="pitch_um"):
        tables_of(SlideSource("a", None, image, tmp_path / "a.csv", tmp_path / "counts.csv", mpp=MPP))
