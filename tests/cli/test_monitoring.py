"""`drift`, `monitor` and `labels` as a person runs them: what they print, and how they exit."""

import json
import shutil
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from batteryops.errors import RecordsError
from batteryops.lifecycle import monitoring
from batteryops.models.manifest import MANIFEST
from batteryops.records.ledger import Ledger
from batteryops.records.monitoring_runs import MONITOR, MonitoringRuns
from batteryops.settings import load_settings
from cli.running import Run, runner


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `batteryops` with these words, in an empty home where nothing else is said."""
    monkeypatch.setenv("BATTERYOPS_HOME", str(tmp_path / "home"))
    return runner(monkeypatch, capsys)


@pytest.fixture
def served(  # noqa: PLR0913, PLR0917 - fixtures
    run: Run,
    trained_home: Path,
    quick_config: Path,
    fleet_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A home with a champion that answered for the whole fleet it was trained on."""
    monkeypatch.setenv("BATTERYOPS_CONFIG", str(quick_config))
    shutil.copytree(trained_home, tmp_path / "home")
    assert run("promote", 1).code == 0
    assert run("predict", fleet_file).code == 0
    return tmp_path / "home"


def vehicles(n: int, seed: int, shift: float = 0.0, **changes: Any) -> pl.DataFrame:  # noqa: ANN401
    """Rows of 40 vehicles: two features that vary, one of which moves by `shift` deviations."""
    rng = np.random.default_rng(seed)
    columns = {
        "asset_id": [f"EV-{number % 40}" for number in range(n)],
        "delta_T_C": rng.normal(8.0 + 2.0 * shift, 2.0, n),
        "voltage_V_mean": rng.normal(3.6, 0.05, n),
    }
    return pl.DataFrame(columns | changes)


@pytest.fixture
def before(tmp_path: Path) -> Path:
    file = tmp_path / "before.parquet"
    vehicles(2000, 1).write_parquet(file)
    return file


def written(table: pl.DataFrame, file: Path) -> Path:
    if file.suffix == ".csv":
        table.write_csv(file)
    else:
        table.write_parquet(file)
    return file


def test_rows_like_the_reference_are_ok(run: Run, before: Path, tmp_path: Path) -> None:
    told = run("drift", before, written(vehicles(1000, 2), tmp_path / "now.csv"))
    assert told.code == 0, told.err
    assert "OK: Rows look as in the reference." in told.err
    assert "as in the reference" in told.out


def test_a_shift_of_one_deviation_is_an_alert_and_stands_first(
    run: Run, before: Path, tmp_path: Path
) -> None:
    current, page = written(vehicles(1000, 2, shift=1.0), tmp_path / "now.csv"), tmp_path / "d.html"
    told = run("drift", before, current, "--out", page)
    assert told.code == 1
    lines = told.out.splitlines()
    first = next(number for number, line in enumerate(lines) if "delta_T_C" in line)
    assert "ALERT" in lines[first]
    assert "the median is 9.961, was 7.953" in lines[first]
    assert first < next(number for number, line in enumerate(lines) if "voltage_V_mean" in line)

    document = run("drift", before, current, "--json").json
    assert document["verdict"] == "ALERT"
    assert [*document["features"]] == ["delta_T_C", "voltage_V_mean"]
    found = document["features"]["delta_T_C"]
    # one sigma: closed form .926
    assert found["psi"] == pytest.approx(0.926, abs=0.15)
    assert {"psi", "ks", "p_value", "status", "effective_bins", "cause"} <= found.keys()

    html = page.read_text(encoding="utf-8")
    assert html.count("<svg") == 2
    assert "prefers-color-scheme: dark" in html
    for outside in ("http://", "https://", "<script", "<link"):
        assert outside not in html


def test_a_table_fits_in_a_narrow_terminal(
    run: Run, before: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    told = run("drift", before, written(vehicles(1000, 2, shift=1.0), tmp_path / "now.parquet"))
    assert max(map(len, told.out.splitlines())) <= 80
    assert "cause" in told.out


def test_a_reference_is_kept_in_a_file_and_says_the_same_from_there(
    run: Run, before: Path, tmp_path: Path
) -> None:
    current = written(vehicles(1000, 2, shift=0.5), tmp_path / "now.parquet")
    kept = tmp_path / "reference.json"
    saved = run("drift", before, "--save-reference", kept, "--json")
    assert (saved.code, saved.json["rows"], saved.json["assets"]) == (0, 2000, 40)
    assert run("drift", before, "--save-reference", kept).code == 0
    told = run("drift", kept, current, "--json").json
    assert told["features"] == run("drift", before, current, "--json").json["features"]


def test_a_folder_of_tables_is_one_table(run: Run, before: Path, tmp_path: Path) -> None:
    folder = tmp_path / "days"
    folder.mkdir()
    table = vehicles(1000, 3, shift=0.5)
    written(table.head(300), folder / "a.parquet")
    written(table.tail(700), folder / "b.csv")
    whole = written(table, tmp_path / "whole.parquet")
    told = run("drift", before, folder, "--json").json
    assert told["rows"] == 1000
    assert told["features"] == run("drift", before, whole, "--json").json["features"]


def test_vehicle_id_and_any_order_of_columns_will_do(
    run: Run, before: Path, tmp_path: Path
) -> None:
    table = vehicles(1000, 2)
    other = table.rename({"asset_id": "vehicle_id"}).select(
        "voltage_V_mean", "vehicle_id", "delta_T_C"
    )
    first = run("drift", before, written(table, tmp_path / "one.csv"), "--json").json
    second = run("drift", before, written(other, tmp_path / "two.csv"), "--json").json
    assert second["features"] == first["features"]


def test_predictions_are_compared_where_their_column_is_named(run: Run, tmp_path: Path) -> None:
    def with_predictions(n: int, seed: int, middle: float) -> pl.DataFrame:
        predicted = np.random.default_rng(seed).normal(middle, 0.05, n)
        return vehicles(n, seed).with_columns(predicted_ah=predicted)

    reference = written(with_predictions(2000, 1, 1.8), tmp_path / "reference.parquet")
    current = written(with_predictions(1000, 2, 1.7), tmp_path / "current.parquet")
    told = run("drift", reference, current, "--prediction", "predicted_ah", "--json")
    assert told.code == 1
    assert told.json["prediction"]["status"] == "alert"
    assert [*told.json["features"]].count("predicted_ah") == 0
    assert {found["status"] for found in told.json["features"].values()} == {"ok"}


BAD: dict[str, tuple[pl.DataFrame, int, str]] = {
    "a feature of nothing but NaN": (
        vehicles(1000, 2, delta_T_C=[float("nan")] * 1000),
        1,
        "no values at all",
    ),
    "a constant feature": (vehicles(1000, 2, delta_T_C=[8.0] * 1000), 1, "nearly all values are 8"),
    "infinite values": (
        vehicles(1000, 2, delta_T_C=[float("inf")] * 1000),
        1,
        "1000 infinite values, counted at the ends",
    ),
    "one row": (vehicles(1, 2), 0, "1 current rows are 0.1 per bin"),
    "a column that is missing": (
        vehicles(1000, 2).drop("delta_T_C"),
        1,
        "the rows do not have this column",
    ),
    "no column in common": (
        vehicles(1000, 2).select("asset_id", other="delta_T_C"),
        2,
        "has none of the features voltage_V_mean, delta_T_C; it has asset_id, other",
    ),
    "no values in common": (
        vehicles(1000, 2, shift=1000.0),
        1,
        "most values lie above all of the reference",
    ),
    "text where numbers are expected": (
        vehicles(1000, 2).with_columns(delta_T_C=pl.lit("warm")),
        2,
        "feature delta_T_C is String, expected numbers",
    ),
    "no rows": (vehicles(1000, 2).clear(), 2, "has no rows"),
}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_told(run: Run, before: Path, tmp_path: Path, case: str, suffix: str) -> None:
    table, code, message = BAD[case]
    told = run("drift", before, written(table, tmp_path / f"bad{suffix}"))
    assert told.code == code, told.err
    assert message in " ".join((told.out + told.err).replace("│", " ").split())
    assert "Traceback" not in told.err


def test_a_constant_reference_says_so_and_sees_any_other_value(run: Run, tmp_path: Path) -> None:
    reference = written(vehicles(1000, 1, delta_T_C=[8.0] * 1000), tmp_path / "constant.parquet")
    current = written(vehicles(1000, 2), tmp_path / "now.parquet")
    told = run("drift", reference, current, "--json").json["features"]["delta_T_C"]
    assert told["status"] == "alert"
    assert "constant in the reference" in told["detail"]


def test_a_reference_of_another_version_of_its_view_is_refused(
    run: Run, served: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "reference.json"
    assert run("drift", "champion", "--save-reference", kept).code == 0
    document = json.loads(kept.read_text())
    document["view"] |= {"version": 0, "schema_hash": "0" * 64}
    kept.write_text(json.dumps(document))
    told = run("drift", kept, "log")
    assert told.code == 2
    assert "the reference is of view discharge_summary version 0" in told.err
    del served


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["reference.json", "now.csv"], "reference.json: cannot be read"),
        (["before.parquet", "nothing.csv"], "nothing.csv does not exist"),
        (["before.parquet", "now.xlsx"], "expected a table in .csv or .parquet, or a folder"),
        (["before.parquet", "empty"], "holds no .csv or .parquet file"),
        (["before.parquet", "log"], "no rows"),
        (["champion", "now.csv"], "no version of ev-soh-predictor is @champion"),
        (["before.parquet", "now.csv", "--out", "page.pdf"], "a file that ends in .html"),
        (["before.parquet", "now.csv", "--features", "speed"], "has no column speed"),
        (["before.parquet", "now.csv", "--prediction", "soh"], "has no column soh"),
        (["list.json", "now.csv"], "holds a list, expected a fitted reference"),
        (["other.json", "now.csv"], "this is no reference for drift"),
        (["before.parquet"], "give a REFERENCE and CURRENT rows, or --save-reference"),
    ],
)
def test_what_cannot_be_compared_exits_2(  # noqa: PLR0913, PLR0917 - fixtures
    run: Run,
    before: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(before.parent)
    written(vehicles(100, 2), tmp_path / "now.csv")
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "other.json").write_text('{"format_version": 1}')
    told = run("drift", *words)
    assert told.code == 2
    assert message in " ".join(told.err.replace("│", " ").split())


def test_the_log_is_compared_with_the_model_that_answered(run: Run, served: Path) -> None:
    told = run("drift", "champion", "log", "--json")
    assert told.code == 0, told.err
    assert told.json["rows"] == 150
    assert told.json["prediction"]["status"] in {"ok", "too_few"}
    assert set(told.json["features"]) == set(run("drift", "1", "log", "--json").json["features"])
    del served


def test_a_run_is_printed_put_on_record_and_written_for_prometheus(
    run: Run, served: Path, tmp_path: Path
) -> None:
    prom = tmp_path / "batteryops.prom"
    told = run("monitor", "--textfile", prom)
    assert told.code == 0, told.err + told.out
    for part in ("drift", "predictions", "performance", "quality", "ledger"):
        assert f"│ {part}" in told.out
    assert "monitoring_window_rows 150.0" in prom.read_text()
    document = run("monitor", "--json").json
    with MonitoringRuns(load_settings(home=served).predictions_url) as runs:
        newest = runs.newest(MONITOR)
    assert newest is not None
    assert newest.document == document
    assert document["model"]["version"] == "1"
    assert document["drift"]["features"]["delta_T_C"]["status"] in {"ok", "too_few"}
    assert document["quality"]["rows"] == 150
    assert document["error_estimate"]["estimate"] is True
    assert document["performance"]["overall"] == {
        "n": 0,
        "n_labels": 0,
        "n_vehicles": 0,
        "refused": "0 labels, expected at least 30",
    }


def test_an_empty_home_is_told_and_is_no_alert(run: Run) -> None:
    told = run("monitor", "--json")
    assert told.code == 0
    assert told.json["rows"] == 0
    assert "no version of ev-soh-predictor is @champion" in told.json["drift"]["refused"]
    assert not {"model", "quality", "error_estimate"} & told.json.keys()


def test_an_empty_log_is_told_and_is_no_alert(run: Run, served: Path) -> None:
    (served / "predictions.db").unlink()
    told = run("monitor", "--json")
    assert told.code == 0
    assert told.json["drift"] == {"refused": monitoring.NO_ROWS}
    assert "quality" not in told.json


def test_a_package_from_before_there_were_references_says_train_again(
    run: Run, served: Path
) -> None:
    for manifest in served.rglob(MANIFEST):
        document = json.loads(manifest.read_text())
        for name in ("drift_reference.json", "error_estimate.json"):
            document["files"].pop(name, None)
            (manifest.parent / name).unlink(missing_ok=True)
        manifest.write_text(json.dumps(document))
    package = next(served.rglob(MANIFEST)).parent
    told = run("monitor", "--model", package, "--json").json
    assert "Train again" in told["drift"]["refused"]
    assert told["quality"]["rows"] == 150
    assert run("drift", package, "log").code == 2


def test_a_ledger_that_was_changed_is_an_alert(run: Run, served: Path) -> None:
    with Ledger(load_settings(home=served).ledger_url) as ledger, ledger._database.write() as on:  # noqa: SLF001 - nobody else could
        on.exec_driver_sql("DROP TRIGGER IF EXISTS ledger_no_update")
        on.exec_driver_sql("UPDATE ledger SET subject = 'another' WHERE sequence = 1")
    told = run("monitor", "--json")
    assert told.code == 1
    assert told.json["verdicts"]["ledger"]["verdict"] == "ALERT"
    assert told.json["ledger"]["intact"] is False


@pytest.mark.parametrize("words", [["monitor"], ["drift", "before.parquet", "log"]])
def test_a_database_that_is_down_exits_2(
    run: Run, before: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    monkeypatch.chdir(before.parent)
    monkeypatch.setenv(
        "BATTERYOPS_RECORDS__PREDICTIONS_URL", "postgresql+psycopg://nobody@127.0.0.1:9/none"
    )
    told = run(*words)
    assert told.code == 2
    assert "error: " in told.err
    assert "Traceback" not in told.err


def test_it_keeps_going_over_failures_until_it_is_told_to_stop(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    real = monitoring.run_monitoring

    def one_fails(*given: Any, **named: Any) -> monitoring.Monitored:  # noqa: ANN401
        looked.append(len(looked))
        if len(looked) == 1:
            raise RecordsError("the database is away")
        if len(looked) == 3:
            signal.raise_signal(signal.SIGTERM)
        return real(*given, **named)

    monkeypatch.setattr(monitoring, "run_monitoring", one_fails)
    handlers = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
    told = run("monitor", "--every", "0.01")
    for one, handler in handlers.items():
        signal.signal(one, handler)
    assert told.code == 0
    assert looked == [0, 1, 2]
    assert told.err.count("error: the database is away") == 1
    assert told.err.count("NOT JUDGED: on record") == 2


def labels_file(file: Path, **changes: Any) -> Path:  # noqa: ANN401 - columns of any kind
    at = datetime.now(UTC) - timedelta(days=1)
    rows = {
        "vehicle_id": ["B0005", "B0006"],
        "measured_at": [at.isoformat(), (at - timedelta(hours=1)).isoformat()],
        "capacity_ah": [1.84, 1.79],
    }
    return written(pl.DataFrame(rows | changes), file)


def test_labels_come_from_a_file_and_twice_is_once(run: Run, tmp_path: Path) -> None:
    file = labels_file(tmp_path / "labels.csv")
    assert run("labels", "add", file, "--json").json == {
        "labels": {"new": 2, "known": 0, "correction": 0}
    }
    again = run("labels", "add", file)
    assert "0 new, 0 corrections of what was on record, 2 known already" in again.err
    corrected = labels_file(tmp_path / "corrected.csv", capacity_ah=[1.80, 1.79])
    changed = pl.read_csv(file).with_columns(capacity_ah=pl.Series([1.80, 1.79]))
    written(changed, corrected)
    assert run("labels", "add", corrected, "--json").json["labels"]["correction"] == 1
    listed = run("labels", "list", "--json").json
    assert [(one["asset_id"], one["capacity_ah"]) for one in listed] == [
        ("B0006", 1.79),
        ("B0005", 1.80),
    ]
    assert listed[0]["source"] == "labels.csv"
    one = run("labels", "list", "--asset", "B0005")
    assert "1 label" in one.out
    assert "B0006" not in one.out
    assert "1 before; --limit shows more" in run("labels", "list", "--limit", 1).err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"measured_at": ["2026-03-01T12:30:00"] * 2}, "has no time zone"),
        ({"measured_at": ["yesterday"] * 2}, "measured_at is 'yesterday', expected a time"),
        ({"measured_at": ["2999-01-01T00:00:00Z"] * 2}, "is in the future"),
        ({"capacity_ah": [1840.0, 1.79]}, "row 1: 1840 Ah, expected"),
        ({"capacity_ah": [None, 1.79]}, "row 1: capacity_ah is empty"),
        ({"capacity_ah": ["much", "little"]}, "column capacity_ah is String"),
        ({"vehicle_id": [None, "B0006"]}, "row 1: asset_id is empty"),
        ({"vehicle_id": ["nobody's", "B0006"]}, "has no profile"),
    ],
)
def test_a_file_of_which_one_label_is_wrong_adds_none(
    run: Run, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    told = run("labels", "add", labels_file(tmp_path / "labels.csv", **changes))
    assert told.code == 1
    assert message in told.err
    assert run("labels", "list", "--json").json == []


def test_a_file_of_labels_needs_its_columns_and_rows(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_text("asset_id,capacity_ah\nB0005,1.8\n")
    assert "missing column measured_at" in run("labels", "add", file).err
    file.write_text("asset_id,measured_at,capacity_ah\n")
    assert "no rows" in run("labels", "add", file).err
    assert "labels come in" in run("labels", "add", tmp_path / "labels.txt").err


def test_planted_shifts_are_looked_for_in_a_table(run: Run, before: Path) -> None:
    told = run("drift", "--self-test", before)
    assert told.code == 0, told.err
    assert "1 sigma" in told.out
    assert "false alarms: " in told.err
    found = run("drift", "--self-test", before, "--json").json["self_test"]
    assert found["delay_rows"]["1 sigma"] <= found["rows"]
    both = run("drift", "--self-test", before, before)
    assert both.code == 2
    assert "--self-test takes one table" in both.err


def test_the_self_test_takes_its_traffic_from_the_log(
    run: Run, served: Path, fleet_file: Path
) -> None:
    few = run("drift", "--self-test")
    assert few.code == 2
    assert "expected 400 rows" in few.err
    for _ in range(2):
        assert run("predict", fleet_file).code == 0
    assert run("drift", "--self-test", "log", "--json").json["self_test"]["rows"] > 100
    told = run("monitor", "--self-test")
    assert "self-test: found" in told.err
    assert "draws" in told.err
    del served
