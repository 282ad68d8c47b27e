"""The reference for drift: fitted on the rows of training, and in the package."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from batteryops.errors import PackageError
from batteryops.features.views import feature_table, get_view
from batteryops.lifecycle.drift_reference import training_reference
from batteryops.lifecycle.loading import load_model
from batteryops.models.manifest import MANIFEST
from batteryops.models.package import ModelPackage, load_package
from batteryops.monitoring.counts import Counts
from batteryops.monitoring.drift_detection import detect
from batteryops.monitoring.reference import DRIFT_REFERENCE, reference_of
from batteryops.settings import Settings, load_settings
from batteryops.telemetry import Lake


@pytest.fixture
def settings(tmp_path: Path, trained_home: Path, quick_config: Path) -> Settings:
    shutil.copytree(trained_home, tmp_path / "home")
    return load_settings(quick_config, home=tmp_path / "home")


@pytest.fixture
def package(settings: Settings) -> ModelPackage:
    return load_model("1", settings).package


def test_a_package_holds_the_reference_of_its_training_rows(
    package: ModelPackage, settings: Settings
) -> None:
    reference = reference_of(package)
    reference.require_view(package.view)
    assert reference.rows == package.manifest.training_rows
    assert reference.assets == len(package.manifest.training_assets)
    assert tuple(reference.features) == package.view.names
    assert {label.partition("|")[0] for label in reference.strata} == set(package.manifest.profiles)
    rows = feature_table(package.view, Lake(settings.lake).read(kinds=package.view.kinds))
    rows = rows.drop_nulls("capacity_ah")
    report = detect(reference, Counts.of(reference, rows))
    assert report.verdict == "OK"
    assert report.prediction is None


def test_its_predictions_are_those_of_batteries_held_out(package: ModelPackage) -> None:
    predicted = reference_of(package).prediction
    assert predicted is not None
    assert predicted.tally.missing == 0
    low, high = predicted.quantile(0.0), predicted.quantile(1.0)
    assert 0.5 < low < high < 2.5


def test_with_nobody_to_hold_out_predictions_are_the_models_own(settings: Settings) -> None:
    view = get_view("discharge_summary")
    rng = np.random.default_rng(1)
    table = pl.DataFrame({name: rng.normal(size=30) for name in view.names}).with_columns(
        asset_id=pl.lit("EV-0001")
    )
    nobody, own = np.full(30, np.nan), rng.normal(1.8, 0.1, size=30)
    reference = training_reference(table, view, settings, held_out_ah=nobody, fitted_ah=own)
    assert reference.prediction is not None
    assert reference.prediction.quantile(1.0) == own.max()


def test_an_older_package_answers_but_has_nothing_to_measure_drift_against(
    package: ModelPackage, tmp_path: Path
) -> None:
    older = tmp_path / "older"
    shutil.copytree(package.folder, older)
    (older / f"{DRIFT_REFERENCE}.json").unlink()
    manifest = json.loads((older / MANIFEST).read_text())
    del manifest["files"][f"{DRIFT_REFERENCE}.json"]
    (older / MANIFEST).write_text(json.dumps(manifest))
    loaded = load_package(older)
    with pytest.raises(PackageError, match=r"holds no drift_reference\.json.*Train again"):
        reference_of(loaded)
