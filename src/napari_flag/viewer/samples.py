"""npe2 sample data: the synthetic slide that comes with the package."""

from typing import Any


def synthetic_slide() -> list[Any]:
    """Return the bundled slide; its truth is known, but it is simulated tissue, not a patient's."""
    from napari_flag.simulation import demo_slide
    from napari_flag.viewer.readers import read_slide

    return read_slide(demo_slide())
