"""What composes the rooms: sources, preparation, evaluation, ranges, promotion."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from batteryops.errors import DataError, GateError, RegistryError, UnknownAssetError
from batteryops.evaluation.gates import GateResult, Verdict
from batteryops.evaluation.protocols import PROTOCOLS
from batteryops.features.views import get_view
from batteryops.lifecycle.doctor import examine
from batteryops.lifecycle.evaluation import evaluate_protocols
from batteryops.lifecycle.loading import load_model, open_registry
from batteryops.lifecycle.preparation import check_source, ingest, ingest_recording, prepare
from batteryops.lifecycle.promotion import RECOVERED, promote
from batteryops.lifecycle.ranges import count_out_of_range
from batteryops.lifecycle.sources import default_source, open_source, source_note
from batteryops.lifecycle.training import train
from batteryops.monitoring.error_estimate import ERROR_ESTIMATE, ErrorEstimator
from batteryops.records.ledger import Ledger
from batteryops.registry.mlflow_tracking import ModelRegistry
from batteryops.settings import RecordsSettings, Settings, load_settings
from batteryops.telemetry import Lake, read


@pytest.fixture
def settings(tmp_path: Path, quick_config: Path) -> Settings:
    return load_settings(quick_config, home=tmp_path / "home")


@pytest.fixture
def trained(tmp_path: Path, trained_home: Path, quick_config: Path) -> Settings:
    """Settings of a copy of a home with version 1 registered."""
    shutil.copytree(trained_home, tmp_path / "trained")
    return load_settings(quick_config, home=tmp_path / "trained")


class Told:
    """Remembers what a task said."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.parts: list[tuple[int, int]] = []

    def step(self, name: str) -> None:
        self.steps.append(name)

    def within(self, done: int, total: int) -> None:
        self.parts.append((done, total))


def test_the_lake_is_the_default_source_once_it_holds_something(
    settings: Settings, fleet_file: Path, tmp_path: Path
) -> None:
    (tmp_path / "data" / "nasa").mkdir(parents=True)
    with_data = settings.model_copy(update={"data": tmp_path / "data"})
    assert default_source(with_data) == "nasa"
    ingest(str(fleet_file), with_data)
    assert default_source(with_data) == "lake"
    with pytest.raises(DataError, match="BATTERYOPS_DATA is not set"):
        default_source(settings.model_copy(update={"home": tmp_path / "other", "data": None}))


def test_a_recording_carries_the_name_of_its_source(settings: Settings, fleet_file: Path) -> None:
    assert open_source(str(fleet_file), settings).source == str(fleet_file)
    assert open_source("simulated", settings).source == "simulated"
    assert "simulated fleet" in source_note("simulated")
    assert "NASA" in source_note("nasa")
    assert source_note("x.mat") == "Read from x.mat."


def test_taking_the_same_cycles_in_twice_changes_nothing_but_the_ledger(
    settings: Settings, fleet_file: Path
) -> None:
    first = ingest(str(fleet_file), settings)
    once = Lake(settings.lake).read()
    second = ingest(str(fleet_file), settings)
    again = Lake(settings.lake).read()
    assert again.samples.equals(once.samples)
    assert again.cycles.equals(once.cycles)
    assert first.entry.details["samples_sha256"] == second.entry.details["samples_sha256"]
    with Ledger(settings.ledger_url) as ledger:
        assert [entry.event for entry in ledger.entries()] == ["data_ingested"] * 2


def test_an_asset_without_a_profile_is_refused_before_anything_is_written(
    settings: Settings, fleet_file: Path, tmp_path: Path
) -> None:
    stranger = tmp_path / "stranger.parquet"
    pl.read_parquet(fleet_file).with_columns(asset_id="X-" + pl.col("asset_id")).write_parquet(
        stranger
    )
    with pytest.raises(UnknownAssetError, match="has no profile"):
        ingest(str(stranger), settings)
    assert not settings.home.exists()


def test_a_refusal_names_the_unit_once_however_many_assets_have_it(
    settings: Settings, fleet_file: Path
) -> None:
    fleet = read(fleet_file)
    flipped = replace(fleet, samples=fleet.samples.with_columns(-pl.col("current_a")))
    with pytest.raises(DataError) as refused:
        ingest_recording(flipped, settings)
    told = str(refused.value)
    assert told.count("multiply by -1") == 1
    assert f"and {len(fleet.asset_ids) - 1} more asset" in told
    assert "set aside" not in told  # the unit is the whole reason


def test_a_refusal_says_why_most_cycles_were_set_aside(
    settings: Settings, fleet_file: Path
) -> None:
    fleet = read(fleet_file)
    stubs = replace(fleet, samples=fleet.samples.filter(pl.col("time_s") < 60.0))
    with pytest.raises(DataError, match=r"for crashed run, such as: .*data check"):
        ingest_recording(stubs, settings)


def test_rows_that_train_and_rows_set_aside_are_all_rows(
    settings: Settings, fleet_file: Path
) -> None:
    table = pl.read_parquet(fleet_file)
    crashed = (pl.col("asset_id") == "EV-0002") & (pl.col("cycle_index") == 4)
    broken = table.with_columns(
        capacity_ah=pl.when(crashed).then(0.01).otherwise("capacity_ah"),
        voltage_v=pl.when(crashed).then(9.0).otherwise("voltage_v"),
    )
    file = fleet_file.with_name("broken.parquet")
    broken.write_parquet(file)

    view = get_view("discharge_summary")
    prepared = prepare(open_source(str(file), settings), view, settings)

    assert prepared.table.height == 149
    assert prepared.set_aside.select("asset_id", "op_index").rows() == [("EV-0002", 4)]
    reasons = prepared.report.quarantine
    assert {"impossible_voltage"} <= set(reasons["check"])


def test_a_source_without_discharges_is_still_checked(settings: Settings) -> None:
    assert settings.profile_of("Vehicle 1").level == "pack"
    with pytest.raises(DataError, match="does not exist"):
        check_source("nowhere.parquet", settings)


@pytest.mark.data
def test_trips_are_judged_by_the_pack_s_limits(settings: Settings, data_folder: Path) -> None:
    report, source = check_source("chengdu", settings.model_copy(update={"data": data_folder}))
    assert source == "chengdu"
    assert report.n_rows == 7391
    assert report.accepted


def test_without_shared_schedules_the_strict_question_is_not_asked_twice(
    settings: Settings, fleet_file: Path
) -> None:
    view = get_view("discharge_summary")
    table = prepare(open_source(str(fleet_file), settings), view, settings).table
    told = Told()

    results = evaluate_protocols(table, view, PROTOCOLS, settings, told)

    assert told.steps == [f"evaluate {name}" for name in PROTOCOLS]
    folds = sum(len(results[name].folds) for name in ("random", "later_cycles", "unseen_assets"))
    assert sum(done > 0 for done, _ in told.parts) == folds
    assert results["unseen_schedules"].metrics == results["unseen_assets"].metrics
    assert results["unseen_schedules"].protocol == "unseen_schedules"


def test_assets_on_one_schedule_are_asked_about_together(
    settings: Settings, fleet_file: Path
) -> None:
    view = get_view("discharge_summary")
    table = prepare(open_source(str(fleet_file), settings), view, settings).table
    twin = table.filter(pl.col("asset_id") == "EV-0001").with_columns(
        asset_id=pl.lit("EV-0101"), capacity_ah=pl.col("capacity_ah") * 0.9
    )
    results = evaluate_protocols(
        pl.concat([table, twin]), view, ("unseen_assets", "unseen_schedules"), settings, Told()
    )
    together = [
        results["unseen_schedules"].predictions.filter(pl.col("asset_id") == asset)["fold"][0]
        for asset in ("EV-0001", "EV-0101")
    ]
    assert together[0] == together[1]
    assert results["unseen_schedules"].metrics != results["unseen_assets"].metrics


def test_predictions_outside_of_the_profile_s_range_are_counted_and_nan_is_one(
    settings: Settings,
) -> None:
    assets = pl.Series(["B0005", "B0005", "EV-1", "EV-1"])
    predicted = np.array([2.5, 2.5001, -1e-6, np.nan])
    assert count_out_of_range(assets, predicted, settings) == 3


def test_promotion_replaces_and_archives_the_champion_before(trained: Settings) -> None:
    registry = open_registry(trained)
    run_id = registry.version(1).run_id
    second = registry.register(run_id, tags={"gates_passed": "true"}).version

    assert promote(1, trained).replaced is None
    promoted = promote(second, trained, reason="better")
    assert promoted.replaced == 1
    assert promoted.to_json()["replaced"] == 1
    assert registry.version(1).status == "archived"
    assert load_model("@champion", trained).version == str(second)
    assert promote(second, trained).replaced is None

    challenger = promote(1, trained, to="challenger")
    assert challenger.alias == "challenger"
    assert registry.version(second).status == "champion"


def test_promotion_refuses_what_it_does_not_know(trained: Settings) -> None:
    with pytest.raises(RegistryError, match="alias 'king'"):
        promote(1, trained, to="king")
    with pytest.raises(GateError, match="without --reason"):
        promote(1, trained, force=True, reason="  ")
    with pytest.raises(RegistryError):
        promote(7, trained)


def test_a_package_says_which_errors_to_expect_of_batteries_never_seen(trained: Settings) -> None:
    package = load_model("1", trained).package
    found = ErrorEstimator.from_json(package.document(ERROR_ESTIMATE))
    assert found.n_rows == package.manifest.training_rows
    assert found.ratios.size == len(package.manifest.training_assets)  # each one held out


def test_a_version_without_its_ledger_line_is_reported_and_promotion_writes_it_first(
    trained: Settings,
) -> None:
    registry = open_registry(trained)
    first = registry.version(1)
    second = registry.register(first.run_id, tags=first.tags).version  # and then killed

    checks = {check.store: check for check in examine(trained).checks}
    assert checks["registrations"].message.startswith("no ledger line for version 2;")
    assert examine(trained).healthy
    for _ in range(2):
        promote(second, trained)

    with Ledger(trained.ledger_url) as ledger:
        registered = ledger.entries(event="model_registered")
        assert [entry.event for entry in ledger.entries(limit=3)] == [
            "model_registered",
            "model_promoted",
            "model_promoted",
        ]
    assert [entry.subject for entry in registered] == ["ev-soh-predictor/1", "ev-soh-predictor/2"]
    assert "recovered" not in registered[0].details
    assert registered[1].details == {**registered[0].details, "recovered": RECOVERED}
    checks = {check.store: check for check in examine(trained).checks}
    assert checks["registrations"].message == "every version has its ledger line"


def test_a_missing_registration_is_written_also_when_a_gate_says_no(
    trained: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = open_registry(trained)
    second = registry.register(registry.version(1).run_id, tags={"gates_passed": "false"}).version
    failed = GateResult("g", "random", "mae_ah", 0.9, "< 0.1", 0.1, passed=False, reason="0.9")
    monkeypatch.setattr(Verdict, "from_json", lambda _: Verdict((failed,)))

    with pytest.raises(GateError, match="version 2 cannot be promoted"):
        promote(second, trained)

    with Ledger(trained.ledger_url) as ledger:
        last = ledger.head()
    assert last is not None
    assert (last.event, last.subject) == ("model_registered", "ev-soh-predictor/2")
    assert last.details["gates_passed"] is False


def test_a_place_for_artifacts_that_cannot_be_written_makes_the_doctor_say_no(
    settings: Settings,
) -> None:
    settings.home.mkdir()
    Path(settings.artifact_root).touch()
    checks = {check.store: check for check in examine(settings).checks}
    assert not checks["artifacts"].reachable
    assert "artifacts cannot be kept at" in checks["artifacts"].message
    assert checks["registry"].reachable


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:se%23cret@127.0.0.1:1/db",
        "postgresql://user:se@cret@127.0.0.1:1/db",
        "postgresql://user@127.0.0.1:1/db?password=se%23cret",
        "postgresql:///user:se%23cret@127.0.0.1:1/db",
        "postgresql://user:se%23cret",
        "http://user:se%23cret@127.0.0.1:1",
        "http://user:se%23cret@[bad",
        "user:se%23cret@host",
    ],
)
def test_the_doctor_shows_no_password_whatever_the_urls(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {
        "records": RecordsSettings(predictions_url=url, ledger_url=url),
        "registry": settings.registry.model_copy(
            update={"tracking_uri": url, "artifact_root": f"ftp{url[url.index(':') :]}"}
        ),
    }
    examined = examine(settings.model_copy(update=places))
    told = f"{examined.to_json()} {examined.settings_rows}"
    assert not examined.healthy
    assert "cret" not in told
    assert "***" in told


def test_promotions_at_the_same_time_leave_one_champion_and_a_line_for_each(
    trained: Settings,
) -> None:
    registry = open_registry(trained)
    run_id = registry.version(1).run_id
    versions = [registry.register(run_id, tags=registry.version(1).tags).version for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda version: promote(version, trained), versions))
    champions = [found for found in registry.versions() if "champion" in found.aliases]
    assert len(champions) == 1
    with Ledger(trained.ledger_url) as ledger:
        promoted = ledger.entries(event="model_promoted")
    assert len(promoted) == 3
    assert promoted[-1].subject.endswith(f"/{champions[0].version}")


def test_a_promotion_that_the_registry_refuses_is_on_record(
    trained: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RegistryError("the registry went away")

    monkeypatch.setattr(ModelRegistry, "set_alias", refuse)
    with pytest.raises(RegistryError, match="went away"):
        promote(1, trained)
    with Ledger(trained.ledger_url) as ledger:
        events = [entry.event for entry in ledger.entries()]
    assert events[-2:] == ["model_promoted", "promotion_failed"]


def test_what_a_baseline_does_better_is_said(settings: Settings, fleet_file: Path) -> None:
    view = get_view("discharge_summary")
    prepared = prepare(open_source(str(fleet_file), settings), view, settings)
    trained = train(prepared, settings, Told())
    last = trained.results["later_cycles"].baselines["last_measured_capacity"]
    loses = last.mae_ah < trained.results["later_cycles"].metrics.mae_ah
    assert loses is any(
        text.startswith("later_cycles: last measured") for text in trained.shortfalls
    )
    assert loses  # sixty small trees on six vehicles cannot beat it

    model = trained.results["random"].metrics
    same = {"ridge": replace(model, mae_ah=model.mae_ah - 1e-6)}  # as a model that is a ridge has
    tied = replace(trained, results={"random": replace(trained.results["random"], baselines=same)})
    assert tied.shortfalls == ()
