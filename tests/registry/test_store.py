"""Opening a store: quick refusals, a fresh database made once and whole, and silence."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from batteryops.errors import RegistryError
from batteryops.registry.store import open_client


def environment(home: Path) -> dict[str, str]:
    """Of a user's shell: nothing by which MLflow could tell that this is a test."""
    return {"PATH": os.environ["PATH"], "HOME": str(home)} | {
        name: value for name, value in os.environ.items() if name.startswith("COVERAGE")
    }


OPEN = """
import sys
from batteryops.registry.mlflow_tracking import ModelRegistry
registry = ModelRegistry(
    tracking_uri=sys.argv[1], artifact_root=None, experiment="e", model_name="m"
)
print(len(registry.versions()))
"""

LISTEN = """
import json, socket, sys, threading
asked = []
def refuse(self, address):
    asked.append(str(address))
    raise OSError("no network here")
socket.socket.connect = refuse
socket.getaddrinfo = lambda *where, **_: refuse(None, where)
import logging
logging.basicConfig(level=logging.INFO)
from batteryops.registry.mlflow_tracking import ModelRegistry
registry = ModelRegistry(
    tracking_uri=sys.argv[1], artifact_root=None, experiment="e", model_name="m"
)
registry.versions()
import mlflow
threads = [thread.name for thread in threading.enumerate()]
print(json.dumps({"asked": asked, "threads": threads, "git": "git" in sys.modules}))
"""


@pytest.mark.integration
def test_opening_a_fresh_store_is_silent_and_asks_no_network(tmp_path: Path) -> None:
    ran = subprocess.run(  # noqa: S603 - this file's own code
        [sys.executable, "-W", "error", "-c", LISTEN, f"sqlite:///{tmp_path / 'mlflow.db'}"],
        check=False,
        capture_output=True,
        text=True,
        env=environment(tmp_path),
        cwd=tmp_path,
    )

    assert ran.stderr == ""
    assert json.loads(ran.stdout) == {"asked": [], "threads": ["MainThread"], "git": False}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mlflow.db.lock", "mlflow.db"]


@pytest.mark.integration
def test_two_processes_may_make_the_same_store_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OPEN, f"sqlite:///{tmp_path / 'deep' / 'mlflow.db'}"]
    both = [
        subprocess.Popen(  # noqa: S603 - this file's own code
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(tmp_path),
        )
        for _ in range(2)
    ]

    assert [process.communicate() for process in both] == [("0\n", ""), ("0\n", "")]
    left = sorted(path.name for path in (tmp_path / "deep").iterdir())
    assert left == [".mlflow.db.lock", "mlflow.db"]


@pytest.mark.integration
def test_a_process_killed_while_it_makes_a_store_leaves_none(tmp_path: Path) -> None:
    killed = subprocess.run(  # noqa: S603 - this file's own code
        [
            sys.executable,
            "-c",
            "import os, signal\n"
            "from pathlib import Path\n"
            "Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n" + OPEN,
            f"sqlite:///{tmp_path / 'mlflow.db'}",
        ],
        check=False,
        capture_output=True,
        env=environment(tmp_path),
    )

    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "mlflow.db").exists()
    assert open_client(f"sqlite:///{tmp_path / 'mlflow.db'}", None).search_experiments()


def test_a_store_that_exists_is_opened_as_it_is(fresh_store: Path) -> None:
    before = fresh_store.read_bytes()

    open_client(f"sqlite:///{fresh_store}", None)

    assert fresh_store.read_bytes() == before


def test_a_store_of_another_mlflow_says_how_to_migrate(tmp_path: Path, fresh_store: Path) -> None:
    path = tmp_path / "older.db"
    path.write_bytes(fresh_store.read_bytes())
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")

    with pytest.raises(RegistryError, match=r"out-of-date database schema.*mlflow db upgrade"):
        open_client(f"sqlite:///{path}", None)


@pytest.mark.parametrize("uri", ["mlruns", "file:///somewhere/mlruns", ""])
def test_a_folder_is_no_store(uri: str) -> None:
    with pytest.raises(RegistryError, match=r"is a folder; expected sqlite:///FILE"):
        open_client(uri, None)


@pytest.mark.parametrize("uri", ["sqlite://", "sqlite:///:memory:"])
def test_a_database_without_a_file_is_refused(uri: str) -> None:
    with pytest.raises(RegistryError, match="names no file; expected sqlite:///FILE"):
        open_client(uri, None)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)

    with pytest.raises(RegistryError, match=r"mlflow\.db cannot be used: file is not a database"):
        open_client(f"sqlite:///{tmp_path / 'mlflow.db'}", None)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db" / "inside").mkdir(parents=True)

    with pytest.raises(RegistryError, match="cannot be used: unable to open database file"):
        open_client(f"sqlite:///{tmp_path / 'mlflow.db'}", None)


def test_a_place_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(RegistryError, match=r"cannot be used: .*/file"):
        open_client(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}", None)


def test_a_server_that_does_not_answer_is_refused_at_once() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RegistryError, match=rf"MLflow server {uri} does not answer"):
            open_client(uri, None)


def test_a_database_that_does_not_answer_is_refused_at_once_and_keeps_its_password() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(RegistryError, match="does not answer") as refused:
            open_client(f"postgresql+psycopg://me:secret@127.0.0.1:{port}/mlflow", None)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("sqlite:foo", "'sqlite:foo' cannot be read; expected sqlite:///FILE"),
        ("sqlite:/foo", "cannot be read; expected"),
        ("sqlite:///", "names no file; expected"),
        ("sqlite:////", "names no file; expected"),
        ("sqlite:///file:foo?uri=true", "names no file; expected"),
        ("sqlite://me:hidden@host/foo", "names no file; expected"),
        ("sqlite:///a\0b.db", "cannot be used: embedded null"),
        ("sqlite+aiosqlite:///foo.db", "No module named 'aiosqlite'.*; expected"),
        ("http://[bad", r"'http://\[bad' names no server; expected"),
        ("http://", "names no server; expected"),
        ("http://host:port", "names no server; expected"),
        ("http://me:hidden@[bad", "names no server; expected"),
        ("http://me:hidden@127.0.0.1:1", r"MLflow server http://me:\*\*\*@127.* does not answer"),
        ("postgresql:", "cannot be read; expected"),
        ("postgresql://?host=/nowhere", "database postgresql://.*host=/nowhere does not answer"),
        ("postgresql://me:hidden", "cannot be read; expected"),
        ("postgresql://me@127.0.0.1:hidden/x", "cannot be read; expected"),
        ("postgresql://me:x@hidden@127.0.0.1/x", "holds an unescaped @; write @ in a password"),
        ("postgresql:///me:hidden@127.0.0.1/x", "holds an unescaped @"),
        ("postgresql://me:se%23hidden@[bad/x", "does not answer"),
        ("postgresql://me@127.0.0.1:1/x?password=hidden", "does not answer"),
        ("me:hidden@host", "cannot be read; expected"),
        ("://me:hidden@host", "is a folder; expected"),
    ],
)
def test_a_malformed_uri_is_refused_in_own_words_and_keeps_its_password(
    uri: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryError, match=said) as refused:
        open_client(uri, None)
    assert "hidden" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["nonsense://host/db", "postgresql+nodriver://me:secret@host/db"])
def test_a_database_of_an_unknown_kind_is_refused_and_keeps_its_password(uri: str) -> None:
    with pytest.raises(RegistryError, match="expected sqlite:///FILE") as refused:
        open_client(uri, None)
    assert "secret" not in str(refused.value)


def test_a_server_that_answers_is_left_to_mlflows_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    monkeypatch.setattr("requests.get", lambda url, timeout: asked.append((url, timeout)))

    client = open_client("http://tracking.example/", None)

    assert asked == [("http://tracking.example/health", 5.0)]
    assert client.tracking_uri == "http://tracking.example/"


def test_an_operator_who_wants_mlflows_log_keeps_it(
    tmp_path: Path, fresh_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging  # noqa: PLC0415 - for this test alone

    monkeypatch.setenv("MLFLOW_LOGGING_LEVEL", "INFO")
    logger = logging.getLogger("mlflow")
    monkeypatch.setattr(logger, "level", logging.INFO)

    open_client(f"sqlite:///{fresh_store}", str(tmp_path))

    assert logger.level == logging.INFO
