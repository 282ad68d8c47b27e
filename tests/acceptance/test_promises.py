"""What the project promises on the real NASA cells, through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from batteryops.features.views import get_view

pytestmark = pytest.mark.data

QUICK = {"BATTERYOPS_EVALUATION__CALIBRATION_FOLDS": "2"}
"""Intervals are no promise of this page: a fold or two suffice."""


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command, whatever its exit code."""
    return subprocess.run(  # noqa: S603 - our own module
        [sys.executable, "-m", "batteryops", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env=os.environ | QUICK,
    )


def batteryops(*words: object) -> Any:  # noqa: ANN401 - any JSON document
    """Run a command with --json and read what it prints."""
    ran = run(*words, "--json")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def published(data_folder: Path) -> Path:
    """The feature table that was published with the source system."""
    return data_folder / "source_system" / "nasa_feature_matrix.csv"


def test_features_equal_the_published_table_in_every_row(
    data_folder: Path, published: Path, tmp_path: Path
) -> None:
    out = tmp_path / "features.parquet"
    told = batteryops("features", "--source", data_folder / "nasa", "--out", out)
    assert told["rows"] == 1886
    assert told["left_out_for"] == {"capacity_ah": 25, "voltage_drop_time_s": 4}

    names = get_view("discharge_summary").names
    ours = pl.read_parquet(out)
    assert ours.columns == ["asset_id", "op_index", *names, "capacity_ah"]
    both = ours.join(
        pl.read_csv(published),
        left_on=["asset_id", "op_index"],
        right_on=["battery_id", pl.col("cycle").cast(pl.Int32)],
        suffix="_published",
    )
    assert both.height == 1886
    for name in names:
        assert (both[name] - both[f"{name}_published"]).abs().max() <= 1e-9  # type: ignore[operator]
    assert both["capacity_ah"].equals(both["capacity"])


def test_the_random_protocol_reaches_what_was_measured_on_the_shared_cells(published: Path) -> None:
    told = batteryops("evaluate", "--features", published, "--protocol", "random")
    assert told["n_train"] == 1320
    assert told["n_test"] == 566
    assert told["mae_ah"] <= 0.0187
    assert told["r2"] >= 0.985
    assert told["baselines"]["ridge"]["mae_ah"] == pytest.approx(0.190, abs=1e-3)


def test_batteries_never_seen_are_harder_and_the_model_beats_ridge_there(published: Path) -> None:
    told = batteryops("evaluate", "--features", published, "--protocol", "unseen_assets")
    assert told["n_test"] == 1886
    assert len(told["folds"]) == 25  # B0005, B0006 and B0007 are one
    assert 0.10 < told["mae_ah"] < told["baselines"]["ridge"]["mae_ah"]


def test_the_demo_runs_on_the_nasa_cells(data_folder: Path, tmp_path: Path) -> None:
    assert (data_folder / "nasa").is_dir()
    told = batteryops("demo", "--home", tmp_path)
    assert told["source"] == "nasa"
    assert told["gates_passed"] is True
    assert Path(told["report"]).is_file()


def test_validate_tells_a_good_model_from_one_of_shuffled_labels(
    published: Path, tmp_path: Path
) -> None:
    table = pl.read_csv(published)
    shuffled = tmp_path / "shuffled.csv"
    table.with_columns(pl.col("capacity").shuffle(seed=1)).write_csv(shuffled)
    verdicts = {}
    for name, file in {"good": published, "shuffled": shuffled}.items():
        package = tmp_path / name
        run("train", "--features", file, "--out", package, "--home", tmp_path / "home")
        thresholds = ["--threshold-mae", 0.02, "--threshold-r2", 0.98]
        verdicts[name] = run(
            "validate", "--model", package, "--test-data", published, *thresholds, "--json"
        )
    assert verdicts["good"].returncode == 0, verdicts["good"].stdout
    assert verdicts["shuffled"].returncode == 1
    failed = [
        gate for gate in json.loads(verdicts["shuffled"].stdout)["gates"] if not gate["passed"]
    ]
    assert {gate["name"] for gate in failed} == {"mae", "r2"}
