"""The feature views there are, and how a recording becomes a table and a table a matrix."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.features.discharge_physics import DISCHARGE_PHYSICS
from batteryops.features.discharge_summary import DISCHARGE_SUMMARY
from batteryops.features.partial_window import PARTIAL_WINDOW
from batteryops.features.view import Feature, FeatureView
from batteryops.schema import CYCLE_KEY, FEATURE_KEY, LABEL, Recording

__all__ = ["VIEWS", "Feature", "FeatureView", "feature_table", "get_view", "matrix"]

VIEWS: Final[Mapping[str, FeatureView]] = MappingProxyType(
    {view.name: view for view in (DISCHARGE_SUMMARY, DISCHARGE_PHYSICS, PARTIAL_WINDOW)}
)


def get_view(name: str) -> FeatureView:
    """The view of that name.

    Raises:
        DataError: when there is none.

    Examples:
        >>> get_view("discharge_summary").names[:2]
        ('voltage_V_mean', 'current_A_mean')
    """
    if name not in VIEWS:
        raise DataError(f"feature view {name!r} does not exist; expected one of {', '.join(VIEWS)}")
    return VIEWS[name]


def feature_table(view: FeatureView, recording: Recording) -> pl.DataFrame:
    """Features and label of every cycle of the view's kind.

    Args:
        view: what to compute.
        recording: samples and cycles of any kinds.

    Returns:
        `asset_id`, `op_index` (Int32), the features (Float64), `capacity_ah` (Float64), one row
        per cycle, sorted by asset and op_index. A feature is null where it is not computable and
        the label where none was measured: the caller decides which of these rows to use, and
        lists those that it does not.

    Raises:
        DataError: when no cycle is of the view's kind, when a cycle is listed twice, or when
            samples belong to a cycle that is not listed.
    """
    context = recording.cycles.filter(pl.col("kind").is_in(view.kinds))
    cycles = context.filter(pl.col("kind") == view.kind)
    if cycles.is_empty():
        kinds = ", ".join(recording.cycles["kind"].drop_nulls().unique().sort()) or "no cycles"
        raise DataError(
            f"{recording.source} has no {view.kind} cycles (given: {kinds}), and feature view "
            f"{view.name} describes these; give a recording of {view.kind} cycles"
        )
    twice = context.filter(context.select(CYCLE_KEY).is_duplicated())
    if not twice.is_empty():
        raise DataError(f"{recording.source} lists cycle {_name(twice)} twice; expected once")
    labels = cycles.select(
        "asset_id", pl.col("cycle_index").alias("op_index"), pl.col(LABEL).fill_nan(None)
    )
    features = view.compute(recording.samples, context)
    unlisted = features.join(labels, on=FEATURE_KEY, how="anti")
    if not unlisted.is_empty():
        raise DataError(
            f"{recording.source} has samples of {unlisted.height} {view.kind} cycles that its "
            f"table of cycles does not list as such, first {_name(unlisted)}; list them there"
        )
    return (
        labels.join(features, on=FEATURE_KEY, how="left")
        .select(*FEATURE_KEY, *view.names, LABEL)
        .sort(FEATURE_KEY)
    )


def _name(cycles: pl.DataFrame) -> str:
    asset, index = cycles.row(0)[:2]
    return f"{index} of {asset}"


def matrix(view: FeatureView, table: pl.DataFrame) -> NDArray[np.float32]:
    """The features of a table as a model takes them.

    Args:
        view: names the columns and their order.
        table: has the view's features as numeric columns; others are passed over.

    Returns:
        Shape (rows, features), float32, C-contiguous; null is NaN.

    Raises:
        DataError: when a column is missing or not numeric.

    Examples:
        >>> view = get_view("discharge_summary")
        >>> table = pl.DataFrame({name: [1.0, None] for name in view.names})
        >>> matrix(view, table)[:, 0]
        array([ 1., nan], dtype=float32)
    """
    missing = [name for name in view.names if name not in table.columns]
    if missing:
        raise DataError(
            f"missing feature {', '.join(missing)}; expected the {len(view.names)} of view "
            f"{view.name}: {', '.join(view.names)}"
        )
    for name in view.names:
        if not table.schema[name].is_numeric():
            raise DataError(f"feature {name} is {table.schema[name]}, expected numbers")
    columns = table.select(pl.col(view.names).cast(pl.Float32))
    return np.ascontiguousarray(columns.to_numpy(), dtype=np.float32)


def complete_rows(table: pl.DataFrame, view: FeatureView) -> tuple[pl.DataFrame, dict[str, int]]:
    """Rows with a label and every required feature, and how many miss which.

    Examples:
        >>> view = get_view("discharge_summary")
        >>> row = {"asset_id": "B0005", "op_index": 2, **dict.fromkeys(view.names, 1.0)}
        >>> table = pl.DataFrame([row | {"capacity_ah": 1.8}, row | {"capacity_ah": None}])
        >>> kept, missing = complete_rows(table, view)
        >>> kept.height, missing
        (1, {'capacity_ah': 1})
    """
    needed = (LABEL, *view.required)
    missing = {name: table[name].null_count() for name in needed if table[name].null_count()}
    return table.drop_nulls(needed).sort(FEATURE_KEY), missing
