import gzip

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flag_training.gene_targets.gene_table import (
    collect,
    ensembl_ids,
    read_gene_ids,
    read_panel_file,
    read_table,
    refuse_other_species,
    write_table,
)
from napari_flag import files
from napari_flag.errors import UserError

SOURCE = {"model": "toy", "sections": ["C1"]}


def test_a_table_comes_back_with_its_provenance_and_what_it_lacks(tmp_path):
    vectors = {"A": np.arange(3.0), "B": np.ones(3)}
    table = collect(["B", "N", "A"], vectors, SOURCE)
    assert table.coverage == "2 of 3 genes have a vector (3 wide); without: N."
    write_table(tmp_path / "deep" / "t.safetensors", table)
    found = read_table(tmp_path / "deep" / "t.safetensors")
    assert found.missing == ("N",)
    assert found.source["sections"] == ["C1"]
    assert found.source["found"] == 2
    for gene in "AB":
        np.testing.assert_array_equal(
            found.vectors[found.genes.index(gene)], vectors[gene].astype(np.float32)
        )
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["t.safetensors"]


def test_the_same_table_gives_the_same_bytes(tmp_path):
    table = collect(["A", "B"], {"A": np.arange(3.0), "B": np.ones(3)}, SOURCE)
    for name in "12":
        write_table(tmp_path / name, table)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()


def test_a_model_that_knows_no_gene_or_holds_no_numbers_is_refused():
    with pytest.raises(UserError, match="toy knows none of the 1 genes"):
        collect(["A"], {}, SOURCE)
    with pytest.raises(UserError, match="not finite"):
        collect(["A"], {"A": np.array([np.nan])}, SOURCE)


def test_files_that_are_no_tables_say_so(tmp_path):
    path = tmp_path / "t.safetensors"
    save_file({"A": torch.zeros(3), "B": torch.zeros(4)}, path)
    with pytest.raises(UserError, match="no table of gene vectors"):
        read_table(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot be read"):
        read_table(path)
    with pytest.raises(UserError, match="cannot be read"):
        read_table(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    "genes",
    [
        ["ERBB2", "C1orf43", "HLA-A", "MT-CO1"],
        ["C1orf43", "C12orf57"],
        ["ENSG00000141736", "ENSG00000141736.15"],
        ["ERBB2", "KRT8", "hsa-mir-1"],
    ],
)
def test_human_genes_are_let_through(genes):
    refuse_other_species(genes, "Geneformer")


@pytest.mark.parametrize(
    "genes",
    [
        ["Erbb2", "Krt8", "ACTB"],
        ["ENSMUSG00000062312"],
        ["ENSGALG00000012345"],
        ["ERBB2", "KRT8", "GRCm38_Actb"],
        ["mm10___Actb", "A"],
    ],
)
def test_genes_of_another_species_are_refused(genes):
    with pytest.raises(UserError, match="human genes only"):
        refuse_other_species(genes, "Geneformer")


def test_ids_lose_their_version_and_unknown_symbols_are_left_out():
    known = {"ERBB2": "ENSG00000141736.15"}
    found = ensembl_ids(["ERBB2", "ENSG00000000003.4", "NOVEL"], known)
    assert found == {"ERBB2": "ENSG00000141736", "ENSG00000000003.4": "ENSG00000000003"}


def test_gene_ids_are_read_from_tables_in_either_order(tmp_path):
    path = tmp_path / "features.tsv.gz"
    text = "ENSG00000141736\tERBB2\tGene Expression\nENSG00000170421\tKRT8\tGene Expression\n"
    path.write_bytes(gzip.compress(text.encode()))
    expected = {"ERBB2": "ENSG00000141736", "KRT8": "ENSG00000170421"}
    assert read_gene_ids(path) == expected
    other = tmp_path / "ids.csv"
    other.write_text('symbol,id\n"ERBB2","ENSG00000141736"\nKRT8,ENSG00000170421\n')
    assert read_gene_ids(other) == expected


def test_of_a_symbol_listed_twice_the_first_id_is_taken_and_ids_lose_their_version(tmp_path):
    path = tmp_path / "features.tsv"
    rows = ["ENSG00000284770.2\tTBCE", "ENSG00000285053.1\tTBCE", "ENSG00000141736.15\tERBB2"]
    path.write_text("".join(f"{row}\tGene Expression\n" for row in rows))
    expected = {"TBCE": "ENSG00000284770", "ERBB2": "ENSG00000141736"}
    assert read_gene_ids(path) == expected
    dictionary = tmp_path / "gene_name_id_dict.json"
    dictionary.write_text('{"TBCE": "ENSG00000284770.2", "ERBB2": "ENSG00000141736.15", "X": "none"}')
    assert read_gene_ids(dictionary) == expected


def test_a_gene_without_symbol_is_not_called_what_was_measured_of_it(tmp_path):
    path = tmp_path / "features.tsv"
    rows = ["ENSG00000285053\tENSG00000285053", "ENSG00000141736\tERBB2"]
    path.write_text("".join(f"{row}\tGene Expression\n" for row in rows))
    assert read_gene_ids(path) == {"ERBB2": "ENSG00000141736"}


def test_a_table_of_gene_ids_that_grows_beyond_the_limit_once_unzipped_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "features.tsv.gz"
    path.write_bytes(gzip.compress(b"ENSG00000141736\tERBB2\n" * 100))
    monkeypatch.setattr(files.read_text, "__defaults__", (1000,))
    with pytest.raises(UserError, match="too much to read as one text"):
        read_gene_ids(path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(UserError, match="cannot be read"):
        read_gene_ids(path)


def test_a_table_without_ids_says_so(tmp_path):
    path = tmp_path / "ids.csv"
    path.write_text("a,b\n")
    with pytest.raises(UserError, match="pairs no gene symbol"):
        read_gene_ids(path)


def test_a_panel_names_each_gene_once_and_must_not_be_empty(tmp_path):
    path = tmp_path / "panel.txt"
    path.write_text("B\nA\n\nB\n")
    assert read_panel_file(path) == ("B", "A")
    path.write_text('\ufeff"B", A;B', encoding="utf-8")
    assert read_panel_file(path) == ("B", "A")
    path.write_text("\n")
    with pytest.raises(UserError, match="names no genes"):
        read_panel_file(path)
    with pytest.raises(UserError, match="There is no file"):
        read_panel_file(tmp_path / "none.txt")
