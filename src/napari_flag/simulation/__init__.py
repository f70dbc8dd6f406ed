"""Synthetic H&E slides with known spatial expression, for the demo and the tests."""

from napari_flag.simulation.expression import generated_genes
from napari_flag.simulation.simulator import Simulated, demo_slide, demo_table, simulate

__all__ = ["Simulated", "demo_slide", "demo_table", "generated_genes", "simulate"]
