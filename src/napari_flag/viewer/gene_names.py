"""Finding genes as people name them: search as you type, aliases, pasted lists, and why not."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from napari_flag.viewer.gene_aliases import ALIASES_OF, SYMBOL_OF, canonical

_SEPARATORS: Final = re.compile(r"[\s,;|]+")
_ENSEMBL: Final = re.compile(r"ENS[A-Z]*[GTP]\d{6,}(\.\d+)?$", re.IGNORECASE)
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
            if alias_key.startswith(key):
                gene = self._by_name[canonical(symbol)]
                found.setdefault(gene, Hit(gene, alias))
        for name, gene in named:
            if key in name:
                found.setdefault(gene, Hit(gene))
        return list(found.values())[:limit]

    def split(self, text: str) -> PastedGenes:
        """Sort a pasted list (separated by new lines, commas, semicolons, tabs or blanks)."""
        known: dict[str, None] = {}
        unknown: dict[str, str] = {}
        for name in (part.strip("\"'") for part in _SEPARATORS.split(text)):
            if not name:
                continue
            hit = self.resolve(name)
            if hit is not None:
                known[hit.gene] = None
            else:
                unknown[name] = self.why_not(name)
        return PastedGenes(tuple(known), tuple(unknown.items()))

    def why_not(self, name: str) -> str:
        """Return one sentence: why `name` is not in this model, and what to try."""
        name = name.strip()
        where = f"the {len(self.genes):,} genes of {self.model or 'this model'}"
        if _ENSEMBL.match(name):
            return f"{name} is an Ensembl id; type the gene symbol instead, such as ERBB2."
        for pattern, reason in _NOT_IN_PANELS:
            if pattern.match(name):
                return f"{name} is not among {where}: {reason}."
        symbol = SYMBOL_OF.get(canonical(name))
        if symbol is not None:
            return f"{name} is the gene {symbol}, which is not among {where}."
        return f"{name} is not among {where}, so it cannot be predicted.{self._try(name)}"

    def _try(self, name: str) -> str:
        """Return a hint at genes of nearly that name, or an empty text."""
        close = difflib.get_close_matches(canonical(name), self._by_name, n=3, cutoff=0.7)
        return f" Similar names: {', '.join(self._by_name[key] for key in close)}." if close else ""
