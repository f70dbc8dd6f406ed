"""Simple and published methods, fitted to a `Cohort` and called through one protocol."""

from flag_training.methods.method import Method, Predictor, blinded, pooled

__all__ = ["Method", "Predictor", "blinded", "pooled"]
