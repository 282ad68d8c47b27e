"""Evidently on the same rows, in an environment of its own: prints seconds as JSON.

Run by `benchmarks.drift`: `python evidently_peer.py REFERENCE.parquet CURRENT.parquet`. What is
timed is the comparison alone; the tables are read before.
"""

import json
import sys
import time

import pandas as pd
from evidently import (  # type: ignore[import-not-found]  # in its own environment
    DataDefinition,
    Dataset,
    Report,
)
from evidently.metrics import ValueDrift  # type: ignore[import-not-found]  # likewise

METHODS = ("psi", "ks")


def main() -> None:
    """Compare every column by PSI, and by Kolmogorov and Smirnov."""
    before, after = (pd.read_parquet(file) for file in sys.argv[1:3])
    names = list(before.columns)
    definition = DataDefinition(numerical_columns=names)
    report = Report([ValueDrift(column=name, method=way) for name in names for way in METHODS])
    started = time.perf_counter()
    found = report.run(
        Dataset.from_pandas(after, data_definition=definition),
        Dataset.from_pandas(before, data_definition=definition),
    )
    values = found.dict()
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "metrics": len(values["metrics"])}))


if __name__ == "__main__":
    main()
