"""The training loop, its states and its devices."""
