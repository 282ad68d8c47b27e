"""A small sample of rows beside the counts: what hangs together in a row, and in an asset.

Counts of one column at a time cannot tell a cold winter from a thermometer that reads too low. What
tells them apart is whether the other features of the same rows followed, and whose rows they are.
So whole assets are sampled, those with the smallest hashes of their names, and of each asset the
rows with the smallest hashes. Which these are does not depend on what else there is or on the
order it comes in: samples of chunks, days and workers add up to exactly the sample of all (bottom-k
samples: Cohen and Kaplan, Summarizing Data Using Bottom-k Sketches, PODC 2007), and a reference and
the current rows hold the same assets, so that an asset can be compared with itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from zlib import crc32

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.monitoring.cells import Floats

ROWS: Final = 4096
"""Rows of a sample, at most."""

ROWS_PER_ASSET: Final = 64
"""Rows of one asset, at most; a sample of long lives still holds dozens of assets."""

ORDER: Final = "op_index"
"""The column that says which of an asset's rows came first."""

_SEED: Final = 17  # any number, always the same one
_ODD: Final = np.uint64(0x9E3779B97F4A7C15)  # 2**64 over the golden ratio: Knuth's multiplier
_HALF: Final = np.uint64(32)
_LOWER: Final = np.uint64(2**32 - 1)
_FIRST: Final = 4  # columns that the upper half of a row's hash is of: it says which are looked at
_WORTH_A_LOOK: Final = 100_000
_ROW_KEYS: Final = ("asset", "hash", "order")


@dataclass(frozen=True, slots=True, eq=False)
class Context:
    """A sample of rows, and how many rows each sampled asset has in all.

    Args:
        names: the columns whose values are kept.
        assets: `asset` (hash of the name, UInt32), `seen` (rows, Int64); sorted by hash. Rows
            without an asset count as those of one asset with the hash 0.
        rows: `asset`, `hash` (UInt64), `order` (Float64, NaN where unknown), and the columns
            (Float32, NaN where missing); sorted by asset and hash.
        by_asset: whether it was known whose rows they are.
    """

    names: tuple[str, ...]
    assets: pl.DataFrame
    rows: pl.DataFrame
    by_asset: bool

    @classmethod
    def of(
        cls,
        columns: Mapping[str, NDArray[np.floating] | None],
        rows: int,
        *,
        assets: pl.Series | None = None,
        order: pl.Series | None = None,
    ) -> Self:
        """Sample a table.

        Args:
            columns: values (n,) by name; None where the table does not have the column.
            rows: n.
            assets: (n,) whose row it is.
            order: (n,) numbers or times that grow over an asset's life.

        Examples:
            >>> context = Context.of({"x": np.arange(3.0)}, 3, assets=pl.Series(["a", "a", "b"]))
            >>> context.assets["seen"].sort().to_list()
            [1, 2]
        """
        asset = _hashes(assets, rows)
        seen = _counted(asset) if assets is not None else _counted(asset[:1], rows)
        per_asset = _per_asset(assets is not None)
        kept = _smallest(seen, per_asset)
        given = _numbers(order, rows)
        places = (
            np.arange(rows)
            if kept.height == seen.height
            else np.flatnonzero(np.isin(asset, kept["asset"].to_numpy()))
        )
        values = [given, *(column for column in columns.values() if column is not None)]
        first = _content([_pick(column, places) for column in values[:_FIRST]], places.size)
        low = _low(first, asset[places], kept, per_asset)
        places = places[low]
        hashes = _row_hashes([column[places] for column in values], places.size)
        taken = pl.DataFrame(
            {
                "asset": asset[places],
                "hash": hashes,
                "order": given[places],
                **{
                    name: np.full(places.size, np.nan, dtype=np.float32)
                    if column is None
                    else _single(column[places])
                    for name, column in columns.items()
                },
            }
        )
        by_asset = assets is not None
        return cls(tuple(columns), kept, _fewest(taken, per_asset), by_asset)

    def __add__(self, other: Self) -> Self:
        """The sample of both."""
        by_asset = self.by_asset and other.by_asset
        seen = pl.concat([self.assets, other.assets]).group_by("asset").agg(pl.col("seen").sum())
        kept = _smallest(seen, _per_asset(by_asset))
        both = pl.concat([self.rows, other.rows]).join(kept, on="asset", how="semi")
        return type(self)(self.names, kept, _fewest(both, _per_asset(by_asset)), by_asset)

    @property
    def weights(self) -> Floats:
        """How many rows each sampled row stands for (n,)."""
        joined = self.rows.select("asset").join(
            self.assets, on="asset", how="left", maintain_order="left"
        )
        held = pl.len().over("asset")
        shares: Floats = joined.select(pl.col("seen") / held).to_series().to_numpy()
        return shares

    def values(self, names: Sequence[str]) -> Floats:
        """The values (n, k) of these columns, NaN where missing."""
        return self.rows.select(names).to_numpy().astype(np.float64)

    def to_json(self) -> dict[str, Any]:
        """All of it; names of assets are not told, only their hashes."""
        return {
            "by_asset": self.by_asset,
            "assets": _words(self.assets["asset"]),
            "seen": _words(self.assets["seen"]),
            "asset": _words(self.rows["asset"]),
            "order": _words(self.rows["order"]),
            "columns": {name: _words(self.rows[name]) for name in self.names},
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: when it is something else.
        """
        columns: Mapping[str, str] = document["columns"]
        rows = {
            "asset": _read(document["asset"], np.uint32),
            "order": _read(document["order"], np.float64),
            **{name: _read(values, np.float32) for name, values in columns.items()},
        }
        if len({values.size for values in rows.values()}) != 1:
            raise ValueError("columns of a sample differ in length")
        assets = {
            "asset": _read(document["assets"], np.uint32),
            "seen": _read(document["seen"], np.int64),
        }
        if assets["asset"].size != assets["seen"].size:
            raise ValueError("assets of a sample and their rows differ in number")
        values = [rows["order"], *(rows[name] for name in columns)]
        return cls(
            tuple(columns),
            pl.DataFrame(assets),
            pl.DataFrame({**rows, "hash": _row_hashes(values, rows["asset"].size)}).select(
                *_ROW_KEYS, *columns
            ),
            by_asset=bool(document["by_asset"]),
        )


def _per_asset(by_asset: bool) -> int:  # noqa: FBT001 - the question it answers
    return ROWS_PER_ASSET if by_asset else ROWS


def _hashes(assets: pl.Series | None, rows: int) -> NDArray[np.uint32]:
    if assets is None or not rows:
        return np.zeros(rows, dtype=np.uint32)
    ids = assets.cast(pl.String).fill_null("")
    names = ids.unique()
    of_name = [crc32(name.encode()) for name in names]
    hashes: NDArray[np.uint32] = ids.replace_strict(
        names, of_name, return_dtype=pl.UInt32
    ).to_numpy()
    return hashes


def _counted(asset: NDArray[np.uint32], rows: int = 1) -> pl.DataFrame:
    """How many rows each asset has, where each given one stands for so many."""
    counted = pl.DataFrame({"asset": asset}).group_by("asset").agg(seen=pl.len().cast(pl.Int64))
    return counted.with_columns(pl.col("seen") * rows)


def _numbers(order: pl.Series | None, rows: int) -> Floats:
    if order is None or not (order.dtype.is_numeric() or order.dtype.is_temporal()):
        return np.full(rows, np.nan)
    numbers: Floats = order.to_physical().cast(pl.Float64).fill_null(np.nan).to_numpy()
    return numbers


def _single(column: NDArray[np.floating]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what is too large for it is as good as infinite
        return column.astype(np.float32)


def _pick(column: NDArray[np.floating], places: NDArray[np.intp]) -> NDArray[np.floating]:
    return column if places.size == column.size else column[places]


def _content(columns: Sequence[NDArray[np.floating]], rows: int) -> NDArray[np.uint64]:
    """A hash of each row's numbers, as they are in single precision; the same on any machine."""
    hashes = np.full(rows, _SEED, dtype=np.uint64)
    for column in columns:
        single = _single(column)
        single[np.isnan(single)] = np.nan  # one NaN, whichever bits it had
        hashes ^= single.view(np.uint32)
        hashes *= _ODD
        hashes ^= hashes >> _HALF
    return hashes


def _row_hashes(columns: Sequence[NDArray[np.floating]], rows: int) -> NDArray[np.uint64]:
    first, all_of_them = _content(columns[:_FIRST], rows), _content(columns, rows)
    return (first & ~_LOWER) | (all_of_them >> _HALF)


def _low(
    hashes: NDArray[np.uint64], asset: NDArray[np.uint32], kept: pl.DataFrame, per_asset: int
) -> NDArray[np.intp]:
    """Places of rows among which the smallest hashes of each asset are: not all are sorted."""
    ordered, seen = kept["asset"].to_numpy(), kept["seen"].to_numpy()
    if hashes.size <= _WORTH_A_LOOK:
        return np.arange(hashes.size)
    whose = np.searchsorted(ordered, asset)
    bounds = np.minimum(1.0, 4 * per_asset / seen) * 2.0**64
    low = np.flatnonzero(hashes < bounds[whose])
    held = np.bincount(whose[low], minlength=ordered.size)
    if (held < np.minimum(per_asset, seen)).any():  # rows that are alike have one hash
        return np.arange(hashes.size)
    return low


def _smallest(seen: pl.DataFrame, per_asset: int) -> pl.DataFrame:
    """The assets with the smallest hashes, as many as have room."""
    ordered = seen.sort("asset")
    used = ordered["seen"].clip(upper_bound=per_asset).cum_sum()
    return ordered.filter((used <= ROWS) | (pl.int_range(pl.len()) == 0))


def _fewest(rows: pl.DataFrame, per_asset: int) -> pl.DataFrame:
    """Of each asset the rows with the smallest hashes; rows of one hash are alike."""
    ordered = rows.sort("asset", "hash")
    return ordered.filter(pl.int_range(pl.len()).over("asset") < per_asset)


def _words(values: pl.Series) -> str:
    return " ".join(map(str, values.to_numpy()))


def _read(text: str, kind: type[np.generic]) -> NDArray[Any]:
    return np.array(text.split(), dtype=kind)
