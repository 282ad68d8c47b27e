"""What all tests share: the real measurements, a small trained model, both kinds of database."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest
import yaml

from batteryops.lifecycle.preparation import ingest
from batteryops.lifecycle.progress import Silent
from batteryops.lifecycle.registration import train_and_register
from batteryops.settings import load_settings
from batteryops.telemetry.canonical import write_canonical
from batteryops.telemetry.fleet_plan import FleetPlan
from batteryops.telemetry.simulator import simulate_fleet

PASSWORD = "a secret"  # noqa: S105  # of a server that lives as long as the tests
_numbers = count()

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


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of an empty database on a PostgreSQL server that lives as long as the tests."""
    server = Server(_binaries())
    try:
        server.start()
        yield server.url
    finally:
        server.stop()  # nothing of it is kept
        shutil.rmtree(server.folder)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Gives the URL of a fresh, empty database at every call."""
    if request.param == "sqlite":
        return lambda: f"sqlite:///{tmp_path}/store-{next(_numbers)}.db"
    server: str = request.getfixturevalue("postgresql")

    def create() -> str:
        name = f"test_{next(_numbers)}"  # a schema is as good as a database, and much cheaper
        with psycopg.connect(server.replace("+psycopg", ""), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return f"{server}?options=-csearch_path%3D{name}"

    return create


def _address(port: int) -> str:
    return f"postgresql://postgres:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/postgres"


@pytest.fixture
def own_postgresql() -> Iterator["Server"]:
    """A server of a test's own, which it may stop."""
    server = Server(_binaries())
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder)


class Server:
    """A PostgreSQL server that can be stopped and started again at the same address."""

    password = PASSWORD

    def __init__(self, binaries: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="batteryops-postgresql-"))
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None
        self._port: int | None = None

    @property
    def url(self) -> str:
        assert self._port is not None
        return _address(self._port).replace("postgresql", "postgresql+psycopg")

    def start(self) -> None:
        if self._port is None:
            self._process, self._port = _start(self._binaries, self.folder)
        else:
            self._process = _serve(self._binaries, self.folder, self._port)
            assert self._process is not None

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # at once
            self._process.wait(timeout=30)
            self._process = None


def _start(binaries: Path, folder: Path) -> tuple["subprocess.Popen[bytes]", int]:
    """Make a cluster in the folder and serve it on a free port."""
    secret = folder / "password"
    secret.write_text(PASSWORD)
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(secret, "postgres", "postgres")
    data = folder / "data"
    subprocess.run(  # noqa: S603  # the distribution's own program
        [
            *_as_user(),
            binaries / "initdb",
            f"--pgdata={data}",
            "--username=postgres",
            "--auth=scram-sha-256",
            f"--pwfile={secret}",
            "--encoding=UTF8",
            "--no-sync",
        ],
        check=True,
        capture_output=True,
        cwd=folder,
    )
    for _ in range(5):  # another process may take the free port first
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port: int = probe.getsockname()[1]
        process = _serve(binaries, folder, port)
        if process is not None:
            return process, port
    pytest.fail(f"PostgreSQL in {binaries} did not start")


def _serve(binaries: Path, folder: Path, port: int) -> "subprocess.Popen[bytes] | None":
    """Serve the cluster in the folder; None when it does not come up."""
    process = subprocess.Popen(  # noqa: S603  # the distribution's own program
        [
            *_as_user(),
            binaries / "postgres",
            *("-D", folder / "data", "-k", folder, "-h", "127.0.0.1", "-p", str(port)),
            *("-c", "fsync=off"),  # the tests survive no power cut anyway
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=folder,
    )
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        with (
            contextlib.suppress(psycopg.OperationalError),
            psycopg.connect(_address(port)),
        ):
            return process
        time.sleep(0.05)
    process.kill()
    process.wait()
    return None


def _as_user() -> list[str]:
    """What makes a program run as another user: the server refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]


def _binaries() -> Path:
    """The newest PostgreSQL that is installed; without one, skips, or fails in CI."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        message = "PostgreSQL is not installed: apt-get install --no-install-recommends postgresql"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folders[-1]
