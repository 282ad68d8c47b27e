"""The rows of a training, kept under their fingerprint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.lifecycle.loading import load_model
from batteryops.lifecycle.training_rows import keep_rows, rows_of
from batteryops.models.package import ModelPackage
from batteryops.schema import fingerprint
from batteryops.settings import Settings, load_settings
from lifecycle.updating import VIEW, old_rows


@dataclass
class Trained:
    """A package as far as its rows are asked for."""

    data_fingerprint: str
    view = VIEW

    @property
    def manifest(self) -> "Trained":
        return self


def trained_on(name: str) -> ModelPackage:
    return cast("ModelPackage", cast("Any", Trained(name)))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(home=tmp_path / "home")


def test_rows_come_back_as_they_were(settings: Settings) -> None:
    rows = old_rows().with_columns(voltage_V_mean=None).cast({"voltage_V_mean": pl.Float64})
    name = keep_rows(rows, settings)
    assert name == fingerprint(rows)
    assert rows_of(trained_on(name), settings).equals(rows)


def test_rows_that_are_kept_are_not_written_again_unless_they_were_damaged(
    settings: Settings,
) -> None:
    name = keep_rows(old_rows(), settings)
    (file,) = settings.training_rows.iterdir()
    written = file.stat().st_mtime_ns
    keep_rows(old_rows(), settings)
    assert file.stat().st_mtime_ns == written
    file.write_bytes(b"half")
    keep_rows(old_rows(), settings)
    assert rows_of(trained_on(name), settings).equals(old_rows())


def test_rows_that_are_gone_or_changed_say_to_train_again(settings: Settings) -> None:
    name = keep_rows(old_rows(), settings)
    (file,) = settings.training_rows.iterdir()
    old_rows().with_columns(pl.col("capacity_ah") * 0.9).write_parquet(file)
    with pytest.raises(DataError, match="was changed; train again"):
        rows_of(trained_on(name), settings)
    file.write_bytes(b"half")
    with pytest.raises(DataError, match=r"cannot be read as Parquet.*train again"):
        rows_of(trained_on(name), settings)
    file.unlink()
    with pytest.raises(DataError, match="cannot be brought up to date; train again"):
        rows_of(trained_on(name), settings)


def test_a_table_without_the_view_s_features_is_no_training_of_it(settings: Settings) -> None:
    name = keep_rows(old_rows().drop("voltage_V_mean"), settings)
    with pytest.raises(DataError, match="no column voltage_V_mean"):
        rows_of(trained_on(name), settings)


def test_every_training_keeps_its_rows(trained_home: Path, quick_config: Path) -> None:
    settings = load_settings(quick_config, home=trained_home)
    package = load_model("1", settings).package
    rows = rows_of(package, settings)
    assert rows.height == package.manifest.training_rows
    assert set(rows["asset_id"]) == set(package.manifest.training_assets)
