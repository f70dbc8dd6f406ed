"""Which slides train, validate and test: by slide and by patient, seeded and written down."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np

from napari_flag.errors import UserError

PARTS: Final = ("train", "validation", "test")
PAPER_SHARES: Final = (7, 2, 1)
"""FLAG's slide-level split; read as train : validation : test, which the paper does not spell out."""

Shares: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Split:
    """Names of slides in three parts that share none.

    Parameters
    ----------
    train, validation, test
        Names of slides, sorted.
    unmade
        Why there is no such split; "" where there is one.
    """

    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    unmade: str = ""

    def part(self, name: str) -> tuple[str, ...]:
        """Return the slides of the part called `name`.

        Raises
        ------
        UserError
            When the split could not be made, or has no such part.
        """
        if self.unmade:
            raise UserError(f"This store has no such split: {self.unmade}")
        parts = dict(zip(PARTS, (self.train, self.validation, self.test), strict=True))
        if name not in parts:
            raise UserError(f'A split has no part "{name}"; choose {", ".join(PARTS)}.')
        return parts[name]


def split_slides(
    names: Sequence[str], shares: Shares, generator: np.random.Generator, for_test: Sequence[str] = ()
) -> Split:
    """Split slide by slide, as the paper does; slides of one patient may fall in two parts.

    Parameters
    ----------
    names
        Slides in any order; the order does not change the outcome.
    shares
        Train : validation : test.
    generator
        Decides.
    for_test
        Slides that must be in the test part.
    """
    if len(names) < len(PARTS):
        return Split(unmade=f"{len(names)} slides cannot be split into {len(PARTS)} parts.")
    sizes = share_out(len(names), shares)
    sizes[2] = max(sizes[2], len(for_test))
    sizes[0] = len(names) - sizes[1] - sizes[2]
    if sizes[0] < 1:
        return Split(unmade=f"{len(for_test)} slides held for testing leave none to train on.")
    free = sorted(set(names) - set(for_test))
    drawn = [*(free[i] for i in generator.permutation(len(free))), *for_test]
    train, validation = sizes[0], sizes[0] + sizes[1]
    return Split(
        tuple(sorted(drawn[:train])),
        tuple(sorted(drawn[train:validation])),
        tuple(sorted(drawn[validation:])),
    )


def split_patients(
    patients: Mapping[str, str | None],
    shares: Shares,
    generator: np.random.Generator,
    for_test: Sequence[str] = (),
) -> Split:
    """Split patient by patient: all slides of one fall into the same part.

    Patients are drawn in random order, those with most slides first, each into the part that lacks
    most slides; so parts are as near to the shares as whole patients allow.

    Parameters
    ----------
    patients
        Slide → patient; None where it is not known.
    shares, generator, for_test
        As in `split_slides`; a slide held for testing takes its patient with it.
    """
    unknown = sorted(name for name, patient in patients.items() if not patient)
    if unknown:
        return Split(unmade=f"the patient of {', '.join(unknown[:5])} is not known.")
    slides = Counter(str(patient) for patient in patients.values())
    if len(slides) < len(PARTS):
        return Split(unmade=f"{len(slides)} patients cannot be split into {len(PARTS)} parts.")
    wanted = np.array(share_out(len(patients), shares), dtype=float)
    part_of = {str(patients[name]): 2 for name in for_test}
    held = np.array([0.0, 0.0, float(sum(slides[patient] for patient in part_of))])
    free = sorted(set(slides) - set(part_of))
    drawn = [free[i] for i in generator.permutation(len(free))]
    for left, patient in zip(range(len(drawn), 0, -1), sorted(drawn, key=lambda p: -slides[p]), strict=True):
        empty = [i for i in range(len(PARTS)) if held[i] == 0]
        # No part may stay empty: the last patients go where there is none yet.
        among = empty if len(empty) >= left else range(len(PARTS))
        part = max(among, key=lambda i: wanted[i] - held[i])
        part_of[patient] = part
        held[part] += slides[patient]
    if (held == 0).any():
        return Split(unmade=f"the {len(slides)} patients, some held for testing, leave a part empty.")
    placed = {name: part_of[str(patient)] for name, patient in patients.items()}
    train, validation, test = (
        tuple(sorted(name for name, where in placed.items() if where == i)) for i in range(len(PARTS))
    )
    return Split(train, validation, test)


def share_out(count: int, shares: Shares) -> list[int]:
    """Share `count` slides out by largest remainder, at least one to each part where there are three."""
    exact = np.array(shares, dtype=float) * count / sum(shares)
    sizes = np.floor(exact).astype(int)
    for part in np.argsort(sizes - exact, kind="stable")[: count - sizes.sum()]:
        sizes[part] += 1
    while count >= len(PARTS) and (sizes == 0).any():
        sizes[int(np.argmin(sizes))] += 1
        sizes[int(np.argmax(sizes))] -= 1
    return [int(size) for size in sizes]
