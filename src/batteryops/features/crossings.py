"""Where a measured quantity first reaches given levels, and what else was measured there."""

from collections.abc import Sequence
from typing import Final

import polars as pl

MAX_GAP_S: Final = 60.0
"""Nothing is interpolated between samples further apart."""


def crossings(
    samples: pl.DataFrame, along: str, levels: Sequence[float], carried: Sequence[str]
) -> pl.DataFrame:
    """Interpolate columns where a quantity first reaches each level, per run.

    The crossing lies between the first sample at or above the level and the sample before it, by
    linear interpolation. A run that begins at or above a level does not cross it, and a crossing
    between samples more than `MAX_GAP_S` apart is left out.

    Args:
        samples: `run`, `time_s`, `along` and the carried columns; `run`, `time_s` and `along`
            without nulls, runs contiguous and ascending in time.
        along: column that rises through the levels; give a falling one with its sign changed.
        levels: ascending.
        carried: columns to interpolate.

    Returns:
        `run`, `level` (position in `levels`) and the carried columns: one row per crossing.

    Examples:
        >>> samples = pl.DataFrame(
        ...     {"run": [0, 0, 0], "time_s": [0.0, 10.0, 20.0], "v": [3.5, 4.5, 4.0]}
        ... )
        >>> crossings(samples, "v", [3.25, 3.75, 4.0], ["time_s"]).rows()
        [(0, 1, 2.5), (0, 2, 5.0)]
    """
    values = [*dict.fromkeys(("time_s", along, *carried))]
    continues = pl.col("run") == pl.col("run").shift()
    rising = (
        samples.select("run", *values, highest=pl.col(along).cum_max().over("run"))
        .with_columns(
            pl.when(continues).then(pl.col(name).shift()).alias(f"{name}_before")
            for name in (*values, "highest")
        )
        .filter(pl.col("highest") > pl.col("highest_before"))
        .filter(pl.col("time_s") - pl.col("time_s_before") <= MAX_GAP_S)
    )
    ladder = pl.Series(levels, dtype=pl.Float64)
    crossing = (
        rising.with_columns(
            reached=ladder.search_sorted(rising["highest"], side="right"),
            reached_before=ladder.search_sorted(rising["highest_before"], side="right"),
        )
        .filter(pl.col("reached") > pl.col("reached_before"))
        .with_columns(
            level=pl.int_ranges(
                pl.col("reached_before").cast(pl.Int64), pl.col("reached").cast(pl.Int64)
            )
        )
        .explode("level")
    )
    start, rise = pl.col(f"{along}_before"), pl.col(along) - pl.col(f"{along}_before")
    share = (ladder.gather(crossing["level"]) - crossing.select(start).to_series()) / (
        crossing.select(rise).to_series()
    )
    return crossing.with_columns(share=share).select(
        "run",
        "level",
        *(
            (
                pl.col(f"{name}_before")
                + (pl.col(name) - pl.col(f"{name}_before")) * pl.col("share")
            ).alias(name)
            for name in carried
        ),
    )


def between(crossed: pl.DataFrame, start: int, end: int, named: dict[str, str]) -> pl.DataFrame:
    """What the carried columns grew by from one level to another, per run that crossed both.

    Args:
        crossed: what `crossings` returned.
        start: position of the first level.
        end: position of the second level.
        named: for each carried column to look at, the name of its growth.
    """
    first = crossed.filter(level=start).select("run", *named)
    second = crossed.filter(level=end).select("run", *named)
    return second.join(first, on="run", suffix="_first").select(
        "run",
        *((pl.col(name) - pl.col(f"{name}_first")).alias(new) for name, new in named.items()),
    )
