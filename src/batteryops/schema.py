"""The domain's types and units: canonical tables, profiles, and the fingerprint of a table.

Two tables describe what assets did. `SAMPLES` is the canonical cycle table, one row per measured
sample; `CYCLES` has one row per cycle (one recorded operation) with its label and context. A
feature table has one row per cycle, keyed by `asset_id` and `op_index`; `op_index` is the
`cycle_index` of the cycle it was computed from, under the name that published tables use.
"""

import hashlib
from dataclasses import dataclass
from typing import Final, Literal

import polars as pl

from batteryops.errors import DataError

Kind = Literal["discharge", "charge", "impedance", "trip"]
KINDS: Final[tuple[Kind, ...]] = ("discharge", "charge", "impedance", "trip")

SAMPLES: Final = pl.Schema(
    {
        "asset_id": pl.String(),
        "cycle_index": pl.Int32(),  # 1-based position in the asset's whole list of operations
        "kind": pl.String(),  # one of KINDS
        "started_at": pl.Datetime("us"),  # the publisher's local time; null where not recorded
        "time_s": pl.Float64(),  # since the start of the cycle
        "voltage_v": pl.Float64(),  # terminal voltage of the asset (cell or pack)
        "current_a": pl.Float64(),  # negative = discharge
        "temperature_c": pl.Float64(),
    }
)
"""Canonical cycle table: one row per sample, sorted by asset, cycle and time."""

CYCLES: Final = pl.Schema(
    {
        "asset_id": pl.String(),
        "cycle_index": pl.Int32(),
        "kind": pl.String(),
        "started_at": pl.Datetime("us"),
        "ambient_temperature_c": pl.Float64(),
        "n_samples": pl.Int64(),
        "capacity_ah": pl.Float64(),  # the label; null where none was measured
        "re_ohm": pl.Float64(),  # electrolyte resistance, impedance cycles only
        "rct_ohm": pl.Float64(),  # charge transfer resistance, impedance cycles only
    }
)
"""One row per cycle: label and context. Readers may append columns of their own."""

CYCLE_KEY: Final = ("asset_id", "cycle_index")
FEATURE_KEY: Final = ("asset_id", "op_index")
LABEL: Final = "capacity_ah"


@dataclass(frozen=True, slots=True)
class Recording:
    """What every reader yields: samples and cycles of one or more assets.

    Args:
        samples: rows as `SAMPLES` declares them.
        cycles: rows as `CYCLES` declares them, possibly with further columns.
        source: where it was read from, for messages and the ledger.
    """

    samples: pl.DataFrame
    cycles: pl.DataFrame
    source: str

    def __post_init__(self) -> None:
        """Hold the tables to their contract, once, at the door."""
        conform(self.samples, SAMPLES, what=f"samples of {self.source}", exact=True)
        conform(self.cycles, CYCLES, what=f"cycles of {self.source}")

    @property
    def asset_ids(self) -> list[str]:
        """The assets in this recording, sorted."""
        return sorted(self.cycles["asset_id"].unique().to_list())


def conform(table: pl.DataFrame, schema: pl.Schema, *, what: str, exact: bool = False) -> None:
    """Raise unless `table` has every column of `schema` with its type.

    Args:
        table: the table to look at.
        schema: columns and types it must have.
        what: what the table is, for the message.
        exact: refuse further columns as well, and another order.

    Raises:
        DataError: naming the missing, wrongly typed or unexpected columns.

    Examples:
        >>> conform(pl.DataFrame({"a": [1]}), pl.Schema({"a": pl.String()}), what="a table")
        Traceback (most recent call last):
        ...
        batteryops.errors.DataError: a table: column a is Int64, expected String
    """
    missing = [name for name in schema if name not in table.columns]
    if missing:
        raise DataError(
            f"{what}: missing {_listed('column', missing)}; "
            f"given {', '.join(table.columns) or 'no columns'}, expected {', '.join(schema)}"
        )
    for name, dtype in schema.items():
        if table.schema[name] != dtype:
            raise DataError(f"{what}: column {name} is {table.schema[name]}, expected {dtype}")
    if exact and table.columns != list(schema):
        raise DataError(
            f"{what}: columns are {', '.join(table.columns)}; expected just {', '.join(schema)}"
        )


def _listed(noun: str, names: list[str]) -> str:
    return f"{noun}{'s' if len(names) > 1 else ''} {', '.join(names)}"


@dataclass(frozen=True, slots=True)
class Profile:
    """What is fixed for an asset.

    Args:
        name: the key under `profiles` in the configuration.
        level: `cell`, or `pack` of cells in series.
        chemistry: as the publisher states it.
        nominal_capacity_ah: SoH is capacity over this; None where the maker publishes none.
        cells_in_series: 1 for a cell; None where it is not published.
        voltage_mean_v: range that the mean voltage of a cycle must lie in (asset's terminals).
        current_mean_a: range that the mean current of a discharge must lie in.
        temperature_mean_c: range that the mean temperature of a cycle must lie in.
        voltage_sample_v: range outside of which a single sample cannot be true.
        cutoff_v: voltage at which a full discharge, and so the label, ends (asset's terminals).
        capacity_range_share: range that a prediction must lie in, as shares of nominal capacity.
        min_capacity_share: a discharge that delivered less of nominal capacity was not a full one.
    """

    name: str
    level: Literal["cell", "pack"]
    chemistry: str
    nominal_capacity_ah: float | None
    cells_in_series: int | None
    voltage_mean_v: tuple[float, float]
    current_mean_a: tuple[float, float]
    temperature_mean_c: tuple[float, float]
    voltage_sample_v: tuple[float, float]
    cutoff_v: float
    capacity_range_share: tuple[float, float]
    min_capacity_share: float

    @property
    def nominal_ah(self) -> float:
        """The nominal capacity.

        Raises:
            DataError: when it is not known, so that no SoH can be stated.
        """
        if self.nominal_capacity_ah is None:
            raise DataError(
                f"profile {self.name} has no nominal capacity, so SoH cannot be stated; "
                f"set profiles.{self.name}.nominal_capacity_ah in the configuration"
            )
        return self.nominal_capacity_ah

    def soh(self, capacity_ah: float) -> float:
        """State of Health as a share of nominal capacity (1.0 = nominal)."""
        return capacity_ah / self.nominal_ah

    @property
    def capacity_range_ah(self) -> tuple[float, float]:
        """Range that a predicted capacity must lie in, in Ah."""
        low, high = self.capacity_range_share
        return low * self.nominal_ah, high * self.nominal_ah


def fingerprint(table: pl.DataFrame) -> str:
    """SHA-256 over a table's column names, types and values, in order; 64 hex digits.

    Equal tables have equal fingerprints whatever file they came from; a change of one value, of a
    name, a type, or of the order of rows or columns changes it.

    Examples:
        >>> a = pl.DataFrame({"x": [1.0, 2.0]})
        >>> fingerprint(a) == fingerprint(pl.DataFrame({"x": [1.0, 2.0]}))
        True
        >>> fingerprint(a) == fingerprint(a.reverse())
        False
    """
    digest = hashlib.sha256()
    for column in table.get_columns():
        digest.update(f"{column.name}\x00{column.dtype}\x00{len(column)}\x00".encode())
        missing = column.is_null()
        digest.update(missing.to_numpy().tobytes())
        if column.dtype == pl.String:
            for value in column.fill_null(""):
                encoded = value.encode()
                digest.update(len(encoded).to_bytes(8, "little") + encoded)
        else:
            digest.update(column.to_physical().fill_null(0).to_numpy().tobytes())
    return digest.hexdigest()
