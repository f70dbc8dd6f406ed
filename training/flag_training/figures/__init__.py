"""Pictures of training runs and of held-out predictions."""
