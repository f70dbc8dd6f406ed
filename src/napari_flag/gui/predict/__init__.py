"""The Predict expression dock: slide, spots, model, region, run."""
