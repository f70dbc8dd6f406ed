"""What forms of docks are made of: magicgui choices and numbers, file fields, numbered steps, messages."""

import re
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from magicgui.widgets import ComboBox, Container, FloatSpinBox, LineEdit, PushButton
from magicgui.widgets.bases import Widget
from qtpy.QtCore import QAbstractListModel, QEvent, QModelIndex, QObject, QSize, Qt, QUrl, Signal
from qtpy.QtGui import QDropEvent, QResizeEvent
from qtpy.QtWidgets import (
    QApplication,
    QDoubleSpinBox,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMenu,
    QMessageBox,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_flag.errors import UserError
from napari_flag.files import ending, of_drive, with_ending
from napari_flag.gui.controls.file_filters import ALL_FILES

STRIPE: Final = {"error": "#d9534f", "warning": "#d9962b", "notice": "#4f8fd9"}
"""Colour of the stripe beside a message; readable on napari's dark and light themes."""


class MessageList(QWidget):
    """Sentences under a step: errors, warnings and notices, each with a stripe of its colour."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._box = QVBoxLayout(self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._box.setSpacing(3)
        self._texts: list[str] = []
        self.hide()

    @property
    def texts(self) -> tuple[str, ...]:
        """What is shown, in order."""
        return tuple(self._texts)

    def clear(self) -> None:
        """Take all messages away."""
        while item := self._box.takeAt(0):
            if widget := item.widget():
                widget.hide()
                widget.deleteLater()
        self._texts.clear()
        self.hide()

    def add(self, kind: str, text: str) -> None:
        """Show `text` once; `kind` is "error", "warning" or "notice"."""
        if text in self._texts:
            return
        self._box.addWidget(_message_label(kind, text))
        self._texts.append(text)
        self.show()

    def show_error(self, error: Exception, what: str = "") -> None:
        """Show what went wrong, as `sentence_of` says it; a fault of ours with its details.

        Parameters
        ----------
        error
            Of long work, mostly.
        what
            What came of it, where several could fail: "C5 was not predicted".
        """
        self.add("error", f"{what}: {sentence_of(error)}" if what else sentence_of(error))
        if _mendable(error) is not None:
            return
        details = "".join(traceback.format_exception(error))
        button = QPushButton("Copy details")
        button.setToolTip("Put the technical description of the error on the clipboard")
        button.clicked.connect(lambda: _copy(details))
        self._box.addWidget(button, alignment=Qt.AlignmentFlag.AlignLeft)


def sentence_of(error: Exception) -> str:
    """Return what the window says of an error: its own sentence where a person can put it right."""
    return _mendable(error) or (
        "Something went wrong inside napari-flag; nothing you had is lost. "
        f"Please report it with the details ({type(error).__name__})."
    )


def _mendable(error: Exception) -> str | None:
    """Return the sentence on what a person can put right, None where it is a fault of ours."""
    if isinstance(error, MemoryError):
        return "This computer ran out of memory; take fewer spots or genes, or close other programs."
    said = error if isinstance(error, UserError) else of_drive(error)
    return None if said is None else str(said)


class ShortScroll(QScrollArea):
    """As high as what it holds, up to a limit; beyond that it scrolls.

    Parameters
    ----------
    content
        What it holds.
    most_px
        The limit.
    """

    def __init__(self, content: QWidget, most_px: int) -> None:
        super().__init__()
        self._most = most_px
        self.setWidget(content)
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)
        content.installEventFilter(self)

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Follow the height of the content."""
        if event is not None and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Ask for another height where the lines wrap otherwise."""
        super().resizeEvent(event)
        self.updateGeometry()

    def sizeHint(self) -> QSize:
        """Return the content's height at this width, at most the limit."""
        content = self.widget()
        assert content is not None
        width = max(self.viewport().width(), 200)  # type: ignore[union-attr]
        wanted = content.heightForWidth(width) if content.hasHeightForWidth() else content.sizeHint().height()
        if wanted <= 0:
            return QSize(content.sizeHint().width(), 0)
        return QSize(content.sizeHint().width(), min(wanted, self._most) + 2 * self.frameWidth())

    def minimumSizeHint(self) -> QSize:
        """Return the same: it has its height, or scrolls."""
        return QSize(100, self.sizeHint().height())


def _copy(text: str) -> None:
    clipboard = QApplication.clipboard()
    if clipboard is not None:
        clipboard.setText(text)


def _message_label(kind: str, text: str) -> QLabel:
    label = plain_label(text)
    label.setAccessibleName(f"{kind}: {text}")
    label.setStyleSheet(
        f"QLabel {{ border: none; border-left: 3px solid {STRIPE[kind]}; padding: 1px 0 1px 6px; }}"
    )
    return label


class _WrappingLabel(QLabel):
    """A label as high as its text is at the width it gets, and never asking for width itself."""

    def minimumSizeHint(self) -> QSize:
        return QSize(0, 0)  # Qt would ask for the height at some narrow width


def unbroken(text: str) -> str:
    """Return `text` so that no line ends between a number and its unit, nor inside "µm/px"."""
    joined = re.sub(r"(?<=\d) (?=µm|mm)|(?<=Ø) |(?<=pitch) (?=\d)", "\N{NO-BREAK SPACE}", text)
    return joined.replace("µm/px", "µm/\N{WORD JOINER}px")


def plain_label(text: str = "") -> QLabel:
    """Return a wrapping label whose text is never taken for markup and can be copied."""
    label = _WrappingLabel(text)
    label.setTextFormat(Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    policy = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    policy.setHeightForWidth(True)
    label.setSizePolicy(policy)
    return label


READY: Final = "ready"
STATE_SIGNS: Final = {"": "", READY: "✓"}
"""Sign of a step's state; any other state is work under way or something to do."""
HEADING_WIDTH: Final = 76


class StepBox(QFrame):
    """One numbered step: heading with its main choice and state, a body, and messages below.

    Parameters
    ----------
    number, title
        "1" and "Slide".
    heading_px
        Width of both; that of the other steps of the same dock.

    Attributes
    ----------
    head
        Layout beside the heading, for the step's main choice.
    body
        Layout below it.
    messages
        What the person must know.
    """

    def __init__(
        self, number: int, title: str, parent: QWidget | None = None, *, heading_px: int = HEADING_WIDTH
    ) -> None:
        super().__init__(parent)
        self._title = title
        heading = QLabel(f"{number}  {title}")
        heading.setStyleSheet("font-weight: bold;")
        heading.setFixedWidth(heading_px)
        self._sign = QLabel("")
        self._sign.setFixedWidth(14)
        self._sign.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.head = QHBoxLayout()
        self.head.setSpacing(4)
        top = QHBoxLayout()
        top.addWidget(heading)
        top.addLayout(self.head, 1)
        top.addWidget(self._sign)
        self.body = QVBoxLayout()
        self.body.setSpacing(3)
        self.messages = MessageList()
        box = QVBoxLayout(self)
        box.setContentsMargins(4, 2, 2, 4)
        box.setSpacing(3)
        box.addLayout(top)
        box.addLayout(self.body)
        box.addWidget(self.messages)
        self._state = ""

    def set_state(self, text: str) -> None:
        """Say how far this step is: `READY`, "reading…", "µm/px needed"; "" for not begun."""
        self._state = text
        sign = STATE_SIGNS.get(text, "…" if text.endswith("…") else "!")
        self._sign.setText(sign)
        self._sign.setToolTip(text)
        self._sign.setAccessibleName(f"{self._title}: {text or 'not begun'}")

    @property
    def state(self) -> str:
        """What was said last."""
        return self._state


class Choice(ComboBox):
    """A combo box whose entries may change, and be greyed out with a reason.

    `changed` is emitted when the value changes by the person's hand or by setting `value`;
    `offer` and `select` are quiet.  An entry's value must not be None, which magicgui takes for no value.

    Parameters
    ----------
    entries
        (text, value) of each entry; a text that comes again gets a number.
    tooltip, name
        What a person reads when pointing at it, and what a screen reader says.
    narrow
        Whether it takes the room there is instead of that of its longest entry.
    """

    def __init__(
        self,
        entries: Iterable[tuple[str, Any]] = (),
        *,
        tooltip: str = "",
        name: str = "",
        narrow: bool = True,
    ) -> None:
        self._model: _Entries | None = None
        super().__init__(tooltip=tooltip)
        self._model = _Entries(self.native)
        self.native.setModel(self._model)
        self.native.setAccessibleName(name or tooltip.partition("\n")[0])
        if narrow:
            self.native.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            self.native.setMinimumWidth(60)
        self.offer(entries)

    @property
    def entries(self) -> list[tuple[str, Any]]:
        """Text and value of each entry."""
        return [] if self._model is None else self._model.entries

    @property
    def value(self) -> Any:
        """The value of the entry that is selected; None without entries."""
        row = self.native.currentIndex()
        return self.entries[row][1] if row >= 0 else None

    @value.setter
    def value(self, value: Any) -> None:
        if (row := self._row_of(value)) is None:
            raise ValueError(f"{value!r} is not a valid choice")
        self.native.setCurrentIndex(row)

    def _row_of(self, value: Any) -> int | None:
        return next((row for row, (_, known) in enumerate(self.entries) if value == known), None)

    def reset_choices(self, *_: Any) -> None:
        """Keep the entries, which magicgui would add one by one whenever the widget is docked."""

    def offer(self, entries: Iterable[tuple[str, Any]], select: Any = None) -> None:
        """Offer other entries; `select` (else the value so far, else the first) is selected, quietly."""
        assert self._model is not None
        wanted = self.value if select is None else select
        with self.changed.blocked():
            self._model.set_entries(_with_own_texts(entries))
            self.native.setCurrentIndex(self._row_of(wanted) or 0)

    def select(self, value: Any) -> None:
        """Select the entry of `value` where there is one, without emitting `changed`."""
        if (row := self._row_of(value)) is not None:
            with self.changed.blocked():
                self.native.setCurrentIndex(row)

    def explain(self, meanings: Mapping[Any, str], why_not: Mapping[Any, str | None] | None = None) -> None:
        """Give entries tooltips, by value; an entry with a reason in `why_not` is greyed out and shows it."""
        assert self._model is not None
        self._model.explain(meanings, why_not or {})


class _Entries(QAbstractListModel):
    """Texts and values of a combo box: thirty thousand are offered as soon as three."""

    def __init__(self, parent: QObject) -> None:
        super().__init__(parent)
        self.entries: list[tuple[str, Any]] = []
        self._meanings: Mapping[Any, str] = {}
        self._why_not: Mapping[Any, str | None] = {}
        self._set: dict[tuple[int, int], Any] = {}

    def set_entries(self, entries: list[tuple[str, Any]]) -> None:
        """Show other entries, without what was said of those before."""
        self.beginResetModel()
        self.entries, self._meanings, self._why_not, self._set = entries, {}, {}, {}
        self.endResetModel()

    def explain(self, meanings: Mapping[Any, str], why_not: Mapping[Any, str | None]) -> None:
        """As of `Choice.explain`."""
        self._meanings, self._why_not = meanings, why_not
        self.dataChanged.emit(self.index(0), self.index(max(len(self.entries) - 1, 0)))

    # --- as Qt asks for it -----------------------------------------------------------------------
    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of entries."""
        return 0 if parent is not None and parent.isValid() else len(self.entries)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return text, value, tooltip, or what was set, of an entry."""
        if not index.isValid():
            return None
        text, value = self.entries[index.row()]
        if role in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.EditRole):
            return text
        if role == Qt.ItemDataRole.UserRole:
            return value
        if role == Qt.ItemDataRole.ToolTipRole and (self._meanings or self._why_not):
            return self._why_not.get(value) or self._meanings.get(value, "")
        return self._set.get((index.row(), int(role)))

    def setData(self, index: QModelIndex, value: Any, role: int = Qt.ItemDataRole.EditRole) -> bool:
        """Keep what is set beside text and value: an icon."""
        self._set[index.row(), int(role)] = value
        self.dataChanged.emit(index, index)
        return True

    def flags(self, index: QModelIndex) -> Qt.ItemFlag:
        """Return whether an entry can be chosen."""
        flags = super().flags(index)
        if not index.isValid() or not self._why_not:
            return flags
        greyed = self._why_not.get(self.entries[index.row()][1]) is not None
        return flags & ~Qt.ItemFlag.ItemIsEnabled if greyed else flags


def _with_own_texts(entries: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """Return `entries` with texts that differ, since magicgui tells entries apart by their text."""
    own: dict[str, Any] = {}
    for text, value in entries:
        times = 1
        unique = text
        while unique in own:
            times += 1
            unique = f"{text} ({times})"
        own[unique] = value
    return list(own.items())


def number_field(
    value: float,
    low: float,
    high: float,
    step: float,
    *,
    decimals: int = 0,
    prefix: str = "",
    unit: str = "",
    tooltip: str = "",
    arrows: bool = False,
) -> FloatSpinBox:
    """Return a spin box with a unit, e.g. "pitch 200 µm"; `changed` is emitted when typing has ended.

    Parameters
    ----------
    value, low, high, step
        In `unit`.
    decimals
        Digits after the point.
    prefix, unit
        What stands before and after the number, with its blank.
    tooltip
        What the number is; screen readers say its first line.
    arrows
        Whether there are buttons to step with; without, there is room for prefix and unit.
    """
    field = FloatSpinBox(min=low, max=high, tooltip=tooltip)
    box = field.native
    box.setDecimals(decimals)
    field.step = step
    field.value = value
    box.setPrefix(prefix)
    box.setSuffix(unit)
    box.setKeyboardTracking(False)
    box.setAccessibleName(tooltip.partition("\n")[0])
    if not arrows:
        box.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
    return field


def set_quietly(field: FloatSpinBox, value: float) -> None:
    """Show `value` without emitting `changed`."""
    with field.changed.blocked():
        field.value = value


def row_of(*fields: Widget) -> Container[Widget]:
    """Return `fields` beside each other, the first as wide as there is room."""
    row: Container[Widget] = Container(widgets=list(fields), layout="horizontal", labels=False)
    row.margins = (0, 0, 0, 0)
    row.native.layout().setSpacing(4)
    row.native.layout().setStretch(0, 1)
    _keep_height(row)
    return row


def form(rows: Mapping[str, Widget]) -> Container[Widget]:
    """Return a form: label → field, from top to bottom."""
    made: Container[Widget] = Container(labels=True)
    for label, field in rows.items():
        field.label = label
        made.append(field)
    made.margins = (0, 0, 0, 0)
    made.native.layout().setSpacing(3)
    _keep_height(made)
    made.native.installEventFilter(_Aligner(made.native))
    return made


def _keep_height(part: "Container[Widget]") -> None:
    """Let labels that wrap, not fields, give way where a dock is short of room."""
    part.native.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Fixed)


class _Aligner(QObject):
    """Lines up the fields of a form; magicgui measures labels before they have the window's font."""

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        if event is not None and event.type() == QEvent.Type.Show and isinstance(watched, QWidget):
            rows = [row for row in watched.children() if isinstance(row, QWidget)]
            labels = [label for row in rows for label in row.children() if isinstance(label, QLabel)]
            widest = max((label.sizeHint().width() for label in labels), default=0)
            for label in labels:
                label.setMinimumWidth(widest)
        return super().eventFilter(watched, event)


def ask_open(parent: QWidget, title: str, filters: str, start: str = "") -> Path | None:
    """Ask for a file to open, in the folder `start` at first; None when the person cancels."""
    name, _ = QFileDialog.getOpenFileName(parent, title, start, f"{filters};;{ALL_FILES}")
    return Path(name) if name else None


def ask_save(parent: QWidget, title: str, suggested: str, filters: str) -> Path | None:
    """Ask where to save a file; None when the person cancels.

    A name without the ending of `suggested` gets it; the dialog has not asked whether that file may be
    replaced, so this does.
    """
    name, _ = QFileDialog.getSaveFileName(parent, title, suggested, filters)
    if not name:
        return None
    typed = Path(name)
    path = with_ending(typed, ending(Path(suggested)))
    return path if path == typed or may_replace(parent, path) else None


def may_replace(parent: QWidget | None, path: Path) -> bool:
    """Ask whether what is at `path` may be replaced; True without a question where nothing is."""
    if not path.exists():
        return True
    text = f"{path.name} is there already, in {path.parent}. Replace it?"
    return bool(QMessageBox.question(parent, "Replace the file", text) == QMessageBox.StandardButton.Yes)


class FileField(QObject):
    """A path that can be typed, chosen, or dropped on the field.

    Parameters
    ----------
    what
        What is chosen, for the dialog's title and screen readers: "Spot table".
    filters
        Of `file_filters`.
    placeholder, tooltip
        Text shown while empty, and when a person points at it.

    Attributes
    ----------
    row
        The field and its button, for `form`.
    """

    pathChosen = Signal(object)  # Path, or None when it was emptied

    def __init__(self, what: str, filters: str, *, placeholder: str = "", tooltip: str = "") -> None:
        super().__init__()
        self._what, self._filters, self._tooltip = what, filters, tooltip
        self._announced: Path | None = None
        line, button = LineEdit(tooltip=tooltip), PushButton(text="…", tooltip=f"Choose {what.lower()}")
        self.row = row_of(line, button)
        self._edit, self._button = line.native, button.native
        self._edit.setPlaceholderText(placeholder)
        self._edit.setAccessibleName(what)
        self._edit.setClearButtonEnabled(True)
        self._edit.setAcceptDrops(False)  # the whole field takes drops, as a path and not as text
        self._edit.editingFinished.connect(self._on_edited)
        self._edit.textChanged.connect(lambda text: None if text else self._on_edited())
        self._button.setMaximumWidth(44)
        self._button.setAccessibleName(f"Choose {what.lower()}")
        menu = QMenu(self._button)
        menu.addAction("File…", self.choose_file)
        menu.addAction("Folder…", self.choose_folder)
        self._button.setMenu(menu)
        self.row.native.setAcceptDrops(True)
        self.row.native.installEventFilter(self)

    @property
    def path(self) -> Path | None:
        """The path in the field, None while empty."""
        text = self._edit.text().strip().strip('"')
        return Path(text).expanduser() if text else None

    def set_path(self, path: Path | None) -> None:
        """Fill in `path`; `pathChosen` is emitted where it is another."""
        self._edit.setText("" if path is None else str(path))
        self._edit.setToolTip(self._tooltip if path is None else str(path))
        self._on_edited()

    def show_path(self, path: Path | None) -> None:
        """Fill in `path` without emitting `pathChosen`."""
        self._announced = path
        self.set_path(path)

    def choose_file(self) -> None:
        """Ask for a file."""
        path = ask_open(self.row.native, self._what, self._filters, self._start())
        if path is not None:
            self.set_path(path)

    def choose_folder(self) -> None:
        """Ask for a folder."""
        name = QFileDialog.getExistingDirectory(self.row.native, self._what, self._start())
        if name:
            self.set_path(Path(name))

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Take a file that is dragged to the field and dropped."""
        if isinstance(event, QDropEvent) and (path := _dropped_path(event)) is not None:
            if event.type() in (QEvent.Type.DragEnter, QEvent.Type.DragMove, QEvent.Type.Drop):
                event.acceptProposedAction()
            if event.type() == QEvent.Type.Drop:
                self.set_path(path)
            return True
        return super().eventFilter(watched, event)

    def _start(self) -> str:
        return str(self.path.parent) if self.path else ""

    def _on_edited(self) -> None:
        if self.path != self._announced:
            self._announced = self.path
            self.pathChosen.emit(self.path)


def dropped_paths(event: QDropEvent) -> tuple[Path, ...]:
    """Return the files and folders that are dragged or dropped; none where one is not on this computer."""
    data = event.mimeData()
    urls: list[QUrl] = data.urls() if data is not None else []
    if not all(url.isLocalFile() for url in urls):
        return ()
    return tuple(Path(url.toLocalFile()) for url in urls)


def _dropped_path(event: QDropEvent) -> Path | None:
    paths = dropped_paths(event)
    return paths[0] if len(paths) == 1 else None
