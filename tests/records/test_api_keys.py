"""API keys: a secret is shown once, known by its hash, and worth nothing once it was taken back."""

import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa

from batteryops.errors import RecordsError
from batteryops.records import api_keys
from batteryops.records.api_keys import ApiKeys


@pytest.fixture
def keys(url: str) -> Iterator[ApiKeys]:
    with ApiKeys(url) as opened:
        yield opened


def later(monkeypatch: pytest.MonkeyPatch, by: timedelta) -> None:
    """Set the clock of the keys forward."""

    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:  # noqa: ANN401  # as it is
            return datetime.now(tz) + by

    monkeypatch.setattr(api_keys, "datetime", Later)


def test_a_key_is_known_by_its_secret_and_by_no_other(keys: ApiKeys) -> None:
    key, secret = keys.create("fleet-app", ["label", "predict"], rate_per_s=100)
    other, _ = keys.create("other", ["admin"])
    assert re.fullmatch(rf"bo_{key.key_id}_[A-Za-z0-9_-]{{43}}", secret)
    assert (key.name, key.scopes, key.rate_per_s) == ("fleet-app", ("predict", "label"), 100)
    assert keys.verify(secret) == key
    assert keys.list() == [key, other]
    wrong = secret[:-1] + ("A" if secret[-1] != "A" else "B")
    for given in (wrong, "", "bo_", secret + " ", secret.upper(), "bo_é", "\ud800", f" {secret}"):
        assert keys.verify(given) is None


def test_the_snapshot_holds_valid_keys_by_the_hash_of_their_secrets(
    keys: ApiKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, secret = keys.create("kept", ["predict"])
    ending, ending_secret = keys.create(
        "ending", ["predict"], expires_at=datetime.now(UTC) + timedelta(days=1)
    )
    keys.create("revoked", ["predict"])
    keys.revoke("revoked")
    hashed = hashlib.sha256(secret.encode()).digest()
    ending_hashed = hashlib.sha256(ending_secret.encode()).digest()
    assert keys.snapshot() == {hashed: key, ending_hashed: ending}
    later(monkeypatch, timedelta(days=2))
    assert keys.snapshot() == {hashed: key}
    assert keys.verify(ending_secret) is None


def test_no_column_of_the_database_holds_the_secret(keys: ApiKeys) -> None:
    _, secret = keys.create("fleet-app", ["predict"])
    with keys._database.read() as connection:  # noqa: SLF001  # to look at what is stored
        stored = connection.execute(sa.text("SELECT * FROM api_keys")).one()
    assert secret[12:] not in str(tuple(stored))
    assert hashlib.sha256(secret.encode()).hexdigest() in tuple(stored)


@pytest.mark.parametrize("by_name", [True, False])
def test_a_revoked_key_is_worth_nothing_and_stays_listed(keys: ApiKeys, *, by_name: bool) -> None:
    key, secret = keys.create("fleet-app", ["predict"])
    revoked = keys.revoke("fleet-app" if by_name else key.key_id)
    assert revoked.revoked_at is not None
    assert keys.list() == [revoked]
    assert keys.verify(secret) is None
    with pytest.raises(RecordsError, match=r"was revoked on .* already"):
        keys.revoke("fleet-app")
    with pytest.raises(RecordsError, match="'fleet-app' already, or was one"):
        keys.create("fleet-app", ["predict"])


def test_a_key_that_is_not_there_cannot_be_revoked(keys: ApiKeys) -> None:
    with pytest.raises(RecordsError, match="there is no key 'nobody'; `batteryops keys list`"):
        keys.revoke("nobody")


@pytest.mark.parametrize("name", ["", "a b", "-a", "é", "x" * 65, "0123abcd", "a\n"])
def test_a_name_that_would_be_ambiguous_or_unreadable_is_refused(keys: ApiKeys, name: str) -> None:
    with pytest.raises(RecordsError, match="cannot name a key"):
        keys.create(name, ["predict"])


def test_scopes_rates_and_ends_that_make_no_sense_are_refused(keys: ApiKeys) -> None:
    with pytest.raises(RecordsError, match="scopes of the key: none; expected some of predict"):
        keys.create("a", [])
    with pytest.raises(RecordsError, match="'root'; expected some of predict, label, admin"):
        keys.create("a", ["predict", "root"])
    for rate in (0, -1, float("nan"), float("inf")):
        with pytest.raises(RecordsError, match="expected more than 0"):
            keys.create("a", ["predict"], rate_per_s=rate)
    with pytest.raises(RecordsError, match="no time zone"):
        keys.create("a", ["predict"], expires_at=datetime(2100, 1, 1))  # noqa: DTZ001  # the point
    with pytest.raises(RecordsError, match="would have expired"):
        keys.create("a", ["predict"], expires_at=datetime.now(UTC) - timedelta(seconds=1))
    assert keys.list() == []


def test_an_end_in_another_zone_is_the_same_instant_in_utc(keys: ApiKeys) -> None:
    there = datetime(2100, 1, 1, 8, tzinfo=timezone(timedelta(hours=8)))
    key, secret = keys.create("a", ["predict"], expires_at=there)
    assert key.expires_at == datetime(2100, 1, 1, tzinfo=UTC)
    assert keys.verify(secret) == key
    assert key.to_json()["expires_at"] == "2100-01-01T00:00:00+00:00"
