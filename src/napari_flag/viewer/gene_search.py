"""What a text in the search box means: genes to list, and a sentence about the rest."""

from dataclasses import dataclass, field
from typing import Final

from napari_flag.viewer.gene_names import GeneNames

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
    message = f"{len(pasted.known)} of {len(pasted.known) + len(pasted.unknown)} genes found."
    if pasted.unknown:
        missing = [name for name, _ in pasted.unknown]
        more = len(missing) - NAMED_AT_MOST
        listed = ", ".join(missing[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
        message += f" Not in this model: {listed}."
    return Found(pasted.known, {}, message, tuple(reason for _, reason in pasted.unknown))


def _summary(reasons: tuple[str, ...]) -> str:
    return f"None of these {len(reasons)} genes is in this model." if reasons else ""
