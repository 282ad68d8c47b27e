"""The reference: fitted once, kept exactly, refused where it does not belong."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.features.views import get_view
from batteryops.monitoring.reference import Reference

VIEW = get_view("discharge_summary")
RNG = np.random.default_rng(12)
TABLE = pl.DataFrame({name: RNG.normal(size=300) for name in VIEW.names}).with_columns(
    asset_id=pl.Series([f"EV-{row // 10}" for row in range(300)]),
    delta_T_C=pl.Series([None, np.inf, *RNG.normal(size=298)], dtype=pl.Float64, strict=False),
)
STRATA = pl.Series(["x|cold"] * 100 + ["x|hot"] * 200)
REFERENCE = Reference.fit(
    TABLE, VIEW.names, strata=STRATA, predictions=RNG.normal(size=300), view=VIEW
)


def test_a_reference_survives_json_exactly() -> None:
    told = REFERENCE.to_json()
    again = Reference.from_json(json.loads(json.dumps(told, allow_nan=False)))
    assert again.to_json() == told
    assert again.fingerprint == REFERENCE.fingerprint
    assert (again.rows, again.assets, again.strata) == (300, 30, ("x|cold", "x|hot"))
    assert list(again.columns) == [*VIEW.names, "prediction"]


def test_quantiles_are_those_of_the_rows() -> None:
    column = REFERENCE.features["voltage_V_mean"]
    ordered = TABLE["voltage_V_mean"].sort()
    assert column.quantile(0.0) in {ordered[0], np.nextafter(ordered[0], -np.inf)}
    assert column.quantile(0.5) == ordered[149]
    assert column.quantile(1.0) == ordered[299]
    assert np.isnan(
        Reference.fit(pl.DataFrame({"x": [None, None]}), ["x"]).features["x"].quantile(0.5)
    )


def test_a_reference_belongs_to_one_version_of_a_view() -> None:
    REFERENCE.require_view(VIEW)
    with pytest.raises(DataError, match=r"version 1.*version 2"):
        REFERENCE.require_view(replace(VIEW, version=2))
    with pytest.raises(DataError, match="discharge_physics"):
        REFERENCE.require_view(get_view("discharge_physics"))
    Reference.fit(TABLE, VIEW.names).require_view(VIEW)  # it does not know of what it is


@pytest.mark.parametrize(
    ("table", "features", "message"),
    [
        (TABLE.head(0), VIEW.names, "0 rows"),
        (TABLE, [], "0 features"),
        (TABLE, ["humidity"], "needs humidity, which the table lacks"),
        (TABLE, ["asset_id"], "feature asset_id is String, expected numbers"),
    ],
)
def test_what_says_nothing_is_refused(
    table: pl.DataFrame, features: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        Reference.fit(table, features)


def test_strata_and_predictions_are_one_per_row() -> None:
    with pytest.raises(DataError, match="1 strata for 300 rows"):
        Reference.fit(TABLE, VIEW.names, strata=pl.Series(["x"]))
    with pytest.raises(DataError, match="predictions have shape"):
        Reference.fit(TABLE, VIEW.names, predictions=[1.0])


def changed(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON
    document = json.loads(json.dumps(REFERENCE.to_json()))
    column = document["features"]["voltage_V_mean"]
    for key, value in changes.items():
        (column if key in column else document)[key] = value
    return dict(document)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "no reference"),
        ({"format_version": 99}, "format version 99"),
        (changed(features={}), "no features"),
        (changed(cuts="2.0 1.0"), "no reference"),
        (changed(cuts="1.0 nan"), "no reference"),
        (changed(ends="5000"), "no reference"),
        (changed(cells="1 2 3"), "no reference"),
        (changed(cells="many"), "no reference"),
        (changed(groups={"9999": "1"}), "no reference"),
    ],
)
def test_what_is_no_reference_is_refused(document: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Reference.from_json(document)
