"""What quality checks say: one result per check, and a reason for each cycle set aside."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal

import polars as pl

from batteryops.errors import DataError
from batteryops.schema import CYCLE_KEY, FEATURE_KEY

Status = Literal["pass", "warn", "quarantine"]
Use = Literal["training", "prediction"]

QUARANTINE: Final = pl.Schema(
    {
        "asset_id": pl.String(),
        "op_index": pl.Int32(),  # the cycle_index of a raw cycle
        "check": pl.String(),
        "reason": pl.String(),
        "value": pl.Float64(),  # what was found, in the unit that the reason names
        "limit": pl.Float64(),  # what it was held against
    }
)
"""One row per cycle and reason: a cycle with two faults stands there twice."""

NO_LABEL: Final = "label"
NO_LABEL_REASON: Final = "no capacity was measured: cannot train, can be predicted"
FALSE_LABEL: Final = "false_label"
REPEATED_ROW: Final = "repeated_row"
QUARANTINED_SHARE: Final = "quarantined_share"

TRAINING_ONLY: Final = frozenset({NO_LABEL, FALSE_LABEL})
"""Checks whose cycles cannot train, but are as good as any other for a prediction."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found.

    Args:
        name: of the check; the quarantine table uses the same name.
        column: the column it looked at; None where it looked at whole cycles.
        status: `pass`; `warn`: look at it; `quarantine`: the rows found are set aside.
        value: the share or the worst value found, as the message says.
        limit: what the value was held against; None where there is no single limit.
        rows: how many cycles (or rows of a feature table) were found.
        message: what was found, for people.
        exceeded: True when the data set as a whole must not be used because of this.
    """

    name: str
    column: str | None
    status: Status
    value: float | None
    limit: float | None
    rows: int
    message: str
    exceeded: bool = False

    def to_json(self) -> dict[str, object]:
        """The fields as plain JSON types; a value that JSON cannot hold becomes None."""
        return {
            "name": self.name,
            "column": self.column,
            "status": self.status,
            "value": _plain(self.value),
            "limit": _plain(self.limit),
            "rows": self.rows,
            "message": self.message,
            "exceeded": self.exceeded,
        }


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What was checked, and which cycles are set aside for which reasons.

    Args:
        checks: every check that ran, those that passed too.
        quarantine: rows as `QUARANTINE` declares them.
        n_rows: how many cycles (or rows of a feature table) were judged.
    """

    checks: tuple[CheckResult, ...]
    quarantine: pl.DataFrame
    n_rows: int

    @property
    def accepted(self) -> bool:
        """False when a limit on the data set as a whole is broken."""
        return not any(check.exceeded for check in self.checks)

    @property
    def quarantined_rows(self) -> int:
        """How many cycles are set aside, whatever the use and the number of reasons."""
        return self.quarantine.select(FEATURE_KEY).n_unique()

    def reasons(self, use: Use = "training") -> pl.DataFrame:
        """The quarantine rows that count for a use.

        A cycle without a usable label cannot train, but a prediction for it is welcome.
        """
        if use == "training":
            return self.quarantine
        return self.quarantine.filter(~pl.col("check").is_in(sorted(TRAINING_ONLY)))

    def kept(self, table: pl.DataFrame, use: Use = "training") -> pl.DataFrame:
        """The rows of `table` that are not set aside, in their order.

        Args:
            table: any table with `asset_id` and either `op_index` or `cycle_index`: features,
                cycles or samples of what was checked.
            use: what the rows are wanted for.

        Raises:
            DataError: when the table has no such key.

        Examples:
            >>> set_aside = pl.DataFrame(
            ...     [("B0041", 1, "crashed_run", "delivered 0.07 Ah", 0.07, 0.2)],
            ...     schema=QUARANTINE, orient="row",
            ... )
            >>> report = QualityReport((), set_aside, n_rows=2)
            >>> table = pl.DataFrame({"asset_id": ["B0041", "B0041"], "op_index": [1, 4]})
            >>> report.kept(table)["op_index"].to_list()
            [4]
        """
        return table.filter(self._keep(table, use))

    def set_aside(self, table: pl.DataFrame, use: Use = "training") -> pl.DataFrame:
        """The rows of `table` that `kept` leaves out: together they are all rows."""
        return table.filter(~self._keep(table, use))

    def summary(self) -> pl.DataFrame:
        """Cycles set aside per check and asset: `check`, `asset_id`, `cycles`."""
        return (
            self.quarantine.group_by("check", "asset_id")
            .agg(cycles=pl.col("op_index").n_unique().cast(pl.Int64))
            .sort("check", "asset_id")
        )

    def to_json(self) -> dict[str, object]:
        """Verdict, counts and checks as plain JSON types (quarantined rows are a table)."""
        by_check = (
            self.summary().group_by("check").agg(pl.col("cycles").sum()).sort("check").iter_rows()
        )
        return {
            "accepted": self.accepted,
            "n_rows": self.n_rows,
            "quarantined_rows": self.quarantined_rows,
            "quarantined_by_check": dict(by_check),
            "checks": [check.to_json() for check in self.checks],
        }

    def merge(self, other: "QualityReport") -> "QualityReport":
        """Both judgements of the same data in one report.

        The two are stages of one way (raw cycles, then their features), so the larger `n_rows`
        counts, and the share of cycles set aside is worked out anew over both.
        """
        shares = [c for r in (self, other) for c in r.checks if c.name == QUARANTINED_SHARE]
        checks = [c for r in (self, other) for c in r.checks if c.name != QUARANTINED_SHARE]
        quarantine = pl.concat([self.quarantine, other.quarantine]).unique()
        n_rows = max(self.n_rows, other.n_rows)
        limits = [share.limit for share in shares if share.limit is not None]
        if limits:
            checks.append(quarantined_share(quarantine, n_rows, min(limits)))
        return QualityReport(tuple(checks), sort_quarantine(quarantine), n_rows)

    def _keep(self, table: pl.DataFrame, use: Use) -> pl.Series:
        key = _key_of(table)
        reasons = self.reasons(use).rename({"op_index": key[1]})
        if reasons.is_empty():
            return pl.repeat(value=True, n=table.height, eager=True)
        repeated = pl.col("check") == REPEATED_ROW
        marks = reasons.group_by(key).agg(
            whole=(~repeated).any(),  # a reason that concerns every row of the key
            copies=repeated.any(),  # the rows are alike: the first one stays
        )
        return (
            table.select(key)
            .with_columns(pl.col(key[1]).cast(pl.Int32))
            .join(marks, on=key, how="left", maintain_order="left")
            .select(
                keep=~(
                    pl.col("whole").fill_null(value=False)
                    | (
                        pl.col("copies").fill_null(value=False)
                        & ~pl.struct(key).is_first_distinct()
                    )
                )
            )
            .to_series()
        )


def build_report(
    checks: Sequence[CheckResult], quarantine: pl.DataFrame, n_rows: int, max_share: float
) -> QualityReport:
    """A report with the share of cycles set aside as its last check."""
    share = quarantined_share(quarantine, n_rows, max_share)
    return QualityReport((*checks, share), sort_quarantine(quarantine), n_rows)


def quarantined_share(quarantine: pl.DataFrame, n_rows: int, limit: float) -> CheckResult:
    """Refuse a data set of which too much is set aside.

    Cycles that merely have no label do not count: most cycles of a running fleet have none.
    """
    rows = quarantine.filter(pl.col("check") != NO_LABEL).select(FEATURE_KEY).n_unique()
    share = rows / n_rows if n_rows else 0.0
    exceeded = share > limit
    return CheckResult(
        QUARANTINED_SHARE,
        None,
        "warn" if exceeded else "pass",
        share,
        limit,
        rows,
        f"{rows} of {n_rows} cycles set aside ({share:.1%}; at most {limit:.0%} are accepted)",
        exceeded=exceeded,
    )


def sort_quarantine(quarantine: pl.DataFrame) -> pl.DataFrame:
    """The one order of quarantine rows, whatever the order of the data."""
    return quarantine.sort(list(QUARANTINE), nulls_last=True)


def _key_of(table: pl.DataFrame) -> list[str]:
    for key in (FEATURE_KEY, CYCLE_KEY):
        if set(key) <= set(table.columns):
            return list(key)
    raise DataError(
        "cannot tell which rows are quarantined: the table has columns "
        f"{', '.join(table.columns)}; expected asset_id and op_index (or cycle_index)"
    )


def _plain(value: float | None) -> float | None:
    return float(value) if value is not None and isfinite(value) else None
