"""Predict spatial gene expression from H&E slides, keeping its structure (FLAG, ICML 2026).

    import napari_flag as nf

    prediction = nf.predict("C5.svs", spots="C5_selection.tsv")  # AnnData, X = log2(count + 1)
    nf.pl.gene(prediction, "ERBB2")
    print(nf.compare(prediction, "C5_counts.tsv.gz").scores["X"].values)
    nf.export(prediction, "C5.geojson")

Importing this package loads neither torch nor Qt: each name is loaded when it is first used.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from napari_flag import pl
    from napari_flag.api import compare, export, fit, predict, read_prediction
    from napari_flag.errors import UserError
    from napari_flag.slides.slide import Slide, open_slide
    from napari_flag.slides.spot_tables import read_spots
    from napari_flag.slides.spots import Spots, SpotTable

try:
    __version__ = version("napari-flag")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "Slide",
    "SpotTable",
    "Spots",
    "UserError",
    "__version__",
    "compare",
    "export",
    "fit",
    "open_slide",
    "pl",
    "predict",
    "read_prediction",
    "read_spots",
]

_MODULES: Final = {
    "Slide": "napari_flag.slides.slide",
    "SpotTable": "napari_flag.slides.spots",
    "Spots": "napari_flag.slides.spots",
    "UserError": "napari_flag.errors",
    "compare": "napari_flag.api",
    "export": "napari_flag.api",
    "fit": "napari_flag.api",
    "open_slide": "napari_flag.slides.slide",
    "predict": "napari_flag.api",
    "read_prediction": "napari_flag.api",
    "read_spots": "napari_flag.slides.spot_tables",
}
"""Where each public name but the module `pl` is defined.  No submodule has one of these names: importing it
would replace the function."""

if not TYPE_CHECKING:  # a type checker would take any name for a public one

    def __getattr__(name: str) -> Any:
        """Load a public name when it is first used (PEP 562)."""
        if name == "pl":
            return import_module("napari_flag.pl")
        if name in _MODULES:
            return getattr(import_module(_MODULES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        """List the public names, loaded or not."""
        return sorted({*globals(), *__all__})
