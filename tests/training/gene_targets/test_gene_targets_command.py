import subprocess
import sys

import pytest
from tests.gene_model_files import IDS, SYMBOLS, write_cellplm, write_geneformer, write_scgpt
from tests.training.gene_targets.test_learnt_vectors import GENES, write_tables

from flag_training.gene_targets.gene_table import read_table
from napari_flag.cli import main


def gene_targets(*words):
    return main(["gene-targets", *map(str, words)])


@pytest.fixture
def panel(tmp_path):
    path = tmp_path / "panel.txt"
    path.write_text("VIM\nNOVEL\nERBB2\n")
    return path


def test_vectors_are_learnt_without_what_is_left_out_and_checked_against_it(tmp_path, capsys):
    folder = write_tables(tmp_path / "counts", ["C1", "C2", "C5", "D1"], spots=200)
    (tmp_path / "panel.txt").write_text("\n".join(GENES))
    out = tmp_path / "targets" / "without_C5.safetensors"
    words = ["--counts", folder, "--panel", tmp_path / "panel.txt", "--leave-out", "C5", "--out", out]
    assert gene_targets("coexpression", *words, "--leave-out-patient", "D", "--width", 3) == 0
    said = capsys.readouterr().out
    assert "4 of 4 genes have a vector (3 wide)." in said
    assert "Learnt from C1, C2.\n" in said
    assert read_table(out).source["patients"] == ["C"]
    assert gene_targets("check", out, folder / "C5.tsv", folder / "C1.tsv") == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [name for name, _ in lines] == ["C5", "C1"]
    assert float(lines[0][1]) > 0.9
    assert lines[1][1].endswith(" (learnt from it)")


@pytest.mark.slow
def test_tables_of_all_models_are_written_with_their_coverage(tmp_path, panel, capsys):
    ids = tmp_path / "ids.tsv"
    ids.write_text("\n".join(f"{name}\t{symbol}" for name, symbol in zip(IDS, SYMBOLS, strict=True)))
    models = {
        "geneformer": [write_geneformer(tmp_path / "g")],
        "scgpt": [write_scgpt(tmp_path / "s")],
        "cellplm": [write_cellplm(tmp_path / "c"), "--gene-ids", ids],
    }
    for kind, words in models.items():
        out = tmp_path / f"{kind}.safetensors"
        assert gene_targets(kind, *words, "--panel", panel, "--out", out) == 0
        assert "2 of 3 genes have a vector (12 wide); without: NOVEL." in capsys.readouterr().out
        assert read_table(out).genes in {("VIM", "ERBB2"), ("ERBB2", "VIM")}
        assert read_table(out).missing == ("NOVEL",)


def test_contextual_vectors_are_written_per_section(tmp_path, panel, capsys):
    folder = write_tables(tmp_path / "counts", ["C1", "C2"], ["VIM", "ERBB2", "KRT8", "OTHER"], spots=4)
    model = write_geneformer(tmp_path / "g")
    words = ["--counts", folder, "--sections", "C2", "--panel", panel, "--out", tmp_path / "vectors"]
    assert gene_targets("contextual", model, *words, "--device", "cpu", "--batch", 2) == 0
    assert "2 of 3 genes have vectors (12 wide) in 4 spots; without: NOVEL." in capsys.readouterr().out
    (made,) = (tmp_path / "vectors").iterdir()
    assert made.name.startswith("C2-")


def test_contextual_vectors_are_made_beside_a_section_that_is_kept_back(tmp_path, panel, capsys):
    folder = write_tables(tmp_path / "counts", ["C2", "C6"], ["VIM", "ERBB2", "KRT8", "OTHER"], spots=4)
    model, out = write_geneformer(tmp_path / "g"), tmp_path / "vectors"
    words = ["--counts", folder, "--panel", panel, "--out", out, "--device", "cpu"]
    assert gene_targets("contextual", model, *words) == 2
    assert "leave it out (--leave-out)" in capsys.readouterr().err
    assert gene_targets("contextual", model, *words, "--leave-out", "C6") == 0
    assert [made.name.split("-")[0] for made in out.iterdir()] == ["C2"]


def test_a_mistake_is_one_sentence_and_writes_nothing(tmp_path, panel, capsys):
    out = tmp_path / "t.safetensors"
    assert gene_targets("scgpt", tmp_path, "--panel", panel, "--out", out) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "vocab.json cannot be read" in said
    words = ["--counts", tmp_path, "--panel", panel, "--out", out]
    assert gene_targets("coexpression", *words, "--width", 0) == 2
    assert not out.exists()


def test_the_command_line_does_not_load_torch_for_its_help():
    code = (
        "import sys; from napari_flag.cli import main; main(['gene-targets', '--help']); "
        "sys.stderr.write(str('torch' in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=120)
    assert done.stderr.endswith(b"False")
    assert b"coexpression" in done.stdout
