"""A batch of predictions: one table in memory, one Arrow file in the log."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

import polars as pl

from batteryops.errors import RecordsError
from batteryops.files import UNREADABLE, first_line
from batteryops.records.record import FAILED, PredictionRecord, Status

BEFORE: Final[Mapping[str, pl.DataType]] = {"row": pl.Int32(), "vehicle_id": pl.String()}
"""Columns of a batch that stand before its features."""

AFTER: Final[Mapping[str, pl.DataType]] = {
    "capacity_ah": pl.Float64(),
    "soh": pl.Float64(),
    "low": pl.Float64(),
    "high": pl.Float64(),
    "status": pl.String(),
    "outside": pl.List(pl.String()),
    "outside_jointly": pl.Boolean(),
    "version": pl.String(),
    "role": pl.String(),
    "error": pl.String(),
}
"""Columns of a batch that stand after its features; `error` says why a row has no answer."""

ALLOWED: Final = frozenset(("ok", "out_of_domain", FAILED))


@dataclass(frozen=True, slots=True)
class BatchVersion:
    """A model version that answered rows of a batch.

    Args:
        version: in the registry.
        role: what it stood for: champion, challenger.
        fingerprint: SHA-256 of its package.
        served: whether its answers went out; False for a challenger's that only shadowed.
    """

    version: str
    role: str
    fingerprint: str
    served: bool = True


@dataclass(frozen=True, slots=True)
class PredictionBatch:
    """The answers to one request with many rows.

    Args:
        batch_id: from `batteryops.records.identifiers.new_id`; row 7 of it is the prediction
            `<batch_id>:7`.
        request_id: what the caller, or the server for it, named the request.
        answered_at: when, with a time zone.
        model_name: the registered model.
        model_versions: those that answered, each version once.
        table: one row per row of the request, `row` counting from 0: the columns of `BEFORE`, one
            of numbers for each feature as it was sent, the columns of `AFTER`. A row either has
            capacity, SoH, status, version and role, or an error; one that a model was asked about
            and gave no number for has an error, and status `failed`, version and role.
        latency_ms: from the request's arrival to the predictions, the commit not included.

    Raises:
        RecordsError: for another table than this, or a time without a zone.
    """

    batch_id: str
    request_id: str
    answered_at: datetime
    model_name: str
    model_versions: Sequence[BatchVersion]
    table: pl.DataFrame
    latency_ms: float

    def __post_init__(self) -> None:
        """Refuse what could not be read back as one prediction per row."""
        if self.answered_at.utcoffset() is None:
            raise self._refused(f"answered_at {self.answered_at} has no time zone")
        schema = self.table.schema
        for name, kind in (*BEFORE.items(), *AFTER.items()):
            if name not in schema:
                raise self._refused(f"column {name} is missing")
            if not _holds(schema[name], kind):
                raise self._refused(f"column {name} is {schema[name]}, expected {kind}")
        for name in self.features:
            if not (schema[name].is_numeric() or schema[name] == pl.Null):
                raise self._refused(f"feature {name} is {schema[name]}, expected numbers")
        row, n_rows = self.table["row"], self.table.height
        if n_rows and not (row == pl.int_range(n_rows, eager=True)).all():
            raise self._refused("row does not count from 0 to the end")
        self._check_answers()

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""
        return tuple(
            name for name in self.table.columns if name not in BEFORE and name not in AFTER
        )

    @property
    def n_answered(self) -> int:
        """Rows that have an answer."""
        return self.table.height - self.table["capacity_ah"].null_count()

    def content(self) -> bytes:
        """The table as an Arrow IPC file, compressed with LZ4.

        Numbers that are given as Float32 stay so: the commit takes as long as there are bytes.
        """
        kinds = {**BEFORE, **dict.fromkeys(self.features, pl.Float64()), **AFTER}
        schema = self.table.schema
        as_kept = self.table.select(
            pl.col(name)
            if kind == pl.Float64 and schema[name].is_float()
            else pl.col(name).cast(kind)
            for name, kind in kinds.items()
        )
        file = io.BytesIO()
        as_kept.write_ipc(file, compression="lz4")
        return file.getvalue()

    def record(self, row: int) -> PredictionRecord | None:
        """One row as a prediction; None where there is no such row or it has no answer."""
        if not 0 <= row < self.table.height:
            return None
        values = self.table.row(row, named=True)
        if values["capacity_ah"] is None:
            return None
        by_version = {one.version: one for one in self.model_versions}
        version = by_version[values["version"]]
        return PredictionRecord(
            prediction_id=f"{self.batch_id}:{row}",
            request_id=self.request_id,
            answered_at=self.answered_at,
            vehicle_id=values["vehicle_id"],
            model_name=self.model_name,
            model_version=values["version"],
            package_fingerprint=version.fingerprint,
            role=values["role"],
            features={name: values[name] for name in self.features},
            capacity_ah=values["capacity_ah"],
            soh=values["soh"],
            latency_ms=self.latency_ms,
            capacity_low_ah=values["low"],
            capacity_high_ah=values["high"],
            status=cast("Status", values["status"]),
            outside=tuple(values["outside"] or ()),
            outside_jointly=bool(values["outside_jointly"]),
            served=version.served,
        )

    def _check_answers(self) -> None:
        needed = ("vehicle_id", "soh", "status", "version", "role")
        told = pl.col("capacity_ah").is_not_null()
        numbers = [*self.features, "capacity_ah", "soh", "low", "high"]
        versions = {one.version for one in self.model_versions}
        found = self.table.select(
            both=(told == pl.col("error").is_not_null()).any(),
            failed=(told & (pl.col("status") == FAILED)).any(),
            incomplete=(told & pl.any_horizontal(pl.col(needed).is_null())).any(),
            wild=pl.any_horizontal(
                ~pl.col(numbers).cast(pl.Float64).is_finite().fill_null(True)
            ).any(),
        ).row(0, named=True)
        if found["both"]:
            raise self._refused("a row has both an answer and an error, or neither")
        if found["failed"]:
            raise self._refused(f"a row has an answer and status {FAILED}")
        if found["incomplete"]:
            raise self._refused(f"a row has a capacity, but not {', '.join(needed)}")
        if found["wild"]:
            raise self._refused("a number is not finite; leave out what is missing")
        for name, known in (("version", versions), ("status", ALLOWED)):
            if unknown := set(self.table[name].unique().drop_nulls().to_list()) - known:
                raise self._refused(f"{name} {min(unknown)!r} is not one of {sorted(known)}")
        if len(versions) < len(self.model_versions):
            raise self._refused("a model version is named twice")

    def _refused(self, why: str) -> RecordsError:
        return RecordsError(
            f"batch {self.batch_id}: {why}; expected the columns of records.batches, with an "
            "answer or an error in each row"
        )


def read_content(content: bytes, batch_id: str) -> pl.DataFrame:
    """The table of a batch as it was logged.

    Raises:
        RecordsError: when it was changed since.
    """
    try:
        return pl.read_ipc(io.BytesIO(content))
    except UNREADABLE as error:
        raise RecordsError(
            f"batch {batch_id} in the prediction log cannot be read ({first_line(error)}); it was "
            "changed since it was written: restore the database"
        ) from error


def _holds(given: pl.DataType, expected: pl.DataType) -> bool:
    """Whether a column of that type can be kept as the one expected."""
    if given == pl.Null:  # nothing but missing values
        return True
    if expected == pl.String:
        return given in (pl.String, pl.Categorical, pl.Enum)
    if expected == pl.Int32:
        return given.is_integer()
    if expected == pl.Float64:
        return given.is_float()
    return given == expected or (given == pl.List(pl.Null) and isinstance(expected, pl.List))


def versions_from_json(document: Any) -> tuple[BatchVersion, ...]:  # noqa: ANN401  # any JSON
    """What `model_versions` holds, from the log; batches from before shadows were all served."""
    return tuple(BatchVersion(**one) for one in document)
