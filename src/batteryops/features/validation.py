"""Refuses features that cannot be true, and says which mistake each one looks like.

A request is judged value by value (`problems`), or judged and turned into a model's row in one
step (`vector`); a table is judged column by column (`check_table`). Whether a name that the view
does not have may stand in a request is decided at the door, not here.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Final, SupportsFloat, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.features.view import Feature, FeatureView
from batteryops.schema import FEATURE_KEY


@dataclass(frozen=True, slots=True)
class _Mistake:
    """Values of one unit, all implausible, that betray a known slip."""

    unit: str
    low: float
    high: float
    looks_like: str
    advice: str


_KELVIN: Final = 273.15
_MISTAKES: Final = (
    _Mistake("V", 1000.0, 5000.0, "millivolts", "divide by 1000"),
    _Mistake("V", 5.0, 1000.0, "the voltage of a pack", "divide by the number of cells in series"),
    _Mistake("A", -20_000.0, -20.0, "milliamps", "divide by 1000"),
    _Mistake(
        "A", 0.0, 20.0, "a discharge counted as positive", "change the sign, discharge is negative"
    ),
    _Mistake("A", 20.0, 20_000.0, "milliamps, discharge counted as positive", "divide by -1000"),
    _Mistake("degC", _KELVIN - 50.0, _KELVIN + 100.0, "kelvin", f"subtract {_KELVIN}"),
    _Mistake("degC", 70.0, 200.0, "Fahrenheit", "subtract 32 and divide by 1.8"),
    _Mistake("s", 86_400.0, 86_400_000.0, "milliseconds", "divide by 1000"),
    _Mistake("s", -86_400.0, 0.0, "a time before the start", "count from the start of the cycle"),
    _Mistake("Wh", 60.0, 60_000.0, "milliwatt-hours", "divide by 1000"),
    _Mistake("W", -100.0, 0.0, "a discharge counted as negative", "change the sign"),
    _Mistake("W", 100.0, 100_000.0, "milliwatts", "divide by 1000"),
    _Mistake("ohm", 2.0, 2000.0, "milliohms", "divide by 1000"),
)
"""In the order in which they are tried."""


def problems(view: FeatureView, values: Mapping[str, object]) -> list[str]:
    """What is wrong with the features of one request; empty when nothing is.

    Args:
        view: says which features are expected, and where they can lie.
        values: by feature name; further names are passed over. None stands for a value that is
            not there, which only optional features may be.

    Returns:
        One sentence per bad feature, in the view's order: what was given, what was expected and,
        where the value looks like a known slip, what to do.

    Examples:
        >>> from batteryops.features.views import get_view
        >>> view = get_view("discharge_summary")
        >>> good = {"voltage_V_mean": 3.53, "current_A_mean": -1.82, "temperature_C_mean": 32.6,
        ...         "temperature_C_max": 39.0, "discharge_time_s": 3690.0, "delta_T_C": 14.7,
        ...         "voltage_drop_time_s": 2713.0}
        >>> problems(view, good)
        []
        >>> problems(view, good | {"voltage_V_mean": 3529.8})
        ['voltage_V_mean is 3529.8, expected 0 to 5 V; it looks like millivolts: divide by 1000']
    """
    found = []
    for feature in view.features:
        if feature.name not in values:
            found.append(f"{feature.name} is missing, expected {_expected(feature)}")
        elif (problem := _problem(feature, values[feature.name])) is not None:
            found.append(problem)
    return found


def vector(
    view: FeatureView, values: Mapping[str, object] | Sequence[object]
) -> NDArray[np.float32]:
    """One request's features as a model takes them.

    Args:
        view: says which features are expected, where they can lie, and their order.
        values: by name (further names are passed over), or by position in the view's order.

    Returns:
        Shape (features,), float32; an optional feature that is None is NaN.

    Raises:
        DataError: with every problem that `problems` finds, or with the length that a positional
            vector should have.

    Examples:
        >>> from batteryops.features.views import get_view
        >>> vector(get_view("discharge_summary"), [3.5, -1.8, 32.6, 39.0, 3690, 14.7, 2713])
        array([ 3.500e+00, -1.800e+00,  3.260e+01,  3.900e+01,  3.690e+03,
                1.470e+01,  2.713e+03], dtype=float32)
        >>> vector(get_view("discharge_summary"), [3.5, -1.8])
        Traceback (most recent call last):
        ...
        batteryops.errors.DataError: a feature vector of length 2 was given; view
        discharge_summary expects 7 values: voltage_V_mean, current_A_mean, ...
    """
    if isinstance(values, Mapping):
        named = values
    else:
        if isinstance(values, str) or len(values) != len(view.features):
            given = "text" if isinstance(values, str) else f"length {len(values)}"
            raise DataError(
                f"a feature vector of {given} was given; view {view.name} expects "
                f"{len(view.features)} values: {', '.join(view.names)}"
            )
        named = dict(zip(view.names, values, strict=True))
    row = np.empty(len(view.features), dtype=np.float32)
    for position, feature in enumerate(view.features):
        value = named.get(feature.name)
        if type(value) is float and feature.low <= value <= feature.high:  # as in _problem
            row[position] = value
        elif feature.name not in named or _problem(feature, value) is not None:
            raise DataError("; ".join(problems(view, named)))
        else:  # an integer, a number of NumPy, or an optional feature's None
            row[position] = math.nan if value is None else float(cast("SupportsFloat", value))
    return row


def check_table(view: FeatureView, table: pl.DataFrame) -> None:
    """Refuse a table of features in which any value cannot be true.

    Args:
        view: says which columns are expected, and where their values can lie.
        table: one row per cycle; columns that the view does not have are passed over.

    Raises:
        DataError: naming every bad column with the number of bad rows, the first of them, and
            the slip that its value looks like; or saying that there are no rows.
    """
    if table.is_empty():
        raise DataError(
            f"the feature table has no rows; view {view.name} expects one per {view.kind}"
        )
    found = []
    for feature in view.features:
        if feature.name not in table.columns:
            found.append(f"column {feature.name} is missing, expected {_expected(feature)}")
            continue
        dtype = table.schema[feature.name]
        unknown = dtype == pl.Null  # a column of nothing but nulls
        if not dtype.is_numeric() and not unknown:
            found.append(f"column {feature.name} is {dtype}, expected {_expected(feature)}")
        elif (problem := _column_problem(feature, table)) is not None:
            found.append(problem)
    if found:
        raise DataError("; ".join(found))


def _column_problem(feature: Feature, table: pl.DataFrame) -> str | None:
    values = table[feature.name].cast(pl.Float64)
    sound = values.is_between(feature.low, feature.high)  # NaN and infinity are not
    bad = (~sound.fill_null(feature.optional)).arg_true()
    if bad.is_empty():
        return None
    first = int(bad[0])
    problem = _problem(feature, values[first])
    return f"{len(bad)} of {len(values)} rows, first {_row_name(table, first)}: {problem}"


def _row_name(table: pl.DataFrame, row: int) -> str:
    if all(name in table.columns for name in FEATURE_KEY):
        asset, index = table.select(FEATURE_KEY).row(row)
        return f"cycle {index} of {asset}"
    return f"row {row}"


def _expected(feature: Feature) -> str:
    return f"{feature.expected}, or null" if feature.optional else feature.expected


def _problem(feature: Feature, value: object) -> str | None:
    """What is wrong with one value of a feature; None when nothing is."""
    if type(value) is float and feature.low <= value <= feature.high:  # nearly always
        return None
    if value is None:
        return None if feature.optional else f"{feature.name} is null, expected {feature.expected}"
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        return (
            f"{feature.name} is {_shortened(repr(value))} ({type(value).__name__}), "
            f"expected a number, {_expected(feature)}"
        )
    try:
        number = float(value)
    except OverflowError:  # an integer of hundreds of digits
        number = math.inf if value == abs(value) else -math.inf
    if feature.low <= number <= feature.high:
        return None
    if not math.isfinite(number):
        name = "NaN" if math.isnan(number) else "infinity" if number > 0.0 else "-infinity"
        return f"{feature.name} is {name}, expected {_expected(feature)}"
    return f"{feature.name} is {number:.10g}, expected {_expected(feature)}{_hint(feature, number)}"


def _hint(feature: Feature, number: float) -> str:
    for mistake in _MISTAKES:
        if mistake.unit == feature.unit and mistake.low <= number <= mistake.high:
            return f"; it looks like {mistake.looks_like}: {mistake.advice}"
    return ""


def _shortened(text: str, length: int = 40) -> str:
    return text if len(text) <= length else f"{text[:length]}..."
