"""Names pathologists use for genes, the symbols gene tables use (HGNC), and Ensembl ids."""

import difflib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from napari_flag.errors import UserError
from napari_flag.files import read_text
from napari_flag.formatting import counted, counted_of, whole

_ALIASES: Final = """
ERBB2 HER2 HER-2 NEU HER2/NEU CERBB2 C-ERBB2 CD340
ERBB3 HER3
EGFR HER1 ERBB ERBB1
ESR1 ER ER-ALPHA ERA ESTROGEN-RECEPTOR OESTROGEN-RECEPTOR
ESR2 ER-BETA
PGR PR PGR PROGESTERONE-RECEPTOR
AR ANDROGEN-RECEPTOR
MKI67 KI67 KI-67 MIB1 MIB-1
CD274 PDL1 PD-L1 B7-H1 B7H1
PDCD1LG2 PDL2 PD-L2
PDCD1 PD1 PD-1 CD279
CTLA4 CTLA-4 CD152
LAG3 LAG-3 CD223
HAVCR2 TIM3 TIM-3
TP53 P53
CDKN2A P16 P16INK4A INK4A
CDKN1A P21
CDKN1B P27
TP63 P63 P40
CDH1 E-CADHERIN ECADHERIN
CDH2 N-CADHERIN NCADHERIN
CTNNB1 BETA-CATENIN B-CATENIN
VIM VIMENTIN
ACTA2 SMA ALPHA-SMA A-SMA ASMA
DES DESMIN
MYH11 SMMHC SMOOTH-MUSCLE-MYOSIN
S100B S100
MLANA MELAN-A MELANA MART1 MART-1
PMEL HMB45 HMB-45 GP100
SOX10 SOX-10
GFAP GLIAL-FIBRILLARY-ACIDIC-PROTEIN
SYP SYNAPTOPHYSIN
CHGA CHROMOGRANIN CHROMOGRANIN-A
NCAM1 CD56
ENO2 NSE
PTPRC CD45 LCA
CD3E CD3
CD4 T4
CD8A CD8
MS4A1 CD20 L26
CD79A CD79
CD19 B4
SDC1 CD138 SYNDECAN-1
IRF4 MUM1
FOXP3 FOX-P3
NCR1 NKP46
GZMB GRANZYME-B GRANZYMEB
PRF1 PERFORIN
CD68 KP1
CD163 M130
ITGAX CD11C
ITGAM CD11B MAC1
CD1A T6
FCGR3A CD16
IL3RA CD123
TNFRSF8 CD30
FUT4 CD15
MME CD10 CALLA
BCL2 BCL-2
BCL6 BCL-6
CCND1 CYCLIN-D1 BCL1
MYC C-MYC CMYC
KIT CD117 C-KIT CKIT
ANO1 DOG1 DOG-1
CD34 QBEND10
PECAM1 CD31
VWF FACTOR-VIII VON-WILLEBRAND-FACTOR
ERG ETS-ERG
PDPN D2-40 D240 PODOPLANIN
KDR VEGFR2 FLK1
VEGFA VEGF
EPCAM BER-EP4 BEREP4 MOC31 MOC-31 CD326
MUC1 EMA CA15-3
MUC16 CA125 CA-125
CEACAM5 CEA CD66E
KRT5 CK5 CYTOKERATIN-5
KRT7 CK7 CYTOKERATIN-7
KRT8 CK8 CAM5.2 CYTOKERATIN-8
KRT10 CK10
KRT14 CK14 CYTOKERATIN-14
KRT17 CK17
KRT18 CK18 CYTOKERATIN-18
KRT19 CK19 CYTOKERATIN-19 CYFRA
KRT20 CK20 CYTOKERATIN-20
NKX2-1 TTF1 TTF-1
NAPSA NAPSIN-A NAPSIN
CDX2 CDX-2
SATB2 SATB-2
PAX8 PAX-8
GATA3 GATA-3
SCGB2A2 MAMMAGLOBIN
PIP GCDFP15 GCDFP-15
KLK3 PSA
FOLH1 PSMA
NKX3-1 NKX3.1
AMACR P504S RACEMASE
HNF1B HNF-1B
WT1 WT-1
CALB2 CALRETININ
MSLN MESOTHELIN
INHA INHIBIN
PTEN MMAC1
MLH1 HMLH1
MSH2 HMSH2
STAT1 ISGF3
CD44 PGP1
ALDH1A1 ALDH1
FN1 FIBRONECTIN
COL1A1 COLLAGEN-I COLLAGEN-1 COLLAGEN
COL3A1 COLLAGEN-III
COL4A1 COLLAGEN-IV
FAP SEPRASE
PDGFRB CD140B
THY1 CD90
NT5E CD73
ENG CD105
HLA-A MHC-I MHCI
HLA-DRA HLA-DR MHC-II MHCII
B2M BETA-2-MICROGLOBULIN
TUBB3 TUJ1
AFP ALPHA-FETOPROTEIN
ALB ALBUMIN
HBA1 HEMOGLOBIN HAEMOGLOBIN
FASN FAS-SYNTHASE
TFRC CD71
SLC2A1 GLUT1 GLUT-1
CA9 CAIX
"""


def without_version(name: str) -> str:
    """Return the Ensembl id of the gene that `name` is, without its version; "" where it is no such id.

    Of transcripts and proteins it is "", and so it is of an id written in lower case or after a genome.
    """
    found = _ENSEMBL.fullmatch(name)
    return found["id"] if found and found["kind"] == "G" else ""


def canonical(name: str) -> str:
    """Return `name` in capitals without blanks and dashes, so that ki 67 and Ki-67 are one."""
    return "".join(c for c in name.upper() if c.isalnum())


def _table() -> dict[str, str]:
    table: dict[str, str] = {}
    for line in _ALIASES.split("\n"):
        symbol, *aliases = line.split() or [""]
        for alias in aliases:
            if canonical(alias) != canonical(symbol):
                table.setdefault(canonical(alias), symbol)
    return table


SYMBOL_OF: Final = _table()
"""Canonical alias → symbol, e.g. ``"PDL1"`` → ``"CD274"``."""

ALIASES_OF: Final[dict[str, list[str]]] = {
    line.split()[0]: line.split()[1:] for line in _ALIASES.strip().split("\n")
}
"""Symbol → aliases as people write them."""

SEARCHED: Final = 50
"""Unknown names of a list for which similar ones are searched, a millisecond each; nobody reads more."""
_SEPARATORS: Final = re.compile(r"[\s,;|]+")
_MARKS: Final = re.compile(r"[\r\n\t,;|]+")
"""Separators but blanks, which a name may have within."""
_ENSEMBL: Final = re.compile(r"(?P<id>ENS[A-Z]*(?P<kind>[GTP])\d{11})(\.\d+)?(_PAR_Y)?(-\d+)?")
"""A stable id of a gene, transcript or protein: species, kind, eleven digits.  What may follow: its version,
GENCODE's mark of a gene on both X and Y, and the number that makes names unique."""
_NOT_IN_PANELS: Final = (
    (re.compile(r"MT-", re.IGNORECASE), "mitochondrial genes are left out of training panels"),
    (re.compile(r"(MT)?RP[SL]\d", re.IGNORECASE), "ribosomal genes are left out of training panels"),
)


@dataclass(frozen=True, slots=True)
class Hit:
    """A gene found.

    Parameters
    ----------
    gene
        As the model names it.
    alias
        What of its other names matched, e.g. "HER2"; "" when the symbol itself did.
    """

    gene: str
    alias: str = ""


@dataclass(frozen=True, slots=True)
class PastedGenes:
    """A pasted list, sorted out.

    Parameters
    ----------
    known
        Genes of this model, in the order pasted, each once.
    unknown
        (name as pasted, sentence why not) of the rest.
    """

    known: tuple[str, ...]
    unknown: tuple[tuple[str, str], ...]


class GeneNames:
    """The genes of one model, and how people call them.

    Parameters
    ----------
    genes
        Gene symbols of the model.
    model
        Its name, for sentences.
    """

    def __init__(self, genes: Sequence[str], model: str = "") -> None:
        self.genes = tuple(genes)
        self.model = model
        self._canonical = [canonical(gene) for gene in self.genes]
        self._by_name = dict(zip(reversed(self._canonical), reversed(self.genes), strict=True))
        self._aliases = [
            (canonical(alias), alias, symbol)
            for symbol, aliases in ALIASES_OF.items()
            if canonical(symbol) in self._by_name
            for alias in aliases
        ]

    def resolve(self, name: str) -> Hit | None:
        """Return the gene that `name` means exactly (a symbol in any case, or an alias), or None."""
        key = canonical(name)
        if key in self._by_name:
            return Hit(self._by_name[key])
        symbol = SYMBOL_OF.get(key)
        if symbol is not None and canonical(symbol) in self._by_name:
            written = next(a for a in ALIASES_OF[symbol] if canonical(a) == key)
            return Hit(self._by_name[canonical(symbol)], written)
        return None

    def search(self, text: str, limit: int | None = None) -> list[Hit]:
        """Return genes for a half-typed name: exact, then by prefix, by alias, then anywhere within.

        A number is taken as whole in an alias: "CD3" does not find ERBB2 by its alias CD340.

        Parameters
        ----------
        text
            What was typed so far; empty finds every gene in the model's order.
        limit
            At most so many.
        """
        key = canonical(text)
        if not key:
            return [Hit(gene) for gene in self.genes[:limit]]
        exact = self.resolve(text)
        found: dict[str, Hit] = {exact.gene: exact} if exact else {}
        named = list(zip(self._canonical, self.genes, strict=True))
        for name, gene in named:
            if name.startswith(key):
                found.setdefault(gene, Hit(gene))
        for alias_key, alias, symbol in self._aliases:
            rest = alias_key.removeprefix(key)
            if alias_key.startswith(key) and not (key[-1].isdigit() and rest[:1].isdigit()):
                gene = self._by_name[canonical(symbol)]
                found.setdefault(gene, Hit(gene, alias))
        for name, gene in named:
            if key in name:
                found.setdefault(gene, Hit(gene))
        return list(found.values())[:limit]

    def split(self, genes: str | Iterable[str] | Path) -> PastedGenes:
        """Sort names or a pasted list (separated by new lines, commas, semicolons, tabs or blanks).

        Parameters
        ----------
        genes
            A text, several, or a text file.  What is a name with its blanks ("estrogen receptor") is one,
            whether it is a text of its own or between other separators.

        Raises
        ------
        UserError
            When the file is missing or is no text.
        """
        known: dict[str, None] = {}
        unknown: dict[str, str] = {}
        for name in (name for text in _texts_of(genes) for name in self._names_in(text)):
            hit = self.resolve(name)
            if hit is not None:
                known[hit.gene] = None
            else:
                unknown[name] = self.why_not(name, similar=len(unknown) < SEARCHED)
        return PastedGenes(tuple(known), tuple(unknown.items()))

    def _names_in(self, text: str) -> Iterator[str]:
        """Yield the names in a text; a symbol as it is written may hold separators too."""
        symbol = text.strip()
        for part in [text] if self._by_name.get(canonical(text)) == symbol else _MARKS.split(text):
            yield from [part] if part.strip() and self.resolve(part) is not None else names_in(part)

    def why_not(self, name: str, *, similar: bool = True) -> str:
        """Return one sentence: why `name` is not in this model, and (`similar`) which names are like it."""
        name = name.strip()
        where = f"the {whole(len(self.genes))} genes of {self.model or 'this model'}"
        if _ENSEMBL.fullmatch(name.upper()):
            return f"{name} is an Ensembl id; type the gene symbol instead, such as ERBB2."
        for pattern, reason in _NOT_IN_PANELS:
            if pattern.match(name):
                return f"{name} is not among {where}: {reason}."
        symbol = SYMBOL_OF.get(canonical(name))
        if symbol is not None:
            return f"{name} is the gene {symbol}, which is not among {where}."
        return f"{name} is not among {where}; choose one of them.{self._try(name) if similar else ''}"

    def _try(self, name: str) -> str:
        """Return a hint at genes of nearly that name, or an empty text."""
        close = difflib.get_close_matches(canonical(name), self._by_name, n=3, cutoff=0.7)
        return f" Similar names: {', '.join(self._by_name[key] for key in close)}." if close else ""


def names_in(genes: str | Iterable[str] | Path) -> tuple[str, ...]:
    """Return names as they are written: those in a text, in several, or in a text file.

    Those of a text or a file are separated as in a pasted list (`GeneNames.split`), as by new lines.

    Raises
    ------
    UserError
        When the file is missing, is no text, or names no gene.
    """
    parts = (part for text in _texts_of(genes) for part in _SEPARATORS.split(text))
    names = tuple(name for part in parts if (name := part.strip("\"'")))
    if isinstance(genes, Path) and not names:
        raise UserError(f"{genes.name} names no genes; write one gene a line.")
    return names


def _texts_of(genes: str | Iterable[str] | Path) -> Iterable[str]:
    """Return the texts given: one, several, or that of a file."""
    if isinstance(genes, Path):
        return [_text_of(genes)]
    return [genes] if isinstance(genes, str) else genes


def _text_of(path: Path) -> str:
    try:
        return read_text(path)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}; check the path.") from error
    except OSError as error:
        raise UserError(
            f"{path.name} cannot be read as text, so it is no list of genes; give a text file with "
            "one gene a line."
        ) from error


def symbols_of(genes: Sequence[str], wanted: str | Iterable[str] | Path) -> list[str]:
    """Return what the names `wanted`, symbols in any case or aliases, are called among `genes`; each once.

    Parameters
    ----------
    genes
        Of a prediction.
    wanted
        As `GeneNames.split` takes them.

    Raises
    ------
    UserError
        When a name is none of them, or none is wanted, or a file cannot be read.
    """
    names = GeneNames(genes, "this prediction")
    found = names.split(wanted)
    if found.unknown:
        raise UserError(found.unknown[0][1])
    if not found.known:
        raise UserError(
            f"The list of genes is empty; name some of the {counted(len(names.genes), 'gene')} of this "
            "prediction."
        )
    return list(found.known)


LIST_MARKS: Final = ("\n", ",", ";", "\t")
NAMED_AT_MOST: Final = 6


@dataclass(frozen=True, slots=True)
class Found:
    """The answer to a search.

    Parameters
    ----------
    genes
        Genes to list, best first; None lists all.
    notes
        Gene → the alias that was typed for it.
    message
        A sentence for the user; "" when there is nothing to say.
    reasons
        One line per name that was not found.
    """

    genes: tuple[str, ...] | None = None
    notes: dict[str, str] = field(default_factory=dict)
    message: str = ""
    reasons: tuple[str, ...] = ()


def look_up(names: GeneNames, text: str) -> Found:
    """Return what `text` finds: a half-typed name, an alias, or a pasted list."""
    text = text.strip()
    if not text:
        return Found()
    hits = names.search(text)
    if hits and not any(mark in text for mark in LIST_MARKS):
        notes = {hit.gene: hit.alias for hit in hits if hit.alias}
        return Found(tuple(hit.gene for hit in hits), notes)
    pasted = names.split(text)
    if len(pasted.known) + len(pasted.unknown) < 2 or not pasted.known:
        reasons = tuple(reason for _, reason in pasted.unknown)
        if len(reasons) > 1 and not any(mark in text for mark in LIST_MARKS):
            reasons = (names.why_not(text),)  # words typed one after the other: one name
        return Found(pasted.known, {}, reasons[0] if len(reasons) == 1 else _summary(reasons), reasons)
    message = f"{counted_of(len(pasted.known), len(pasted.known) + len(pasted.unknown), 'gene')} found."
    if pasted.unknown:
        missing = [name for name, _ in pasted.unknown]
        more = len(missing) - NAMED_AT_MOST
        listed = ", ".join(missing[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
        message += f" Not in this model: {listed}."
    return Found(pasted.known, {}, message, tuple(reason for _, reason in pasted.unknown))


def _summary(reasons: tuple[str, ...]) -> str:
    return f"None of these {whole(len(reasons))} genes is in this model." if reasons else ""
