"""What is computed once per prediction, and shared by all that draw it while the prediction lives."""

import weakref
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

Made = TypeVar("Made")
_KEPT: Final[dict[int, dict[str, tuple[tuple[Any, ...], Any]]]] = {}


class Kept(Generic[Made]):
    """One thing that is kept for each prediction, under a name of its own.

    It is made anew when an array it was made from was replaced in the prediction; changes within an array
    are not noticed.  May be made in a worker's thread, so that the window finds it ready.

    Parameters
    ----------
    name
        Among all that is kept of a prediction.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def of(self, adata: Any, made_from: tuple[Any, ...], make: Callable[[], Made]) -> Made:
        """Return what is kept of `adata`, made by `make` where it is not there yet.

        Parameters
        ----------
        adata
            The prediction.
        made_from
            What it depends on: numbers and texts are compared, everything else must be the same object.
        make
            Called without arguments.
        """
        key = id(adata)
        if key not in _KEPT:
            _KEPT[key] = {}
            weakref.finalize(adata, _KEPT.pop, key, None)
        kept = _KEPT[key].get(self._name)
        if kept is None or not _same(kept[0], made_from):
            kept = _KEPT[key][self._name] = (made_from, make())
        made: Made = kept[1]
        return made


def _same(before: tuple[Any, ...], now: tuple[Any, ...]) -> bool:
    return len(before) == len(now) and all(
        a is b or (isinstance(a, float | int | str) and a == b) for a, b in zip(before, now, strict=True)
    )
