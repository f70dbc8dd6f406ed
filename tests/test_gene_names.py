from pathlib import Path

import pytest

from napari_flag.errors import UserError
from napari_flag.gene_names import GeneNames, Hit, look_up, names_in, symbols_of, without_version

GENES = ("IGKC", "ERBB2", "CD274", "MKI67", "TP53", "CDH1", "VIM", "KRT19", "KRT8", "SKRT1", "ESR1")


@pytest.fixture
def names():
    return GeneNames(GENES, "her2st")


@pytest.mark.parametrize(
    ("typed", "gene"),
    [
        ("HER2", "ERBB2"), ("her-2", "ERBB2"), ("PD-L1", "CD274"), ("pdl1", "CD274"),
        ("Ki67", "MKI67"), ("ki 67", "MKI67"), ("p53", "TP53"), ("E-cadherin", "CDH1"),
        ("vimentin", "VIM"), ("ER", "ESR1"), ("esr1", "ESR1"), ("Estrogen receptor", "ESR1"),
    ],
)  # fmt: skip
def test_names_pathologists_use_are_resolved(names, typed, gene):
    assert names.resolve(typed).gene == gene
    assert names.search(typed)[0].gene == gene


def test_search_puts_prefix_before_within(names):
    assert [hit.gene for hit in names.search("krt")] == ["KRT19", "KRT8", "SKRT1"]


def test_search_says_which_alias_matched(names):
    assert names.search("her") == [Hit("ERBB2", "HER2")]


def test_a_number_in_an_alias_is_taken_as_whole():
    names = GeneNames(["ERBB2", "CD3E"])
    assert [hit.gene for hit in names.search("CD3")] == ["CD3E"]
    assert GeneNames(["ERBB2"]).search("CD3") == []
    assert [hit.alias for hit in names.search("CD34")] == []
    assert [hit.alias for hit in names.search("CD340")] == ["CD340"]


def test_empty_search_lists_all_in_the_order_of_the_model(names):
    assert [hit.gene for hit in names.search(" ")] == list(GENES)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("CD20", "gene MS4A1, which is not among the 11 genes of her2st"),
        ("MT-CO1", "mitochondrial"),
        ("RPL13", "ribosomal"),
        ("ENSG00000141736", "Ensembl"),
        ("ensg00000141736.15", "Ensembl"),
        ("ENST00000269571", "Ensembl"),
        ("ERBB4", "Similar names: ERBB2"),
        ("nonsense", "not among the 11 genes of her2st"),
    ],
)
def test_a_gene_that_is_not_there_comes_with_the_reason(names, name, reason):
    assert names.resolve(name) is None
    assert reason in names.why_not(name)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ENSG00000141736", "ENSG00000141736"),
        ("ENSG00000141736.15", "ENSG00000141736"),
        ("ENSMUSG00000062312.3", "ENSMUSG00000062312"),
        ("ENSG00000182378.14_PAR_Y", "ENSG00000182378"),
        ("ENSG00000002586-1", "ENSG00000002586"),
        ("ENST00000269571", ""),
        ("ENSG0001", ""),
        ("ENSG000001417361", ""),
        ("ENSA", ""),
        ("ERBB2", ""),
    ],
)
def test_the_id_of_a_gene_loses_its_version_and_what_is_no_such_id_is_empty(name, found):
    assert without_version(name) == found


@pytest.mark.parametrize("separator", ["\n", ", ", "\t", " ", ";", "\r\n"])
def test_a_pasted_list_is_split_into_known_and_unknown(names, separator):
    pasted = names.split(separator.join(["HER2", "KRT8", '"CDH1"', "XYZ1", "krt8"]))
    assert pasted.known == ("ERBB2", "KRT8", "CDH1")
    assert [name for name, _ in pasted.unknown] == ["XYZ1"]


def test_names_asked_for_become_symbols_each_once_or_the_reason_is_said(names):
    assert symbols_of(names.genes, ["HER2", "krt8", "ERBB2"]) == ["ERBB2", "KRT8"]
    with pytest.raises(UserError, match=r"XYZ1 is not among the .* genes of this prediction"):
        symbols_of(names.genes, ["HER2", "XYZ1"])
    with pytest.raises(UserError, match="list of genes is empty"):
        symbols_of(names.genes, [])


@pytest.mark.parametrize("given", [str, Path, list, tuple])
@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("her2", ["ERBB2"]),
        ("Estrogen receptor", ["ESR1"]),
        ("HER2, estrogen receptor; KRT8", ["ERBB2", "ESR1", "KRT8"]),
        ("HER2 KRT8", ["ERBB2", "KRT8"]),
        ("'HER2'\n\"KRT8\"\r\n", ["ERBB2", "KRT8"]),
    ],
)
def test_a_text_is_one_name_or_a_list_however_it_is_given(names, given, text, symbols, tmp_path):
    wanted = tmp_path / "genes.txt" if given is Path else text if given is str else given([text])
    if given is Path:
        wanted.write_text(text, encoding="utf-8-sig")
    assert symbols_of([*names.genes, "ESR1"], wanted) == symbols


def test_a_symbol_with_separators_within_is_one_name():
    genes = ["TRAC;TRBC2", "TRAC", "TRBC2"]
    assert symbols_of(genes, ["TRAC;TRBC2"]) == ["TRAC;TRBC2"]
    assert symbols_of(genes, "TRBC2;TRAC") == ["TRBC2", "TRAC"]


def test_names_are_read_from_a_file_as_written_and_a_file_without_any_is_refused(tmp_path):
    path = tmp_path / "genes.txt"
    path.write_text('\ufeffHER2, "KRT8";MT-CO1\r\n', encoding="utf-8")
    assert names_in(path) == names_in('HER2, "KRT8";MT-CO1') == ("HER2", "KRT8", "MT-CO1")
    path.write_text("\n")
    with pytest.raises(UserError, match=r"genes\.txt names no genes"):
        names_in(path)


def test_names_are_separated_within_each_of_several_texts_too():
    assert names_in(["HER2, KI67", "KRT8"]) == ("HER2", "KI67", "KRT8")


def test_look_up_lists_matches_while_typing(names):
    assert look_up(names, "kr").genes == ("KRT19", "KRT8", "SKRT1")
    assert look_up(names, "").genes is None


def test_look_up_reports_a_pasted_list(names):
    found = look_up(names, "HER2 KRT8 FOO1 BAR2")
    assert found.genes == ("ERBB2", "KRT8")
    assert found.message == "2 of 4 genes found. Not in this model: FOO1, BAR2."
    assert len(found.reasons) == 2


def test_look_up_explains_a_single_missing_gene(names):
    found = look_up(names, "CD20")
    assert found.genes == ()
    assert "MS4A1" in found.message


def test_look_up_takes_words_without_any_gene_for_one_name(names):
    assert look_up(names, "some thing").message.startswith("some thing is not among")


def test_similar_names_are_searched_for_some_of_fifty_thousand_unknown_ones(names):
    """A search takes a millisecond; a list of the wrong kind took a minute."""
    found = names.split("\n".join(f"ERBB2{i:05d}" if i > 99 else f"ERBB{i}X" for i in range(50_000)))
    assert len(found.unknown) == 50_000
    assert 10 < sum("Similar names" in sentence for _, sentence in found.unknown) <= 50
    assert look_up(names, "\n".join(name for name, _ in found.unknown)).message.count(".") == 1
