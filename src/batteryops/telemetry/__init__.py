"""Readers, the simulator, and the Parquet lake."""

from batteryops.telemetry.lake import Lake
from batteryops.telemetry.readers import read

__all__ = ["Lake", "read"]
