"""The pipeline from data to a registered model, and what is decided about it."""
