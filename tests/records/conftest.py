"""Both kinds of database: SQLite always, a real PostgreSQL where it is installed."""

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

import psycopg
import pytest

PASSWORD = "a secret"  # noqa: S105  # of a server that lives as long as the tests
_numbers = count()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of an empty database on a PostgreSQL server that lives as long as the tests."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        message = "PostgreSQL is not installed: apt-get install --no-install-recommends postgresql"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder = Path(tempfile.mkdtemp(prefix="batteryops-postgresql-"))
    process = None
    try:
        process, port = _start(folders[-1], folder)
        yield _address(port).replace("postgresql", "postgresql+psycopg")
    finally:
        if process is not None:
            process.send_signal(signal.SIGQUIT)  # at once: nothing of it is kept
            process.wait(timeout=30)
        shutil.rmtree(folder)


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


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    """The URL of a fresh, empty database."""
    return new_url()


def _address(port: int) -> str:
    return f"postgresql://postgres:{PASSWORD.replace(' ', '%20')}@127.0.0.1:{port}/postgres"


def _start(binaries: Path, folder: Path) -> tuple["subprocess.Popen[bytes]", int]:
    """Make a cluster in the folder and serve it on a free port."""
    secret = folder / "password"
    secret.write_text(PASSWORD)
    as_user: list[str] = []
    if os.geteuid() == 0:  # the server refuses to run as root
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        shutil.chown(folder, "postgres", "postgres")
        shutil.chown(secret, "postgres", "postgres")
    data = folder / "data"
    subprocess.run(  # noqa: S603  # the distribution's own program
        [
            *as_user,
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
        process = subprocess.Popen(  # noqa: S603  # the distribution's own program
            [
                *as_user,
                binaries / "postgres",
                *("-D", data, "-k", folder, "-h", "127.0.0.1", "-p", str(port)),
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
                return process, port
            time.sleep(0.05)
        process.kill()
        process.wait()
    pytest.fail(f"PostgreSQL in {binaries} did not start")
