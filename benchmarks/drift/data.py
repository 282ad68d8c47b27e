"""What is compared: a reference and current rows of twenty features, most of which moved."""

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

FEATURES: Final = tuple(f"feature_{number:02d}" for number in range(20))
REFERENCE_ROWS: Final = 100_000
CURRENT_ROWS: Final = 1_000_000


def columns(rows: int, seed: int, *, moved: bool) -> dict[str, NDArray[np.float64]]:
    """Normal values; where they moved, by 0 to 0.95 standard deviations."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0.05 * place * moved, size=rows) for place, name in enumerate(FEATURES)
    }


def table(rows: int, seed: int, *, moved: bool) -> pl.DataFrame:
    """The same as a table."""
    return pl.DataFrame(columns(rows, seed, moved=moved))


def write(file: Path, rows: int) -> None:
    """Write a Parquet file of many rows without having them all in memory."""
    parts = file.with_suffix(".parts")
    parts.mkdir(parents=True, exist_ok=True)
    written = []
    for seed in range(rows // CURRENT_ROWS):
        written.append(parts / f"{seed}.parquet")
        table(CURRENT_ROWS, 100 + seed, moved=True).write_parquet(written[-1], compression="lz4")
    pl.scan_parquet(written).sink_parquet(file, compression="lz4")
    for part in written:
        part.unlink()
    parts.rmdir()
