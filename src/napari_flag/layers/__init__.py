"""AnnData → napari layers (no Qt)."""
