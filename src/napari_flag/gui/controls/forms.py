"""Small form parts that the steps of the main dock are made of."""

import traceback
from pathlib import Path
from typing import Final

from qtpy.QtCore import QSize, Qt, QUrl, Signal
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import (
    QApplication,
    QComboBox,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_flag.errors import UserError

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

    def show_error(self, error: Exception) -> None:
        """Show what went wrong: the sentence of a `UserError`, else an apology with the details."""
        if isinstance(error, UserError):
            self.add("error", str(error))
            return
        self.add(
            "error",
            "Something went wrong inside napari-flag; nothing you had is lost. "
            f"Please report it with the details ({type(error).__name__}).",
        )
        details = "".join(traceback.format_exception(error))
        button = QPushButton("Copy details")
        button.setToolTip("Put the technical description of the error on the clipboard")
        button.clicked.connect(lambda: _copy(details))
        self._box.addWidget(button, alignment=Qt.AlignmentFlag.AlignLeft)


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

    Attributes
    ----------
    head
        Layout beside the heading, for the step's main choice.
    body
        Layout below it.
    messages
        What the person must know.
    """

    def __init__(self, number: int, title: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._title = title
        heading = QLabel(f"{number}  {title}")
        heading.setStyleSheet("font-weight: bold;")
        heading.setFixedWidth(HEADING_WIDTH)
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


def narrow(box: QComboBox) -> QComboBox:
    """Let a combo box take the room there is instead of that of its longest entry."""
    box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    box.setMinimumWidth(60)
    return box


class FileField(QWidget):
    """A path that can be typed, chosen, or dropped.

    Parameters
    ----------
    what
        What is chosen, for the dialog's title and screen readers: "Spot table".
    filters
        File dialog filters.
    folders
        Whether a folder may be chosen too.
    placeholder
        Text shown while empty.
    """

    pathChosen = Signal(object)  # Path, or None when it was emptied

    def __init__(self, what: str, filters: str, *, folders: bool = False, placeholder: str = "") -> None:
        super().__init__()
        self._what, self._filters = what, filters
        self._told: Path | None = None
        self._edit = QLineEdit()
        self._edit.setPlaceholderText(placeholder)
        self._edit.setAccessibleName(what)
        self._edit.setClearButtonEnabled(True)
        self._edit.setAcceptDrops(False)  # the whole field takes drops, as a path and not as text
        self._edit.editingFinished.connect(self._on_edited)
        self._edit.textChanged.connect(lambda text: None if text else self._on_edited())
        self._button = QPushButton("…")
        self._button.setMaximumWidth(44)
        self._button.setToolTip(f"Choose {what.lower()}")
        self._button.setAccessibleName(f"Choose {what.lower()}")
        if folders:
            menu = QMenu(self._button)
            menu.addAction("File…", self.choose_file)
            menu.addAction("Folder…", self.choose_folder)
            self._button.setMenu(menu)
        else:
            self._button.clicked.connect(self.choose_file)
        self.setAcceptDrops(True)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._edit, 1)
        row.addWidget(self._button)
        self.setFocusProxy(self._edit)

    @property
    def path(self) -> Path | None:
        """The path in the field, None while empty."""
        text = self._edit.text().strip().strip('"')
        return Path(text).expanduser() if text else None

    def set_path(self, path: Path | None, *, tell: bool = True) -> None:
        """Fill in `path`; `tell` says whether `pathChosen` is emitted."""
        if not tell:
            self._told = path
        self._edit.setText("" if path is None else str(path))
        self._edit.setToolTip(self.toolTip() if path is None else str(path))
        self._on_edited()

    def choose_file(self) -> None:
        """Ask for a file."""
        name, _ = QFileDialog.getOpenFileName(self, self._what, self._start(), self._filters)
        if name:
            self.set_path(Path(name))

    def choose_folder(self) -> None:
        """Ask for a folder."""
        name = QFileDialog.getExistingDirectory(self, self._what, self._start())
        if name:
            self.set_path(Path(name))

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        """Take a dragged file."""
        if event is not None and _dropped_path(event) is not None:
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        """Take a dropped file."""
        if event is not None and (path := _dropped_path(event)) is not None:
            event.acceptProposedAction()
            self.set_path(path)

    def _start(self) -> str:
        return str(self.path.parent) if self.path else ""

    def _on_edited(self) -> None:
        if self.path != self._told:
            self._told = self.path
            self.pathChosen.emit(self.path)


def _dropped_path(event: QDropEvent) -> Path | None:
    data = event.mimeData()
    urls: list[QUrl] = data.urls() if data is not None else []
    return Path(urls[0].toLocalFile()) if len(urls) == 1 and urls[0].isLocalFile() else None
