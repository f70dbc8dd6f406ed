"""Computing the classes that local maps ask for, in steps."""

from typing import TYPE_CHECKING

from napari_flag.progress import Steps
from napari_flag.viewer.local_map import Key, Wanted

if TYPE_CHECKING:
    from napari_flag.statistics.local_moran import LocalMoran


def find_classes(wanted: list[Wanted], seed: int = 0) -> "Steps[dict[Key, LocalMoran]]":
    """Compute what `LocalMap.missing` asked for, with 999 conditional permutations each."""
    from napari_flag.statistics.local_moran import local_moran

    found = {}
    for key, values, weights in wanted:
        found[key] = yield from local_moran(values, weights, seed=seed)
    return found
