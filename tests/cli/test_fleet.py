"""The fleet's commands as a person runs them."""

import json
from pathlib import Path

import polars as pl
import pytest

from batteryops.cli.main import main
from batteryops.lifecycle import fleet_diagnosis


def run(monkeypatch: pytest.MonkeyPatch, *words: object, columns: int = 200) -> int:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.argv", ["batteryops", *map(str, words)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.fixture
def trip_file(tmp_path: Path) -> Path:
    n = 30
    steps = [float(step) for step in range(n)]
    file = tmp_path / "trips.parquet"
    pl.DataFrame(
        {
            "vehicle_id": ["Vehicle 1"] * n,
            "trip_id": list(range(1, n + 1)),
            "dod": [10 + step % 7 for step in steps],
            "duration_s": [900 + 60 * (step % 11) for step in steps],
            "voltage_mean": [408 + step % 3 for step in steps],
            "voltage_std": [3.0] * n,
            "voltage_drop_time_s": [130 + step for step in steps],
            "current_mean": [20 + step % 5 for step in steps],
            "current_max": [200.0] * n,
            "current_min": [-80.0] * n,
            "delta_temp": [6 + 0.4 * step for step in steps],
            "mean_max_temp": [30 + step % 4 for step in steps],
            "max_temp": [30 + step % 4 for step in steps],
        }
    ).write_parquet(file)
    return file


def test_the_scorecard_is_a_table_a_document_and_a_page(
    trip_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "card.html"
    assert run(monkeypatch, "fleet", "scorecard", "--source", trip_file, "--out", page) == 0
    shown = capsys.readouterr()
    assert "Vehicle 1" in shown.out
    assert "priority" in shown.out
    assert "1 priority, 0 monitor, 0 healthy" in shown.err
    assert "<h1>Fleet scorecard</h1>" in page.read_text(encoding="utf-8")
    assert run(monkeypatch, "fleet", "scorecard", "--source", trip_file, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["counts"] == {"priority": 1, "monitor": 0, "healthy": 0}
    assert document["vehicles"][0]["soh"] is None
    assert document["page"] is None


def test_a_narrow_terminal_shows_actions_and_reasons_whole(
    trip_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "fleet", "scorecard", "--source", trip_file, columns=80) == 0
    shown = capsys.readouterr()
    assert "│ priority │" in shown.out
    assert "correlation" in shown.out
    assert "a wider terminal also shows limit in, warming, unusable" in shown.err


def test_the_diagnosis_of_a_package_is_tables_reasons_and_a_page(
    trip_file: Path,
    trained_home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "diagnosis.html"
    words = ("fleet", "diagnose", "--source", trip_file, "--model", "1", "--home", trained_home)
    assert run(monkeypatch, *words, "--out", page) == 0
    shown = capsys.readouterr()
    assert "what the domain check says" in shown.out
    assert "0 of 30 trips lie inside" in shown.err
    assert "<h1>Lab to fleet</h1>" in page.read_text(encoding="utf-8")
    assert run(monkeypatch, *words, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["trips"] == 30
    assert document["domain"][0]["inside"] == 0


def test_wrong_input_is_one_line_and_exit_1(
    trip_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    one = tmp_path / "one.parquet"
    pl.read_parquet(trip_file).head(1).write_parquet(one)
    for words, told in (
        (("diagnose", "--source", one), "a correlation needs three or more"),
        (("scorecard", "--source", one), "no vehicle has more than 1 cycle"),
        (("scorecard", "--source", trip_file, "--out", "card.pdf"), "ends in .html"),
        (("scorecard", "--source", tmp_path / "none.csv"), "does not exist"),
        # refused before any work
        (("scorecard", "--source", tmp_path / "none.csv", "--out", "card.pdf"), "ends in .html"),
        (("diagnose", "--source", tmp_path / "none.csv", "--out", "page.pdf"), "ends in .html"),
    ):
        assert run(monkeypatch, "fleet", *words) == 1
        shown = capsys.readouterr()
        assert told in shown.err
        assert shown.err.count("error:") == 1


@pytest.mark.data
def test_the_lab_model_fitted_here_shows_both_lab_models_and_the_spread(
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("BATTERYOPS_DATA", str(data_folder))
    monkeypatch.setattr(fleet_diagnosis, "SEEDS", 1)
    assert run(monkeypatch, "fleet", "diagnose", "--home", tmp_path / "home") == 0
    shown = capsys.readouterr()
    assert "NASA cells, published table" in shown.out
    assert "1 seeds on NASA cells, checked" in shown.err
    assert "48 of 48 mappings give the wrong sign" in shown.err
