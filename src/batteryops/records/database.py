"""One store in one database: opened, migrated and guarded; SQLite by default, or PostgreSQL."""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, Literal

import orjson
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from batteryops.errors import RecordsError
from batteryops.records.checkpoints import Checkpoints
from batteryops.records.turns import Turn
from batteryops.urls import hidden, masked

StoreName = Literal["predictions", "ledger"]

TITLES: Final[dict[StoreName, str]] = {"predictions": "prediction log", "ledger": "ledger"}
_SQLITE: Final = ("sqlite", "sqlite+pysqlite")
_POSTGRESQL: Final = ("postgresql", "postgresql+psycopg", "postgres")
_WAIT_S: Final = 10  # for another process's lock, or for a server to answer
_LONG_LOG: Final = 16_384  # pages of 4 kB in the write-ahead log that a commit itself moves
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_migrating = threading.Lock()  # Alembic's `op` is one per process


class Database:
    """An open store. Every transaction goes through `read` or `write`; safe between threads.

    Args:
        engine: connected to the store.
        store: which one.
    """

    def __init__(self, engine: Engine, store: StoreName) -> None:
        self.engine = engine
        self.store: Final[StoreName] = store
        self.address: Final = _shown(engine.url)
        self._is_sqlite = engine.dialect.name == "sqlite"
        self._writer = engine.execution_options(sqlite_begin="IMMEDIATE")
        self._path = Path(str(engine.url.database)) if self._is_sqlite else None
        self._file = _identity(self._path)
        self.turn: Final = nullcontext() if self._path is None else Turn(self._path)
        self._checkpoints = None
        if self._path is not None and isinstance(self.turn, Turn):
            self._checkpoints = Checkpoints(self._path, self.turn)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection that sees one consistent state.

        Raises:
            RecordsError: when the database cannot be reached or refuses.
        """
        with self._reported(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write(self, *, exclusive: bool = False) -> Iterator[Connection]:
        """A connection whose changes are on disk when the block ends, or not made at all.

        Args:
            exclusive: no other process writes this store meanwhile (SQLite: always so).

        Raises:
            RecordsError: when the database cannot be reached or refuses, or its file was removed.
        """
        self.refuse_if_removed()
        with self._reported(), self.turn, self._writer.begin() as connection:
            if exclusive and not self._is_sqlite:
                connection.execute(
                    text("SELECT pg_advisory_xact_lock(:key)"), {"key": _lock_key(self.store)}
                )
            yield connection

    def ping(self) -> None:
        """Return when the store answers.

        Raises:
            RecordsError: when it does not, or when its file was removed.
        """
        self.refuse_if_removed()
        with self.read() as connection:
            connection.execute(text(f"SELECT version_num FROM {version_table(self.store)}"))  # noqa: S608  # no input

    def connect(self) -> Any:  # noqa: ANN401  # psycopg is optional
        """A connection of the driver's own, set up as all of the store's, for the caller to close.

        For what writes thousands of rows a second. On SQLite, hold `turn` while writing.

        Returns:
            A `sqlite3.Connection` without transactions of its own making, or a
            `psycopg.Connection`.

        Raises:
            RecordsError: when the database cannot be reached, or its file was removed.
        """
        self.refuse_if_removed()
        with self._reported():
            pooled = self.engine.raw_connection()
            pooled.detach()
            return pooled.dbapi_connection

    def tidy_up_soon(self) -> None:
        """After much was written: have it moved to where it stays, without waiting for that."""
        if self._checkpoints is not None:
            self._checkpoints.due()

    def failure(self, error: Exception) -> RecordsError:
        """What the driver says on a connection of `connect`, in this room's words."""
        return _unusable(self.store, self.engine.url, error)

    def close(self) -> None:
        """Give all connections back. Calling it twice does no harm."""
        if self._checkpoints is not None:
            self._checkpoints.close()
        self.engine.dispose()
        if isinstance(self.turn, Turn):
            self.turn.close()

    def refuse_if_removed(self) -> None:
        """Raise where an SQLite file is not the one that was opened.

        SQLite would go on writing into a file that nobody finds any more.

        Raises:
            RecordsError: saying so.
        """
        if self._path is not None and _identity(self._path) != self._file:
            raise RecordsError(
                f"the {TITLES[self.store]} at {self.address} was removed or replaced while it was "
                "open; put the file back and restart"
            )

    @contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise _unusable(self.store, self.engine.url, error) from error


def open_database(url: str, store: StoreName) -> Database:
    """Connect to a store, making and migrating what is missing.

    Processes that open the same store at once wait for the first one's migration. This is the
    moment when the folder of an SQLite file is made, never before.

    Args:
        url: `sqlite:///path` or `postgresql+psycopg://user:password@host/database`.
        store: which tables to expect there; both stores may share one database.

    Raises:
        RecordsError: when the URL is of another kind, the database cannot be reached, or it was
            written by a newer version of this package.
    """
    parsed = _parse(url, store)
    if parsed.drivername in _SQLITE:
        _prepare_file(parsed, store)
        engine = _sqlite_engine(parsed)
    else:
        engine = _postgresql_engine(parsed)
    database = Database(engine, store)
    try:
        _migrate(database)
    except BaseException:
        database.close()
        raise
    return database


def version_table(store: StoreName) -> str:
    """The table that names a store's last migration: one each, as both may share a database."""
    return f"{store}_version"


def _parse(url: str, store: StoreName) -> URL:
    expected = "expected sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # whose text may hold a password
        raise RecordsError(
            f"the URL of the {TITLES[store]}, {masked(url)!r}, cannot be read; {expected}"
        ) from error
    is_sqlite = parsed.drivername in _SQLITE
    if "\0" in url or (not is_sqlite and "@" in f"{parsed.host}{parsed.database}"):
        raise RecordsError(
            f"the URL of the {TITLES[store]}, {masked(url)!r}, holds an unescaped @ or "
            f"a null byte; write @ in a password as %40; {expected}"
        )
    if is_sqlite:
        plain = parsed == URL.create(parsed.drivername, database=parsed.database)
        if not plain or not parsed.database or parsed.database == ":memory:":
            raise RecordsError(
                f"the {TITLES[store]} at {_shown(parsed)} would not outlive the process or is "
                "no plain path; expected sqlite:///PATH"
            )
        return parsed
    if parsed.drivername in _POSTGRESQL:
        return parsed.set(drivername="postgresql+psycopg")
    raise RecordsError(f"the {TITLES[store]} cannot live at {_shown(parsed)}; {expected}")


def _prepare_file(url: URL, store: StoreName) -> None:
    """Make the folder, and the file in write-ahead mode, which stays with the file."""
    path = Path(str(url.database))
    deadline = time.monotonic() + _WAIT_S
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=_WAIT_S)) as connection:
            while True:
                try:
                    mode = connection.execute("PRAGMA journal_mode=WAL").fetchone()[0]
                    break
                except sqlite3.OperationalError as error:
                    # this one statement does not wait for another process's lock by itself
                    if "locked" not in str(error) or time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
    except (OSError, sqlite3.Error) as error:
        raise _unusable(store, url, error) from error
    if mode != "wal":
        raise RecordsError(
            f"the {TITLES[store]} at {_shown(url)} cannot be kept in write-ahead mode "
            f"(SQLite says {mode!r}); put it on a local disk"
        )


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        connect_args={"timeout": _WAIT_S},
        json_serializer=_json,
        json_deserializer=orjson.loads,
    )

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # transactions begin where `begin` says so
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA synchronous=FULL")  # a commit returns after fsync
        connection.execute(f"PRAGMA wal_autocheckpoint={_LONG_LOG}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


def _postgresql_engine(url: URL) -> Engine:
    try:
        engine = create_engine(
            url,
            connect_args={"connect_timeout": _WAIT_S},
            json_serializer=_json,
            json_deserializer=orjson.loads,
            pool_pre_ping=True,  # a server that was restarted costs nobody an answer
        )
    except ImportError as error:
        raise RecordsError(
            f"{_shown(url)} needs the PostgreSQL driver; install batteryops[postgresql]"
        ) from error

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:  # noqa: ANN401  # psycopg is optional
        with connection.cursor() as cursor:
            cursor.execute(  # a commit returns when it is on disk, whatever the server's default
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') = 'off'"
            )
        connection.commit()

    return engine


def _identity(path: Path | None) -> tuple[int, int] | None:
    """What tells a file from another of the same name; None where there is none."""
    try:
        found = None if path is None else path.stat()
    except OSError:
        return None
    return None if found is None else (found.st_dev, found.st_ino)


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _migrate(database: Database) -> None:
    """Bring the store's tables to the newest form, all steps or none."""
    folder = _MIGRATIONS / database.store
    scripts = ScriptDirectory(folder, version_locations=[folder])
    with database.read() as connection:
        if not _steps(connection, scripts, database):
            return
    with _migrating, database.write(exclusive=True) as connection:
        context = _context(connection, database.store)
        # looked up again: another process may have migrated while this one waited
        for script in _steps(connection, scripts, database):
            with Operations.context(context):
                script.module.upgrade()
            context.stamp(scripts, script.revision)


def _steps(connection: Connection, scripts: ScriptDirectory, database: Database) -> list[Any]:
    """The migrations that the store still lacks, oldest first."""
    ordered = list(reversed(list(scripts.walk_revisions())))
    current = _context(connection, database.store).get_current_revision()
    if current is None:
        return ordered
    known = [script.revision for script in ordered]
    if current not in known:
        raise RecordsError(
            f"the {TITLES[database.store]} at {database.address} was written by a newer version "
            f"of batteryops: it is at migration {current!r}, this version knows up to "
            f"{known[-1]!r}; upgrade batteryops"
        )
    return ordered[known.index(current) + 1 :]


def _context(connection: Connection, store: StoreName) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": version_table(store)})


def _lock_key(store: StoreName) -> int:
    """The store's number among PostgreSQL's advisory locks, which are 64-bit and unnamed."""
    digest = hashlib.sha256(f"batteryops.records.{store}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _shown(url: URL) -> str:
    return masked(url.render_as_string(hide_password=False))


def _unusable(store: StoreName, url: URL, error: Exception) -> RecordsError:
    cause = getattr(error, "orig", None) or error
    reason = " ".join(str(cause).split()) or type(cause).__name__
    reason = hidden(reason, url.render_as_string(hide_password=False))
    remedy = (
        "check that the path is a database, that its folder can be written and the disk has room"
        if url.drivername in _SQLITE
        else "check that the server is up and that the URL names a user who may use the database"
    )
    return RecordsError(f"the {TITLES[store]} at {_shown(url)} is not usable: {reason}; {remedy}")
