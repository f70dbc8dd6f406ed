"""A table of named rows and numbers as a Qt model: sorting 20,000 rows is one numpy call."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QAbstractTableModel, QItemSelectionModel, QModelIndex, Qt, QTimer, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from napari_flag.formatting import number, score

NAME: Final = 0
"""The column of names comes first."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of numbers.

    Parameters
    ----------
    key
        Name of the column in the table that is set.
    heading, meaning
        What stands above it, and what a person reads when pointing at it.
    write
        How a number is written; NaN is always "–".
    """

    key: str
    heading: str
    meaning: str
    write: Callable[[float], str] = number


def score_column(metric: str, meaning: str, *, key: str | None = None, heading: str | None = None) -> Column:
    """Return the column of a score; without `key` and `heading` both are the name of the metric."""
    return Column(key or metric, heading or metric, meaning, partial(score, metric=metric))


class NumberTable(QAbstractTableModel):
    """Rows with a name and numbers, in the order of a column; NaN always comes last.

    Parameters
    ----------
    what
        Heading of the names: "Gene".
    """

    def __init__(self, what: str = "Gene") -> None:
        super().__init__()
        self._what = what
        self._columns: tuple[Column, ...] = ()
        self._names: npt.NDArray[np.object_] = np.empty(0, object)
        self._numbers: npt.NDArray[np.float64] = np.empty((0, 0))
        self._row_of: dict[str, int] = {}
        self._notes: Mapping[str, str] = {}
        self._kept: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._shown: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._sorting = (1, True)

    def set_rows(
        self,
        names: Sequence[str],
        numbers: Mapping[str, npt.ArrayLike],
        columns: Sequence[Column],
        sort_by: tuple[int, bool] | None = None,
    ) -> None:
        """Show other rows.

        Parameters
        ----------
        names
            One for each row.
        numbers
            Key of each column → (rows,) numbers.
        columns
            What is shown of them, from left to right.
        sort_by
            Column to sort by (0 is the name) and whether from high to low; None keeps the order
            chosen before where the columns are the same, and else sorts by the first number.
        """
        self.beginResetModel()
        same = tuple(c.key for c in columns) == tuple(c.key for c in self._columns)
        self._columns = tuple(columns)
        self._names = np.array(list(names), object)
        rows = [np.asarray(numbers[c.key], np.float64) for c in columns]
        self._numbers = np.stack(rows) if rows else np.empty((0, len(names)))
        self._row_of = {name: row for row, name in enumerate(names)}
        self._sorting = sort_by or (self._sorting if same else (1, True))
        self._kept = np.arange(len(self._names))
        self._notes = {}
        self._order()
        self.endResetModel()

    def limit(
        self,
        names: Sequence[str] | None,
        notes: Mapping[str, str] | None = None,
        *,
        as_given: bool = False,
    ) -> None:
        """Show only the rows of `names`; None shows all.

        Parameters
        ----------
        names
            A choice of those set.
        notes
            Name → what to add to it, e.g. the alias that was typed.
        as_given
            Whether the rows keep the order of `names` until a person sorts them, rather than that of
            the column.
        """
        self.beginResetModel()
        self._notes = notes or {}
        if names is None:
            self._kept = np.arange(len(self._names))
        else:
            self._kept = np.array([self._row_of[n] for n in names if n in self._row_of], np.int64)
        if names is None or not as_given:
            self._order()
        else:
            self._shown = self._kept
        self.endResetModel()

    @property
    def sorting(self) -> tuple[int, bool]:
        """The column sorted by, and whether from high to low."""
        return self._sorting

    @property
    def shown(self) -> list[str]:
        """The names in the order shown."""
        return [str(name) for name in self._names[self._shown]]

    def name(self, row: int) -> str:
        """Return the name in `row`."""
        return str(self._names[self._shown[row]])

    def row(self, name: str | None) -> int | None:
        """Return where `name` is shown, or None."""
        found = np.flatnonzero(self._shown == self._row_of.get(name or "", -1))
        return int(found[0]) if found.size else None

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by `column`; called by the view when its heading is clicked."""
        self._sorting = (column, order == Qt.SortOrder.DescendingOrder)
        self.layoutAboutToBeChanged.emit()
        self._order()
        self.layoutChanged.emit()

    def _order(self) -> None:
        column, descending = self._sorting
        if column == NAME or column > len(self._columns):
            names = np.array([str(name).lower() for name in self._names[self._kept]], dtype=str)
            order = np.argsort(names, kind="stable")
            self._shown = self._kept[order[::-1] if descending else order]
            return
        values = self._numbers[column - 1, self._kept]
        order = np.argsort(-values if descending else values, kind="stable")  # NaN last both ways
        self._shown = self._kept[order]

    # --- Qt --------------------------------------------------------------------------------------
    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of rows."""
        return 0 if parent is not None and parent.isValid() else len(self._shown)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else 1 + len(self._columns)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what the view asks of one cell."""
        if not index.isValid() or index.row() >= len(self._shown):
            return None
        source, column = self._shown[index.row()], index.column()
        if role == Qt.ItemDataRole.TextAlignmentRole and column != NAME:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role not in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return None
        if column == NAME:
            name = str(self._names[source])
            note = self._notes.get(name)
            return f"{name}  ({note})" if note else name
        value = float(self._numbers[column - 1, source])
        return self._columns[column - 1].write(value)

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return a column's heading, and what it explains."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if section == NAME:
            texts = (self._what, "Click to sort by name")
        elif section <= len(self._columns):
            column = self._columns[section - 1]
            texts = (column.heading, f"{column.meaning}; click to sort")
        else:
            return None
        if role == Qt.ItemDataRole.ToolTipRole:
            return texts[1]
        return texts[0] if role == Qt.ItemDataRole.DisplayRole else None


NAMES_PX: Final = 84
"""Least width of the names: a gene symbol of ten letters."""


class NumberView(QTableView):
    """Shows a `NumberTable`, one row chosen at a time.

    Parameters
    ----------
    what
        Heading of the names.
    width
        Of each column of numbers, px.
    names
        Least width of the names, px.
    """

    chosen = Signal(str)
    """A person chose the row of this name."""

    def __init__(self, what: str = "Gene", width: int = 62, names: int = NAMES_PX) -> None:
        super().__init__()
        self.table = NumberTable(what)
        self._width, self._names = width, names
        self._follow = True
        self._in_sight = QTimer(self)  # after the rows have been laid out in the new size
        self._in_sight.setSingleShot(True)
        self._in_sight.setInterval(0)
        self._in_sight.timeout.connect(self._scroll)
        self.setModel(self.table)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setMinimumHeight(80)
        self.setAccessibleName(f"Table: {what}")
        rows, columns = self.verticalHeader(), self.horizontalHeader()
        assert rows is not None
        assert columns is not None
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setDefaultSectionSize(22)
        columns.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        columns.setHighlightSections(False)
        self.setSortingEnabled(True)
        self.table.modelReset.connect(self._on_reset)
        selection = self.selectionModel()
        assert selection is not None
        selection.currentChanged.connect(self._on_current)

    def mark(self, name: str | None, *, scroll: bool = True) -> None:
        """Select the row of `name` without emitting `chosen`; None or an unknown name selects none.

        `scroll` brings the row into sight; without, the first rows stay there, also in another size.
        """
        self._follow = scroll
        selection, row = self.selectionModel(), self.table.row(name)
        assert selection is not None
        index = self.table.index(row, NAME) if row is not None else QModelIndex()
        if index == selection.currentIndex():
            return
        flags = QItemSelectionModel.SelectionFlag.ClearAndSelect | QItemSelectionModel.SelectionFlag.Rows
        blocked = selection.blockSignals(True)
        selection.setCurrentIndex(index, flags)
        selection.blockSignals(blocked)
        if not scroll:
            self.scrollToTop()
        elif index.isValid():
            self.scrollTo(index)
        viewport = self.viewport()
        if viewport is not None:
            viewport.update()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Keep names, and the chosen row, in sight when the table gets its size."""
        super().resizeEvent(event)
        self._spread_names()
        self._in_sight.start()

    def _spread_names(self) -> None:
        """Give the names what the numbers leave; where that is too little to read, the numbers scroll."""
        viewport = self.viewport()
        if viewport is not None and self.table.columnCount():
            numbers = self._width * (self.table.columnCount() - 1)
            self.setColumnWidth(NAME, max(self._names, viewport.width() - numbers))

    def _scroll(self) -> None:
        if self._follow and self.currentIndex().isValid():
            self.scrollTo(self.currentIndex())

    def _on_reset(self) -> None:
        """Give the columns their widths, and show what is sorted by."""
        columns = self.horizontalHeader()
        if columns is None or not self.table.columnCount():
            return
        for column in range(1, self.table.columnCount()):
            self.setColumnWidth(column, self._width)
        self._spread_names()
        column, descending = self.table.sorting
        blocked = columns.blockSignals(True)  # the rows are in this order already
        order = Qt.SortOrder.DescendingOrder if descending else Qt.SortOrder.AscendingOrder
        columns.setSortIndicator(column, order)
        columns.blockSignals(blocked)

    def _on_current(self, index: QModelIndex) -> None:
        if index.isValid():
            self._follow = True
            self.chosen.emit(self.table.name(index.row()))
