"""A small real model package, a log in a temporary folder, and an app around both."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import numpy as np
import psycopg
import pytest
from starlette.testclient import TestClient

from batteryops.features.views import get_view
from batteryops.models import boosting
from batteryops.models.domain_fit import fit_domain
from batteryops.models.intervals import Intervals
from batteryops.models.manifest import ChosenAlgorithm
from batteryops.models.onnx_twin import to_onnx
from batteryops.models.package import ModelPackage
from batteryops.models.package_writing import write_package
from batteryops.records.group_commit import GroupCommit
from batteryops.records.predictions import PredictionLog
from batteryops.serving.app import create_app
from batteryops.serving.deployment import Deployment, deploy_package
from batteryops.serving.doors import Doors
from batteryops.serving.metrics import Metrics
from batteryops.serving.service import Service
from batteryops.settings import Settings, load_settings

_numbers = count()
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def settings() -> Settings:
    return load_settings(REPOSITORY / "config" / "production.yaml")


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory, settings: Settings) -> ModelPackage:
    """Twenty trees that learnt capacity from discharges at 1.8 A or so."""
    view = get_view("discharge_summary")
    random = np.random.default_rng(7)
    seconds = random.uniform(2000, 3700, 200)
    current = random.uniform(-2.0, -1.6, 200)
    features = np.column_stack(
        [
            random.uniform(3.4, 3.6, 200),
            current,
            random.uniform(25, 35, 200),
            random.uniform(35, 42, 200),
            seconds,
            random.uniform(8, 18, 200),
            0.7 * seconds + random.normal(0, 100, 200),
        ]
    ).astype(np.float32)
    parameters = {"n_estimators": 20, "max_depth": 3, "learning_rate": 0.3}
    booster = boosting.fit(
        features,
        -current * seconds / 3600,
        feature_names=view.names,
        parameters=parameters,
        seed=1,
    )
    return write_package(
        tmp_path_factory.mktemp("packages") / "small",
        model=booster,
        onnx=to_onnx(booster, len(view.names)),
        algorithm=ChosenAlgorithm(name="xgboost"),
        model_name="ev-soh-predictor",
        view=view,
        profiles=[settings.profile("nasa_18650")],
        parameters=parameters,
        seed=1,
        features=features,
        training_assets=["B0005"],
        data_fingerprint="0" * 64,
        domain=fit_domain(features, [f"cell {n % 20}" for n in range(200)], view.names),
        intervals=Intervals(0.9, 0.02, 0.5, 0.92, 20, 200),
    )


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of the prediction log: SQLite, or PostgreSQL where the environment says so.

    `SERVING_TEST_DATABASE=postgresql pytest tests/serving` runs all of it on PostgreSQL.
    """
    if os.environ.get("SERVING_TEST_DATABASE") != "postgresql":
        return f"sqlite:///{tmp_path}/predictions.db"
    server: str = request.getfixturevalue("postgresql")
    name = f"serving_{next(_numbers)}"
    with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA {name}".encode())
    return f"{server}?options=-csearch_path%3D{name}"


@pytest.fixture
def on_sqlite(url: str) -> None:
    """Of a test that takes the log's file away."""
    if not url.startswith("sqlite"):
        pytest.skip("this test is of SQLite's file")


@pytest.fixture
def log(url: str) -> Iterator[PredictionLog]:
    with PredictionLog(url) as opened:
        yield opened


@pytest.fixture
def serve(
    package: ModelPackage, url: str, settings: Settings
) -> Iterator[Callable[..., TestClient]]:
    """Start an app in this process; `client.app.state.service` is its state."""
    with ExitStack() as started:

        def start(
            *,
            settings: Settings = settings,
            doors: Doors | None = None,
            deployment: Deployment | None = None,
            folder: Path | None = None,
            refresh: Callable[[], None] | None = None,
        ) -> TestClient:
            metrics = Metrics()
            service = Service(
                deployment or deploy_package(package, "3", "champion"),
                folder=folder,
                log=PredictionLog(url),
                writer=GroupCommit(
                    url, queue_rows=settings.serving.log.queue_rows, on_batch=metrics.wrote
                ),
                doors=doors or Doors(None),
                metrics=metrics,
                settings=settings,
                refresh=refresh,
            )
            started.callback(service.close)
            return started.enter_context(TestClient(create_app(service)))

        yield start


@pytest.fixture
def client(serve: Callable[..., TestClient]) -> TestClient:
    return serve()


@pytest.fixture
def body() -> dict[str, object]:
    """A discharge as a client sends it."""
    return {
        "vehicle_id": "B0005",
        "voltage_V_mean": 3.53,
        "current_A_mean": -1.82,
        "temperature_C_mean": 32.6,
        "temperature_C_max": 39.0,
        "discharge_time_s": 3690.0,
        "delta_T_C": 14.7,
        "voltage_drop_time_s": 2713.0,
    }
