"""The lattice of an array fitted to its spots: pitch, µm/px, and whether they lie where it puts them."""

from typing import Final

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.formatting import counted, counted_of
from napari_flag.slides.spots import FloatArray, IntArray, Lattice, Spots

TRIMMED: Final = 4.0
"""Residuals beyond this many robust standard deviations are left out of the fit."""
LOOSEST: Final = 0.3
"""Median residual, in pitches, beyond which positions and array do not belong together."""
LEAST_ORDER: Final = 0.5
"""Bond-orientational order (|mean exp(i n angle)|, 1 for a perfect lattice) of a real lattice."""
CELL: Final[dict[Lattice, float]] = {"square": 1.0, "hex": np.sqrt(3) / 4}
"""Area per (row, column) step in squared pitches; in Visium's count a hex step is half a pitch
across and √3/2 down."""
OFF_PLACE: Final = 0.02
"""Share of spots more than a pitch from where their array puts them, from which they are mixed up."""
SAME_PLACE: Final = 0.1
"""Share of spots that lie on another's place, from which the places are wrong."""
FEWEST_PLACED: Final = 6
"""Spots from which their places say anything."""
MISPLACED: Final = "The spots look wrong ("
"""How every sentence begins on spots that were used though they are `misplaced`, before why."""
MIRRORED: Final = (
    "The array of spots lies mirrored on the picture; if the picture was not flipped, x and y are swapped in "
    "the table, and all genes stand in other places than they belong."
)


def lattice_of(array: IntArray) -> Lattice:
    """Return "hex" where row + column always has one parity, as Visium counts, else "square"."""
    parity = array.sum(axis=1) % 2
    return "hex" if len(parity) > 1 and (parity == parity[0]).all() else "square"


def estimate_mpp(spots: Spots) -> float:
    """Return µm per level-0 pixel by fitting the array's lattice to the spots.

    The whole lattice is fitted (least squares, outliers trimmed): nearest distances are biased
    when spots jitter.  Without array coordinates the lattice is first found among the spots.

    Parameters
    ----------
    spots
        With `pitch_um`; with `array` where it is known.

    Raises
    ------
    UserError
        When the pitch is unknown, or the spots form no lattice.
    """
    if spots.pitch_um is None:
        raise UserError(
            "µm/px cannot be estimated because the pitch of these spots in µm is not known; give "
            "µm/px by hand (--mpp)."
        )
    return spots.pitch_um / fitted_pitch(spots)


def fitted_pitch(spots: Spots) -> float:
    """Return the centre-to-centre distance in pixels of the lattice fitted to `spots`."""
    if spots.array is None:
        lattice, array, rows = _found_array(spots.xy, spots.lattice)
        return _pitch(array, spots.xy[rows], lattice)
    lattice = lattice_of(spots.array) if spots.lattice == "none" else spots.lattice
    return _pitch(spots.array, spots.xy, lattice)


def misplaced(spots: Spots) -> str | None:
    """Return why places, array and ids of `spots` cannot all be right; None where nothing is against them.

    What may well be so (an array that lies mirrored on its image) is said by `mirrored`.
    """
    n = len(spots)
    if n < FEWEST_PLACED:
        return None
    shared = n - len(np.unique(spots.xy, axis=0))
    if shared > SAME_PLACE * n:
        return (
            f"{counted_of(shared + 1, n, 'spot')} share their place with another, so the positions are not "
            "theirs"
        )
    if spots.array is None:
        return None
    written = [f"{column}x{row}" for row, column in spots.array.tolist()]
    turned = [f"{row}x{column}" for row, column in spots.array.tolist()]
    if sum(map(str.__eq__, spots.ids, turned)) > max(sum(map(str.__eq__, spots.ids, written)), n / 2):
        return f"the ids of spots are written row × column ({spots.ids[-1]}), where column × row is meant"
    fitted = _steps(spots.array, spots.xy)
    if fitted is None:
        return None
    steps, residual = fitted
    lattice = lattice_of(spots.array) if spots.lattice == "none" else spots.lattice
    pitch = float(np.sqrt(abs(np.linalg.det(steps)) / CELL[lattice]))
    off = int((residual > max(pitch, 1e-9)).sum())
    if not pitch > 0 or np.median(residual) > LOOSEST * pitch or off > OFF_PLACE * n:
        return (
            f"{counted_of(off, n, 'spot')} do not lie where their array coordinates put them, so ids and "
            "positions are mixed up"
        )
    return None


def mirrored(spots: Spots) -> bool:
    """Return whether the array lies mirrored on the image: x and y may be swapped, or the image flipped."""
    fitted = None if spots.array is None or len(spots) < FEWEST_PLACED else _steps(spots.array, spots.xy)
    return fitted is not None and float(np.linalg.det(fitted[0])) > 0


def _steps(array: IntArray, xy: FloatArray) -> tuple[FloatArray, FloatArray] | None:
    """Fit xy = array @ steps + origin without outliers; return steps and residuals, None for one line."""
    design = np.column_stack([array, np.ones(len(array))]).astype(np.float64)
    keep = np.ones(len(xy), dtype=bool)
    for _ in range(10):
        if np.linalg.matrix_rank(design[keep] - design[keep].mean(axis=0)) < 2:
            return None
        fitted = np.linalg.lstsq(design[keep], xy[keep], rcond=None)[0]
        residual: FloatArray = np.linalg.norm(design @ fitted - xy, axis=1)
        trimmed = residual <= TRIMMED * max(np.median(residual) / 1.18, 1e-9)
        if (trimmed == keep).all():
            break
        keep = trimmed
    steps: FloatArray = np.asarray(fitted[:2], np.float64)
    return steps, residual


def _pitch(array: IntArray, xy: FloatArray, lattice: Lattice) -> float:
    """Return the pitch that the unit cell's area gives of the lattice fitted to `xy`."""
    fitted = _steps(array, xy)
    if fitted is None:
        raise UserError(
            f"{counted(len(xy), 'spot')} in one line do not show the array's lattice, so µm/px cannot be "
            "estimated; give it by hand (--mpp)."
        )
    steps, residual = fitted
    pitch = float(np.sqrt(abs(np.linalg.det(steps)) / CELL[lattice]))
    if not pitch > 0 or np.median(residual) > LOOSEST * pitch:
        raise UserError(
            "The spots' positions do not follow their array coordinates, so µm/px cannot be "
            "estimated from them; check the table, or give µm/px by hand (--mpp)."
        )
    return pitch


def _found_array(xy: FloatArray, lattice: Lattice) -> tuple[Lattice, IntArray, npt.NDArray[np.int64]]:
    """Find the lattice among positions: its kind, array coordinates, and the rows they are for.

    Directions to the nearest neighbours fold onto one another in a square (4-fold) or hexagonal
    (6-fold) lattice; from a spot, neighbours are then counted outwards step by step.
    """
    from scipy.spatial import cKDTree

    none = UserError(
        "The spots form no regular lattice and the table has no array coordinates, so µm/px cannot "
        "be estimated from them; give it by hand (--mpp)."
    )
    if len(xy) < 4:
        raise none
    tree = cKDTree(xy)
    near, _ = tree.query(xy, k=min(5, len(xy)))
    # The second to fourth neighbour: on a jittering lattice the first is the shortest by chance.
    pitch = float(np.median(near[:, 2:]))
    pairs = tree.query_pairs(1.25 * pitch, output_type="ndarray")
    if len(pairs) < 3:
        raise none
    bonds = xy[pairs[:, 1]] - xy[pairs[:, 0]]
    angles = np.arctan2(bonds[:, 1], bonds[:, 0])
    folds: dict[Lattice, int] = {"square": 4, "hex": 6}
    kinds: list[Lattice] = ["square", "hex"] if lattice == "none" else [lattice]
    order = {kind: complex(np.exp(1j * folds[kind] * angles).mean()) for kind in kinds}
    kind = max(kinds, key=lambda k: abs(order[k]))
    if abs(order[kind]) < LEAST_ORDER:
        raise none
    turn = float(np.angle(order[kind])) / folds[kind]
    array, rows = _walked(xy, pairs, _basis(kind, pitch, turn))
    return kind, array, rows


def _basis(kind: Lattice, pitch: float, turn: float) -> FloatArray:
    """Return the (2, 2) steps in pixels of one row and one column, `turn` radians from the x axis."""
    along = pitch * np.array([np.cos(turn), np.sin(turn)])
    across = pitch * np.array([-np.sin(turn), np.cos(turn)])
    if kind == "hex":
        return np.stack([across * np.sqrt(3) / 2, along / 2])
    return np.stack([across, along])


def _walked(
    xy: FloatArray, pairs: npt.NDArray[np.int64], basis: FloatArray
) -> tuple[IntArray, npt.NDArray[np.int64]]:
    """Count lattice steps outwards over the largest connected piece; return counts and its rows."""
    from scipy import sparse
    from scipy.sparse import csgraph

    n = len(xy)
    graph = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), shape=(n, n)).tocsr()
    _, piece = csgraph.connected_components(graph, directed=False)
    rows = np.flatnonzero(piece == np.bincount(piece).argmax())
    visited, parent = csgraph.breadth_first_order(graph, rows[0], directed=False)
    array = np.zeros((n, 2), np.int64)
    inverse = np.linalg.inv(basis)
    for i in visited[1:]:
        step = (xy[i] - xy[parent[i]]) @ inverse
        array[i] = array[parent[i]] + np.rint(step).astype(np.int64)
    return array[rows], rows
