"""Many questions at once: columns of features, and what is wrong with which row."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.features.validation import problems
from batteryops.features.view import Feature, FeatureView
from batteryops.serving.faults import MAX_VEHICLE_ID, VEHICLE, body_faults, is_name
from batteryops.serving.problems import INVALID_REQUEST, ProblemError

_LARGEST: Final = 1e300  # near what a column of numbers can hold
_NAME_BYTES: Final = 4 * MAX_VEHICLE_ID  # no character takes more
_NAMED: Final = 10  # unknown columns that a message names


@dataclass(frozen=True, slots=True)
class Questions:
    """Rows that were sent, not judged yet but for what could not be put in a column.

    Args:
        vehicles: (n,) text, null where none was given.
        features: (n,) numbers or nulls by feature name; NaN and infinity are still there.
        faults: what is wrong with rows, where it is known already.
    """

    vehicles: pl.Series
    features: Mapping[str, pl.Series]
    faults: Mapping[int, str]

    def __len__(self) -> int:
        """How many rows."""
        return len(self.vehicles)


def from_table(table: pl.DataFrame, names: Sequence[str]) -> Questions:
    """Rows of a table.

    Args:
        table: as it was sent.
        names: of the features that the models in service take.

    Raises:
        ProblemError: naming columns that are missing, unknown or of another type.
    """
    check_columns(table.schema, names)
    return Questions(
        _names(table[VEHICLE]), {name: table[name] for name in names if name in table.columns}, {}
    )


def _names(given: pl.Series) -> pl.Series:
    """Names as text; those that are far too long for one are left out before they are copied.

    A column of few texts, or of overlapping ones, may be small and hold very much as text by text.
    """
    name = pl.col(given.name)
    if given.dtype == pl.Null:
        return given.cast(pl.String)
    size = name.str.len_bytes() if given.dtype == pl.String else name.cat.len_bytes()
    kept = given.to_frame().select(pl.when(size <= _NAME_BYTES).then(name)).to_series()
    return kept.cast(pl.String)


def check_columns(schema: Mapping[str, pl.DataType], names: Sequence[str]) -> None:
    """Refuse a table that does not have the columns of questions.

    A column of a feature may be absent here: which are needed depends on who answers.

    Raises:
        ProblemError: naming columns that are missing, unknown or of another type.
    """
    faults = []
    if VEHICLE not in schema:
        faults.append(f"column {VEHICLE} is missing, expected the assets' names")
    elif schema[VEHICLE] not in (pl.String, pl.Categorical, pl.Enum, pl.Null):
        faults.append(f"column {VEHICLE} is {schema[VEHICLE]}, expected text")
    faults += [
        f"column {name} is {schema[name]}, expected numbers"
        for name in names
        if name in schema and not (schema[name].is_numeric() or schema[name] == pl.Null)
    ]
    unknown = sorted(schema.keys() - {VEHICLE, *names})
    if unknown:
        told = ", ".join(name[:128] for name in unknown[:_NAMED])
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        faults.append(
            f"unknown column{'s' if len(unknown) > 1 else ''}: {told}{more}; "
            f"expected {', '.join((VEHICLE, *names))}"
        )
    if faults:
        raise faulty_columns(faults)


def faulty_columns(faults: Sequence[str]) -> ProblemError:
    """The refusal of a table for its columns."""
    return ProblemError(
        INVALID_REQUEST,
        "the table has faults; see errors, correct them and send it again",
        errors=[{"detail": fault} for fault in faults],
    )


def from_objects(rows: Sequence[Any], views: Collection[FeatureView]) -> Questions:
    """Rows of JSON; each is judged as the body of a single question is.

    Args:
        rows: whatever stands in the array.
        views: of the models in service, the champion's first.
    """
    first, *others = views
    names = tuple(dict.fromkeys(name for view in views for name in view.names))
    faults: dict[int, str] = {}
    sound: list[Mapping[str, Any]] = []
    for at, row in enumerate(rows):
        if not isinstance(row, dict):
            faults[at] = f"the row is {_shown(row)}, expected an object"
            sound.append({})
            continue
        found = body_faults(row, first)
        if found and any(not body_faults(row, view) for view in others):
            found = []
        if found:
            faults[at] = "; ".join(fault["detail"] for fault in found)
            row = {name: value for name, value in row.items() if _is_kept(name, value)}  # noqa: PLW2901 - without what no column holds
        sound.append(row)
    return Questions(
        pl.Series(VEHICLE, [row.get(VEHICLE) for row in sound], dtype=pl.String),
        {
            name: pl.Series(name, [row.get(name) for row in sound], dtype=pl.Float64, strict=False)
            for name in names
        },
        faults,
    )


def judged(
    questions: Questions, view: FeatureView, rows: NDArray[np.intp] | None
) -> tuple[NDArray[np.float32], dict[int, str]]:
    """The features of rows as a model takes them, and what is wrong with which row.

    Args:
        questions: all rows.
        view: of the model.
        rows: which rows are the model's; all of them when None.

    Returns:
        (m, k), NaN where missing; and by place among these rows what a single question would be
        told. What stands in the matrix where something is wrong is not to be used.
    """
    count = len(questions) if rows is None else len(rows)
    matrix = np.empty((count, len(view.features)), dtype=np.float32)
    bad = np.zeros(count, dtype=np.bool_)
    for column, feature in enumerate(view.features):
        series = questions.features[feature.name]
        given = series if rows is None else series[rows]
        values = given.cast(pl.Float64).to_numpy()  # null becomes NaN
        with np.errstate(over="ignore"):  # such a row is refused
            matrix[:, column] = values
        if not (feature.low <= values.min() and values.max() <= feature.high):  # NaN is neither
            bad |= _bad(feature, given, values)
    if not bad.any():
        return matrix, {}
    told = {}
    for at in np.flatnonzero(bad).tolist():
        row = at if rows is None else int(rows[at])
        told[at] = "; ".join(
            problems(view, {name: questions.features[name][row] for name in view.names})
        )
    return matrix, told


def _bad(feature: Feature, given: pl.Series, values: NDArray[np.float64]) -> NDArray[np.bool_]:
    sound = (values >= feature.low) & (values <= feature.high)
    if feature.optional and given.null_count():
        sound |= given.is_null().to_numpy()
    return ~sound


def _is_kept(name: str, value: object) -> bool:
    """Whether a value of a faulty row can stand in its column."""
    if name == VEHICLE:
        return is_name(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value is None
    return abs(value) < _LARGEST


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."  # noqa: PLR2004 - characters
