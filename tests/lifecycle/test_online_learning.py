"""A champion brought up to date by labels that came, or kept with a reason."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import polars as pl
import pytest

from batteryops.errors import DataError, PackageError
from batteryops.features.views import matrix
from batteryops.lifecycle.drift import count, judge_drift
from batteryops.lifecycle.drift_references import profile_names
from batteryops.lifecycle.loading import load_model, open_registry
from batteryops.lifecycle.new_labels import fresh_labels
from batteryops.lifecycle.online_learning import (
    Updated,
    find_update,
    online_learning_update,
    register_update,
    update_model,
)
from batteryops.lifecycle.packaging import RETRAINING_TAG
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.promotion import RECOVERED, promote
from batteryops.lifecycle.training_rows import rows_of
from batteryops.lifecycle.update_package import realignments
from batteryops.lifecycle.update_rows import rows_together
from batteryops.models.package import load_package
from batteryops.monitoring.error_estimate import ERROR_ESTIMATE
from batteryops.monitoring.production_quality import REPEATING
from batteryops.monitoring.reference import reference_of
from batteryops.records.labels import Label
from batteryops.records.ledger import GATE_VERDICT, MODEL_REGISTERED, Ledger
from batteryops.registry.mlflow_tracking import ModelRegistry
from batteryops.settings import Settings, load_settings
from lifecycle.updating import (
    SMALL,
    VIEW,
    asked_and_labelled,
    fleet,
    new_rows,
    now,
    old_rows,
    put,
    record,
    small_config,
    train_champion,
)

RUN = "0199aaaa-0000-7000-8000-000000000001"


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives a home with a champion of an algorithm, trained once for all tests."""
    made: dict[str, Path] = {}

    def of(algorithm: str) -> Path:
        if algorithm not in made:
            folder = tmp_path_factory.mktemp(algorithm)
            if algorithm != "xgboost":  # making a registry takes seconds
                shutil.copytree(of("xgboost") / "home", folder / "home")
            config = small_config(folder / "config.yaml")
            train_champion(folder / "home", config, algorithm=algorithm)
            made[algorithm] = folder
        return made[algorithm]

    return of


@pytest.fixture
def begin(homes: Callable[[str], Path], tmp_path: Path) -> Callable[..., Settings]:
    """Gives settings of a copy of such a home."""

    def of(algorithm: str = "xgboost", **retraining: object) -> Settings:
        shutil.copytree(homes(algorithm) / "home", tmp_path / "home")
        return load_settings(
            small_config(tmp_path / "config.yaml", **retraining), home=tmp_path / "home"
        )

    return of


def updated(settings: Settings, run_id: str | None = RUN) -> Updated:
    return update_model(settings, Silent(), until=now(), run_id=run_id)


def kept(settings: Settings) -> str:
    """Why the current model stays; nothing was written."""
    found = updated(settings)
    assert not found.accepted
    assert found.strategy is None
    assert not found.to_json()["accepted"]
    with pytest.raises(DataError, match="the current model stays"):
        register_update(found, settings, Silent())
    assert [version.version for version in open_registry(settings).versions()] == [1]
    assert find_update(RUN, settings) is None
    return found.reason


def test_what_came_of_new_labels_is_a_version_that_has_all_that_a_trained_one_has(
    begin: Callable[..., Settings],
) -> None:
    settings = begin(report=True)
    asked_and_labelled(settings, new_rows())
    first = load_model("1", settings).package

    found = updated(settings)
    assert found.accepted, found.reason
    registered = register_update(found, settings, Silent())

    package = load_package(registered.package.folder)  # files, recorded answers, both twins
    assert package.manifest.files.keys() >= {
        "model.ubj", "model.onnx", "domain.json", "intervals.json", "residuals.json", "gates.json",
        "metrics.json", "drift_reference.json", f"{REPEATING}.json", f"{ERROR_ESTIMATE}.json",
        "update.json", "report.html", "diagnostics.png",
    }  # fmt: skip
    rows = matrix(VIEW, new_rows())
    assert np.abs(package.predict_batch(rows) - found.draft.model(rows)).max() == 0.0  # type: ignore[union-attr]  # accepted
    one = np.array([package.predict_one(row) for row in rows])
    assert np.abs(one - package.predict_batch(rows)).max() < 1e-5
    labels = new_rows()["capacity_ah"].to_numpy()
    errors = [np.abs(model.predict_batch(rows) - labels).mean() for model in (first, package)]
    assert errors[1] < 0.5 * errors[0]

    told = package.document("update")
    assert told["parent_version"] == 1
    assert told["parent_fingerprint"] == first.fingerprint
    assert told["strategy"] == found.strategy
    assert told["rows"]["new"] == 64
    assert told["run_id"] == RUN
    assert f"it was made, of {len(told['comparison']['candidates'])} candidates" in (
        package.read("report.html").decode()
    )
    whole = rows_of(package, settings)
    assert whole.height == 240 + 64
    assert whole.select("asset_id", "op_index").is_unique().all()


def test_a_registered_update_is_on_record_everywhere(begin: Callable[..., Settings]) -> None:
    settings = begin()
    asked_and_labelled(settings, new_rows())
    found = updated(settings)
    version = register_update(found, settings, Silent()).version
    assert version.version == 2
    assert version.gates_passed
    assert version.tags[RETRAINING_TAG] == RUN
    assert "unseen_assets.mae_ah" in version.metrics
    assert version.metrics["strategies.current.mae_new_ah"] == pytest.approx(
        found.comparison.current.new_ah  # type: ignore[union-attr]  # accepted
    )
    client = open_registry(settings)._client  # noqa: SLF001 - there is no other way to a run
    run = client.get_run(version.run_id)
    assert run.data.tags[RETRAINING_TAG] == RUN
    assert run.data.params["strategy"] == found.strategy
    assert "strategies.csv" in [file.path for file in client.list_artifacts(version.run_id)]
    with Ledger(settings.ledger_url) as ledger:
        verdict, registration = ledger.entries()[-2:]
        assert (verdict.event, registration.event) == (GATE_VERDICT, MODEL_REGISTERED)
        assert {gate["name"] for gate in verdict.details["gates"]} >= {
            "gain_on_new", "memory_of_old", "prediction_range", "onnx_parity",
        }  # fmt: skip
        assert verdict.details["parent_version"] == 1
        assert registration.details["run_id"] == version.run_id
        assert ledger.verify().intact
    assert promote(2, settings).replaced == 1


def test_the_next_update_goes_on_where_this_one_ended(begin: Callable[..., Settings]) -> None:
    settings = begin()
    asked_and_labelled(settings, new_rows().filter(pl.col("op_index") <= 6))
    promote(register_update(updated(settings), settings, Silent()).version.version, settings)
    assert "no new labels" in updated(settings, "another").reason

    asked_and_labelled(settings, new_rows().filter(pl.col("op_index") > 6))
    second = updated(settings, "another")
    assert second.labels["labels"] == 16
    assert second.parent_version == 2
    package = load_model("2", settings).package
    fresh = fresh_labels(settings, VIEW, since=None, until=now())
    assert fresh.n == 64
    rows = rows_together(rows_of(package, settings), fresh.table, VIEW, settings)
    assert (rows.replaced, rows.n_new) == (48, 64)  # those learned from before are said anew


SHORTER = "discharge_time_s"


def asked_across_an_update(settings: Settings) -> tuple[pl.DataFrame, datetime]:
    """Questions of twelve days, of which software ends the last six 900 s sooner.

    Returns:
        What was asked, as the old software tells it, with `answered_at`; and when the first
        question of the new software was asked.
    """
    began = datetime.now(UTC).replace(microsecond=0) - timedelta(days=13)
    days = pl.duration(days=pl.col("op_index").cast(pl.Int64))
    rows = fleet("NMC", vehicles=12, cycles=12, seed=3, first=201)
    rows = rows.with_columns(answered_at=pl.lit(began) + days)
    shorter = pl.when(pl.col("op_index") > 6).then(pl.col(SHORTER) - 900.0).otherwise(SHORTER)
    told = rows.with_columns(shorter.alias(SHORTER)).iter_rows(named=True)
    put(settings, [record(row["answered_at"], row) for row in told], [])
    return rows, began + timedelta(days=7)


def labelled(settings: Settings, rows: pl.DataFrame) -> None:
    hour = timedelta(hours=1)
    labels = [
        Label(row["asset_id"], row["answered_at"] + hour, row["capacity_ah"], "bench")
        for row in rows.iter_rows(named=True)
    ]
    put(settings, [], labels)


def test_rows_of_before_a_software_update_are_learned_as_they_would_be_told_now(
    begin: Callable[..., Settings],
) -> None:
    settings = begin()
    rows, since = asked_across_an_update(settings)
    early = pl.col("asset_id") <= "EV-1206"
    labelled(settings, rows.filter(early))

    found = update_model(settings, Silent(), until=now(), run_id=RUN, changed=[SHORTER])
    assert found.accepted, found.reason
    package = register_update(found, settings, Silent()).package
    (step,) = realignments(package)
    assert (step.feature, step.factor, step.since) == (SHORTER, 1.0, since)
    assert step.shift == pytest.approx(-900.0, abs=30.0)
    learned = rows_of(package, settings)
    times, before = learned[SHORTER], old_rows().sort("asset_id", "op_index")[SHORTER]
    old, new = times[: len(before)], times[len(before) :]
    assert (old - before).to_list() == pytest.approx([step.shift] * 240)
    expected = pl.when(pl.col("op_index") <= 6).then(step.shift).otherwise(-900.0)
    first = rows.filter(early).sort("asset_id", "op_index").with_columns(by=expected)
    assert (new - first[SHORTER]).to_list() == pytest.approx(first["by"].to_list())

    promote(2, settings)
    labelled(settings, rows.filter(~early))  # half of them are late, of questions of before
    second = update_model(settings, Silent(), until=now(), run_id="another")
    assert second.parent_version == 2
    assert second.draft is not None, second.reason
    assert second.draft.documents["update"]["realigned"] == [step.to_json()]
    late = rows.filter(~early).sort("asset_id", "op_index").with_columns(by=expected)
    grown = second.draft.table.filter(pl.col("asset_id") > "EV-1206").sort("asset_id", "op_index")
    assert (grown[SHORTER] - late[SHORTER]).to_list() == pytest.approx(late["by"].to_list())
    kept = second.draft.table.filter(pl.col("asset_id") <= "EV-1206")
    assert kept[SHORTER].to_list() == pytest.approx(learned[SHORTER].to_list())


def test_without_questions_of_late_nothing_is_realigned(begin: Callable[..., Settings]) -> None:
    settings = begin()  # those that are asked were months ago
    asked_and_labelled(settings, new_rows())
    found = update_model(settings, Silent(), until=now(), run_id=RUN, changed=[SHORTER])
    assert found.draft is not None, found.reason
    assert found.draft.documents["update"]["realigned"] == []


@pytest.mark.parametrize(
    ("least", "most", "rows", "psi"),
    [(60, 500, 64, (0, 0.05)), (60, 50, 50, (0, 0.3)), (65, 500, 304, (2, 9))],
)
def test_drift_that_was_learned_from_is_no_drift_any_more(
    begin: Callable[..., Settings], least: int, most: int, rows: int, psi: tuple[float, float]
) -> None:
    settings = begin(min_labels=least, reference_rows=most)
    asked_and_labelled(settings, new_rows())
    draft = updated(settings).draft
    assert draft is not None
    assert draft.reference.rows == rows
    window, profiles = new_rows().select("asset_id", *VIEW.names), profile_names(settings)
    counts = count(draft.reference, window, settings, profiles, prediction=None)
    found = judge_drift(draft.reference, counts, settings).features["voltage_V_mean"]
    assert found.psi is not None
    assert psi[0] <= found.psi <= psi[1]


def test_a_process_killed_after_it_registered_is_found_and_its_line_is_written(
    begin: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = begin()
    asked_and_labelled(settings, new_rows())
    found = updated(settings)
    appended = Ledger.append

    def killed(self: Ledger, event: str, *told: object) -> object:
        if event == MODEL_REGISTERED:
            raise KeyboardInterrupt
        return appended(self, event, *told)  # type: ignore[arg-type]  # as they came

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            register_update(found, settings, Silent())

    version = find_update(RUN, settings)
    assert version is not None
    assert version.version == 2
    with Ledger(settings.ledger_url) as ledger:
        last = ledger.head()
        assert last is not None
        assert last.details["recovered"] == RECOVERED
        assert last.subject.endswith("/2")
        length = last.sequence
    assert find_update(RUN, settings) == version
    assert register_update(found, settings, Silent()).version == version
    with Ledger(settings.ledger_url) as ledger:
        head = ledger.head()
        assert head is not None
        assert head.sequence == length
    assert [one.version for one in open_registry(settings).versions()] == [1, 2]


@pytest.mark.parametrize("step", ["log_run", "register"])
def test_a_process_killed_before_it_registered_leaves_no_version_and_can_begin_again(
    begin: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    settings = begin()
    asked_and_labelled(settings, new_rows())
    found = updated(settings)

    killed = Mock(side_effect=KeyboardInterrupt)
    with monkeypatch.context() as patched:
        patched.setattr(ModelRegistry, step, killed)
        with pytest.raises(KeyboardInterrupt):
            register_update(found, settings, Silent())
    half_written = settings.packages / f".draft-{RUN}"  # what SIGKILL leaves
    half_written.mkdir()
    (half_written / "model.ubj").write_bytes(b"half")
    assert find_update(RUN, settings) is None
    assert register_update(found, settings, Silent()).version.version == 2
    assert not list(settings.packages.glob(".draft-*"))


def test_without_labels_the_current_model_stays(begin: Callable[..., Settings]) -> None:
    assert kept(begin()) == "there are no new labels to learn from"


def test_labels_that_contradict_are_none_and_counted(begin: Callable[..., Settings]) -> None:
    settings = begin()
    rows = new_rows().with_columns(pl.col("capacity_ah") * 1.2)
    began = now() - timedelta(days=200)
    asked_and_labelled(settings, new_rows(), began=began)
    asked_and_labelled(settings, rows, began=began + timedelta(minutes=10))
    assert "were left out (contradicting 128)" in kept(settings)


def test_labels_of_one_vehicle_judge_nothing(begin: Callable[..., Settings]) -> None:
    settings = begin()
    asked_and_labelled(settings, new_rows().filter(pl.col("asset_id") == "EV-1101"))
    assert "all 8 labelled rows are of EV-1101" in kept(settings)


def test_without_the_rows_that_it_was_trained_on_a_model_stays(
    begin: Callable[..., Settings],
) -> None:
    settings = begin()
    asked_and_labelled(settings, new_rows())
    shutil.rmtree(settings.training_rows)
    assert "train again" in kept(settings)


def test_a_candidate_that_forgets_the_old_batteries_is_refused(
    begin: Callable[..., Settings],
) -> None:
    settings = begin(strategies=["warm_start", "full"])
    # the very features of old batteries, with labels that nothing but their names tells apart
    rows = old_rows().with_columns(
        asset_id=pl.format("EV-7{}", pl.col("asset_id").str.slice(4)),
        capacity_ah=pl.col("capacity_ah") * 0.7,
    )
    asked_and_labelled(settings, rows)
    found = updated(settings)
    assert found.comparison is not None
    errors = found.comparison.candidates[0].errors
    assert errors is not None
    assert errors.new_ah < 0.9 * found.comparison.current.new_ah  # better on what is new
    assert "it forgets: old" in kept(settings)
    assert "no candidate passes, so the current model stays" in found.reason


def test_a_candidate_that_fails_a_gate_is_not_registered(
    begin: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = begin()
    asked_and_labelled(settings, new_rows())
    monkeypatch.setattr("batteryops.lifecycle.update_package.count_out_of_range", lambda *_: 1)
    assert kept(settings).startswith("prediction_range: training predictions_out_of_range is 2")


@pytest.mark.parametrize("algorithm", ["ridge", "xgboost_monotone"])
def test_any_algorithm_is_brought_up_to_date(
    begin: Callable[..., Settings], algorithm: str
) -> None:
    settings = begin(algorithm)
    asked_and_labelled(settings, new_rows())
    found = updated(settings)
    assert found.accepted, found.reason
    package = register_update(found, settings, Silent()).package
    assert package.manifest.algorithm.name == algorithm
    assert package.manifest.booster == (algorithm != "ridge")
    if algorithm == "xgboost_monotone":  # its new trees follow the trends as the old ones do
        row = np.repeat(matrix(VIEW, new_rows()[:1]), 50, axis=0)
        row[:, VIEW.names.index("discharge_time_s")] = np.linspace(500, 5000, 50)
        assert (np.diff(package.predict_batch(row)) >= 0).all()
    if algorithm == "ridge":
        assert found.strategy == "full"
        with pytest.raises(PackageError, match="not one XGBoost booster"):
            online_learning_update(settings, Silent())


def test_a_fit_learns_from_no_more_rows_than_it_may_and_all_are_kept(
    begin: Callable[..., Settings],
) -> None:
    settings = begin(max_rows=100)
    asked_and_labelled(settings, new_rows())
    found = updated(settings)
    assert found.accepted, found.reason
    package = register_update(found, settings, Silent()).package
    rows = package.document("update")["rows"]
    assert rows["learned_old"] + rows["learned_new"] == 100
    assert rows["learned_new"] == 50
    assert rows_of(package, settings).height == rows["all"] == 304
    assert reference_of(package).rows == 304
    assert package.manifest.training_rows == 304


def test_a_vehicle_s_new_rows_are_numbered_after_its_old_ones(
    begin: Callable[..., Settings],
) -> None:
    settings = begin()
    table = fleet("LFP", vehicles=2, cycles=4, seed=5)  # EV-1001 and EV-1002, which are old ones
    rows = rows_together(old_rows(), table, VIEW, settings)
    own = rows.table.filter(pl.col("asset_id") == "EV-1001")
    assert own["op_index"].to_list() == list(range(1, 17))
    assert own["voltage_V_mean"].tail(4).to_list() == (
        table.filter(pl.col("asset_id") == "EV-1001")["voltage_V_mean"].to_list()
    )
    assert rows.table.schema == old_rows().schema


def test_a_later_word_on_an_old_row_takes_its_place(begin: Callable[..., Settings]) -> None:
    settings = begin()
    again = old_rows().head(3).with_columns(capacity_ah=pl.lit(1.234))
    rows = rows_together(old_rows(), again, VIEW, settings)
    assert rows.replaced == 3
    assert rows.table.height == 240
    assert (rows.table["capacity_ah"] == 1.234).sum() == 3


def test_learning_online_from_a_table_promotes_what_is_better(
    begin: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = begin()
    new_rows().write_parquet(tmp_path / "batch.parquet")
    learned = online_learning_update(
        settings, Silent(), table=tmp_path / "batch.parquet", promote=True
    )
    assert learned.updated.strategy == "online_10"
    assert learned.promoted is not None
    champion = load_model("champion", settings)
    assert champion.version == "2"
    assert champion.package.booster.num_boosted_rounds() == SMALL["n_estimators"] + 10
    assert learned.to_json()["promoted"]["replaced"] == 1
    assert champion.package.document("update")["labels_until"] is None


def test_learning_online_from_labels_that_came_keeps_what_is_no_better(
    begin: Callable[..., Settings],
) -> None:
    settings = begin()
    later = fleet("NMC", vehicles=6, cycles=12, seed=9, first=201)
    noise = np.random.default_rng(0).permutation(later["capacity_ah"].to_numpy())
    asked_and_labelled(settings, later.with_columns(capacity_ah=pl.Series(noise)))
    learned = online_learning_update(settings, Silent(), promote=True)
    assert learned.registered is None
    assert learned.promoted is None
    assert "no candidate passes" in learned.updated.reason
    assert load_model("champion", settings).version == "1"


def test_a_batch_in_another_unit_or_of_one_vehicle_says_so(
    begin: Callable[..., Settings], tmp_path: Path
) -> None:
    settings = begin()
    file = tmp_path / "batch.parquet"
    new_rows().with_columns(pl.col("voltage_V_mean") * 1000).write_parquet(file)
    with pytest.raises(DataError, match="may not be used"):
        online_learning_update(settings, Silent(), table=file)
    new_rows().filter(pl.col("asset_id") == "EV-1101").write_parquet(file)
    assert "EV-1101" in online_learning_update(settings, Silent(), table=file).updated.reason
