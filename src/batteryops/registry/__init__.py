"""Versions of the model, their aliases and their runs, on MLflow."""
