"""A prediction as it may be handed on: what this program writes, and nothing that it does not know.

`anonymised` builds it from a list of what is known: entries of their kind, in which each text is one that
this program writes there, a gene or a domain; sentences without folders, and names by the rule of
`slides.file_identity.why_personal`.  All else is left out and named.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from napari_flag import keys
from napari_flag.analysis.domains import METHOD_NAMES
from napari_flag.analysis.pathways import bundled
from napari_flag.analysis.structure import RANKED
from napari_flag.encoders.registry import list_encoders
from napari_flag.errors import UserError
from napari_flag.files import ending
from napari_flag.foreign_prediction import UNITS
from napari_flag.prediction_file import (
    LOG2,
    layer_of,
    output_name,
    provenance,
    read_regions,
    slide_name,
    texts,
    write_regions,
)
from napari_flag.slide_identity import (
    neutral_name_of,
    neutral_weights,
    renamed_to,
    replaced,
    with_weights_called,
    without_files,
    word_without_name,
)
from napari_flag.slides.colours import COLOURS
from napari_flag.slides.file_identity import is_digest, names_folder, neutral_name, why_personal

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from napari_flag.slides.formats.geojson import Annotation

Kind: TypeAlias = Callable[[Any], bool]
"""Whether a value is one that this program writes under a key."""


# --- what is known of the provenance -----------------------------------------------------------
def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and bool(np.isfinite(value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any) -> bool:
    listed = value.tolist() if isinstance(value, np.ndarray) else value
    several = isinstance(listed, list | tuple) and all(isinstance(each, str) for each in listed)
    return several or isinstance(listed, str)


def _is_title(value: Any) -> bool:
    """Return whether a value is what methods and solvers are called, such as "FLAG without graph"."""
    return _is_text(value) and _TITLE.fullmatch(value) is not None and why_personal(value) is None


def _one_of(*known: str) -> Kind:
    return lambda value: _is_text(value) and value in known


def _like(pattern: str) -> Kind:
    return lambda value: _is_text(value) and re.fullmatch(pattern, value) is not None


_TITLE: Final = re.compile(r"[\w.+-]+(?: [\w.+()-]+){0,7}")
_NUMBERS: Final = (
    keys.SLIDE_WIDTH, keys.SLIDE_HEIGHT, keys.MPP, keys.SPOT_DIAMETER_UM, keys.SPOT_PITCH_UM, keys.TILE_PX,
    keys.TILE_UM_PER_PX, keys.STEPS, keys.DRAWS, keys.EARLIER_SAMPLES, keys.DEPTH, keys.SEED,
)  # fmt: skip
_KINDS: Final[Mapping[str, Kind]] = {
    **dict.fromkeys(_NUMBERS, _is_number),
    **dict.fromkeys((keys.SLIDE_HASH, keys.WEIGHTS_HASH, keys.COMMAND_HASH), is_digest),
    **dict.fromkeys((keys.SLIDE_NAME, keys.MPP_SOURCE, keys.WEIGHTS_NAME, keys.COMMAND), _is_text),
    **dict.fromkeys((keys.NOTICES, keys.TRAINING_SLIDES), _is_list),
    **dict.fromkeys((keys.METHOD, keys.SAMPLER), _is_title),
    keys.TRAINING_HASHES: lambda value: _is_list(value) and all(map(is_digest, texts(value))),
    keys.UNITS: _one_of(keys.EXPRESSION_UNITS),
    keys.NOT_FOR_DIAGNOSIS: _one_of(keys.RESEARCH_USE_ONLY),
    keys.COLOURS: _one_of(*COLOURS),
    keys.LATTICE: _one_of("none", "square", "hex"),
    keys.ENCODER: _one_of(*(row.name for row in list_encoders())),
    keys.DEVICE: _like(r"(?:cpu|cuda|mps|xpu)(?::\d+)?"),
    keys.REGIONS: _is_text,
}
_GROUPS: Final[Mapping[str, Mapping[str, Kind]]] = {
    keys.VERSIONS: dict.fromkeys(
        ("python", "napari-flag", "torch", "numpy", "anndata"), _like(r"\d[\w.+!-]*|not installed")
    ),
    keys.FAMILIARITY: {
        **dict.fromkeys((keys.UNLIKE_FROM, keys.SHARE_UNLIKE, keys.SHARE_UNLIKE_ALIGNED), _is_number),
        keys.UNLIKE_WARNING: _is_text,
    },
    keys.READ_FROM: {
        keys.READ_FILE: _is_text,
        keys.READ_UNIT: _one_of(*UNITS),
        keys.READ_UNIT_FROM: _is_text,
    },
}


def known_provenance(adata: "AnnData") -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the entries of the provenance that this program writes, each of its kind, and the other ones.

    Returns
    -------
    known
        A copy.
    others
        Where in ``uns`` the others stand: ``uns["napari_flag"]["user"]``.
    """
    known: dict[str, Any] = {}
    others = []
    for key, value in provenance(adata).items():
        at = f'uns["{keys.PROVENANCE}"]["{key}"]'
        if key in _GROUPS and isinstance(value, Mapping):
            kinds = _GROUPS[key]
            known[key] = {name: each for name, each in value.items() if name in kinds and kinds[name](each)}
            others += [f'{at}["{name}"]' for name in value if name not in known[key]]
        elif key in _KINDS and _KINDS[key](value):
            known[key] = value
        else:
            others.append(at)
    return known, tuple(others)


# --- the clean prediction ----------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Anonymised:
    """A prediction that names neither its slide nor any folder, and what became of the rest.

    Parameters
    ----------
    adata
        Shares its arrays with the one it was made of.
    left_out
        What is not known, or not of its kind: ``uns["leiden"]``, ``layers["counts"]``.
    as_they_were
        What persons and other programs named, which is kept: columns of ``obs``, domains and regions with
        names of their own, gene sets.
    """

    adata: "AnnData"
    left_out: tuple[str, ...]
    as_they_were: tuple[str, ...]


def anonymised(adata: "AnnData") -> Anonymised:
    """Return a prediction that names neither its slide nor any folder, whatever they are called.

    Parameters
    ----------
    adata
        A prediction of any version; not changed.

    Returns
    -------
    The slide has a neutral name; files of the command have no folders, and no names that may be a patient's;
    a sentence that names a folder is left out, and so is the hash of the command with whole paths, which a
    guess could confirm.  Of the rest what is known is there, as this program writes it.
    """
    import pandas as pd
    from anndata import AnnData

    neutral, left = neutral_name_of(adata), list[str]()
    renamed = renamed_to(adata, neutral)
    uns = {keys.LOG1P: dict(LOG2), keys.PROVENANCE: _provenance(renamed, neutral, left)}
    uns |= _pictures(adata, neutral, left)
    uns |= _results(adata, left)
    obs = adata.obs.copy()
    obs.index, obs.columns = obs.index.rename(None), obs.columns.rename(None)
    clean = AnnData(
        X=adata.X,
        obs=obs,
        var=pd.DataFrame(index=pd.Index(list(adata.var_names), dtype=str)),
        uns=uns,
        obsm={keys.SPATIAL: np.asarray(adata.obsm[keys.SPATIAL], np.float64), **_scores(adata, left)},
        layers=_numbers_in("layers", adata.layers, _LAYERS, left),
        obsp=_numbers_in("obsp", adata.obsp, _GRAPH, left),
    )
    for part in ("var", "varm", "varp"):
        left += [f'{part}["{name}"]' for name in getattr(adata, part)]
    left += [] if adata.raw is None else ["raw"]
    regions = _regions(renamed, left)
    write_regions(clean, regions)
    own = [*(["the names of its regions"] if regions else []), *_own_scores(clean)]
    return Anonymised(clean, tuple(left), (*own, *(f'obs["{name}"]' for name in columns_of_others(clean))))


def columns_of_others(adata: "AnnData") -> tuple[str, ...]:
    """Return the columns of ``obs`` that this program does not write so: labels, domains named by words."""
    return tuple(
        str(name)
        for name, column in adata.obs.items()
        if str(name).removesuffix(keys.OF_MEASURED) not in _COLUMNS
        or not all(text.isdecimal() for text in _texts_of(column))
    )


_COLUMNS: Final = (keys.ARRAY_ROW, keys.ARRAY_COL, keys.DISTANCE, keys.UNLIKE, keys.DOMAIN)
_LAYERS: Final = (*map(layer_of, range(1, keys.MOST_DRAWS + 1)), keys.SPREAD, keys.MEASURED)
_GRAPH: Final = ("spatial_connectivities", "spatial_distances")
_PICTURES: Final = ("hires", "lowres")
_FACTORS: Final = (
    "tissue_hires_scalef", "tissue_lowres_scalef", "spot_diameter_fullres", "fiducial_diameter_fullres",
    "regist_target_img_scalef",
)  # fmt: skip


def _provenance(renamed: "AnnData", neutral: str, left: list[str]) -> dict[str, Any]:
    weights = str(provenance(renamed).get(keys.WEIGHTS_NAME, ""))
    if why_personal(weights) is not None or re.search(r"[\\/]", weights):
        renamed = with_weights_called(renamed, neutral_weights(renamed))
    made, others = known_provenance(renamed)
    left += others
    made.pop(keys.COMMAND_HASH, None)
    made.pop(keys.REGIONS, None)
    if keys.COMMAND in made:
        made[keys.COMMAND] = _command_without_names(made[keys.COMMAND])
    for key in (keys.NOTICES, keys.MPP_SOURCE):
        if key in made:
            made[key] = replaced(made[key], _sentence)
    if keys.TRAINING_SLIDES in made:
        made[keys.TRAINING_SLIDES] = [*map(_section, texts(made[keys.TRAINING_SLIDES]))]
    if keys.READ_FROM in made:
        made |= _source(made.pop(keys.READ_FROM), neutral, left)
    if keys.UNLIKE_WARNING in made.get(keys.FAMILIARITY, {}):
        made[keys.FAMILIARITY] = _with_own_warning(made[keys.FAMILIARITY], left)
    return made


LEFT_OUT: Final = "A sentence that named a folder was left out."


def _sentence(text: str) -> str:
    return LEFT_OUT if names_folder(text) else without_files(text)


def _section(name: str) -> str:
    """Return the name of a training slide, without folders, or a neutral one for a patient's."""
    last = re.split(r"[\\/]", name)[-1]
    return last if why_personal(last) is None else neutral_name(None)


def _command_without_names(command: str) -> str:
    """Return a command whose files have neither folders nor names that may be a patient's."""
    try:
        words = shlex.split(command)
    except ValueError:
        words = command.split()
    return shlex.join(word_without_name(re.split(r"[\\/]", word.rstrip("\\/"))[-1]) for word in words)


def _source(read_from: Mapping[str, str], neutral: str, left: list[str]) -> dict[str, Any]:
    """Return what is said of another program's file: without its unit, nothing."""
    if not {keys.READ_FILE, keys.READ_UNIT} <= set(read_from):
        left.append(f'uns["{keys.PROVENANCE}"]["{keys.READ_FROM}"]')
        return {}
    kind = ending(read_from[keys.READ_FILE])
    by = _sentence(read_from.get(keys.READ_UNIT_FROM, ""))
    file = neutral + (kind if kind in (".h5ad", ".zarr") else "")
    return {keys.READ_FROM: {**read_from, keys.READ_FILE: file, keys.READ_UNIT_FROM: by}}


def _with_own_warning(familiarity: Mapping[str, Any], left: list[str]) -> dict[str, Any]:
    """Return how far a slide is from the training tissue, with the sentence that its numbers give."""
    from napari_flag.model.out_of_distribution import SlideScore

    numbers = {key: value for key, value in familiarity.items() if key != keys.UNLIKE_WARNING}
    if not {keys.SHARE_UNLIKE, keys.SHARE_UNLIKE_ALIGNED} <= set(numbers):
        left.append(f'uns["{keys.PROVENANCE}"]["{keys.FAMILIARITY}"]["{keys.UNLIKE_WARNING}"]')
        return numbers
    shares = (float(numbers[key]) for key in (keys.SHARE_UNLIKE, keys.SHARE_UNLIKE_ALIGNED))
    warning = SlideScore(np.zeros(0, np.float32), np.zeros(0, np.float32), *shares).warning
    return numbers if warning is None else numbers | {keys.UNLIKE_WARNING: warning}


def _regions(renamed: "AnnData", left: list[str]) -> "list[Annotation]":
    try:
        return read_regions(renamed)
    except UserError:
        left.append(f'uns["{keys.PROVENANCE}"]["{keys.REGIONS}"]')
        return []


def _pictures(adata: "AnnData", neutral: str, left: list[str]) -> dict[str, Any]:
    """Return the pictures of the slide and their scale factors under its neutral name."""
    libraries = dict(adata.uns.get(keys.SPATIAL, {}))
    called = [name for name in libraries if str(name) in (slide_name(adata), output_name(adata))]
    own = (called or [*libraries] or [None])[0]
    left += [f'uns["{keys.SPATIAL}"]["{name}"]' for name in libraries if name != own]
    if own is None:
        return {}
    kept: dict[str, Any] = {}
    known = {"images": _PICTURES, "scalefactors": _FACTORS, "metadata": ("source_image_path",)}
    for part, held in libraries[own].items():
        inner = dict(held) if isinstance(held, Mapping) and part in known else None
        if inner is None:
            left.append(f'uns["{keys.SPATIAL}"]["{own}"]["{part}"]')
            continue
        fits = {key for key, value in inner.items() if key in known[part] and _fits(part, value)}
        left += [f'uns["{keys.SPATIAL}"]["{own}"]["{part}"]["{key}"]' for key in inner if key not in fits]
        kept[part] = {key: inner[key] if part != "metadata" else neutral for key in inner if key in fits}
    return {keys.SPATIAL: {neutral: kept}}


def _fits(part: str, value: Any) -> bool:
    """Return whether a value in a library is of the kind of its part: pictures, numbers, texts."""
    if part == "images":
        return np.asarray(value).dtype.kind in "fiu"
    return _is_text(value) if part == "metadata" else _is_number(value)


def _numbers_in(
    part: str, held: Mapping[str, Any], known: tuple[str, ...], left: list[str]
) -> dict[str, Any]:
    """Return the arrays of numbers under known names."""
    fits = {name for name in held if name in known and _kind_of(held[name]) in "fiub"}
    left += [f'{part}["{name}"]' for name in held if name not in fits]
    return {name: held[name] for name in held if name in fits}


def _kind_of(values: Any) -> str:
    return str(getattr(getattr(values, "dtype", None), "kind", "?"))


def _scores(adata: "AnnData", left: list[str]) -> "dict[str, pd.DataFrame]":
    """Return the scores of gene sets, where they are numbers."""
    import pandas as pd

    found = {}
    for name, table in adata.obsm.items():
        if name == keys.SPATIAL:
            continue
        values = table.to_numpy() if isinstance(table, pd.DataFrame) else None
        if name == keys.GENE_SETS and _kind_of(values) in "fiu":
            found[name] = pd.DataFrame(values, index=list(adata.obs_names), columns=[*map(str, table)])
        else:
            left.append(f'obsm["{name}"]')
    return found


def _own_scores(clean: "AnnData") -> list[str]:
    """Return the scores of gene sets where some are of a person's own sets."""
    named = set(clean.obsm[keys.GENE_SETS].columns) if keys.GENE_SETS in clean.obsm else set()
    return [f'obsm["{keys.GENE_SETS}"]'] if named - set(bundled()) else []


# --- results in uns ----------------------------------------------------------------------------
_NEIGHBOURS: Final = "spatial_neighbors"
_RESULTS: Final = (
    keys.STRUCTURE,
    _NEIGHBOURS,
    *(key + end for key in (keys.MORAN, keys.MARKERS, keys.DOMAIN_METHOD) for end in ("", keys.OF_MEASURED)),
)
_WRITTEN: Final = frozenset(
    {
        "I", "pval_norm", "var_norm", "pval_norm_fdr_bh", "params", "groupby", "reference", "rest", "method",
        "wilcoxon", "use_raw", "layer", "corr_method", "benjamini-hochberg", "neighbours", "description",
        "connectivities_key", "distances_key", keys.MEASURED, keys.DOMAIN, keys.DOMAIN + keys.OF_MEASURED,
        *_GRAPH, *RANKED, *METHOD_NAMES,
    }
)  # fmt: skip
"""Every text that `analysis.structure` writes into results, but for genes and domains."""
_DESCRIBED: Final = re.compile(
    r"\d+ (?:first-ring neighbours on the (?:square|hex) array|nearest spots(?:, because [a-z ]+)?)"
)
"""How `statistics.neighbours` describes the neighbours of spots."""


def _results(adata: "AnnData", left: list[str]) -> dict[str, Any]:
    """Return the results in ``uns`` in which each text is one that this program writes there."""
    domains = (keys.DOMAIN, keys.DOMAIN + keys.OF_MEASURED)
    named = (column for name, column in adata.obs.items() if name in domains)
    words = {*_WRITTEN, *map(str, adata.var_names), *(text for each in named for text in _texts_of(each))}
    found = {}
    for key, value in adata.uns.items():
        if key in (keys.PROVENANCE, keys.SPATIAL, keys.LOG1P):
            continue
        if key in _RESULTS and all(text in words or _DESCRIBED.fullmatch(text) for text in _texts(value)):
            found[key] = value
        else:
            left.append(f'uns["{key}"]')
    return found


def _texts(value: Any) -> Iterator[str]:
    """Yield each text in an entry of ``uns``, names of columns, rows and fields among them."""
    import pandas as pd

    if isinstance(value, str | bytes):
        yield value if isinstance(value, str) else value.decode("utf-8", "replace")
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from _texts(inner)
    elif isinstance(value, pd.DataFrame):
        named = (*value.columns, *value.index, value.columns.name, value.index.name)
        yield from (str(name) for name in named if name is not None)
        for _, column in value.items():
            yield from _texts_of(column)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, np.ndarray) and value.dtype.names is not None:
        for name in value.dtype.names:
            yield name
            yield from _texts(value[name])
    elif isinstance(value, np.ndarray) and value.dtype.kind not in "fiub":
        yield from (text for inner in value.ravel().tolist() for text in _texts(inner))
    elif not (value is None or isinstance(value, int | float | np.number | np.bool_ | np.ndarray)):
        yield f"a {type(value).__name__}"  # which is none of ours


def _texts_of(column: "pd.Series[Any]") -> Iterator[str]:
    """Yield each text in a column, of categories those that do not occur too."""
    import pandas as pd

    values = column.cat.categories if isinstance(column.dtype, pd.CategoricalDtype) else column
    if not pd.api.types.is_numeric_dtype(values.dtype):
        yield from (str(value) for value in values if not pd.api.types.is_scalar(value) or not pd.isna(value))
