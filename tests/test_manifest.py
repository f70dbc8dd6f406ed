from dataclasses import fields
from importlib import import_module
from pathlib import Path

import pytest
from npe2 import PluginManifest

import napari_flag
from napari_flag.discovery.kinds import ENDINGS
from napari_flag.gui.area import AREA, PAGES, PREDICT, SIDE_BY_SIDE
from napari_flag.gui.train.train_dock import TRAIN
from napari_flag.keys import DEFAULT_QUALITY, STEPS_OF
from napari_flag.slides.spot_tables import COUNT_ENDINGS

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def manifest():
    return PluginManifest.from_distribution("napari-flag")


def test_the_installed_package_has_a_manifest_of_its_own_name(manifest):
    assert manifest.name == "napari-flag"
    assert {w.display_name for w in manifest.contributions.widgets} == {AREA, SIDE_BY_SIDE, TRAIN}


def test_every_page_of_the_area_has_a_command_in_the_menu(manifest):
    opened = {command.id: command.python_name for command in manifest.contributions.commands}
    menu = {opened[item.command] for items in manifest.contributions.menus.values() for item in items}
    pages = {page.lower().replace("-", "") for page in PAGES if page != PREDICT}
    assert {f"napari_flag.gui.area:open_{page}" for page in pages} <= menu


def test_every_command_exists(manifest):
    for command in manifest.contributions.commands:
        module, name = command.python_name.split(":")
        assert callable(getattr(import_module(module), name)), command.id


def test_every_item_of_a_menu_is_a_command(manifest):
    commands = {command.id for command in manifest.contributions.commands}
    for place, items in manifest.contributions.menus.items():
        assert {item.command for item in items} <= commands, place
    shown = {item.command for items in manifest.contributions.menus.values() for item in items}
    assert "napari-flag.shortcuts" in shown


def test_every_kind_of_file_that_regions_and_predictions_are_written_in_can_be_dropped(manifest):
    zarrs, reader = manifest.contributions.readers
    assert (zarrs.filename_patterns, zarrs.accepts_directories) == (["*.zarr"], True)
    written = {end for writer in manifest.contributions.writers for end in writer.filename_extensions}
    assert {f"*{end}" for end in written - {".csv"}} <= set(reader.filename_patterns)
    read = set(ENDINGS) - (set(COUNT_ENDINGS) - {".h5ad"})  # tables are not asked for: others have them, too
    assert set(reader.filename_patterns) == {f"*{end}" for end in read}


def test_the_link_at_the_root_points_at_the_manifest_in_the_package():
    link, inside = ROOT / "napari.yaml", Path(napari_flag.__file__).parent / "napari.yaml"
    assert link.read_text() == inside.read_text()


def test_every_prediction_preference_is_one_the_dock_reads(manifest):
    from napari_flag.gui.settings import Preferences

    offered = set(manifest.contributions.configurations["prediction"].properties)
    assert offered == {field.name for field in fields(Preferences)}


def test_the_devices_and_qualities_offered_are_those_that_the_dock_takes(manifest):
    from napari_flag.gui.settings import DEVICES, Preferences

    offered = manifest.contributions.configurations["prediction"].properties
    assert tuple(offered["device"].enum) == DEVICES
    assert offered["device"].default == Preferences().device == DEVICES[0]
    assert tuple(offered["quality"].enum) == tuple(STEPS_OF)
    assert offered["quality"].default == Preferences().quality == DEFAULT_QUALITY


def test_the_colour_maps_offered_are_those_of_the_dock(manifest):
    from napari_flag.layers.gene_map import COLORMAPS

    display = manifest.contributions.configurations["display"].properties
    assert tuple(display["colormap"].enum) == COLORMAPS


def test_the_colour_map_set_in_preferences_is_used(plugin_settings, npe2pm, manifest):
    from napari.settings import get_plugin_settings

    from napari_flag.gui.session import preferred_colormap

    npe2pm.register(manifest)
    assert preferred_colormap() == "viridis"
    get_plugin_settings("napari-flag").display.colormap = "magma"
    assert preferred_colormap() == "magma"
