"""Protocols, metrics, baselines, gates, diagnostics."""
