"""How domains are found, whose are painted and how, and how far they agree."""

from typing import TYPE_CHECKING, Any, Final, cast

from qtpy.QtWidgets import QComboBox, QHBoxLayout, QPushButton, QWidget

from napari_flag import keys
from napari_flag.viewer.domain_map import Paint
from napari_flag.viewer.region_labels import told_agreement
from napari_flag.viewer.region_numbers import LABELS, MEASURED, PREDICTED, domain_agreement, sources
from napari_flag.widgets.forms import narrow, plain_label
from napari_flag.widgets.region_results import WORDS

if TYPE_CHECKING:
    from anndata import AnnData

SCALE: Final = "ARI: 1 the same, 0 as dealt out at random; NMI: 0 to 1."
AGREEMENT: Final = f"How far the domains of prediction and truth agree.\n{SCALE}"
AGREEMENT_TO_LABELS: Final = (
    f"How far the domains agree with the labels, over the spots that have both.\n{SCALE}"
)


class DomainChoice:
    """Rows of a form, by name, and two lines of text, of the Regions dock.

    Parameters
    ----------
    labels
        The button that reads labels.
    """

    def __init__(self, labels: QPushButton) -> None:
        self.method, self.source, self.paint = narrow(QComboBox()), narrow(QComboBox()), narrow(QComboBox())
        for text, method in (("Leiden", "leiden"), ("k-means", "k-means")):
            self.method.addItem(text, method)
        self.method.setToolTip("How spots are grouped: alike in composition, and neighbours")
        for source in (PREDICTED, MEASURED):
            self.source.addItem(WORDS[source], source)
        self.source.addItem("labels", LABELS)
        self.source.setToolTip("Whose domains are found, painted and listed; labels are read from a file")
        for paint in Paint:
            self.paint.addItem(paint.value, paint)
        self.paint.setToolTip("How domains are drawn; rings leave the gene inside in sight")
        self.search = QPushButton("Find")
        self.search.setToolTip("Find domains; they are listed above as regions, and painted")
        self.agreement, self.to_labels = plain_label(), plain_label()
        self.agreement.setToolTip(AGREEMENT)
        self.to_labels.setToolTip(AGREEMENT_TO_LABELS)
        self.rows = {
            "Domains": _row(self.method, self.search),
            "of": _row(self.source, labels),
            "Painted": _row(self.paint),
        }

    @property
    def looked_at(self) -> str:
        """Whose domains are looked at: `PREDICTED`, `MEASURED` or `LABELS`."""
        return str(self.source.currentData())

    def enable(self, adata: "AnnData | None") -> None:
        """Offer what there is to look at in `adata`."""
        there = () if adata is None else sources(adata)
        if adata is not None and keys.LABEL in adata.obs:
            there = (*there, LABELS)
        items = cast(Any, self.source.model())
        for row in range(self.source.count()):
            items.item(row).setEnabled(self.source.itemData(row) in there)
        if adata is not None and self.looked_at not in there:
            self.source.setCurrentIndex(0)

    def set_paint(self, paint: Paint, *, quietly: bool = False) -> None:
        """Draw domains so; `quietly` leaves the drawing to the caller."""
        blocked = self.paint.blockSignals(quietly)
        self.paint.setCurrentIndex(list(Paint).index(paint))
        self.paint.blockSignals(blocked)

    def tell_agreement(self, adata: "AnnData | None") -> None:
        """Tell how far domains agree with each other, and with the labels."""
        told = "" if adata is None else told_agreement(adata)
        self.to_labels.setText(told)
        self.to_labels.setVisible(bool(told))
        found = None if adata is None or self.looked_at == LABELS else domain_agreement(adata)
        self.agreement.setVisible(found is not None)
        if found is not None:
            self.agreement.setText(f"Prediction to truth: ARI {found.ari:.2f}, NMI {found.nmi:.2f}")


def _row(wide: QWidget, *others: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    row.setSpacing(5)
    row.addWidget(wide, 1)
    for widget in others:
        row.addWidget(widget)
    return row
