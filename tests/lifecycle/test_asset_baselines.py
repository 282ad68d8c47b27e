"""Baselines of assets as versioned artifacts: kept, refused, and applied to answers of a file."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import numpy as np
import polars as pl
import pytest

from batteryops.errors import DataError, PackageError, RecordsError
from batteryops.features.views import feature_table
from batteryops.lifecycle.asset_baselines import (
    BaselineFit,
    fit_baselines,
    residual_process,
)
from batteryops.lifecycle.baseline_store import BaselineStore
from batteryops.lifecycle.loading import load_model
from batteryops.lifecycle.prediction import predict_file
from batteryops.models.asset_baseline import AssetBaseline
from batteryops.models.package import ModelPackage
from batteryops.records.ledger import Ledger
from batteryops.records.predictions import PredictionLog
from batteryops.settings import Settings, load_settings
from batteryops.telemetry import read

MODEL = "ab" * 32


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(f"sqlite:///{tmp_path / 'ledger.db'}") as opened:
        yield opened


@pytest.fixture
def store(tmp_path: Path) -> BaselineStore:
    return BaselineStore(tmp_path / "baselines")


@pytest.fixture
def trained(tmp_path: Path, trained_home: Path, quick_config: Path) -> Settings:
    """Settings of a copy of a home with version 1 registered."""
    shutil.copytree(trained_home, tmp_path / "home")
    return load_settings(quick_config, home=tmp_path / "home")


def baseline(asset: str = "B0018", *, measured: float = 1.83, model: str = MODEL) -> AssetBaseline:
    return AssetBaseline(asset, model, (3, 5), (measured, 1.82), (1.80, 1.79))


def fit(settings: Settings, file: Path, *assets: str, first: int | None = None) -> BaselineFit:
    return fit_baselines(
        settings, source=str(file), features_file=None, assets=assets, first=first, model="1"
    )


def kept_nothing(settings: Settings) -> bool:
    with Ledger(settings.ledger_url) as ledger:
        lines = ledger.entries("baseline_fitted")
    return not lines and BaselineStore(settings.baselines).asset_ids() == []


class TestStore:
    def test_each_new_content_is_a_version_with_a_line_in_the_ledger(
        self, store: BaselineStore, ledger: Ledger, tmp_path: Path
    ) -> None:
        first, made = store.keep(baseline(), ledger)
        same, again = store.keep(baseline(), ledger)
        second, _ = store.keep(baseline(measured=1.9), ledger)
        assert (made, again) == (True, False)
        assert (first.version, same.version) == ("abababababab-v1", "abababababab-v1")
        assert second.version == "abababababab-v2"
        assert store.newest("B0018") == second
        assert store.every() == [first, second]
        lines = ledger.entries("baseline_fitted")
        file = tmp_path / "baselines" / "B0018" / "abababababab-v1.json"
        assert [line.subject for line in lines] == ["B0018"] * 2
        assert lines[0].details == {
            "version": "abababababab-v1",
            "file_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
            "measurements": 2,
            "package_fingerprint": MODEL,
        }

    def test_numbers_rise_over_models_and_each_model_has_its_own_newest(
        self, store: BaselineStore, ledger: Ledger
    ) -> None:
        for model in (MODEL, "cd" * 32):
            store.keep(baseline(model=model), ledger)
        assert store.versions("B0018") == ["abababababab-v1", "cdcdcdcdcdcd-v2"]
        mine = store.newest("B0018", MODEL)
        assert mine is not None
        assert mine.version == "abababababab-v1"
        assert store.newest("B0018", "ef" * 32) is None

    @pytest.mark.parametrize("asset", ["..", ".hidden", "pack/7", "ä b%2F", "a-v3"])
    def test_any_name_of_an_asset_has_a_folder_of_its_own(
        self, store: BaselineStore, ledger: Ledger, tmp_path: Path, asset: str
    ) -> None:
        kept, _ = store.keep(baseline(asset), ledger)
        assert store.asset_ids() == [asset]
        assert store.find(asset) == kept
        [folder] = (path for path in (tmp_path / "baselines").iterdir() if path.is_dir())
        assert [path.name for path in folder.iterdir()] == ["abababababab-v1.json"]

    def test_a_name_too_long_for_a_folder_has_no_baseline_and_gets_none(
        self, store: BaselineStore, ledger: Ledger
    ) -> None:
        assert store.newest("x" * 400) is None
        with pytest.raises(DataError, match="cannot be written"):
            store.keep(baseline("x" * 400), ledger)
        assert ledger.entries() == []

    def test_nothing_is_kept_when_the_ledger_refuses(
        self, store: BaselineStore, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*words: object) -> None:
            del words
            raise RecordsError("the ledger is out of reach")

        monkeypatch.setattr(ledger, "append", refuse)
        with pytest.raises(RecordsError):
            store.keep(baseline(), ledger)
        assert store.asset_ids() == []
        assert store.versions("B0018") == []

    def test_a_root_that_is_a_file_is_refused(self, tmp_path: Path, ledger: Ledger) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match="cannot be written to"):
            BaselineStore(tmp_path / "file").keep(baseline(), ledger)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"asset_id": "B0005"}, "is of asset 'B0005'"),
            ({"model": "cd" * 32}, "belongs to model cdcdcdcdcdcd"),
            ({"model": "ab" * 31 + "cd"}, "belongs to model abababababab"),
        ],
    )
    def test_a_file_that_its_place_contradicts_is_refused(
        self,
        store: BaselineStore,
        ledger: Ledger,
        tmp_path: Path,
        change: dict[str, str],
        told: str,
    ) -> None:
        store.keep(baseline(), ledger)
        file = tmp_path / "baselines" / "B0018" / "abababababab-v1.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        with pytest.raises(PackageError, match=told):
            store.newest("B0018", MODEL)

    def test_a_damaged_file_is_refused_and_gets_a_successor(
        self, store: BaselineStore, ledger: Ledger, tmp_path: Path
    ) -> None:
        store.keep(baseline(), ledger)
        file = tmp_path / "baselines" / "B0018" / "abababababab-v1.json"
        file.write_text(file.read_text()[:40])
        with pytest.raises(PackageError, match="no JSON"):
            store.find("B0018")
        kept, new = store.keep(baseline(), ledger)
        assert (kept.version, new) == ("abababababab-v2", True)
        assert store.find("B0018") == kept

    def test_what_is_not_there_is_said_with_what_is(
        self, store: BaselineStore, ledger: Ledger
    ) -> None:
        with pytest.raises(DataError, match="there is none yet"):
            store.find("B0018")
        store.keep(baseline(), ledger)
        with pytest.raises(DataError, match="there are some of B0018"):
            store.every("B0005")
        with pytest.raises(DataError, match="it has abababababab-v1"):
            store.find("B0018", "abababababab-v2")


class TestFitting:
    def test_pairs_the_first_measurements_with_the_model_s_answers(
        self, trained: Settings, fleet_file: Path
    ) -> None:
        found = fit(trained, fleet_file, "EV-0002", "EV-0001", first=4)
        assert [one.kept.baseline.asset_id for one in found.fitted] == ["EV-0001", "EV-0002"]
        assert all(one.new and one.trained_on for one in found.fitted)
        one = found.fitted[0].kept.baseline
        labels = pl.read_parquet(fleet_file).filter(asset_id="EV-0001")
        expected = labels.unique("cycle_index").sort("cycle_index")["capacity_ah"].drop_nulls()
        assert one.measured_ah == pytest.approx(expected[:4].to_list())
        assert one.model == load_model("1", trained).package.fingerprint
        assert not fit(trained, fleet_file, "EV-0001", first=4).fitted[0].new

    def test_an_asset_that_is_not_there_is_refused(
        self, trained: Settings, fleet_file: Path
    ) -> None:
        with pytest.raises(DataError, match="no cycles of asset EV-9; it holds EV-0001"):
            fit(trained, fleet_file, "EV-0001", "EV-9")
        assert kept_nothing(trained)

    def test_an_asset_without_labels_is_refused_by_name_and_else_passed_over(
        self, trained: Settings, fleet_file: Path, tmp_path: Path
    ) -> None:
        file = tmp_path / "some.parquet"
        unlabelled = pl.when(pl.col("asset_id") == "EV-0001").then(None).otherwise("capacity_ah")
        table = pl.read_parquet(fleet_file).filter(pl.col("asset_id") < "EV-0003")
        table.with_columns(capacity_ah=unlabelled).write_parquet(file)
        with pytest.raises(DataError, match="no measured capacity that can be used for EV-0001"):
            fit(trained, file, "EV-0001", "EV-0002")
        assert kept_nothing(trained)
        found = fit(trained, file)
        assert found.without_label == ("EV-0001",)
        assert [one.kept.baseline.asset_id for one in found.fitted] == ["EV-0002"]

    def test_a_file_without_labels_is_refused(
        self, trained: Settings, fleet_file: Path, tmp_path: Path
    ) -> None:
        cycles = tmp_path / "cycles.parquet"
        pl.read_parquet(fleet_file).drop("capacity_ah").write_parquet(cycles)
        with pytest.raises(DataError, match="no measured capacity"):
            fit(trained, cycles)
        features = tmp_path / "features.csv"
        features.write_text("asset_id,op_index\nEV-0001,1\n")
        with pytest.raises(DataError, match="missing column"):
            fit_baselines(trained, source=None, features_file=features, model="1")
        with pytest.raises(DataError, match="both --features and --source"):
            fit_baselines(trained, source="lake", features_file=features, model="1")
        assert kept_nothing(trained)

    def test_a_package_without_residuals_cannot_be_used(
        self, trained: Settings, fleet_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        package = load_model("1", trained).package
        files = dict(package.manifest.files)
        del files["residuals.json"]
        older = ModelPackage(
            package.folder, package.manifest.model_copy(update={"files": files}), package.view
        )
        with pytest.raises(PackageError, match="no baseline can be used with it: train again"):
            residual_process(older)
        loaded = replace(load_model("1", trained), package=older)
        monkeypatch.setattr("batteryops.lifecycle.asset_baselines.load_model", lambda *_: loaded)
        with pytest.raises(PackageError, match="train again"):
            fit(trained, fleet_file)
        assert kept_nothing(trained)

    def test_a_table_of_features_does_as_well_and_a_cycle_counts_once(
        self, trained: Settings, fleet_file: Path, tmp_path: Path
    ) -> None:
        view = load_model("1", trained).package.view
        recording = read(fleet_file)
        table = feature_table(view, recording).filter(asset_id="EV-0001")
        file = tmp_path / "features.parquet"
        table.write_parquet(file)
        found = fit_baselines(trained, source=None, features_file=file, first=4, model="1")
        assert not fit(trained, fleet_file, "EV-0001", first=4).fitted[0].new
        assert len(found.fitted[0].kept.baseline.op_index) == 4

        pl.concat([table, table.head(1)]).write_parquet(file)
        again = fit_baselines(trained, source=None, features_file=file, model="1").fitted[0].kept
        assert len(set(again.baseline.op_index)) == len(again.baseline.op_index) > 20

    def test_an_asset_out_of_domain_throughout_has_no_baseline(
        self, trained: Settings, fleet_file: Path, tmp_path: Path
    ) -> None:
        view = load_model("1", trained).package.view
        table = feature_table(view, read(fleet_file)).filter(asset_id="EV-0001")
        file = tmp_path / "features.parquet"
        table.with_columns(temperature_C_mean=pl.col("temperature_C_mean") + 30.0).write_parquet(
            file
        )
        with pytest.raises(DataError, match="unlike anything in the model's training"):
            fit_baselines(trained, source=None, features_file=file, model="1")
        assert kept_nothing(trained)


class TestAnswers:
    def test_measurements_correct_what_follows_them_and_nothing_else(
        self, trained: Settings, fleet_file: Path
    ) -> None:
        plain = predict_file(fleet_file, "1", trained)
        one = fit(trained, fleet_file, "EV-0001", first=4).fitted[0].kept
        # 0.1 Ah more than were measured: an offset that the model cannot know
        shifted = replace(
            one.baseline, measured_ah=tuple(x + 0.1 for x in one.baseline.measured_ah)
        )
        store = BaselineStore(trained.baselines)
        with Ledger(trained.ledger_url) as ledger:
            kept, _ = store.keep(shifted, ledger)
        answers = predict_file(fleet_file, "1", trained)

        before, after = plain.table, answers.table
        follows = (after["asset_id"] == "EV-0001") & (after["op_index"] > shifted.op_index[0])
        follows &= after["status"] == "ok"
        assert follows.sum() > 10
        assert after["baseline"].to_list() == [kept.version if row else None for row in follows]
        told = ["capacity_ah", "soh", "capacity_low_ah", "capacity_high_ah"]
        assert after.filter(~follows).select(told).equals(before.filter(~follows).select(told))

        package = load_model("1", trained).package
        asked = before.filter(follows)
        capacities, spreads = shifted.corrected(
            residual_process(package), asked["op_index"], asked["capacity_ah"]
        )
        given = after.filter(follows)
        assert given["capacity_ah"].to_numpy() == pytest.approx(capacities)
        assert given["soh"].to_numpy() == pytest.approx(capacities / 2.0)
        low, high = given["capacity_low_ah"].to_numpy(), given["capacity_high_ah"].to_numpy()
        widest = (asked["capacity_high_ah"] - asked["capacity_low_ah"]).to_numpy()
        gaussian = 2 * NormalDist().inv_cdf(0.95) * spreads
        within = trained.profile_of("EV-0001").capacity_range_ah
        free = (low > within[0]) & (high < within[1])
        assert (high - low <= gaussian + 1e-9).all()
        assert (high - low)[free] == pytest.approx(np.minimum(gaussian, widest)[free])

        with PredictionLog(trained.predictions_url) as log:
            logged = log.get(given["prediction_id"][0])
        assert logged is not None
        assert (logged.baseline, logged.capacity_ah) == (kept.version, given["capacity_ah"][0])
        without = predict_file(fleet_file, "1", trained, baselines=False)
        assert without.table["capacity_ah"].equals(before["capacity_ah"])
        assert without.table["baseline"].null_count() == without.table.height

    def test_a_baseline_of_another_model_corrects_nothing_and_is_named(
        self, trained: Settings, fleet_file: Path
    ) -> None:
        with Ledger(trained.ledger_url) as ledger:
            BaselineStore(trained.baselines).keep(baseline("EV-0001"), ledger)
        answers = predict_file(fleet_file, "1", trained)
        assert answers.other_models == ("EV-0001",)
        assert answers.table["baseline"].null_count() == answers.table.height
        assert answers.to_json()["baselines_of_other_models"] == ["EV-0001"]

    def test_nothing_is_answered_from_a_damaged_baseline(
        self, trained: Settings, fleet_file: Path
    ) -> None:
        fit(trained, fleet_file, "EV-0001", first=4)
        [file] = (trained.baselines / "EV-0001").glob("*.json")
        file.write_text("{}")
        with pytest.raises(PackageError, match="make it again"):
            predict_file(fleet_file, "1", trained)
        assert not (trained.home / "predictions.db").exists()
        assert predict_file(fleet_file, "1", trained, baselines=False).table.height == 150

    def test_nothing_is_answered_from_a_baseline_that_the_ledger_has_otherwise(
        self, trained: Settings, fleet_file: Path
    ) -> None:
        kept = fit(trained, fleet_file, "EV-0001", first=4).fitted[0].kept
        [file] = (trained.baselines / "EV-0001").glob("*.json")
        better = [x + 0.1 for x in kept.baseline.measured_ah]
        file.write_text(json.dumps(json.loads(file.read_text()) | {"measured_ah": better}))
        with pytest.raises(PackageError, match=f"{kept.version}.*ledger has it with another"):
            predict_file(fleet_file, "1", trained)
        assert predict_file(fleet_file, "1", trained, baselines=False).table.height > 0

        file.unlink()
        unknown = file.with_name(f"{kept.version.partition('-')[0]}-v9.json")
        unknown.write_text(kept.baseline.to_text())
        with pytest.raises(PackageError, match=r"-v9 .*the ledger has no line for it"):
            predict_file(fleet_file, "1", trained)
