"""Qt docks: each emits intentions and shows results."""
