"""Settings of every test."""

import os

# Small tensors gain nothing from threads, and threads that wait for each other on busy cores cost minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
