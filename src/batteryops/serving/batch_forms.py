"""The forms of a batch on its way in and out: JSON, Arrow, Parquet."""

import io
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final

import orjson
import polars as pl

from batteryops.files import UNREADABLE, first_line
from batteryops.serving.arrow_shape import END, arrow_shape
from batteryops.serving.batch import BatchAnswer
from batteryops.serving.body import JSON as JSON_HEADER
from batteryops.serving.body import media_type, read_object
from batteryops.serving.lineup import Lineup
from batteryops.serving.parquet_shape import parquet_shape
from batteryops.serving.problems import (
    BODY_TOO_LARGE,
    INVALID_REQUEST,
    ProblemError,
    ProblemType,
)
from batteryops.serving.questions import Questions, check_columns, from_objects, from_table
from batteryops.settings import LimitSettings

JSON: Final = JSON_HEADER.decode()
ARROW: Final = "application/vnd.apache.arrow.stream"
PARQUET: Final = "application/vnd.apache.parquet"
FORMS: Final = (JSON, ARROW, PARQUET)

_END_OF_ROWS: Final = b"]}"
_ROWS_AT_ONCE: Final = 250  # made JSON of in some 3 ms, in which nobody else is answered

MALFORMED_TABLE: Final = ProblemType(
    "malformed-table", HTTPStatus.BAD_REQUEST, "The body is not the table that it is said to be"
)
UNKNOWN_FORM: Final = ProblemType(
    "unknown-form", HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "The batch is in a form that is not read"
)


def form_of(headers: Mapping[bytes, bytes]) -> str:
    """The form of a body.

    Raises:
        ProblemError: when it is none of those that are read, or encoded.
    """
    given = media_type(headers.get(b"content-type", b""))
    if given not in FORMS:
        raise ProblemError(
            UNKNOWN_FORM,
            f"Content-Type is {given or 'not given'}, expected one of {', '.join(FORMS)}",
        )
    encoding = headers.get(b"content-encoding", b"identity")
    if encoding != b"identity":
        raise ProblemError(
            UNKNOWN_FORM,
            f"Content-Encoding is {encoding.decode('latin-1')}; send the body as it is",
        )
    return given


def form_asked(headers: Mapping[bytes, bytes], sent: str) -> str:
    """The form to answer in: the first of ours that `Accept` names, else the one that was sent.

    Examples:
        >>> form_asked({b"accept": b"text/html, application/json;q=0.9"}, ARROW)
        'application/json'
        >>> form_asked({b"accept": b"*/*"}, ARROW)
        'application/vnd.apache.arrow.stream'
    """
    named = (media_type(one) for one in headers.get(b"accept", b"").split(b","))
    return next((one for one in named if one in FORMS), sent)


def read_batch(
    form: str, headers: Mapping[bytes, bytes], content: bytes, lineup: Lineup, limits: LimitSettings
) -> Questions:
    """The questions in a body.

    Args:
        form: one of `FORMS`.
        headers: of the request, names in lower case.
        content: the body.
        lineup: whose features are looked for.
        limits: how many rows there may be, and what a table may unfold to.

    Raises:
        ProblemError: when the body is no table, has no rows or too many, unfolds to too much, or
            has other columns.
    """
    views = [model.view for model in lineup.models()]
    if form == JSON:
        body = read_object(headers, content)
        rows = body.get("rows")
        if not isinstance(rows, list) or len(body) > 1:
            raise ProblemError(
                INVALID_REQUEST,
                'the body is not a batch; expected {"rows": [...]}, with one object for each row, '
                "and nothing else",
                errors=[{"detail": "expected an array", "pointer": "#/rows"}],
            )
        _check_count(len(rows), limits.batch_rows)
        return from_objects(rows, views)
    names = tuple(dict.fromkeys(name for view in views for name in view.names))
    try:  # nothing is unfolded before it is known what comes of it
        if form == ARROW:
            shape = arrow_shape(content)
            head = io.BytesIO(content[: shape.schema_end] + END)
            check_columns(pl.read_ipc_stream(head).schema, names)
            _check_shape(shape.rows, shape.unfolded_bytes, limits)
            table = pl.read_ipc_stream(content)
        else:
            packed = parquet_shape(content)
            check_columns(pl.read_parquet_schema(io.BytesIO(content)), names)
            _check_shape(packed.rows, packed.unfolded_bytes, limits)
            table = pl.read_parquet(io.BytesIO(content))
    except (*UNREADABLE, ValueError) as error:
        raise ProblemError(
            MALFORMED_TABLE, f"the body cannot be read as {form}: {first_line(error)}"
        ) from error
    _check_count(table.height, limits.batch_rows)
    return from_table(table, names)


def _check_shape(rows: int, unfolded_bytes: int, limits: LimitSettings) -> None:
    _check_count(rows, limits.batch_rows)
    if unfolded_bytes > limits.batch_unfolded_bytes:
        raise ProblemError(
            BODY_TOO_LARGE,
            f"the table unfolds to {unfolded_bytes} bytes, expected at most "
            f"{limits.batch_unfolded_bytes}; send it in pieces",
        )


def _check_count(given: int, most: int) -> None:
    if not given:
        raise ProblemError(INVALID_REQUEST, "the batch has no rows; expected at least one")
    if given > most:
        raise ProblemError(
            BODY_TOO_LARGE,
            f"the batch has more than {most} rows, expected at most that; send it in pieces",
        )


def written(answer: BatchAnswer, form: str) -> list[bytes]:
    """An answer in one of `FORMS`, in pieces."""
    if form == JSON:
        no_feature = pl.lit([], pl.List(pl.String))
        rows = answer.table.with_columns(pl.col("outside").fill_null(no_feature))
        pieces = [orjson.dumps({**summary(answer), "rows": []})[: -len(_END_OF_ROWS)]]
        for some in rows.iter_slices(_ROWS_AT_ONCE):
            pieces += orjson.dumps(some.to_dicts())[1:-1], b","
        return [*pieces[:-1], _END_OF_ROWS]
    lists = answer.table["outside"]
    joined = (
        pl.Series([""]).new_from_index(0, len(lists))  # nearly always, and much faster
        if lists.null_count() == len(lists)
        else lists.list.join(",").fill_null("")
    )
    table = answer.table.with_columns(outside=joined)
    file = _Pieces()
    if form == ARROW:
        table.write_ipc_stream(file, compat_level=pl.CompatLevel.oldest())
    else:
        table.write_parquet(
            file,
            metadata={f"batteryops.{name}": str(told) for name, told in summary(answer).items()},
        )
    return file.pieces


class _Pieces(io.BytesIO):
    """A file that is kept as it was written: growing takes longer than Arrow takes to write."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def write(self, piece: bytes, /) -> int:  # type: ignore[override]  # Polars gives no other
        self.pieces.append(bytes(piece))
        return len(piece)


def summary(answer: BatchAnswer) -> dict[str, str | int | float]:
    """What is told of a batch as a whole."""
    return {
        "batch_id": answer.batch_id,
        "request_id": answer.request_id,
        "model_name": answer.model_name,
        "n_rows": answer.table.height,
        "n_answered": answer.n_answered,
        "n_refused": answer.n_refused,
        "nominal": answer.nominal,
    }


def summary_headers(answer: BatchAnswer) -> dict[str, str]:
    """The same as headers of the response, in every form."""
    return {
        "Batch-ID": answer.batch_id,
        "Batch-Rows": str(answer.table.height),
        "Batch-Answered": str(answer.n_answered),
        "Batch-Refused": str(answer.n_refused),
        "Batch-Nominal": f"{answer.nominal:g}",
    }
