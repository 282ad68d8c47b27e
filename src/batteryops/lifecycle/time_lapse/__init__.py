"""A simulated year: a fleet that drives, labels that come late, causes of decay, and the loop."""
