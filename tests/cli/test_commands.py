"""The commands as a person runs them: what they print, and how they exit."""

import json
import re
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml

from batteryops.cli.findings import show_search
from batteryops.features import views
from batteryops.models.search import Found
from batteryops.records.ledger import Ledger
from batteryops.records.predictions import PredictionLog
from batteryops.settings import load_settings
from batteryops.telemetry import Lake
from cli.running import Run, runner


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `batteryops` with these words."""
    return runner(monkeypatch, capsys)


@pytest.fixture
def home(trained_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a home with one trained version, in force for the test."""
    copy = tmp_path / "home"
    shutil.copytree(trained_home, copy)
    monkeypatch.setenv("BATTERYOPS_HOME", str(copy))
    return copy


@pytest.fixture
def _quick(quick_config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATTERYOPS_CONFIG", str(quick_config))


pytestmark = pytest.mark.usefixtures("_quick")


def test_help_names_every_command(run: Run) -> None:
    told = run("--help")
    assert told.code == 0
    for command in ("demo", "doctor", "data", "features", "train", "evaluate", "validate"):
        assert command in told.out
    for command in ("compress", "packs", "baseline", "fleet"):
        assert command in told.out
    for command in ("versions", "promote", "predict", "serve", "audit"):
        assert command in told.out


def test_version_is_printed(run: Run) -> None:
    assert run("--version").out.startswith("batteryops 0.")


def test_every_command_and_option_that_readme_names_exists(run: Run) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    lines = re.findall(r"^batteryops (.+?)(?: +#.*)?$", readme, re.MULTILINE)
    assert len(lines) > 15
    for line in lines:
        words = line.split()
        command = words[
            : 2
            if words[0]
            in {
                "data",
                "packs",
                "baseline",
                "fleet",
                "keys",
                "labels",
                "incidents",
                "retrain",
            }
            else 1
        ]
        told = run(*command, "--help")
        assert told.code == 0, line
        for option in (word for word in words if word.startswith("--")):
            assert option in told.out, line


def test_help_names_every_view(run: Run) -> None:
    told = " ".join(run("train", "--help").out.replace("│", " ").split())
    for view in views.VIEWS:
        assert view in told


@pytest.mark.parametrize(
    "words",
    [["no-such-command"], ["train", "--no-such-option"], ["promote", "one"], ["features"]],
)
def test_wrong_use_exits_2(run: Run, words: list[str]) -> None:
    assert run(*words).code == 2


def test_doctor_shows_settings_and_that_each_store_answers(run: Run, home: Path) -> None:
    told = run("doctor", "--json")
    assert told.code == 0
    stores = {check["store"]: check for check in told.json["stores"]}
    assert all(check["reachable"] for check in stores.values())
    assert stores["lake"]["message"] == "6 assets"
    assert stores["registry"]["message"] == "1 versions, champion: none"
    assert told.json["settings"]["home"] == str(home)
    assert "training.parameters.max_depth" in run("doctor").out


@pytest.mark.usefixtures("home")
def test_doctor_exits_1_when_a_store_is_out_of_reach_and_hides_passwords(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "BATTERYOPS_RECORDS__LEDGER_URL", "postgresql+psycopg://ops:secret@127.0.0.1:1/records"
    )
    told = run("doctor", "--json")
    assert told.code == 1
    [ledger] = [check for check in told.json["stores"] if check["store"] == "ledger"]
    assert not ledger["reachable"]
    assert "secret" not in told.out + told.err


def test_features_writes_one_row_per_discharge(run: Run, fleet_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "features.parquet"
    told = run("features", "--source", fleet_file, "--out", out, "--json")
    assert told.code == 0
    assert told.json["rows"] == 150
    table = pl.read_parquet(out)
    assert table.columns[:2] == ["asset_id", "op_index"]
    assert table.columns[-1] == "capacity_ah"
    assert table.height == 150


def test_features_leaves_out_cycles_without_a_label_and_says_so(
    run: Run, fleet_file: Path, tmp_path: Path
) -> None:
    unlabelled = tmp_path / "unlabelled.parquet"
    labels = pl.when(pl.col("cycle_index") == 2).then(None).otherwise("capacity_ah")
    pl.read_parquet(fleet_file).with_columns(capacity_ah=labels).write_parquet(unlabelled)
    out = tmp_path / "features.csv"

    told = run("features", "--source", unlabelled, "--out", out)
    assert "6 cycles left out (6 without capacity_ah)" in told.err
    assert pl.read_csv(out).height == 144

    everything = run("features", "--source", unlabelled, "--out", out, "--keep-incomplete")
    assert everything.code == 0
    assert pl.read_csv(out).height == 150


def test_evaluate_prints_what_it_promises(run: Run, fleet_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "features.parquet"
    run("features", "--source", fleet_file, "--out", file)
    table = pl.read_parquet(file).rename({"asset_id": "battery_id", "capacity_ah": "capacity"})
    table.drop("op_index").write_csv(tmp_path / "published.csv")

    told = run(
        "evaluate", "--features", tmp_path / "published.csv", "--protocol", "random", "--json"
    )

    assert told.code == 0
    assert told.json["n_train"] == 105
    assert told.json["n_test"] == 45
    assert 0 < told.json["mae_ah"] < told.json["baselines"]["mean"]["mae_ah"]
    assert told.json["r2"] < 1
    assert {"mean", "ridge", "last_measured_capacity"} == set(told.json["baselines"])


def test_evaluate_shows_every_protocol_as_a_table(run: Run, fleet_file: Path) -> None:
    told = run("evaluate", "--source", fleet_file)
    assert told.code == 0
    for protocol in ("random", "later_cycles", "unseen_assets", "unseen_schedules"):
        assert protocol in told.out


def test_evaluate_says_what_gives_the_label_away(run: Run, fleet_file: Path) -> None:
    words = ["evaluate", "--source", fleet_file, "--protocol", "random", "--leakage"]
    leakage = run(*words, "--json").json["leakage"]
    assert (leakage["view"], leakage["leak_free"]) == ("discharge_summary", False)
    assert [found["features"] for found in leakage["findings"]] == [
        ["current_A_mean", "discharge_time_s"]
    ]
    assert leakage["n_recomputed"] > 0
    assert leakage["unchecked"] == []
    assert run(*words[:-1], "--json").json["leakage"] == leakage  # without being asked
    told = run(*words[:-1])
    assert "leakage: 1 found; discharge_summary v1 makes no claim" in told.err
    assert "leakage" not in run(*words[:-1], "--no-leakage", "--json").json

    shown = run(*words)
    assert shown.code == 0
    assert "makes no claim" in shown.out
    assert "current_A_mean, discharge_time_s" in shown.out
    assert "closest that is no finding" in shown.err
    assert "[/]" not in shown.out + shown.err  # colour is no text


def test_one_source_trains_and_another_is_tested(
    run: Run, fleet_file: Path, tmp_path: Path
) -> None:
    cycles = pl.read_parquet(fleet_file)
    last = cycles["asset_id"].unique().sort()[-1]
    train, test = tmp_path / "train.parquet", tmp_path / "test.parquet"
    cycles.filter(pl.col("asset_id") != last).write_parquet(train)
    cycles.filter(pl.col("asset_id") == last).write_parquet(test)
    words = ["evaluate", "--train", train, "--test", test, "--leakage", "--json"]
    told = run(*words)
    assert told.code == 0, told.err
    assert (told.json["n_train"], told.json["n_test"]) == (125, 25)
    # the cycles are there, so that features are computed again without the later ones
    assert told.json["leakage"]["n_recomputed"] > 0
    assert told.json["leakage"]["unchecked"] == []

    known = run(*words[:5], "--known-labels", 4, "--json").json
    assert known["n_test"] == 21
    assert "corrected by each tested battery's first 4 measurements" in known["notes"][0]

    same = run("evaluate", "--train", train, "--test", train)
    assert same.code == 1
    assert "must not be tested on what it was trained on" in same.err
    assert run("evaluate", "--train", train).code == 2


def test_evaluate_with_all_protocols_puts_leakage_beside_them(run: Run, fleet_file: Path) -> None:
    told = run("evaluate", "--source", fleet_file, "--leakage", "--json").json
    assert set(told) == {
        "random",
        "later_cycles",
        "unseen_assets",
        "unseen_schedules",
        "leakage",
    }


@pytest.fixture
def _claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two views that claim to be free of leakage; the second hardly knows how long it took."""
    claiming = replace(views.get_view("discharge_summary"), leak_free=True)

    def vague(samples: pl.DataFrame, cycles: pl.DataFrame) -> pl.DataFrame:
        off = 1.0 + 0.2 * pl.col("op_index").sin()
        return claiming.compute(samples, cycles).with_columns(pl.col("discharge_time_s") * off)

    for view in (claiming, replace(claiming, name="vague", compute=vague)):
        monkeypatch.setattr(views, "VIEWS", {**views.VIEWS, view.name: view})


@pytest.fixture
def planted(fleet_file: Path, tmp_path: Path, run: Run) -> Path:
    """The fleet's features, of which one is the label in disguise."""
    file = tmp_path / "features.parquet"
    run("features", "--source", fleet_file, "--out", file)
    disguise = 40.0 - 5.0 * pl.col("capacity_ah")
    pl.read_parquet(file).with_columns(temperature_C_mean=disguise).write_parquet(file)
    return file


@pytest.mark.usefixtures("_claims")
def test_evaluate_exits_1_when_a_view_breaks_its_claim(run: Run, planted: Path) -> None:
    words = ["evaluate", "--features", planted, "--protocol", "random", "--leakage"]
    told = run(*words, "--json")
    assert told.code == 1
    assert told.json["leakage"]["findings"][0]["features"] == ["temperature_C_mean"]
    shown = run(*words)
    assert shown.code == 1
    assert "claims to be free of leakage" in shown.out
    assert "a feature table was given" in shown.err


@pytest.mark.usefixtures("_claims", "home")
def test_a_finding_blocks_the_promotion_of_a_view_that_claims_to_be_leak_free(
    run: Run, planted: Path, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    told = run("train", "--features", planted, "--out", package, "--json")
    assert told.code == 1
    [gate] = [gate for gate in told.json["gates"] if gate["name"] == "leak_free"]
    assert not gate["passed"]
    assert "temperature_C_mean rebuilds the label" in gate["reason"]
    document = json.loads((package / "leakage.json").read_text())
    assert document == told.json["leakage"]
    page = (package / "report.html").read_text("utf-8")
    assert "Does it hold the label?" in page
    assert "temperature_C_mean rebuilds the label" in page

    refused = run("promote", told.json["version"])
    assert refused.code == 1
    assert "leak_free" in refused.err


@pytest.mark.usefixtures("_claims", "home")
def test_a_view_that_keeps_its_claim_passes_the_gate(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATTERYOPS_TRAINING__VIEW", "vague")
    told = run("train", "--source", "lake", "--json")
    [gate] = [gate for gate in told.json["gates"] if gate["name"] == "leak_free"]
    assert gate["passed"], gate["reason"]
    assert told.json["leakage"]["clean"] is True


@pytest.mark.usefixtures("home")
def test_a_view_that_claims_nothing_has_no_such_gate(run: Run, planted: Path) -> None:
    told = run("train", "--features", planted, "--json")
    assert told.json["leakage"]["findings"]
    assert "leak_free" not in [gate["name"] for gate in told.json["gates"]]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--protocol", "guess"], "protocol 'guess'"),
        (["--source", "simulated", "--features", "x.csv"], "given both --features and --source"),
        (["--features", "absent.csv"], "absent.csv does not exist"),
        (["--view", "no_such"], "feature view 'no_such' does not exist"),
    ],
)
def test_evaluate_refuses_in_one_line(run: Run, words: list[str], told: str) -> None:
    ran = (
        run("evaluate", "--source", "simulated", *words)
        if "--view" in words
        else run("evaluate", *words)
    )
    assert ran.code == 1
    assert ran.err.startswith("error: ")
    assert told in ran.err
    assert "Traceback" not in ran.err


def test_the_registry_lists_promotes_and_keeps_the_ledger(run: Run, home: Path) -> None:
    assert run("versions", "--json").json[0]["status"] == "candidate"

    told = run("promote", 1, "--json")
    assert told.code == 0
    assert told.json["alias"] == "champion"
    assert run("versions", "--json").json[0]["aliases"] == ["champion"]
    assert "@champion" in run("versions").out

    audit = run("audit", "--json")
    assert audit.code == 0
    assert [entry["event"] for entry in audit.json["entries"]] == [
        "data_ingested",
        "gate_verdict",
        "model_registered",
        "model_promoted",
    ]
    assert "intact" in run("audit").err
    assert (home / "ledger.db").is_file()


@pytest.mark.usefixtures("home")
def test_a_version_that_does_not_exist_cannot_be_promoted(run: Run) -> None:
    told = run("promote", 9)
    assert told.code == 1
    assert "9" in told.err
    assert "Traceback" not in told.err


@pytest.fixture
def shuffled(fleet_file: Path, tmp_path: Path, run: Run) -> Path:
    """The fleet's features with labels that belong to other rows."""
    file = tmp_path / "features.parquet"
    run("features", "--source", fleet_file, "--out", file)
    table = pl.read_parquet(file)
    labels = np.random.default_rng(1).permutation(table["capacity_ah"].to_numpy())
    shuffled = tmp_path / "shuffled.parquet"
    table.with_columns(capacity_ah=pl.Series(labels)).write_parquet(shuffled)
    return shuffled


def test_a_model_of_shuffled_labels_fails_its_gates_and_cannot_be_promoted(
    run: Run, home: Path, shuffled: Path, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    told = run("train", "--features", shuffled, "--out", package, "--json")
    assert told.code == 1
    failed = [gate["name"] for gate in told.json["gates"] if not gate["passed"]]
    assert "random_r2" in failed
    assert run("versions", "--json").json[-1]["gates_passed"] is False

    refused = run("promote", told.json["version"])
    assert refused.code == 1
    assert "random_r2" in refused.err
    assert "--force --reason" in refused.err

    without_reason = run("promote", told.json["version"], "--force")
    assert without_reason.code == 1
    assert "--reason" in without_reason.err

    forced = run("promote", told.json["version"], "--force", "--reason", "a drill", "--json")
    assert forced.code == 0
    assert forced.json["forced"] is True
    with Ledger(load_settings(home=home).ledger_url) as ledger:
        assert ledger.entries(event="model_promoted")[-1].details["reason"] == "a drill"

    honest = tmp_path / "features.parquet"
    verdict = run("validate", "--model", package, "--test-data", honest, "--json")
    assert verdict.code == 1
    assert any("r2" in reason for reason in verdict.json["reasons"])
    shown = run("validate", "--model", package, "--test-data", honest)
    assert "FAIL" in shown.out


@pytest.mark.usefixtures("home")
def test_validate_passes_a_model_within_its_thresholds_and_notes_assets_it_has_seen(
    run: Run, fleet_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "features.parquet"
    run("features", "--source", fleet_file, "--out", file)
    thresholds = ["--threshold-mae", "0.1", "--threshold-r2", "0.3"]
    told = run("validate", "--model", 1, "--test-data", file, *thresholds)
    assert told.code == 0, told.err
    assert "6 of 6 test assets were in training" in told.err
    assert run("validate", "--model", 1).code == 0  # the verdict of its training


def test_validate_takes_a_bare_xgboost_file(
    run: Run, home: Path, fleet_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "features.parquet"
    run("features", "--source", fleet_file, "--out", file)
    [booster] = home.glob("packages/*/model.ubj")
    told = run(
        "validate",
        "--model",
        booster,
        "--test-data",
        file,
        "--threshold-mae",
        "0.1",
        "--threshold-r2",
        "0.3",
    )
    assert told.code == 0, told.err
    assert "carries no manifest" in told.err
    assert run("validate", "--model", booster).code == 1


def test_predict_answers_for_features_cycles_and_requests_and_logs_each(
    run: Run, home: Path, fleet_file: Path, tmp_path: Path
) -> None:
    run("promote", 1)
    features = tmp_path / "features.csv"
    run("features", "--source", fleet_file, "--out", features)

    from_features = run("predict", features, "--json").json["predictions"]
    from_cycles = run("predict", fleet_file, "--json").json["predictions"]
    assert len(from_features) == len(from_cycles) == 150
    for one, other in zip(from_features, from_cycles, strict=True):
        assert one["capacity_ah"] == pytest.approx(other["capacity_ah"], abs=1e-6)
        assert one["soh"] == pytest.approx(one["capacity_ah"] / 2.0)

    request = json.loads((Path(__file__).parents[1] / "test_request.json").read_text())
    (tmp_path / "request.json").write_text(json.dumps(request))
    [answer] = run("predict", tmp_path / "request.json", "--json").json["predictions"]

    with PredictionLog(load_settings(home=home).predictions_url) as log:
        assert log.count() == 301
        logged = log.get(answer["prediction_id"])
    assert logged is not None
    assert logged.vehicle_id == "B0005"
    assert logged.model_version == "1"
    assert logged.role == "champion"
    assert logged.status == answer["status"] == "out_of_domain"  # trained on simulated cells
    assert (answer["capacity_ah"], answer["soh"]) == (None, None)
    assert logged.soh == logged.capacity_ah / 2.0

    out = tmp_path / "answers.csv"
    assert "150 answers" in run("predict", features, "--out", out).out
    assert pl.read_csv(out).height == 150


REQUEST = {
    "vehicle_id": "EV-0001",
    "voltage_V_mean": 3.5,
    "current_A_mean": -1.8,
    "temperature_C_mean": 30.0,
    "temperature_C_max": 38.0,
    "discharge_time_s": 3600.0,
    "delta_T_C": 14.0,
    "voltage_drop_time_s": 2600.0,
}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"voltage_V_mean": 3500.0}, "millivolts"),
        ({"temperature_C_mean": 303.0}, "kelvin"),
        ({"voltage_V_mean": float("nan")}, "voltage_V_mean"),
        ({"voltage_V_mean": float("inf")}, "voltage_V_mean"),
        ({"voltage_V_mean": None}, "voltage_V_mean is null"),
        ({"voltage_V_mean": "three"}, "expected a number"),
        ({"vehicle_id": "X-1"}, "has no profile"),
        ({"vehicle_id": "Vehicle 1"}, "is a pack"),
    ],
)
@pytest.mark.usefixtures("home")
def test_predict_refuses_a_bad_request_and_logs_nothing(
    run: Run, home: Path, tmp_path: Path, change: dict[str, object], told: str
) -> None:
    file = tmp_path / "request.json"
    file.write_text(json.dumps(REQUEST | change))
    ran = run("predict", file, "--model", 1)
    assert ran.code == 1
    assert told in ran.err
    assert "Traceback" not in ran.err
    assert not (home / "predictions.db").exists()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.csv", b"", "empty.csv"),
        ("empty.parquet", b"", "empty.parquet"),
        ("corrupt.parquet", b"PAR1 and then nothing", "corrupt.parquet"),
        ("truncated.mat", b"MATLAB 5.0 MAT-file, Platform" + b" " * 100, "truncated.mat"),
        ("broken.json", b"{", "broken.json"),
        ("list.json", b"[]", "expected one request body"),
        ("short.json", b'{"vehicle_id": "EV-1"}', "current_A_mean is missing"),
        ("absent.csv", None, "absent.csv"),
    ],
)
@pytest.mark.usefixtures("home")
def test_predict_names_a_file_that_it_cannot_read(
    run: Run, tmp_path: Path, name: str, content: bytes | None, told: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    ran = run("predict", file, "--model", 1)
    assert ran.code == 1
    assert ran.err.startswith("error: ")
    assert told in ran.err
    assert "Traceback" not in ran.err


def test_a_package_that_was_changed_does_not_answer(run: Run, home: Path, tmp_path: Path) -> None:
    [package] = home.glob("packages/ev-soh-predictor-*")
    booster = package / "model.ubj"
    content = bytearray(booster.read_bytes())
    content[len(content) // 2] ^= 1
    booster.write_bytes(bytes(content))
    file = tmp_path / "request.json"
    file.write_text(json.dumps(REQUEST))
    ran = run("predict", file, "--model", package)
    assert ran.code == 1
    assert "SHA-256" in ran.err


def test_data_is_simulated_taken_in_checked_and_listed(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATTERYOPS_HOME", str(tmp_path / "home"))
    fleet = tmp_path / "fleet.parquet"
    words = ["--vehicles", 3, "--cycles", 10, "--seed", 5]
    told = run("data", "simulate", *words, "--out", fleet, "--json")
    assert told.json["assets"] == 3

    broken = tmp_path / "broken.parquet"
    first = (pl.col("asset_id") == "EV-0001") & (pl.col("cycle_index") == 2)
    volts = pl.when(first).then(8.4).otherwise("voltage_v")
    pl.read_parquet(fleet).with_columns(voltage_v=volts).write_parquet(broken)

    assert "3 assets" in run("data", "ingest", broken).err
    report = run("data", "check", "--list", "--json")  # the lake, where nothing is named
    assert report.code == 0
    [row] = [row for row in report.json["rows"] if row["check"] == "impossible_voltage"]
    assert (row["asset_id"], row["op_index"], row["value"]) == ("EV-0001", 2, 8.4)
    assert "impossible_voltage" in run("data", "check", "--asset", "EV-0001").out


def test_a_simulated_fleet_goes_to_the_lake_where_no_file_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATTERYOPS_HOME", str(tmp_path))
    assert run("data", "simulate", "--vehicles", 3, "--cycles", 5).code == 0
    assert Lake(tmp_path / "lake").asset_ids() == ["EV-0001", "EV-0002", "EV-0003"]


def test_data_in_the_wrong_unit_is_refused_and_nothing_is_written(
    run: Run, fleet_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATTERYOPS_HOME", str(tmp_path / "home"))
    millivolts = tmp_path / "millivolts.parquet"
    pl.read_parquet(fleet_file).with_columns(pl.col("voltage_v") * 1000).write_parquet(millivolts)

    told = run("data", "ingest", millivolts)
    assert told.code == 1
    assert "divide by 1000" in told.err
    assert not (tmp_path / "home").exists()
    assert run("data", "check", "--source", millivolts).code == 1


def test_without_any_data_training_says_what_to_do(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATTERYOPS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("BATTERYOPS_DATA", raising=False)
    told = run("train")
    assert told.code == 1
    assert "batteryops data simulate" in told.err
    assert "BATTERYOPS_DATA, which is not set" in run("train", "--source", "nasa").err
    assert "does not exist" in run("train", "--source", "nowhere").err


def test_fetch_knows_what_it_can_fetch(run: Run, tmp_path: Path) -> None:
    told = run("data", "fetch", "moon", "--out", tmp_path)
    assert told.code == 1
    assert "what can be fetched is: nasa" in told.err


def test_audit_exits_1_on_a_broken_chain(run: Run, home: Path) -> None:
    with sqlite3.connect(home / "ledger.db") as database:
        for (trigger,) in database.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall():
            database.execute(f"DROP TRIGGER {trigger}")
        database.execute("UPDATE ledger SET subject = 'other' WHERE sequence = 2")
    database.close()
    told = run("audit")
    assert told.code == 1
    assert "BROKEN at line 2" in told.err
    assert run("doctor", "--json").code == 1


def test_a_simulated_fleet_in_the_lake_has_a_line_on_the_ledger(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATTERYOPS_HOME", str(tmp_path))
    run("data", "simulate", "--vehicles", 2, "--cycles", 5, "--seed", 9)
    [entry] = run("audit", "--json").json["entries"]
    assert (entry["event"], entry["subject"]) == ("data_ingested", "simulated, seed 9")
    assert run("data", "check", "--taken-in", "--json").json == {"rows": []}


def test_nothing_is_taken_in_when_the_ledger_is_out_of_reach(
    run: Run, fleet_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATTERYOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BATTERYOPS_RECORDS__LEDGER_URL", "sqlite:////proc/none/ledger.db")
    assert run("data", "ingest", fleet_file).code == 1
    assert not (tmp_path / "home" / "lake").exists()
    assert not (tmp_path / "home" / "quarantine").exists()


def test_nothing_is_promoted_when_the_ledger_is_out_of_reach(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del home
    monkeypatch.setenv("BATTERYOPS_RECORDS__LEDGER_URL", "sqlite:////proc/none/ledger.db")
    assert run("promote", 1).code == 1
    monkeypatch.delenv("BATTERYOPS_RECORDS__LEDGER_URL")
    assert run("versions", "--json").json[0]["aliases"] == []


def test_cycles_that_cannot_be_believed_are_not_answered_and_counted_by_reason(
    run: Run, home: Path, fleet_file: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.parquet"
    first = (pl.col("asset_id") == "EV-0001") & (pl.col("cycle_index") == 2)
    spike = first & (pl.col("time_s") == 0)
    pl.read_parquet(fleet_file).with_columns(
        voltage_v=pl.when(spike).then(8.4).otherwise("voltage_v")
    ).write_parquet(broken)

    told = run("predict", broken, "--model", 1, "--json").json
    assert told["left_out"] == {"impossible_voltage": 1}
    assert len(told["predictions"]) == 149
    assert "1 cycle left out: impossible_voltage" in run("predict", broken, "--model", 1).err
    with PredictionLog(load_settings(home=home).predictions_url) as log:
        assert log.count() == 298


def test_predict_looks_at_where_it_will_write_before_it_answers(
    run: Run, home: Path, fleet_file: Path, tmp_path: Path
) -> None:
    told = run("predict", fleet_file, "--model", 1, "--out", tmp_path / "answers.txt")
    assert told.code == 1
    assert not (home / "predictions.db").exists()


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (b'{"vehicle_id": null}', "vehicle_id is None"),
        (json.dumps(REQUEST | {"extra": 1}).encode(), "unknown extra"),
        (json.dumps(REQUEST | {"voltage_V_mean": True}).encode(), "voltage_V_mean"),
        (json.dumps(REQUEST | {"voltage_V_mean": 10**400}).encode(), "voltage_V_mean"),
        (b"[" * 100_000, "cannot be read as JSON"),
    ],
)
@pytest.mark.usefixtures("home")
def test_a_request_in_a_file_is_judged_as_the_server_judges_it(
    run: Run, tmp_path: Path, document: bytes, told: str
) -> None:
    file = tmp_path / "request.json"
    file.write_bytes(document)
    ran = run("predict", file, "--model", 1)
    assert ran.code == 1
    assert told in ran.err
    assert "Traceback" not in ran.err


def test_evaluate_takes_any_names_of_assets_and_says_what_it_assumed(
    run: Run, fleet_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "features.parquet"
    run("features", "--source", fleet_file, "--out", file)
    table = pl.read_parquet(file)
    numbers = table["asset_id"].str.slice(-1).cast(pl.Int64)
    table.with_columns(asset_id=numbers).write_csv(tmp_path / "numbered.csv")

    words = ["evaluate", "--features", tmp_path / "numbered.csv", "--protocol", "random"]
    told = run(*words, "--json")
    assert told.code == 0, told.err
    assert "6 assets have no profile" in told.json["notes"][0]
    named = run(*words, "--profile", "simulated_nmc_18650", "--json")
    assert named.json["notes"] == []
    assert named.json["mae_ah"] == told.json["mae_ah"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (pl.col("voltage_V_mean") * 1000, "millivolts"),
        (pl.col("temperature_C_mean") + 273.15, "kelvin"),
    ],
)
def test_evaluate_refuses_a_column_in_another_unit(
    run: Run, fleet_file: Path, tmp_path: Path, change: pl.Expr, told: str
) -> None:
    file = tmp_path / "features.parquet"
    run("features", "--source", fleet_file, "--out", file)
    pl.read_parquet(file).with_columns(change).write_parquet(file)
    ran = run("evaluate", "--features", file, "--protocol", "random")
    assert ran.code == 1
    assert told in ran.err


@pytest.mark.usefixtures("home")
def test_rows_with_false_labels_do_not_judge_a_model_but_are_told(
    run: Run, fleet_file: Path, tmp_path: Path
) -> None:
    file = tmp_path / "features.parquet"
    run("features", "--source", fleet_file, "--out", file)
    table = pl.read_parquet(file)
    crashed = pl.int_range(pl.len()) < 10
    table.with_columns(
        capacity_ah=pl.when(crashed).then(0.01).otherwise("capacity_ah")
    ).write_parquet(file)

    thresholds = ["--threshold-mae", "0.1", "--threshold-r2", "0.3"]
    told = run("validate", "--model", 1, "--test-data", file, *thresholds, "--json")
    assert told.code == 0, told.out
    assert "10 of 150 labelled rows were set aside" in told.json["notes"][0]
    assert told.json["metrics"]["n"] == 140


def test_train_looks_at_where_the_package_goes_before_it_works(
    run: Run, home: Path, tmp_path: Path
) -> None:
    del home
    (tmp_path / "taken").mkdir()
    assert "exists already" in run("train", "--out", tmp_path / "taken").err
    assert run("train", "--out", "/proc/none/package").code == 1
    assert len(run("versions", "--json").json) == 1


def test_text_in_brackets_is_printed_as_it_is(run: Run) -> None:
    told = run("train", "--source", "zz[old]/[/b]")
    assert told.code == 1
    assert "zz[old]/[/b]" in told.err


@pytest.mark.usefixtures("home")
def test_a_package_folder_that_is_not_there_is_called_a_folder(run: Run, tmp_path: Path) -> None:
    told = run("validate", "--model", tmp_path / "absent")
    assert "expected a folder" in told.err


def test_a_home_without_versions_says_how_to_make_one(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATTERYOPS_HOME", str(tmp_path / "home"))
    assert "`batteryops train` makes one" in run("versions").err


def test_the_ledger_is_told_in_short_words(run: Run, home: Path) -> None:
    with Ledger(f"sqlite:///{home}/ledger.db") as ledger:
        ledger.append(
            "gate_verdict",
            f"package {'ab' * 32}",
            {"gates": list(range(9)), "failed": [], "passed": True, "reason": None},
        )
    shown = run("audit").out
    assert "package abababababab " in shown
    assert "failed: none; gates: 9 of them; passed: yes; reason: -" in " ".join(shown.split())


@pytest.fixture
def _tournament(quick_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tournament of two, in three folds."""
    config: dict[str, Any] = yaml.safe_load(quick_config.read_text())
    config["tournament"] |= {"entrants": ["ridge", "xgboost"], "folds": 3, "inner_folds": 2}
    file = tmp_path / "tournament.yaml"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("BATTERYOPS_CONFIG", str(file))


@pytest.mark.usefixtures("home", "_tournament")
def test_train_runs_a_tournament_shows_it_and_registers_the_winner(run: Run) -> None:
    told = run("train", "--tournament")

    assert told.code == 0, told.err
    assert "tournament under unseen_assets" in told.out
    for entrant in ("ridge", "xgboost", "stack"):
        assert entrant in told.out
    assert "the stack on all rows: " in told.err
    assert "is registered as ev-soh-predictor version 2" in told.err


@pytest.mark.usefixtures("home", "_tournament")
def test_train_takes_an_algorithm_by_name_and_searches_its_values(run: Run, tmp_path: Path) -> None:
    package = tmp_path / "package"
    told = run("train", "--algorithm", "ridge", "--search", 1, "--out", package, "--json")

    assert told.code == 0, told.err
    assert told.json["algorithm"]["name"] == "ridge"
    assert told.json["tournament"] is None
    manifest = json.loads((package / "manifest.json").read_text())
    assert manifest["algorithm"] == told.json["algorithm"]
    assert json.loads((package / "search.json").read_text()) == told.json["search"]
    assert not (package / "model.ubj").exists()
    file = tmp_path / "request.json"
    file.write_text(json.dumps(REQUEST))
    answered = run("predict", file, "--model", package, "--json")
    assert answered.code == 0, answered.err


@pytest.mark.usefixtures("home")
def test_train_refuses_what_contradicts_itself_or_does_not_exist(run: Run) -> None:
    both = run("train", "--algorithm", "ridge", "--tournament")
    assert both.code == 2
    assert "--tournament chooses the algorithm" in both.err
    unknown = run("train", "--algorithm", "oracle")
    assert unknown.code == 1
    assert "there is no algorithm 'oracle'; expected one of ridge" in unknown.err
    assert run("train", "--search", -1).code == 2


def test_a_view_without_a_clock_trains_and_answers_with_intervals_and_status(
    run: Run, home: Path, fleet_file: Path, tmp_path: Path
) -> None:
    del home
    features = tmp_path / "features.csv"
    run("features", "--view", "partial_window", "--source", fleet_file, "--out", features)
    told = run("evaluate", "--features", features, "--view", "partial_window", "--json").json
    assert told.pop("leakage")["findings"] == []
    for result in told.values():  # unseen_schedules among them: the table holds the clock
        assert 0.0 <= result["interval_coverage"] <= 1.0
        assert result["interval_width_ah"] > 0.0
        assert 0.0 <= result["in_domain_share"] <= 1.0

    version = run("train", "--view", "partial_window", "--source", "lake", "--json").json["version"]
    answered = run("predict", fleet_file, "--model", version, "--json").json
    assert len(answered["predictions"]) == 150
    for answer in answered["predictions"]:
        interval, inside = answer["interval"], answer["status"] == "ok"
        assert interval["nominal"] == 0.9
        assert (answer["soh"] is None) == (not inside)
        assert inside == (not answer["domain"]["features"] and not answer["domain"]["joint"])
        if inside:
            assert interval["low_ah"] <= answer["capacity_ah"] <= interval["high_ah"]


def test_a_search_is_told_in_one_line_with_what_it_found(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_search(Found({"alpha": 0.25, "max_depth": 4}, 0.1, 0.2, trials=1, pruned=3))
    show_search(Found({}, 0.2, 0.2, trials=2, pruned=0))

    first, second = capsys.readouterr().err.splitlines()
    assert first == (
        "search on groups held out of all rows: 1 trial and 3 given up early, MAE 0.1 Ah, 0.2 Ah "
        "with the defaults; alpha 0.25, max_depth 4"
    )
    assert second.endswith("0.2 Ah with the defaults; the defaults stay")
