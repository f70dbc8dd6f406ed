"""Tile → vector."""
