import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from flag_training.gene_targets.table import collect, read_table, write_table
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
