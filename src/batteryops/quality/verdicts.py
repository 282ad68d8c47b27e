"""From a condition on rows to a check's result and the quarantine rows with their reasons."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from batteryops.quality.report import QUARANTINE, CheckResult, Status
from batteryops.quality.units import Quantity, UnitSuspicion


@dataclass(frozen=True, slots=True)
class Verdict:
    """A check's result and the rows it sets aside (none unless it quarantines)."""

    result: CheckResult
    quarantine: pl.DataFrame


@dataclass(frozen=True, slots=True)
class RowCheck:
    """A check that looks at each row on its own.

    Args:
        name: of the check.
        hit: true for a row with the fault; null counts as sound.
        reason: text for a row with the fault.
        says: what such rows are; their number follows in the message.
        column: the column looked at; None for the row as a whole.
        status: what a fault leads to.
        value: what was found in the row.
        limit: what it was held against.
    """

    name: str
    hit: pl.Expr
    reason: pl.Expr
    says: str
    column: str | None = None
    status: Status = "quarantine"
    value: pl.Expr | None = None
    limit: pl.Expr | None = None

    def judge(self, rows: pl.DataFrame) -> Verdict:
        """Apply the check to rows keyed by `asset_id` and `op_index`."""
        nothing = pl.lit(None, pl.Float64)
        found = rows.filter(self.hit.fill_null(value=False)).select(
            pl.col("asset_id").cast(pl.String),
            pl.col("op_index").cast(pl.Int32),
            check=pl.lit(self.name),
            reason=self.reason.cast(pl.String),
            value=(nothing if self.value is None else self.value).cast(pl.Float64),
            limit=(nothing if self.limit is None else self.limit).cast(pl.Float64),
        )
        share = found.height / rows.height if rows.height else 0.0
        result = CheckResult(
            self.name,
            self.column,
            self.status if found.height else "pass",
            share,
            None,
            found.height,
            f"{self.says}: {found.height or 'none'}{_examples(found)}",
        )
        return Verdict(result, found if self.status == "quarantine" else found.clear())


def unit_verdicts(
    rows: pl.DataFrame, suspicions: Sequence[UnitSuspicion], columns: Mapping[str, Quantity]
) -> Iterator[Verdict]:
    """One verdict per column on its unit: rows of a suspected asset are set aside.

    Args:
        rows: keyed by `asset_id` and `op_index`.
        suspicions: what looks wrong.
        columns: column names and the quantities that they hold.
    """
    for column, quantity in columns.items():
        found = [s for s in suspicions if s.quantity == quantity]
        reasons = pl.DataFrame(
            [(s.asset_id, "unit", s.message, s.value, s.limit) for s in found],
            schema={name: dtype for name, dtype in QUARANTINE.items() if name != "op_index"},
            orient="row",
        )
        set_aside = rows.select(
            pl.col("asset_id").cast(pl.String), pl.col("op_index").cast(pl.Int32)
        ).join(reasons, on="asset_id")
        result = CheckResult(
            "unit",
            column,
            "quarantine" if found else "pass",
            max((s.value for s in found), default=None),
            None,
            set_aside.height,
            _of_all(found) or f"{quantity} in the expected unit",
            exceeded=bool(found),
        )
        yield Verdict(result, set_aside.select(list(QUARANTINE)))


def _of_all(suspicions: Sequence[UnitSuspicion]) -> str:
    """What is suspected of the first asset, and how many more are alike."""
    told = "".join(suspicion.message for suspicion in suspicions[:1])
    more = len(suspicions) - 1
    return f"{told} (and {more} more asset{'s' * (more > 1)} likewise)" if more > 0 else told


def with_share(verdict: Verdict, share: float, limit: float, of: str) -> Verdict:
    """The same verdict, held against the share of the data set that is allowed.

    The limit is the first share that is too much: "under 5 %" is broken by 5 %.
    """
    exceeded = share > 0 and share >= limit
    old = verdict.result
    result = CheckResult(
        old.name,
        old.column,
        old.status,
        share,
        limit,
        old.rows,
        f"{old.message}; {share:.2%} of {of} (limit {limit:.2%})",
        exceeded=exceeded,
    )
    return Verdict(result, verdict.quarantine)


def collect(verdicts: Iterable[Verdict]) -> tuple[list[CheckResult], pl.DataFrame]:
    """The results in order, and all quarantine rows in one table."""
    every = list(verdicts)
    return [v.result for v in every], pl.concat([nothing(), *(v.quarantine for v in every)])


def nothing() -> pl.DataFrame:
    """No quarantine rows, for a check that sets no rows aside."""
    return pl.DataFrame(schema=QUARANTINE)


def rounded(column: str | pl.Expr, decimals: int) -> pl.Expr:
    """A number for a reason's text."""
    expression = pl.col(column) if isinstance(column, str) else column
    return expression.round(decimals)


def _examples(found: pl.DataFrame, most: int = 6) -> str:
    """Which assets, with how many rows each."""
    if found.is_empty():
        return ""
    counts = found.group_by("asset_id").len().sort("len", "asset_id", descending=[True, False])
    named = ", ".join(f"{asset} {n}" for asset, n in counts.head(most).iter_rows())
    return f" ({named}{', …' if counts.height > most else ''})"
