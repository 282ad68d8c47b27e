"""The model: fit, predict, and the package on disk."""
