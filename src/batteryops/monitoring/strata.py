"""Strata: rows of one profile and one band of temperature, which are compared like with like."""

from collections.abc import Mapping
from typing import Final

import polars as pl

from batteryops.errors import DataError

TEMPERATURES: Final = (
    "temperature_C_mean",
    "ambient_temperature_C",
    "start_temperature_C",
)
"""Features that tell how warm a cycle was, the first that a table has counts."""

BANDS: Final = ("cold", "mild", "hot")
UNKNOWN: Final = "unknown"


def strata_of(
    table: pl.DataFrame,
    profiles: Mapping[str, str],
    bands_c: tuple[float, float],
    *,
    asset: str = "asset_id",
) -> pl.Series:
    """The stratum of each row, as `profile|band`.

    Args:
        table: features of one row per cycle, and perhaps `asset`.
        profiles: name of the profile by asset; one that is not there is `unknown`.
        bands_c: mild is from the first of these temperatures to below the second, degrees Celsius.
        asset: the column that says whose row it is.

    Returns:
        (n,) labels; a row without a temperature is of band `unknown`.

    Raises:
        DataError: when the bands do not increase, or the temperature is not a number.

    Examples:
        >>> table = pl.DataFrame({"asset_id": ["B5", "X"], "temperature_C_mean": [4.0, None]})
        >>> strata_of(table, {"B5": "nasa"}, (10.0, 30.0)).to_list()
        ['nasa|cold', 'unknown|unknown']
    """
    cold, hot = bands_c
    if not cold < hot:
        raise DataError(f"temperature bands {cold:g} and {hot:g} do not increase")
    known = next((name for name in TEMPERATURES if name in table.columns), None)
    celsius = pl.lit(None, dtype=pl.Float64) if known is None else pl.col(known)
    if known is not None and not (table[known].dtype.is_numeric() or table[known].dtype == pl.Null):
        raise DataError(f"feature {known} is {table[known].dtype}, expected numbers")
    celsius = celsius.cast(pl.Float64).fill_nan(None)
    band = (
        pl.when(celsius < cold)
        .then(pl.lit(BANDS[0]))
        .when(celsius < hot)
        .then(pl.lit(BANDS[1]))
        .when(celsius >= hot)
        .then(pl.lit(BANDS[2]))
        .otherwise(pl.lit(UNKNOWN))
    )
    profile: pl.Expr = pl.lit(UNKNOWN)
    if asset in table.columns and profiles:
        profile = (
            pl.col(asset)
            .cast(pl.String)
            .replace_strict(dict(profiles), default=UNKNOWN, return_dtype=pl.String)
        )
    label = pl.concat_str(profile, band, separator="|").alias("stratum")
    return table.with_columns(label)["stratum"]  # also where no column takes part
