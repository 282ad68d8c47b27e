"""BatteryOps keeps a battery State-of-Health model right for years."""

__version__ = "0.1.0"
