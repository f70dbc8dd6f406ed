import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.gene_model_files import (
    IDS,
    SPECIAL_V1,
    SYMBOLS,
    WIDTH,
    write_cellplm,
    write_dictionaries,
    write_geneformer,
    write_scgpt,
    write_word_embedding,
)

from flag_training.gene_targets.geneformer import geneformer_table, read_vocabulary
from flag_training.gene_targets.static_tables import cellplm_table, scgpt_table
from napari_flag.errors import UserError

PANEL = ["VIM", "NOVEL", "ERBB2"]
IDS_OF = dict(zip(SYMBOLS, IDS, strict=True))


@pytest.fixture(scope="module")
def geneformer(tmp_path_factory):
    return write_geneformer(tmp_path_factory.mktemp("geneformer"))


def test_geneformer_gives_rows_of_its_word_embedding(geneformer):
    table = geneformer_table(geneformer, PANEL)
    rows = load_file(geneformer / "model.safetensors")["bert.embeddings.word_embeddings.weight"].numpy()
    assert table.genes == ("VIM", "ERBB2")
    assert table.missing == ("NOVEL",)
    np.testing.assert_array_equal(table.vectors, rows[[4 + 7, 4 + 0]])
    assert table.source["folder"] == "Geneformer-tiny"
    assert len(table.source["sha256"]) == 64


def test_geneformer_knows_ensembl_ids_with_and_without_version(geneformer):
    table = geneformer_table(geneformer, [f"{IDS[0]}.12", IDS[7]])
    np.testing.assert_array_equal(table.vectors, geneformer_table(geneformer, ["ERBB2", "VIM"]).vectors)


def test_a_symbol_that_geneformer_calls_otherwise_is_found_by_the_ids_given(geneformer):
    assert geneformer_table(geneformer, ["HER2", "VIM"]).missing == ("HER2",)
    table = geneformer_table(geneformer, ["HER2", "VIM"], ids={"HER2": IDS[0]})
    np.testing.assert_array_equal(table.vectors, geneformer_table(geneformer, ["ERBB2", "VIM"]).vectors)


def test_the_dictionaries_of_the_models_own_size_are_taken(tmp_path):
    folder = write_geneformer(tmp_path, SPECIAL_V1, "_gc30M")
    write_dictionaries(tmp_path / "geneformer")  # of V2, two tokens more
    assert read_vocabulary(folder).frame == ((), ())
    other = write_geneformer(tmp_path / "2")
    write_dictionaries(tmp_path / "2" / "geneformer" / "gene_dictionaries_30m", "_gc30M", SPECIAL_V1)
    assert read_vocabulary(other).frame == ((2,), (3,))


def test_dictionaries_that_do_not_fit_or_lack_a_part_are_refused(geneformer, tmp_path):
    with pytest.raises(UserError, match=r"knows 12 tokens \(found token_dictionary_gc30M.pkl \(10\)\)"):
        read_vocabulary(geneformer, write_dictionaries(tmp_path, "_gc30M", SPECIAL_V1))
    lacking = write_dictionaries(tmp_path / "2")
    (lacking / "gene_median_dictionary_gc104M.pkl").unlink()
    with pytest.raises(UserError, match="lacks gene_median_dictionary_gc104M"):
        read_vocabulary(geneformer, lacking)
    with pytest.raises(UserError, match="does not describe a Geneformer model"):
        read_vocabulary(tmp_path)


def test_ids_that_were_merged_are_followed(geneformer, tmp_path):
    places = write_dictionaries(tmp_path)
    merged = pickle.dumps({"ENSG99999999999": IDS[2]})
    (places / "ensembl_mapping_dict_gc104M.pkl").write_bytes(merged)
    assert read_vocabulary(geneformer, places).token("ENSG99999999999") == 4 + 2
    assert read_vocabulary(geneformer).token("ENSG99999999999") is None


def test_weights_of_another_model_are_refused(tmp_path):
    folder = write_geneformer(tmp_path)
    write_word_embedding(folder, rows=5)
    with pytest.raises(UserError, match="vectors of 5 genes where the vocabulary beside it asks for 12"):
        geneformer_table(folder, PANEL)
    (folder / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="cannot be read"):
        geneformer_table(folder, PANEL)
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"holds no model\.safetensors"):
        geneformer_table(folder, PANEL)


def test_scgpt_gives_its_embedding_under_its_layer_norm(tmp_path):
    folder = write_scgpt(tmp_path)
    table = scgpt_table(folder, PANEL)
    state = torch.load(folder / "best_model.pt", weights_only=True)
    norm = torch.nn.LayerNorm(WIDTH)
    norm.load_state_dict({k: state[f"encoder.enc_norm.{k}"] for k in ("weight", "bias")})
    rows = norm(state["encoder.embedding.weight"][[7, 0]]).detach().numpy()
    assert table.genes == ("VIM", "ERBB2")
    np.testing.assert_allclose(table.vectors, rows, atol=1e-6)
    assert table.coverage.endswith("without: NOVEL.")


def test_cellplm_gives_rows_by_ensembl_id(tmp_path):
    folder = write_cellplm(tmp_path)
    embedding = torch.load(folder / "tiny.best.ckpt")["model_state_dict"]["embedder.feat_enc.emb"].numpy()
    table = cellplm_table(folder, PANEL, IDS_OF)
    np.testing.assert_array_equal(table.vectors, embedding[[7, 0]])
    by_id = cellplm_table(folder, [IDS[7], IDS[0]], {})
    np.testing.assert_array_equal(by_id.vectors, table.vectors)


def test_cellplm_asks_for_ids_where_it_knows_symbols_only(tmp_path):
    with pytest.raises(UserError, match="--gene-ids"):
        cellplm_table(write_cellplm(tmp_path), PANEL, {})
    (tmp_path / "other.config.json").write_text("{}")
    with pytest.raises(UserError, match="holds 2 files"):
        cellplm_table(tmp_path, PANEL, IDS_OF)


def test_a_weights_file_that_would_run_code_is_refused(tmp_path):
    import os

    class Harmful:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'touched'}",)

    folder = write_scgpt(tmp_path)
    torch.save({"encoder.embedding.weight": Harmful()}, folder / "best_model.pt")
    with pytest.raises(UserError, match="no plain weights file"):
        scgpt_table(folder, PANEL)
    assert not (tmp_path / "touched").exists()


def test_a_weights_file_of_something_else_is_refused(tmp_path):
    torch.save({"x": torch.zeros(2)}, write_scgpt(tmp_path / "s") / "best_model.pt")
    with pytest.raises(UserError, match=r"no matrix encoder\.embedding\.weight"):
        scgpt_table(tmp_path / "s", PANEL)
    torch.save({"x": torch.zeros(2)}, write_cellplm(tmp_path / "c") / "tiny.best.ckpt")
    with pytest.raises(UserError, match="no model_state_dict"):
        cellplm_table(tmp_path / "c", PANEL, IDS_OF)


@pytest.mark.parametrize("make", [scgpt_table, geneformer_table, lambda f, p: cellplm_table(f, p, {})])
def test_every_model_refuses_mouse(make, tmp_path):
    with pytest.raises(UserError, match="human genes only"):
        make(tmp_path, ["Erbb2", "Krt8"])
