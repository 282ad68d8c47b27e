"""`batteryops retrain online`: a batch that is learned from, and one that is not."""

import shutil
from pathlib import Path

import polars as pl
import pytest

from batteryops.lifecycle.promotion import promote
from batteryops.settings import load_settings
from cli.running import Run, runner
from lifecycle.updating import new_rows


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


@pytest.fixture(autouse=True)
def _champion(
    trained_home: Path, quick_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of a home with version 1 in service, in force for the test."""
    shutil.copytree(trained_home, tmp_path / "home")
    monkeypatch.setenv("BATTERYOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BATTERYOPS_CONFIG", str(quick_config))
    monkeypatch.setenv("BATTERYOPS_RETRAINING__REPORT", "false")
    promote(1, load_settings(quick_config, home=tmp_path / "home"))


def test_a_batch_that_makes_the_model_better_is_put_in_service(run: Run, tmp_path: Path) -> None:
    new_rows().write_parquet(tmp_path / "batch.parquet")
    told = run("retrain", "online", "--features", tmp_path / "batch.parquet", "--promote", "--json")
    assert told.code == 0, told.err
    assert (told.json["version"], told.json["promoted"]["replaced"]) == (2, 1)
    assert told.json["strategy"] == "online_10"
    assert run("versions", "--json").json[1]["status"] == "champion"


def test_an_accepted_batch_is_shown_with_what_it_was_judged_by(run: Run, tmp_path: Path) -> None:
    new_rows().write_parquet(tmp_path / "batch.parquet")
    told = run("retrain", "online", "--features", tmp_path / "batch.parquet")
    assert told.code == 0
    assert "current model" in told.out
    assert "accepted: version 2, from version 1: online_10" in told.err
    assert "`batteryops promote 2` puts it in service" in told.err


def test_the_model_that_stays_says_why(run: Run, tmp_path: Path) -> None:
    told = run("retrain", "online")
    assert told.code == 1
    assert "kept: version 1 stays: there are no new labels to learn from" in told.err
    one = new_rows().filter(pl.col("asset_id") == "EV-1101")
    one.write_parquet(tmp_path / "one.parquet")
    told = run("retrain", "online", "--features", tmp_path / "one.parquet", "--json")
    assert told.code == 1
    assert told.json["version"] is None
    assert "EV-1101" in told.json["reason"]
