from qtpy.QtWidgets import QLabel

from napari_flag.gui.shortcuts import SHORTCUTS, ShortcutList, show_shortcuts


def test_every_shortcut_is_listed_with_what_it_does(make_napari_viewer):
    viewer = make_napari_viewer()
    show_shortcuts(viewer)
    window = viewer.window._qt_window.findChild(ShortcutList)
    texts = {label.text() for label in window.findChildren(QLabel)}
    assert {shortcut.does for shortcut in SHORTCUTS} <= texts
    assert {shortcut.key for shortcut in SHORTCUTS} <= texts
    window.close()


def test_no_key_is_listed_twice_for_the_same_place():
    places = [(shortcut.key, shortcut.where) for shortcut in SHORTCUTS]
    assert len(set(places)) == len(places)
