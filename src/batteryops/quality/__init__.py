"""May this data be used? Checks and quarantine."""
