import json
import sys

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse
from tests.gene_model_files import IDS, SYMBOLS, WIDTH, write_geneformer

from flag_training.gene_targets.contextual import (
    CHUNK,
    Request,
    SlideVectors,
    chunk_path,
    coverage,
    write_contextual,
)
from flag_training.gene_targets.geneformer import RankValueEncoder, read_vocabulary
from napari_flag.errors import UserError
from napari_flag.progress import finish

PANEL = ("VIM", "NOVEL", "ERBB2", "ACTB")
GENES = [*SYMBOLS, "OTHER"]
SPOTS = CHUNK + 3
SILENT = 5
"""A spot without counts."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_geneformer(tmp_path_factory.mktemp("geneformer"))


def counts(seed=0, spots=SPOTS):
    """Poisson counts of the first `spots` spots."""
    values = np.random.default_rng(seed).poisson(1.0, (SPOTS, len(GENES)))
    values[SILENT] = 0
    adata = anndata.AnnData(sparse.csr_matrix(values[:spots].astype(np.float32)))
    adata.obs_names = [f"{i}x1" for i in range(spots)]
    adata.var_names = GENES
    return adata


def request(model, **values):
    return Request("C2", counts(), PANEL, model, **values)


@pytest.fixture(scope="module")
def written(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("vectors")
    return finish(write_contextual(request(model), out, batch=4))


def opened(folder, ids=None, genes=PANEL):
    return SlideVectors.open(folder.parent, "C2", counts().obs_names if ids is None else ids, genes)


@pytest.mark.slow
def test_vectors_are_last_hidden_states_at_each_genes_token(model, written):
    from transformers import BertForMaskedLM

    bert = BertForMaskedLM.from_pretrained(model).eval()
    encoder = RankValueEncoder.of(read_vocabulary(model), GENES)
    genes, cells = opened(written).read(torch.arange(SPOTS))
    for spot in (0, 1, CHUNK, SPOTS - 1):
        tokens = torch.from_numpy(encoder.encode(counts().X[spot].toarray()[0]))
        with torch.no_grad():
            hidden = bert(tokens[None], output_hidden_states=True).hidden_states[-1][0]
        torch.testing.assert_close(cells[spot], hidden[1:-1].mean(0), atol=2e-3, rtol=1e-2)
        for place, gene in enumerate(PANEL):
            at = [] if gene == "NOVEL" else (tokens == 4 + SYMBOLS.index(gene)).nonzero()[:, 0].tolist()
            if at:
                torch.testing.assert_close(genes[spot, place], hidden[at[0]], atol=2e-3, rtol=1e-2)
            else:
                assert genes[spot, place].isnan().all()


def test_genes_without_counts_have_no_vector_and_a_silent_spot_none_at_all(written):
    genes, cells = opened(written).read(torch.arange(SPOTS))
    there = torch.from_numpy(counts()[:, ["VIM", "ERBB2", "ACTB"]].X.toarray() > 0)
    assert torch.equal(~genes[:, [0, 2, 3]].isnan().any(2), there)
    assert genes[:, 1].isnan().all()
    assert cells[SILENT].isnan().all()
    assert not cells[[0, SPOTS - 1]].isnan().any()


def test_only_genes_that_are_there_are_kept_in_half_precision(written):
    from safetensors.torch import load_file

    chunk = load_file(chunk_path(written, 0))
    there = (counts()[:CHUNK, ["VIM", "ERBB2", "ACTB"]].X > 0).sum()
    assert chunk["vectors"].shape == (there, WIDTH)
    assert chunk["vectors"].dtype == torch.float16


def test_means_are_over_the_spots_that_have_the_gene(written):
    slide = opened(written)
    genes, cells = slide.read(torch.arange(SPOTS))
    torch.testing.assert_close(slide.gene_means[[0, 2, 3]], genes.nanmean(0)[[0, 2, 3]])
    assert slide.gene_means[1].isnan().all()
    torch.testing.assert_close(slide.cell_mean, cells.nanmean(0))


def test_spots_and_genes_are_matched_by_name(written):
    ids, genes = ["34x1", "2x1", "33x1"], ("ACTB", "NEW", "VIM")
    all_genes, all_cells = opened(written).read(torch.arange(SPOTS))
    found, cells = opened(written, ids, genes).read(torch.tensor([2, 0]))
    assert torch.equal(cells, all_cells[[33, 34]])
    torch.testing.assert_close(found[:, [0, 2]], all_genes[[33, 34]][:, [3, 0]], equal_nan=True)
    assert found[:, 1].isnan().all()


def test_the_batch_size_does_not_matter(model, written, tmp_path):
    other = finish(write_contextual(request(model), tmp_path, batch=1))
    pairs = zip(
        opened(other).read(torch.arange(SPOTS)), opened(written).read(torch.arange(SPOTS)), strict=True
    )
    for a, b in pairs:
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0, equal_nan=True)


def test_a_stopped_run_goes_on_and_a_finished_one_is_not_repeated(model, written, tmp_path):
    work = write_contextual(request(model), tmp_path, batch=4)
    while next(work).done <= CHUNK:
        pass
    work.close()
    (folder,) = tmp_path.iterdir()
    kept = chunk_path(folder, 0)
    before = kept.stat().st_mtime_ns
    with pytest.raises(UserError, match="no finished contextual vectors of C2"):
        opened(folder)
    steps = list(write_contextual(request(model), tmp_path, batch=4))
    assert [step.done for step in steps] == [SPOTS]
    assert kept.stat().st_mtime_ns == before
    assert folder.name == written.name
    for file in written.iterdir():
        assert file.read_bytes() == (folder / file.name).read_bytes()
    assert list(write_contextual(request(model), tmp_path)) == []


def test_other_counts_panel_or_ranking_have_another_folder(model, tmp_path):
    few = counts(spots=3)
    requests = (
        Request("C2", few, PANEL, model),
        Request("C2", counts(seed=1, spots=3), PANEL, model),
        Request("C2", few, PANEL[:1], model),
        Request("C2", few, PANEL, model, panel_only=True),
    )
    made = {finish(write_contextual(request, tmp_path)).name for request in requests}
    assert len(made) == 4
    with pytest.raises(UserError, match="several sets"):
        SlideVectors.open(tmp_path, "C2", ["0x1"], PANEL)


def test_ranking_the_panel_alone_leaves_other_genes_out(model, tmp_path):
    folder = finish(write_contextual(request(model, panel_only=True), tmp_path))
    assert json.loads((folder / "slide.json").read_text())["ranked"] == "panel"
    lone = int(np.flatnonzero((counts()[:, ["VIM", "ERBB2", "ACTB"]].X > 0).sum(1) == 1)[0])
    genes, cells = opened(folder).read(torch.tensor([lone]))
    torch.testing.assert_close(genes.nansum(1), cells, atol=2e-3, rtol=0)  # it is all the spot has


def test_ensembl_ids_of_the_counts_are_used_where_there_are_some(model, written, tmp_path):
    adata = counts(spots=6)
    adata.var["gene_ids"] = [*IDS[:4], "", *IDS[5:], ""]
    adata.var_names = ["a", "b", "c", "d", "ACTB", "f", "g", "h", "i"]
    folder = finish(write_contextual(Request("C2", adata, PANEL, model), tmp_path))
    found = opened(folder, adata.obs_names)
    pairs = zip(found.read(torch.arange(6)), opened(written).read(torch.arange(6)), strict=True)
    for a, b in pairs:
        torch.testing.assert_close(a, b, atol=2e-3, rtol=0, equal_nan=True)


def test_coverage_is_stated(written):
    assert coverage(written) == f"3 of 4 genes have vectors (12 wide) in {SPOTS} spots; without: NOVEL."


def test_vectors_that_do_not_fit_the_training_slide_are_refused(written):
    with pytest.raises(UserError, match="lack spots such as 99x1"):
        opened(written, ids=["0x1", "99x1"])
    with pytest.raises(UserError, match="lack all 1 genes"):
        opened(written, genes=("NOVEL",))


def test_a_damaged_chunk_says_so(model, tmp_path):
    few = counts(spots=3)
    folder = finish(write_contextual(Request("C2", few, PANEL, model), tmp_path))
    chunk_path(folder, 0).write_bytes(b"nonsense")
    with pytest.raises(UserError, match="missing or damaged; delete the folder"):
        opened(folder, few.obs_names).read(torch.tensor([0]))


def test_weights_that_are_not_a_bert_are_refused(tmp_path):
    from safetensors.torch import save_file

    folder = write_geneformer(tmp_path)
    save_file({"x": torch.zeros(2)}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="not a Geneformer model's"):
        finish(write_contextual(request(folder), tmp_path / "out"))


def test_without_transformers_a_sentence_says_what_to_do(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="pip install 'napari-flag\\[training\\]'"):
        finish(write_contextual(request(model), tmp_path))


def test_a_panel_that_the_model_does_not_know_is_refused(model, tmp_path):
    with pytest.raises(UserError, match="none of the 1 genes of the panel"):
        finish(write_contextual(Request("C2", counts(), ("NOVEL",), model), tmp_path))
    with pytest.raises(UserError, match="human genes only"):
        finish(write_contextual(Request("C2", counts(), ("Vim",), model), tmp_path))
