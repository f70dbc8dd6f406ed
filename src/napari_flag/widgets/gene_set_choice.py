"""A combo box of gene sets: the most variable genes, our own sets, and those of a GMT file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QComboBox, QCompleter, QFileDialog, QHBoxLayout, QPushButton, QWidget

from napari_flag.statistics.gene_sets import bundled, read_gmt
from napari_flag.viewer.together import sets_within
from napari_flag.widgets.forms import narrow

TOP: Final = (20, 50, 100, 200, 500)
FIRST: Final = 50
"""How many of the most variable genes are looked at before anyone chose."""


def top_name(number: int) -> str:
    """Return what the `number` most variable genes are called."""
    return f"{number} most variable genes"


class GeneSetChoice(QWidget):
    """Chooses genes to look at together; sets with fewer than two genes here are not offered."""

    chosen = Signal(str, tuple)
    """Name and genes that a person chose."""

    def __init__(self) -> None:
        super().__init__()
        self._ranked: tuple[str, ...] = ()
        self._sets: Mapping[str, Sequence[str]] = bundled()
        self._offered: dict[str, tuple[str, ...]] = {}
        self.box = narrow(QComboBox())
        self.box.setAccessibleName("Genes shown together")
        self.box.setEditable(True)
        self.box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.box.setToolTip("Genes to correlate; type to search among many sets")
        completer = self.box.completer()
        assert completer is not None
        completer.setCompletionMode(QCompleter.CompletionMode.PopupCompletion)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        self.load = QPushButton("GMT…")
        self.load.setToolTip("Choose gene sets of your own or of MSigDB (.gmt)")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.box, 1)
        row.addWidget(self.load)
        self.box.activated.connect(self._on_activated)

    @property
    def offered(self) -> dict[str, tuple[str, ...]]:
        """Name → genes of what can be chosen, in order."""
        return dict(self._offered)

    def set_genes(self, ranked: Sequence[str]) -> None:
        """Offer choices among the genes of a prediction, given from the most variable to the least."""
        self._ranked = tuple(ranked)
        self._offer()

    def read(self, path: Path) -> int:
        """Offer the sets of a GMT file instead of ours; return how many have two genes here.

        Raises
        ------
        UserError
            When it cannot be read.
        """
        self._sets = read_gmt(path)
        self._offer()
        return len(sets_within(self._sets, self._ranked))

    def ask_path(self) -> Path | None:
        """Ask for a GMT file; None when the person thought better of it."""
        name, _ = QFileDialog.getOpenFileName(self, "Gene sets", "", "Gene sets (*.gmt);;All files (*)")
        return Path(name) if name else None

    def show_set(self, name: str, genes: Sequence[str]) -> None:
        """Show what is chosen, without telling; a set that was not offered so far is added."""
        if name not in self._offered:
            self._offered[name] = tuple(genes)
            self.box.addItem(name)
        self.box.setCurrentIndex(list(self._offered).index(name))

    def _offer(self) -> None:
        numbers = [number for number in TOP if number < len(self._ranked)]
        self._offered = {top_name(number): self._ranked[:number] for number in numbers}
        if len(self._ranked) <= TOP[-1]:
            self._offered[f"all {len(self._ranked)} genes"] = self._ranked
        self.box.clear()
        self.box.addItems(list(self._offered))
        for name, (here, size) in sets_within(self._sets, self._ranked).items():
            self._offered[name] = here
            self.box.addItem(name)
            told = f"{len(here)} of {size} genes are in the prediction"
            self.box.setItemData(self.box.count() - 1, told, Qt.ItemDataRole.ToolTipRole)

    def first(self) -> tuple[str, tuple[str, ...]]:
        """Return name and genes of what is looked at before anyone chose."""
        name = top_name(FIRST)
        if name not in self._offered:
            name = next(iter(reversed([n for n in self._offered if n.startswith("all ")])))
        return name, self._offered[name]

    def _on_activated(self) -> None:
        name = self.box.currentText()
        if name in self._offered:
            self.chosen.emit(name, self._offered[name])
