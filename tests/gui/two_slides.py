"""Slides that differ in their names, as predictions of them record."""

from tests.fakes import FakeSlide

from napari_flag import keys


def named(adata, name):
    """Let a fake prediction be one of the slide `name`."""
    adata.uns[keys.PROVENANCE][keys.SLIDE_NAME] = name
    return adata


class NamedSlide(FakeSlide):
    """The slide that `adata` is a prediction of."""

    def __init__(self, adata, name, seed=0):
        recorded = adata.uns[keys.PROVENANCE]
        super().__init__(recorded[keys.SLIDE_WIDTH], recorded[keys.SLIDE_HEIGHT], seed=seed)
        self.name = name
        self.path = self.path.with_name(f"{name}.svs")
