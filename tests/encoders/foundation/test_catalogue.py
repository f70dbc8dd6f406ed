from pathlib import Path

import pytest
from tests.small_encoders import FOUNDATION, recipe_of

from napari_flag.encoders.foundation.architectures import ConchVit
from napari_flag.encoders.registry import list_encoders

PAGE = Path(__file__).resolve().parents[3] / "docs" / "encoders.md"


def test_names_are_unique_and_the_encoder_that_needs_nothing_comes_first():
    names = [row.name for row in list_encoders()]
    assert len(names) == len(set(names))
    assert names[0] == "embedded"


@pytest.mark.parametrize("row", FOUNDATION, ids=lambda row: row.name)
def test_the_documentation_agrees_with_the_row(row):
    (line,) = [text for text in PAGE.read_text("utf-8").splitlines() if text.startswith(f"| `{row.name}` |")]
    cells = [cell.strip() for cell in line.strip("| ").split(" | ")]
    _, _, features, tile, seen, precision, licence, access = cells
    recipe = recipe_of(row)
    assert features.startswith(str(row.dim))
    assert tile == f"{row.tile_px} px"
    assert precision == recipe.precision
    assert row.licence.startswith(licence.removesuffix(", research use"))
    assert access == ("ask" if row.gated else "open")
    size = recipe.resize_px or recipe.crop_px
    resized = "as it is" if size == row.tile_px else f"{size} px, {recipe.interpolation}"
    assert seen == (resized if size == recipe.crop_px else f"centre {recipe.crop_px} px")


@pytest.mark.parametrize("row", FOUNDATION, ids=lambda row: row.name)
def test_a_tile_is_never_enlarged(row):
    size = recipe_of(row).resize_px or recipe_of(row).crop_px
    assert recipe_of(row).crop_px <= size <= row.tile_px


def test_rows_state_source_and_licence():
    for row in FOUNDATION:
        assert row.source == f"https://huggingface.co/{recipe_of(row).repository}"
        assert row.licence
        assert isinstance(recipe_of(row).architecture, ConchVit) == row.name.startswith("conch")
