"""What a person can choose in a combo box."""

from qtpy.QtCore import Qt


def can_be_chosen(choice, row):
    """Return whether the entry in `row` of a `Choice` is not greyed out."""
    model = choice.native.model()
    return bool(model.flags(model.index(row, 0)) & Qt.ItemFlag.ItemIsEnabled)
