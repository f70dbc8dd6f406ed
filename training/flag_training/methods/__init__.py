"""Simple methods and published ones, all fitted to a `Cohort` and asked the same way."""

from flag_training.methods.method import Method, Predictor, blinded, pooled

__all__ = ["Method", "Predictor", "blinded", "pooled"]
