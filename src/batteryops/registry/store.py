"""Open an MLflow store: without telemetry, log lines, long waits or a half-made database."""

import fcntl
import logging
import os
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.exc import SADeprecationWarning, SQLAlchemyError

from batteryops.errors import RegistryError
from batteryops.files import beside, first_line
from batteryops.urls import hidden, masked

_ENVIRONMENT: Final = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
"""What MLflow reads while it is imported; an operator who sets one of them has the last word."""

_SERVER_TIMEOUT_S: Final = 5.0
_EXPECTED: Final = (
    "expected sqlite:///FILE, another database as an SQLAlchemy URL, or the http(s) address of an "
    "MLflow server: set registry.tracking_uri"
)


def open_client(tracking_uri: str, artifact_root: str | None) -> Any:  # noqa: ANN401 - untyped
    """An `MlflowClient` on a store that answers; a fresh SQLite store is made first.

    MLflow's own attempts at a store out of reach go on for minutes, so it is asked once before.

    Args:
        tracking_uri: of the tracking store, which is the registry as well.
        artifact_root: where a fresh SQLite store keeps artifacts of its default experiment.

    Raises:
        RegistryError: when the store is of a kind that is not served, or does not answer.
    """
    shown = masked(tracking_uri)
    scheme, colon, _ = tracking_uri.partition(":")
    scheme = scheme.lower()
    if not colon or scheme in {"", "file"}:
        raise RegistryError(f"tracking URI {shown!r} is a folder; {_EXPECTED}")
    if scheme in {"http", "https"}:
        _ask_server(tracking_uri)
    elif scheme in {"sqlite", "sqlite+pysqlite"}:
        _make_sqlite(tracking_uri, artifact_root)
    else:
        _ask_database(tracking_uri)
    with _quiet():
        # 1 s of imports, and it reads the environment while it is imported
        from mlflow.exceptions import MlflowException  # noqa: PLC0415
        from mlflow.tracking import MlflowClient  # noqa: PLC0415

        try:
            return MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        except (MlflowException, SQLAlchemyError, ImportError, ValueError) as error:
            reason = hidden(first_line(error), tracking_uri)
            raise RegistryError(f"MLflow store {shown}: {reason}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "MLFLOW_LOGGING_LEVEL" not in os.environ:
        # what MLflow logs as an error, with a traceback, is raised here as a RegistryError
        logging.getLogger("mlflow").setLevel(logging.CRITICAL)
        logging.getLogger("alembic").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # MLflow 3.17 declares its tables with a loader strategy that SQLAlchemy 2.1 deprecates
        warnings.simplefilter("ignore", SADeprecationWarning)
        yield


def _ask_server(tracking_uri: str) -> None:
    shown = masked(tracking_uri)
    try:
        parts = urlsplit(tracking_uri)
        _ = parts.port  # which is read only now
    except ValueError:
        parts = None
    if parts is None or not parts.hostname:
        raise RegistryError(f"tracking URI {shown!r} names no server; {_EXPECTED}")
    try:
        requests.get(f"{tracking_uri.rstrip('/')}/health", timeout=_SERVER_TIMEOUT_S)
    except (requests.RequestException, ValueError) as error:
        raise RegistryError(
            f"MLflow server {shown} does not answer within {_SERVER_TIMEOUT_S:g} s "
            f"({type(error).__name__}); start it, or set registry.tracking_uri"
        ) from error


def _ask_database(tracking_uri: str) -> None:
    shown = masked(tracking_uri)
    url = _parse(tracking_uri)
    if "@" in f"{url.host}{url.database}":
        raise RegistryError(
            f"tracking URI {shown!r} holds an unescaped @; write @ in a password as %40; "
            f"{_EXPECTED}"
        )
    try:
        engine = create_engine(url)
    except (SQLAlchemyError, ImportError, TypeError, ValueError) as error:
        raise RegistryError(
            f"tracking URI {shown}: {hidden(first_line(error), tracking_uri)}; {_EXPECTED} "
            "(PostgreSQL needs the extra postgresql)"
        ) from error
    try:
        engine.connect().close()
    except (SQLAlchemyError, OSError, ValueError) as error:
        raise RegistryError(
            f"database {shown} does not answer: {hidden(first_line(error), tracking_uri)}; "
            "start it, or set registry.tracking_uri"
        ) from error
    finally:
        engine.dispose()


def _parse(tracking_uri: str) -> URL:
    try:
        return make_url(tracking_uri)
    except (SQLAlchemyError, ValueError) as error:  # whose text may hold a password
        raise RegistryError(
            f"tracking URI {masked(tracking_uri)!r} cannot be read; {_EXPECTED}"
        ) from error


def _make_sqlite(tracking_uri: str, artifact_root: str | None) -> None:
    """Make the database file when there is none; two processes at once make it once.

    It is made under another name and moved into place, so that a process killed during MLflow's
    migrations leaves no database that can neither be used nor migrated further.
    """
    url = _parse(tracking_uri)
    path = Path(url.database or "")
    if url.host or url.username or path.name in {"", ":memory:"} or "uri" in url.query:
        raise RegistryError(f"tracking URI {masked(tracking_uri)!r} names no file; {_EXPECTED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.with_name(f".{path.name}.lock")):
            if not path.exists() or path.stat().st_size == 0:
                with beside(path) as partial:
                    _create_tables(partial, artifact_root)
                    partial.replace(path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("SELECT name FROM sqlite_master LIMIT 1").fetchall()
    except (OSError, ValueError, sqlite3.Error, SQLAlchemyError) as error:
        raise RegistryError(
            f"MLflow store {path} cannot be used: {first_line(error)}; name another file in "
            "registry.tracking_uri, or restore it from a backup"
        ) from error


def _create_tables(path: Path, artifact_root: str | None) -> None:
    with _quiet():
        # as above: heavy, and only for a store that does not exist yet
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # noqa: PLC0415

        artifacts = artifact_root or str(path.parent / "artifacts")
        SqlAlchemyStore(f"sqlite:///{path}", artifacts).engine.dispose()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock between processes; the system frees it when its holder dies."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
