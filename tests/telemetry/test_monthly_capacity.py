from datetime import date
from pathlib import Path

import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.telemetry.monthly_capacity import looks_like_months, read_monthly_capacity


def written(folder: Path, **columns: list[object]) -> Path:
    two: dict[str, list[object]] = {
        "vehicle": [12, 1],
        "month": ["2019-08", "2019-07"],
        "capacity_median_ah": [130.0, 134.5],
        "vertex_seen": [True, False],
    }
    path = folder / "months.parquet"
    pl.DataFrame(
        {name: values for name, values in (two | columns).items() if values}
    ).write_parquet(path)
    return path


def test_a_row_is_a_vehicle_in_a_month(tmp_path: Path) -> None:
    found = read_monthly_capacity(written(tmp_path))
    assert found.rows() == [
        ("EU500-01", date(2019, 7, 1), 134.5, False),
        ("EU500-12", date(2019, 8, 1), 130.0, True),
    ]
    assert looks_like_months(["vehicle", "month", "capacity_median_ah"])
    assert not looks_like_months(["vehicle_id", "month"])


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"month": []}, "missing column month"),
        ({"month": ["July", "2019-07"]}, "not written YYYY-MM"),
        ({"vehicle": ["a", "b"]}, "column vehicle is String, expected whole numbers"),
        ({"capacity_median_ah": ["a", "b"]}, "expected numbers"),
        ({"vertex_seen": [1, 0]}, "expected true or false"),
        ({"vehicle": [1, 1], "month": ["2019-07", "2019-07"]}, "stands there twice"),
    ],
)
def test_another_table_is_refused(
    tmp_path: Path, columns: dict[str, list[object]], told: str
) -> None:
    with pytest.raises(DataError, match=told):
        read_monthly_capacity(written(tmp_path, **columns))


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    pl.read_parquet(path).clear().write_parquet(path)
    with pytest.raises(DataError, match="no rows"):
        read_monthly_capacity(path)


@pytest.mark.data
def test_the_published_fleet_has_17_vehicles_over_29_months(data_folder: Path) -> None:
    path = data_folder / "fleet" / "deng2023_eu500" / "monthly_capacity_digitised.csv"
    found = read_monthly_capacity(path)
    assert (found["asset_id"].n_unique(), found["month"].n_unique(), found.height) == (17, 29, 493)
    assert found["drawn"].sum() == 350
