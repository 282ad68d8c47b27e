"""What all tests share: the real measurements, when they are there."""

import os
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import yaml

from batteryops.lifecycle.preparation import ingest
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.registration import train_and_register
from batteryops.settings import load_settings
from batteryops.telemetry.canonical import write_canonical
from batteryops.telemetry.fleet_plan import FleetPlan
from batteryops.telemetry.simulator import simulate_fleet

# machines are noisy: how long an example takes says nothing of the code
hypothesis.settings.register_profile(
    "noisy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("noisy")


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real measurements; without it a test is skipped, in CI it fails."""
    given = os.environ.get("BATTERYOPS_DATA")
    if given and Path(given).is_dir():
        return Path(given)
    message = f"BATTERYOPS_DATA is {given!r}: expected the folder of real measurements"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="session")
def quick_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The production configuration with a small model and gates that it can pass."""
    config: dict[str, Any] = yaml.safe_load(
        (Path(__file__).parents[1] / "config" / "production.yaml").read_text()
    )
    config["training"]["parameters"] |= {"n_estimators": 60, "max_depth": 4}
    for gate in config["training"]["gates"]:
        if gate["name"] == "random_mae":
            gate["limit"] = "< 0.10"
        if gate["name"] == "random_r2":
            gate["limit"] = "> 0.3"
        if gate["limit"] == "< ridge":
            gate["limit"] = "< mean"
    config["evaluation"] |= {"bootstrap_resamples": 50, "max_folds": 3}
    file = tmp_path_factory.mktemp("config") / "production.yaml"
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    return file


@pytest.fixture(scope="session")
def fleet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulated fleet as a canonical Parquet file."""
    file = tmp_path_factory.mktemp("fleet") / "fleet.parquet"
    write_canonical(simulate_fleet(FleetPlan(n_vehicles=6, n_cycles=25, seed=7)), file)
    return file


@pytest.fixture(scope="session")
def trained_home(
    tmp_path_factory: pytest.TempPathFactory, quick_config: Path, fleet_file: Path
) -> Path:
    """A home with the fleet in its lake and version 1 registered; tests work on a copy of it."""
    home = tmp_path_factory.mktemp("trained") / "home"
    settings = load_settings(quick_config, home=home)
    ingest(str(fleet_file), settings)
    registered = train_and_register(
        settings, source="lake", features_file=None, out=None, progress=Silent()
    )
    assert registered.trained.verdict.passed, registered.trained.verdict.reasons
    return home
