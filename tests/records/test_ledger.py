"""The ledger takes entries at its end only, and shows every change."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batteryops.errors import RecordsError
from batteryops.records.ledger import (
    DATA_INGESTED,
    GATE_VERDICT,
    MODEL_PROMOTED,
    MODEL_REGISTERED,
    Entry,
    Ledger,
)

APPEND_AT_ONCE = """
import os, sys
from batteryops.records.ledger import Ledger
children = []
for number in range(8):
    child = os.fork()
    if not child:
        with Ledger(sys.argv[1]) as ledger:
            for turn in range(5):
                ledger.append("data_ingested", f"process {number}", {"turn": turn})
        sys.exit(0)
    children.append(child)
sys.exit(len([child for child in children if os.waitpid(child, 0)[1]]))
"""

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger(url) as opened:
        yield opened


def five(ledger: Ledger) -> list[Entry]:
    """The entries of a first training."""
    return [
        ledger.append(DATA_INGESTED, "nasa", {"rows": 1886, "share": 0.25}),
        ledger.append(GATE_VERDICT, "candidate", {"passed": True, "gates": ["mae", "r2"]}),
        ledger.append(MODEL_REGISTERED, "ev-soh-predictor/1", {}),
        ledger.append(MODEL_PROMOTED, "ev-soh-predictor/1", {"alias": "champion"}, actor="Ada"),
        ledger.append(DATA_INGESTED, "nasa", {"note": "é\x00\ud800"}),
    ]


def tamper(url: str, statement: str, **values: object) -> None:
    """Change the table behind the ledger's back, as one could who owns the database."""
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            for name in ("ledger_no_update", "ledger_no_delete", "ledger_at_end"):
                connection.execute(sa.text(f"DROP TRIGGER IF EXISTS {name}"))
        else:
            connection.execute(sa.text("ALTER TABLE ledger DISABLE TRIGGER USER"))
        connection.execute(sa.text(statement), values)
    engine.dispose()


def test_entries_are_numbered_and_each_names_the_hash_before(ledger: Ledger) -> None:
    written = five(ledger)
    assert [entry.sequence for entry in written] == [1, 2, 3, 4, 5]
    assert written[0].previous_hash == "0" * 64
    assert [entry.previous_hash for entry in written[1:]] == [entry.hash for entry in written[:-1]]
    assert ledger.entries() == written
    assert ledger.head() == written[-1]


def test_the_hash_is_sha256_of_the_other_fields_as_sorted_json(ledger: Ledger) -> None:
    entry = ledger.append(MODEL_PROMOTED, "model/1", {"b": [1, 2.5], "a": "é"}, actor="Ada")
    text = (
        '{"actor":"Ada","at":"' + entry.at.strftime("%Y-%m-%dT%H:%M:%S.%fZ") + '",'
        '"details":{"a":"\\u00e9","b":[1,2.5]},"event":"model_promoted",'
        '"previous_hash":"' + "0" * 64 + '","sequence":1,"subject":"model/1"}'
    )
    assert entry.hash == hashlib.sha256(text.encode()).hexdigest()


def test_the_time_of_an_entry_is_that_of_its_writing_in_utc(ledger: Ledger) -> None:
    before = datetime.now(UTC)
    entry = ledger.append(DATA_INGESTED, "nasa", {})
    assert before <= entry.at <= datetime.now(UTC)


def test_entries_can_be_chosen_by_event_and_the_last_ones_alone(ledger: Ledger) -> None:
    written = five(ledger)
    assert ledger.entries(event=DATA_INGESTED) == [written[0], written[4]]
    assert ledger.entries(limit=2) == written[3:]
    assert ledger.entries(event=DATA_INGESTED, limit=1) == [written[4]]
    assert ledger.entries(event="unheard_of") == []
    with pytest.raises(RecordsError, match="limit is 0, expected at least 1"):
        ledger.entries(limit=0)


def test_an_empty_ledger_is_intact_and_has_no_head(ledger: Ledger) -> None:
    assert ledger.head() is None
    check = ledger.verify()
    assert (check.intact, check.length, check.head, check.first_broken) == (True, 0, None, None)


def test_an_untouched_ledger_is_intact_and_tells_its_head(ledger: Ledger) -> None:
    written = five(ledger)
    ledger.ping()
    check = ledger.verify()
    assert (check.intact, check.length, check.head) == (True, 5, written[-1].hash)


def test_an_entry_and_a_check_can_be_printed_as_json(ledger: Ledger) -> None:
    entry = ledger.append(DATA_INGESTED, "nasa", {"rows": 1})
    printed = json.loads(json.dumps({"entry": entry.to_json(), "check": ledger.verify().to_json()}))
    assert printed["entry"]["at"] == entry.at.isoformat().replace("+00:00", "Z")
    assert printed["check"] == {
        "intact": True,
        "length": 1,
        "head": entry.hash,
        "first_broken": None,
        "problem": None,
    }


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(details=st.dictionaries(st.text(), JSON))
def test_any_json_object_comes_back_and_leaves_the_chain_intact(
    ledger: Ledger, details: dict[str, Any]
) -> None:
    entry = ledger.append(DATA_INGESTED, "nasa", details)
    assert ledger.head() == entry
    # what JSON itself does to it: nothing, but two halves of a surrogate pair become one character
    assert entry.details == json.loads(json.dumps(details))
    assert ledger.verify().intact


def endless() -> dict[str, Any]:
    """A mapping that holds itself."""
    loop: dict[str, Any] = {}
    loop["again"] = loop
    return loop


@pytest.mark.parametrize(
    ("details", "said"),
    [
        ({"x": float("nan")}, "not JSON compliant"),
        ({"x": float("inf")}, "not JSON compliant"),
        ({"x": {1: "a"}}, "only text as keys, given 1"),
        ({"x": [{None: 1}]}, "only text as keys, given None"),
        ({"x": object()}, "cannot keep this as JSON"),
        (endless(), "cannot keep this as JSON"),
        (["a list"], "details are a list, expected a mapping"),
    ],
)
def test_details_that_would_not_come_back_are_refused(
    ledger: Ledger, details: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecordsError, match=said):
        ledger.append(DATA_INGESTED, "nasa", details)
    assert ledger.head() is None


@pytest.mark.parametrize(
    ("event", "subject", "actor", "said"),
    [
        ("Data Ingested", "nasa", None, "event 'Data Ingested': expected lower-case words"),
        ("", "nasa", None, "event ''"),
        ("x" * 65, "nasa", None, "expected lower-case words"),
        ("data_ingested", "", None, "subject '': expected printable text"),
        ("data_ingested", "a\x00b", None, "subject"),
        ("data_ingested", "a\ud800", None, "subject"),
        ("data_ingested", "nasa", "a\nb", "actor"),
    ],
)
def test_fields_that_a_database_could_not_keep_are_refused(
    ledger: Ledger, event: str, subject: str, actor: str | None, said: str
) -> None:
    with pytest.raises(RecordsError, match=said):
        ledger.append(event, subject, {}, actor)
    assert ledger.head() is None


def test_eight_processes_and_eight_threads_at_once_make_one_unbroken_chain(url: str) -> None:
    done = subprocess.run(  # noqa: S603  # own code
        [sys.executable, "-c", APPEND_AT_ONCE, url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with Ledger(url) as ledger:
        threads = [
            threading.Thread(target=lambda: [ledger.append("x", "thread", {}) for _ in range(3)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check = ledger.verify()
        subjects = [entry.subject for entry in ledger.entries()]
    assert check.intact, check.problem
    assert check.length == 8 * 5 + 8 * 3
    assert all(subjects.count(f"process {number}") == 5 for number in range(8))


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET subject = 'other' WHERE sequence = 2",
        "DELETE FROM ledger WHERE sequence = 5",
        "DELETE FROM ledger",
        "INSERT INTO ledger SELECT 7, '', '', '', '', '', hash, 'h' FROM ledger WHERE sequence = 5",
        "INSERT INTO ledger VALUES (6, '', '', '', '', '', 'unlike', 'h')",
    ],
)
def test_the_database_itself_refuses_to_change_the_past(
    ledger: Ledger, url: str, statement: str
) -> None:
    written = five(ledger)
    engine = sa.create_engine(url)
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()
    assert ledger.entries() == written


def test_nor_can_an_entry_be_replaced_or_the_table_emptied(ledger: Ledger, url: str) -> None:
    written = five(ledger)
    engine = sa.create_engine(url)
    statement = (
        "INSERT OR REPLACE INTO ledger SELECT sequence, at, event, 'other', details, actor, "
        "previous_hash, hash FROM ledger WHERE sequence = 5"
        if engine.dialect.name == "sqlite"
        else "TRUNCATE ledger"
    )
    with pytest.raises(sa.exc.DBAPIError, match="append-only"), engine.begin() as connection:
        connection.execute(sa.text(statement))
    engine.dispose()
    assert ledger.entries() == written


CHANGED = {
    "at": "2020-01-01T00:00:00.000000Z",
    "event": "model_archived",
    "subject": "other",
    "details": '{"rows":1887}',
    "actor": "Bob",
    "previous_hash": "1" * 64,
    "hash": "2" * 64,
}


@pytest.mark.parametrize("position", [1, 3, 5])
@pytest.mark.parametrize("field", CHANGED)
def test_a_change_of_any_field_of_any_entry_is_found_where_it_is(
    ledger: Ledger, url: str, field: str, position: int
) -> None:
    written = five(ledger)
    tamper(
        url,
        f"UPDATE ledger SET {field} = :value WHERE sequence = :position",  # noqa: S608  # own text
        value=CHANGED[field],
        position=position,
    )
    check = ledger.verify()
    assert (check.intact, check.first_broken, check.length) == (False, position, position - 1)
    assert check.head == (written[position - 2].hash if position > 1 else None)
    assert f"entry {position}" in str(check.problem)


@pytest.mark.parametrize(
    "document", ['{"rows": 1886,"share":0.25}', '{"rows":1886', "[]", '{"rows":NaN}', "[" * 9999]
)
def test_details_rewritten_in_another_form_are_found(
    ledger: Ledger, url: str, document: str
) -> None:
    five(ledger)
    tamper(url, "UPDATE ledger SET details = :value WHERE sequence = 1", value=document)
    assert ledger.verify().first_broken == 1


def test_values_of_another_type_which_sqlite_would_hold_are_found(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    with Ledger(url) as ledger:
        five(ledger)
        tamper(url, "UPDATE ledger SET event = x'ff', details = x'00', at = 5 WHERE sequence = 2")
        assert ledger.verify().first_broken == 2


def test_an_entry_taken_out_or_renumbered_is_found(new_url: Callable[[], str]) -> None:
    for statement in (
        "DELETE FROM ledger WHERE sequence = 3",
        "UPDATE ledger SET sequence = 99 WHERE sequence = 3",
        "UPDATE ledger SET sequence = -1 WHERE sequence = 3",
    ):
        url = new_url()
        with Ledger(url) as ledger:
            five(ledger)
            tamper(url, statement)
            check = ledger.verify()
            assert not check.intact
            assert check.first_broken == (1 if "-1" in statement else 3)
            assert "is missing; the next one present is" in str(check.problem)


def test_an_entry_forged_with_a_right_hash_breaks_the_one_after_it(
    ledger: Ledger, url: str
) -> None:
    third = five(ledger)[2]
    fields = {**third.to_json(), "subject": "forged"}
    del fields["hash"]
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    tamper(
        url,
        "UPDATE ledger SET subject = 'forged', hash = :hash WHERE sequence = 3",
        hash=hashlib.sha256(text.encode()).hexdigest(),
    )
    check = ledger.verify()
    assert (check.first_broken, check.length) == (4, 3)
    assert "does not follow the entry before it" in str(check.problem)


def test_an_entry_that_cannot_be_read_any_more_is_named(ledger: Ledger, url: str) -> None:
    five(ledger)
    tamper(url, "UPDATE ledger SET at = 'yesterday' WHERE sequence = 4")
    with pytest.raises(RecordsError, match="entry 4 of the ledger was changed and cannot be read"):
        ledger.entries()


def test_a_ledger_longer_than_one_batch_is_verified_to_its_end(
    ledger: Ledger, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("batteryops.records.ledger._BATCH", 2)
    five(ledger)
    assert ledger.verify().length == 5
    tamper(url, "UPDATE ledger SET subject = 'other' WHERE sequence = 4")
    assert ledger.verify().first_broken == 4
