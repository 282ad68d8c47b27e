"""A store to copy and a package to register, each made once."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from batteryops.features.views import get_view
from batteryops.models.boosting import fit
from batteryops.models.domain_fit import fit_domain
from batteryops.models.intervals import Intervals
from batteryops.models.manifest import ChosenAlgorithm
from batteryops.models.onnx_twin import to_onnx
from batteryops.models.package import ModelPackage
from batteryops.models.package_writing import write_package
from batteryops.registry.mlflow_tracking import ModelRegistry
from batteryops.registry.store import open_client
from batteryops.settings import load_settings

VIEW = get_view("discharge_summary")
CELL = load_settings().profile("nasa_18650")


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """A small model, whole."""
    features = np.random.default_rng(1).normal(size=(40, 7)).astype(np.float32)
    parameters = {"n_estimators": 3, "n_jobs": 1}
    labels = features[:, 0].astype(np.float64)
    booster = fit(features, labels, feature_names=VIEW.names, parameters=parameters, seed=0)
    return write_package(
        tmp_path_factory.mktemp("packages") / "model",
        model=booster,
        onnx=to_onnx(booster, 7),
        algorithm=ChosenAlgorithm(name="xgboost"),
        model_name="ev-soh-predictor",
        view=VIEW,
        profiles=[CELL],
        parameters=parameters,
        seed=0,
        features=features,
        training_assets=["B0005"],
        data_fingerprint="a" * 64,
        domain=fit_domain(features, [f"cell {n % 8}" for n in range(40)], VIEW.names),
        intervals=Intervals(0.9, 0.02, 0.5, 0.92, 8, 40),
        documents={"gates": {"passed": True}},
    )


@pytest.fixture(scope="session")
def fresh_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, as BatteryOps makes it."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    open_client(f"sqlite:///{path}", str(path.parent / "artifacts"))
    return path


@pytest.fixture
def open_registry(tmp_path: Path, fresh_store: Path) -> Callable[..., ModelRegistry]:
    """Opens the registry of this test; each call is a new client on the same store."""
    shutil.copy(fresh_store, tmp_path / "mlflow.db")

    def opened(**changes: str | None) -> ModelRegistry:
        arguments: dict[str, str | None] = {
            "tracking_uri": f"sqlite:///{tmp_path / 'mlflow.db'}",
            "artifact_root": str(tmp_path / "artifacts"),
            "experiment": "battery-soh",
            "model_name": "ev-soh-predictor",
        }
        return ModelRegistry(**(arguments | changes))  # type: ignore[arg-type]  # None is for one

    return opened


@pytest.fixture
def registry(open_registry: Callable[..., ModelRegistry]) -> ModelRegistry:
    return open_registry()


@pytest.fixture
def log(registry: ModelRegistry, package: ModelPackage) -> Callable[..., str]:
    """Logs a run of the small model."""

    def logged(**changes: object) -> str:
        arguments: dict[str, object] = {
            "run_name": "discharge_summary on nasa",
            "package_folder": package.folder,
            "parameters": {"n_estimators": 3, "tree_method": "hist"},
            "metrics": {"random.mae_ah": 0.017, "unseen_assets/mae_ah": 0.06, "soh_error_pct": 0.9},
            "tags": {"environment": "test", "git_commit": "abc", "data_fingerprint": "a" * 64},
        }
        return registry.log_run(**(arguments | changes))  # type: ignore[arg-type]  # by name

    return logged
