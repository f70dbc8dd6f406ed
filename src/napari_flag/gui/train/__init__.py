"""The Train dock: weights from a person's own measured sections."""
