"""Opening a store: folders, migrations, refusals."""

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from batteryops.errors import RecordsError
from batteryops.records import database, ledger, tables
from batteryops.records.database import StoreName, open_database, version_table
from batteryops.records.ledger import Ledger
from batteryops.records.predictions import PredictionLog

STORES: list[StoreName] = ["predictions", "ledger"]

OPEN_AT_ONCE = """
import os, sys
from batteryops.records.database import open_database
children = []
for _ in range(6):
    child = os.fork()
    if not child:
        for store in ("predictions", "ledger"):
            opened = open_database(sys.argv[1], store)
            opened.ping()
            opened.close()
        sys.exit(0)
    children.append(child)
failed = [child for child in children if os.waitpid(child, 0)[1]]
sys.exit(len(failed))
"""


def test_importing_the_room_makes_no_file(tmp_path: Path) -> None:
    code = "import batteryops.records.predictions, batteryops.records.ledger"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)  # noqa: S603  # own code
    assert list(tmp_path.iterdir()) == []


def test_opening_makes_the_folder_of_an_sqlite_file(tmp_path: Path) -> None:
    path = tmp_path / "state" / "deep" / "predictions.db"
    open_database(f"sqlite:///{path}", "predictions").close()
    assert path.is_file()


def test_an_sqlite_store_is_write_ahead_and_synced_at_every_commit(tmp_path: Path) -> None:
    store = open_database(f"sqlite:///{tmp_path}/a.db", "ledger")
    with store.read() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    store.close()
    assert pragmas == {
        "journal_mode": "wal",
        "synchronous": 2,  # FULL
        "foreign_keys": 1,
        "busy_timeout": 10_000,
    }


@pytest.mark.parametrize(
    ("store", "declared"), [("predictions", tables.METADATA), ("ledger", ledger.METADATA)]
)
def test_the_migrations_make_the_tables_that_the_code_declares(
    url: str, store: StoreName, declared: sa.MetaData
) -> None:
    opened = open_database(url, store)

    def is_compared(item: object, *_: object) -> bool:
        """Indexes of one kind of database alone are not looked for in the other."""
        return not (isinstance(item, sa.Index) and item.name in left_out)

    with opened.read() as connection:
        left_out = {"predictions_by_vehicle"} if connection.dialect.name == "sqlite" else set()
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "version_table": version_table(store),
                "include_object": is_compared,
            },
        )
        differences = compare_metadata(context, declared)
    opened.close()
    assert differences == []


def test_both_stores_live_in_one_database_and_open_again(url: str) -> None:
    for _ in range(2):
        for store in STORES:
            opened = open_database(url, store)
            opened.ping()
            opened.close()
    with_tables = open_database(url, "ledger")
    with with_tables.read() as connection:
        names = set(sa.inspect(connection).get_table_names())
    with_tables.close()
    assert names == {
        *("predictions", "prediction_batches", "labels", "api_keys", "predictions_version"),
        *("monitoring_runs", "incidents", "leases", "retraining_runs", "retraining_requests"),
        *("ledger", "ledger_version"),
    }


def test_processes_that_open_a_fresh_database_at_once_all_succeed(url: str) -> None:
    done = subprocess.run(  # noqa: S603  # own code
        [sys.executable, "-c", OPEN_AT_ONCE, url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("store", STORES)
def test_a_database_of_a_newer_version_is_refused_and_left_alone(
    url: str, store: StoreName
) -> None:
    opened = open_database(url, store)
    with opened.write() as connection:
        versions = sa.table(version_table(store), sa.column("version_num"))
        connection.execute(sa.update(versions).values(version_num="x9999"))
    opened.close()
    with pytest.raises(RecordsError, match=r"newer version.*'x9999'.*upgrade batteryops"):
        open_database(url, store)


def test_a_migration_that_fails_half_way_leaves_nothing(
    new_url: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "migrations" / "predictions"
    folder.mkdir(parents=True)
    (folder / "a1.py").write_text(
        "import sqlalchemy as sa\n"
        "from alembic import op\n"
        "revision, down_revision = 'a1', None\n"
        "def upgrade():\n"
        "    op.create_table('first', sa.Column('x', sa.Integer()))\n"
        "    op.execute('SELECT no_such_column FROM first')\n"
    )
    monkeypatch.setattr(database, "_MIGRATIONS", tmp_path / "migrations")
    url = new_url()
    with pytest.raises(RecordsError, match="no_such_column"):
        open_database(url, "predictions")
    engine = sa.create_engine(url)
    assert sa.inspect(engine).get_table_names() == []
    engine.dispose()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "cannot be read; expected sqlite:///PATH"),
        ("not a url", "cannot be read"),
        ("postgresql://u:hidden@host:port/x", "cannot be read"),
        ("postgresql://u:hidden", r"'postgresql://u:\*\*\*', cannot be read"),
        ("postgresql://u:x@hidden@host/x", r"u:\*\*\*@host/x', holds an unescaped @.*write @"),
        ("postgresql:///u:hidden@host/x", "holds an unescaped @"),
        ("sqlite:///a\0b.db", "a null byte"),
        ("sqlite://", "would not outlive the process"),
        ("sqlite://u:hidden@host/x.db", "no plain path"),
        ("sqlite:///:memory:", "would not outlive the process"),
        ("sqlite:///file:a.db?mode=ro&uri=true", "no plain path"),
        ("mysql://u:hidden@host/x", r"cannot live at mysql://u:\*\*\*@host/x; expected"),
    ],
)
def test_a_url_of_another_kind_is_refused_without_showing_its_password(url: str, said: str) -> None:
    with pytest.raises(RecordsError, match=said) as caught:
        open_database(url, "ledger")
    assert "hidden" not in str(caught.value)


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    for url in (
        "postgresql://user:hidden@127.0.0.1:1/x",
        "postgresql+psycopg://user@127.0.0.1:1/x?password=hidden",
    ):
        with pytest.raises(RecordsError, match=r"127\.0\.0\.1:1/x.*is not usable") as caught:
            open_database(url, "predictions")
        assert "hidden" not in str(caught.value)


def test_without_the_postgresql_driver_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(RecordsError, match=r"install batteryops\[postgresql\]"):
        open_database("postgresql://user@127.0.0.1:1/x", "predictions")


@pytest.mark.integration
def test_a_wrong_password_is_refused_and_not_repeated(postgresql: str) -> None:
    url = postgresql.replace("a%20secret", "wrong%20one")
    with pytest.raises(RecordsError, match="password authentication failed") as caught:
        open_database(url, "ledger")
    assert "wrong one" not in str(caught.value)
    assert "wrong%20one" not in str(caught.value)


@pytest.mark.parametrize("kind", [Ledger, PredictionLog])
def test_a_store_is_closed_at_the_end_of_a_with_block_and_opens_its_own_tables(
    kind: type[Ledger] | type[PredictionLog], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = []
    monkeypatch.setattr(database.Database, "close", lambda opened: closed.append(opened.store))
    with kind(f"sqlite:///{tmp_path}/a.db") as store:
        store.ping()
        assert closed == []
    assert closed == [kind.name]


def test_a_file_system_that_cannot_write_ahead_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    class WithoutSharedMemory(sqlite3.Connection):
        """As on a network disk: the pragma answers with the mode that stays."""

        def execute(self, sql: str, *given: Any) -> sqlite3.Cursor:  # noqa: ANN401 - as it is
            return super().execute(sql.replace("WAL", "DELETE"), *given)

    monkeypatch.setattr(
        sqlite3, "connect", lambda *to, **how: connect(*to, factory=WithoutSharedMemory, **how)
    )
    with pytest.raises(RecordsError, match=r"SQLite says 'delete'.*put it on a local disk"):
        open_database(f"sqlite:///{tmp_path}/a.db", "ledger")


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, " * 100)
    with pytest.raises(RecordsError, match="file is not a database"):
        open_database(f"sqlite:///{path}", "ledger")
    assert path.read_text() == "not a database, " * 100


def test_a_path_under_a_file_or_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.db", tmp_path):
        with pytest.raises(RecordsError, match=f"{path} is not usable"):
            open_database(f"sqlite:///{path}", "ledger")


def test_an_open_store_whose_file_was_removed_or_replaced_takes_nothing_more(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.db"
    store = open_database(f"sqlite:///{path}", "ledger")
    store.ping()
    path.rename(tmp_path / "moved.db")
    for _ in range(2):
        with pytest.raises(RecordsError, match="was removed or replaced while it was open"):
            store.ping()
        with pytest.raises(RecordsError, match="was removed or replaced"), store.write():
            pass
        path.touch()
    store.close()


def test_a_file_that_another_process_writes_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.db"
    url = f"sqlite:///{path}"
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("CREATE TABLE x (y)")
        other.execute("BEGIN IMMEDIATE")
        with monkeypatch.context() as impatient:
            impatient.setattr(database, "_WAIT_S", 0)
            with pytest.raises(RecordsError, match="database is locked"):
                open_database(url, "ledger")
        soon = threading.Timer(0.1, other.execute, ["COMMIT"])
        soon.start()
        open_database(url, "ledger").close()
        soon.join()
