"""Pictures of a prediction and of its truth, for reports and for training; Matplotlib, no window."""
