"""Strata: which rows are compared like with like."""

import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.monitoring.strata import strata_of


def test_a_stratum_is_a_profile_and_a_band_of_temperature() -> None:
    table = pl.DataFrame(
        {
            "asset_id": ["EV-1", "EV-1", "B5", "B5", None],
            "temperature_C_mean": [9.9, 10.0, 29.9, 30.0, None],
        }
    )
    assert strata_of(table, {"EV-1": "nmc", "B5": "nasa"}, (10, 30)).to_list() == [
        "nmc|cold",
        "nmc|mild",
        "nasa|mild",
        "nasa|hot",
        "unknown|unknown",
    ]


def test_a_view_without_mean_temperature_has_the_ambient_one() -> None:
    table = pl.DataFrame({"asset_id": ["a"], "ambient_temperature_C": [4]})
    assert strata_of(table, {"a": "nasa"}, (10, 30)).to_list() == ["nasa|cold"]


def test_without_assets_or_temperatures_the_stratum_is_unknown() -> None:
    table = pl.DataFrame({"x": [1.0, 2.0]})
    assert strata_of(table, {}, (10, 30)).to_list() == ["unknown|unknown"] * 2
    assert (
        strata_of(table.with_columns(temperature_C_mean=float("nan")), {}, (10, 30)).to_list()
        == ["unknown|unknown"] * 2
    )


def test_wrong_bands_and_temperatures_are_refused() -> None:
    table = pl.DataFrame({"temperature_C_mean": ["warm"]})
    with pytest.raises(DataError, match="expected numbers"):
        strata_of(table, {}, (10, 30))
    with pytest.raises(DataError, match="do not increase"):
        strata_of(table, {}, (30, 10))
