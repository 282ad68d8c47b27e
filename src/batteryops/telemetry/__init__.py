"""Readers, the simulator, and the Parquet lake."""
