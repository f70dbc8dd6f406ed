"""Train, evaluate and document the weights that napari-flag predicts with."""
