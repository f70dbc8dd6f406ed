"""Choices, numbers and forms as docks use them."""

import time
from pathlib import Path

import pytest
from qtpy.QtCore import QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDropEvent, QTextLayout
from qtpy.QtWidgets import QApplication, QDoubleSpinBox, QFileDialog, QMessageBox, QVBoxLayout, QWidget
from tests.gui.choices import can_be_chosen

from napari_flag.gui.controls.forms import (
    Choice,
    FileField,
    MessageList,
    ShortScroll,
    ask_save,
    form,
    number_field,
    row_of,
    set_quietly,
    unbroken,
)

pytestmark = pytest.mark.usefixtures("qapp")


@pytest.fixture
def choice():
    choice = Choice((("one", 1), ("two", 2)), tooltip="How many")
    choice.emitted = []
    choice.changed.connect(choice.emitted.append)
    return choice


def test_offering_other_entries_keeps_the_value_and_is_quiet(choice):
    choice.select(2)
    choice.offer([("three", 3), ("two", 2)])
    assert (choice.value, choice.choices) == (2, (3, 2))
    choice.offer([("three", 3)])
    assert choice.value == 3
    assert choice.emitted == []
    choice.offer([("one", 1), ("two", 2)], select=2)
    choice.value = 1
    assert choice.emitted == [1]


def test_entries_of_the_same_name_stay_apart(choice):
    choice.offer([("Region", "a"), ("Region", "b")])
    assert choice.choices == ("a", "b")
    assert choice.native.itemText(1) == "Region (2)"


def test_an_entry_that_cannot_be_chosen_says_why(choice):
    choice.explain({1: "Just one", 2: "A pair"}, {2: "There is only one"})
    assert [can_be_chosen(choice, row) for row in (0, 1)] == [True, False]
    assert choice.native.itemData(0, Qt.ItemDataRole.ToolTipRole) == "Just one"
    assert choice.native.itemData(1, Qt.ItemDataRole.ToolTipRole) == "There is only one"


def test_as_many_entries_as_msigdb_has_sets_are_offered_at_once(choice):
    names = [f"GOBP_SOME_PATHWAY_{number}" for number in range(33_000)]

    meanings = dict.fromkeys(names, "5 genes")
    begun = time.process_time()
    choice.offer((name, name) for name in names)
    choice.explain(meanings)
    choice.select(names[-1])
    assert time.process_time() - begun < 1.0
    assert choice.value == names[-1]
    assert choice.native.itemText(20_000) == names[20_000]


def test_docking_a_form_keeps_its_entries_and_values(choice):
    choice.offer([("five", 5), ("six", 6)], select=6)
    made = form({"Number": choice})
    window = QWidget()
    QVBoxLayout(window).addWidget(made.native)
    assert (choice.value, choice.choices) == (6, (5, 6))
    assert choice.emitted == []


def test_a_number_has_its_unit_and_can_be_set_quietly():
    field = number_field(
        0.5, 0, 100, 0.01, decimals=4, unit=" µm/px", tooltip="Size of a pixel\n(0: unknown)"
    )
    emitted = []
    field.changed.connect(emitted.append)
    set_quietly(field, 0.25)
    assert emitted == []
    assert isinstance(field.native, QDoubleSpinBox)
    assert (field.value, field.native.suffix()) == (0.25, " µm/px")
    assert field.native.accessibleName() == "Size of a pixel"
    field.native.setValue(0.3)
    assert emitted == [0.3]


def test_labels_of_a_form_line_up(choice):
    made = form({"On": choice, "A long label": row_of(number_field(1, 0, 9, 1), number_field(2, 0, 9, 1))})
    made.native.setStyleSheet("font-size: 15pt;")  # as a window's theme does, after the labels were measured
    made.native.resize(300, 80)
    made.show()
    QApplication.processEvents()
    left = {field.native.mapTo(made.native, field.native.rect().topLeft()).x() for field in made}
    assert len(left) == 1
    made.close()


def test_a_dropped_file_and_a_typed_path_are_announced_once(tmp_path):
    field, chosen = FileField("Spot table", "Tables (*.tsv)"), []
    field.pathChosen.connect(chosen.append)
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(tmp_path / "spots.tsv"))])
    drop = QDropEvent(
        QPointF(1, 1),
        Qt.DropAction.CopyAction,
        mime,
        Qt.MouseButton.LeftButton,
        Qt.KeyboardModifier.NoModifier,
    )
    QApplication.sendEvent(field.row.native, drop)
    field.set_path(tmp_path / "spots.tsv")
    field.set_path(None)
    assert chosen == [tmp_path / "spots.tsv", None]
    assert field.path is None
    field.set_path(Path("~/x.tsv"))
    assert field.path == Path("~/x.tsv").expanduser()


def test_messages_that_fit_have_no_scroll_bar_in_a_style_that_draws_a_border(qtbot):
    messages, page = MessageList(), QWidget()
    said = QWidget()
    QVBoxLayout(said).addWidget(messages)
    scroll = ShortScroll(said, 100)
    QVBoxLayout(page).addWidget(scroll)
    page.setStyleSheet("QScrollArea { border: 1px solid black; }")
    qtbot.addWidget(page)
    page.resize(300, 300)
    page.show()
    messages.add("notice", "Two slides.")
    qtbot.waitUntil(lambda: scroll.viewport().height() > 0)
    assert scroll.verticalScrollBar().maximum() == 0
    for line in range(9):
        messages.add("notice", f"Slide {line} has no table.")
    qtbot.waitUntil(lambda: scroll.verticalScrollBar().maximum() > 0)
    assert scroll.viewport().height() == 100


def test_no_line_ends_between_a_number_and_its_unit(qtbot):
    text = unbroken("Visium, pitch 100 µm, Ø 55 µm, 0.7 µm/px")
    layout = QTextLayout(text)
    layout.beginLayout()
    lines = []
    while (line := layout.createLine()).isValid():
        line.setLineWidth(1)
        lines.append(text[line.textStart() : line.textStart() + line.textLength()].strip(" ,"))
    layout.endLayout()
    plain = [line.replace("\N{NO-BREAK SPACE}", " ").replace("\N{WORD JOINER}", "") for line in lines]
    assert plain == ["Visium", "pitch 100 µm", "Ø 55 µm", "0.7 µm/px"]


# --- where to save -------------------------------------------------------------------------------
@pytest.mark.parametrize(("replaces", "answer"), [(True, "moran.csv"), (False, None)])
def test_a_file_that_the_dialog_did_not_ask_about_is_asked_about(tmp_path, monkeypatch, replaces, answer):
    """A name typed without ending gets it only after the dialog has looked for the name as typed."""
    buttons = QMessageBox.StandardButton
    asked = []

    def question(parent, title, text):
        asked.append(text)
        return buttons.Yes if replaces else buttons.No

    monkeypatch.setattr(QMessageBox, "question", question)
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(tmp_path / "moran"), ""))
    assert ask_save(None, "Save", "spots.csv", "") == tmp_path / "moran.csv"
    assert asked == []
    (tmp_path / "moran.csv").write_text("")
    assert ask_save(None, "Save", "spots.csv", "") == (answer and tmp_path / answer)
    assert "moran.csv is there already" in asked[0]
