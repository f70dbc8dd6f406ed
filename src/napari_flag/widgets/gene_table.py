"""The list of genes as a Qt model: sorting and filtering 20,000 rows is one numpy call."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt

GENE, MEAN, VARIANCE = 0, 1, 2
HEADINGS: Final = ("Gene", "Mean", "Variance")
TOOLTIPS: Final = (
    "Click to sort by name",
    "Mean predicted expression over the spots; click to sort",
    "Variance of the predicted expression over the spots; click to sort",
)


class GeneTable(QAbstractTableModel):
    """Genes with mean and variance; shows a choice of them, in the order of a column."""

    def __init__(self) -> None:
        super().__init__()
        self._genes: npt.NDArray[np.object_] = np.empty(0, object)
        self._numbers: npt.NDArray[np.float32] = np.empty((2, 0), np.float32)
        self._row_of: dict[str, int] = {}
        self._notes: Mapping[str, str] = {}
        self._chosen: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._shown: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._sorting: tuple[int, bool] | None = (MEAN, True)

    # --- content ---------------------------------------------------------------------------------
    def set_genes(
        self,
        genes: Sequence[str],
        mean: npt.NDArray[np.float32],
        variance: npt.NDArray[np.float32],
    ) -> None:
        """Show `genes`, all of them."""
        self.beginResetModel()
        self._genes = np.array(list(genes), object)
        self._numbers = np.stack([mean, variance]) if len(genes) else np.empty((2, 0), np.float32)
        self._row_of = {gene: row for row, gene in enumerate(genes)}
        self._chosen = np.arange(len(genes))
        self._notes = {}
        self._order()
        self.endResetModel()

    def choose(self, genes: Sequence[str] | None, notes: Mapping[str, str] | None = None) -> None:
        """Show only `genes`, in their own order until sorted; None shows all, sorted as before.

        Parameters
        ----------
        genes
            A choice of those set.
        notes
            Gene → what to add to its name, e.g. the alias that was typed.
        """
        self.beginResetModel()
        self._notes = notes or {}
        if genes is None:
            self._chosen = np.arange(len(self._genes))
            self._order()
        else:
            self._chosen = np.array([self._row_of[gene] for gene in genes], np.int64)
            self._shown = self._chosen
        self.endResetModel()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by `column`; called by the view when its heading is clicked."""
        self._sorting = (column, order == Qt.SortOrder.DescendingOrder)
        self.layoutAboutToBeChanged.emit()
        self._order()
        self.layoutChanged.emit()

    @property
    def shown(self) -> list[str]:
        """The genes in the order shown."""
        return [str(gene) for gene in self._genes[self._shown]]

    def row(self, gene: str | None) -> int | None:
        """Return where `gene` is shown, or None."""
        found = np.flatnonzero(self._shown == self._row_of.get(gene or "", -1))
        return int(found[0]) if found.size else None

    def gene(self, row: int) -> str:
        """Return the gene in `row`."""
        return str(self._genes[self._shown[row]])

    def _order(self) -> None:
        column, descending = self._sorting or (GENE, False)
        if column == GENE:
            names = np.array([str(gene).lower() for gene in self._genes[self._chosen]], dtype=str)
            order = np.argsort(names, kind="stable")
            self._shown = self._chosen[order[::-1] if descending else order]
            return
        values = self._numbers[column - 1, self._chosen]
        self._shown = self._chosen[np.argsort(-values if descending else values, kind="stable")]

    # --- Qt --------------------------------------------------------------------------------------
    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of genes shown."""
        return 0 if parent is not None and parent.isValid() else len(self._shown)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of columns."""
        return 0 if parent is not None and parent.isValid() else len(HEADINGS)

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what the view asks of one cell."""
        if not index.isValid() or index.row() >= len(self._shown):
            return None
        source, column = self._shown[index.row()], index.column()
        if role == Qt.ItemDataRole.TextAlignmentRole and column != GENE:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        if role not in (Qt.ItemDataRole.DisplayRole, Qt.ItemDataRole.ToolTipRole):
            return None
        if column == GENE:
            gene = str(self._genes[source])
            note = self._notes.get(gene)
            return f"{gene}  ({note})" if note else gene
        return f"{self._numbers[column - 1, source]:.2f}"

    def headerData(
        self,
        section: int,
        orientation: Qt.Orientation,
        role: int = Qt.ItemDataRole.DisplayRole,
    ) -> Any:
        """Return a column's heading, and what it explains."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.ToolTipRole:
            return TOOLTIPS[section]
        return HEADINGS[section] if role == Qt.ItemDataRole.DisplayRole else None
