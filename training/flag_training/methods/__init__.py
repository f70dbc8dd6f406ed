"""Simple and published methods, fitted to a `Cohort` and called through one protocol."""

from flag_training.methods.method import Fitted, Method, Predictor, blinded, pooled

__all__ = ["Fitted", "Method", "Predictor", "blinded", "pooled"]
