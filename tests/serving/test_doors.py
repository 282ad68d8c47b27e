"""Who is let in, for what, and how often."""

import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from batteryops.errors import RecordsError
from batteryops.records.api_keys import ApiKeys, KeyRecord
from batteryops.serving import doors as module
from batteryops.serving.doors import Bucket, Doors
from batteryops.serving.problems import ProblemError

SECRET = "bo_0123abcd_" + "x" * 43
PREDICT = b"Bearer " + SECRET.encode()


def digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def key(**changes: Any) -> KeyRecord:  # noqa: ANN401  # fields of a record
    made = KeyRecord(
        key_id="0123abcd",
        name="depot",
        scopes=("predict",),
        rate_per_s=None,
        created_at=datetime.now(UTC),
        expires_at=None,
        revoked_at=None,
    )
    return replace(made, **changes)


def doors_of(*keys: KeyRecord, rate_per_s: float | None = None, workers: int = 1) -> Doors:
    known = {digest(SECRET if at == 0 else f"{SECRET}{at}"): one for at, one in enumerate(keys)}
    return Doors(lambda: known, rate_per_s=rate_per_s, workers=workers)


def refusal(doors: Doors, header: bytes, scope: Any = "predict") -> ProblemError:  # noqa: ANN401
    with pytest.raises(ProblemError) as refused:
        doors.admit(header, scope)
    return refused.value


def test_a_key_opens_what_it_is_for() -> None:
    caller = doors_of(key()).admit(PREDICT, "predict")
    assert caller.name == "depot"


@pytest.mark.parametrize("scheme", [b"bearer ", b"BEARER  "])
def test_the_scheme_may_be_in_any_case(scheme: bytes) -> None:
    assert doors_of(key()).admit(scheme + SECRET.encode(), "predict").name == "depot"


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"", "there is none"),
        (b"Basic Zm9vOmJhcg==", "another scheme"),
        (SECRET.encode(), "another scheme"),
        (b"Bearer ", "not known"),
        (b"Bearer bo_0123abcd_" + b"y" * 43, "not known"),
        (PREDICT + b"x", "not known"),
        (b"Bearer \xff\xfe", "not known"),
    ],
)
def test_a_stranger_is_told_how_to_be_known(header: bytes, said: str) -> None:
    problem = refusal(doors_of(key()), header)
    assert problem.kind.status == 401
    assert said in problem.detail
    assert problem.headers["WWW-Authenticate"] == 'Bearer realm="batteryops"'
    assert "bo_" not in problem.detail


@pytest.mark.parametrize("scope", ["label", "admin"])
def test_a_key_does_not_open_what_it_is_not_for(scope: str) -> None:
    problem = refusal(doors_of(key()), PREDICT, scope)
    assert problem.kind.status == 403
    assert f"'depot' has no scope '{scope}', only predict" in problem.detail


def test_a_key_that_expires_while_it_is_known_opens_nothing_more() -> None:
    ends = datetime.now(UTC) + timedelta(milliseconds=50)
    doors = doors_of(key(expires_at=ends))
    assert doors.admit(PREDICT, "predict").name == "depot"
    while datetime.now(UTC) < ends:
        time.sleep(0.01)
    problem = refusal(doors, PREDICT)
    assert problem.kind.status == 401
    assert "expired" in problem.detail


def test_a_key_that_was_revoked_opens_nothing_after_the_next_look() -> None:
    known = {digest(SECRET): key(), digest("other"): key(name="other")}
    doors = Doors(lambda: known)
    doors.admit(PREDICT, "predict")
    del known[digest(SECRET)]
    doors.refresh()
    assert refusal(doors, PREDICT).kind.status == 401
    assert doors.admit(b"Bearer other", "predict").name == "other"


def test_a_key_that_is_revoked_while_it_is_looked_up_is_not_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = {digest(SECRET): key()}
    doors = Doors(lambda: known)
    sha256 = hashlib.sha256

    def revoked_meanwhile(secret: bytes) -> Any:  # noqa: ANN401  # hashlib's
        known.clear()
        doors.refresh()  # as the thread would
        return sha256(secret)

    monkeypatch.setattr("batteryops.serving.doors.hashlib.sha256", revoked_meanwhile)
    doors.admit(PREDICT, "predict")
    assert refusal(doors, PREDICT).kind.status == 401


def test_a_key_that_was_made_meanwhile_opens_after_the_next_look() -> None:
    known: dict[bytes, KeyRecord] = {}
    doors = Doors(lambda: known)
    assert refusal(doors, PREDICT).kind.status == 401
    known[digest(SECRET)] = key()
    doors.refresh()
    assert doors.admit(PREDICT, "predict").name == "depot"


def test_while_the_keys_cannot_be_asked_for_those_known_stay_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_REFRESH_S", 0.001)
    asked = 0

    def snapshot() -> Mapping[bytes, KeyRecord]:
        nonlocal asked
        asked += 1
        if asked > 1:
            raise RecordsError("the database is away")
        return {digest(SECRET): key()}

    doors = Doors(snapshot)
    doors.keep_fresh()
    while asked < 5:
        time.sleep(0.001)
    assert doors.admit(PREDICT, "predict").name == "depot"
    doors.close()


def test_after_keys_that_cannot_be_read_the_next_look_takes_a_key_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_REFRESH_S", 0.001)
    asked = 0

    def snapshot() -> Mapping[bytes, KeyRecord]:
        nonlocal asked
        asked += 1
        if asked == 2:
            raise ValueError("non-hexadecimal number found")
        return {digest(SECRET): key()} if asked < 3 else {}

    doors = Doors(snapshot)
    doors.keep_fresh()
    deadline = time.monotonic() + 10
    while asked < 4 and time.monotonic() < deadline:
        time.sleep(0.001)
    doors.close()
    assert refusal(doors, PREDICT).kind.status == 401
    assert "non-hexadecimal" in caplog.text


def test_what_is_left_of_a_rate_survives_a_change_of_other_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("batteryops.serving.doors.time.monotonic", lambda: 100.0)
    known = {digest(SECRET): key(rate_per_s=2.0)}
    doors = Doors(lambda: known)
    doors.admit(PREDICT, "predict")
    doors.admit(PREDICT, "predict")
    known[digest("other")] = key(name="other")
    doors.refresh()
    assert refusal(doors, PREDICT).kind.status == 429


def test_who_asks_too_often_is_told_when_to_ask_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("batteryops.serving.doors.time.monotonic", lambda: now)
    doors = doors_of(key(rate_per_s=0.3))
    doors.admit(PREDICT, "predict")
    problem = refusal(doors, PREDICT)
    assert problem.kind.status == 429
    assert problem.headers["Retry-After"] == "4"  # 3.33 s, in whole ones
    now += 4.0
    doors.admit(PREDICT, "predict")


def test_the_servers_rate_holds_for_keys_without_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("batteryops.serving.doors.time.monotonic", lambda: 100.0)
    own = f"Bearer {SECRET}1".encode()
    doors = doors_of(key(), key(name="own", rate_per_s=100.0), rate_per_s=2.0)
    for _ in range(2):
        doors.admit(PREDICT, "predict")
    assert refusal(doors, PREDICT).kind.status == 429
    for _ in range(100):
        doors.admit(own, "predict")


def test_each_worker_lets_its_part_of_the_rate_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batteryops.serving.doors.time.monotonic", lambda: 100.0)
    doors = doors_of(key(rate_per_s=8.0), workers=4)
    for _ in range(2):
        doors.admit(PREDICT, "predict")
    assert refusal(doors, PREDICT).kind.status == 429


@given(
    rate_per_s=st.floats(0.1, 50),
    pauses=st.lists(st.floats(0, 2) | st.just(0.0), min_size=1, max_size=200),
)
def test_never_more_than_the_rate_and_one_burst_are_let_in(
    rate_per_s: float, pauses: list[float]
) -> None:
    start = time.monotonic()
    bucket = Bucket(rate_per_s)
    at, admitted = start + 1.0, []
    for pause in pauses:
        at += pause
        wait_s = bucket.take(at)
        assert wait_s >= 0
        if not wait_s:
            admitted.append(at)
    burst = max(1.0, rate_per_s)
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            allowed = burst + rate_per_s * (admitted[last] - admitted[first])
            assert last - first + 1 <= allowed + 1e-6


@given(rate_per_s=st.floats(0.1, 50), asked=st.integers(1, 100))
def test_who_waits_as_long_as_told_is_let_in(rate_per_s: float, asked: int) -> None:
    bucket = Bucket(rate_per_s)
    at = time.monotonic() + 1.0
    for _ in range(asked):
        wait_s = bucket.take(at)
        if wait_s:
            at += wait_s + 1e-9
            assert bucket.take(at) == 0


def test_the_server_asks_for_a_key_where_it_should_and_nowhere_else(
    serve: Callable[..., TestClient],
    url: str,
    body: dict[str, object],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_REFRESH_S", 0.02)
    with ApiKeys(url) as keys, caplog.at_level(logging.DEBUG):
        _, secret = keys.create("depot", ["predict"])
        _, labels = keys.create("workshop", ["label"])
        client = serve(doors=Doors(keys.snapshot))
        for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"):
            assert client.get(path).status_code == 200
        assert "doors" not in client.get("/readyz").json()["checks"]
        for method, path in (("GET", "/model-version"), ("POST", "/predict")):
            none = client.request(method, path, json=body)
            assert none.status_code == 401
            assert none.headers["www-authenticate"].startswith("Bearer")
            assert none.json()["type"] == "urn:batteryops:problem:unauthenticated"
            wrong = client.request(
                method, path, json=body, headers={"Authorization": f"Bearer {labels}"}
            )
            assert wrong.json()["type"] == "urn:batteryops:problem:forbidden"
            right = client.request(
                method, path, json=body, headers={"Authorization": f"Bearer {secret}"}
            )
            assert right.status_code == 200
        admin = client.post("/admin/refresh", headers={"Authorization": f"Bearer {secret}"})
        assert admin.status_code == 403
        keys.revoke("depot")
        status = 200
        for _ in range(200):
            headers = {"Authorization": f"Bearer {secret}"}
            status = client.post("/predict", json=body, headers=headers).status_code
            if status != 200:
                break
            time.sleep(0.02)
        assert status == 401
        assert secret not in caplog.text
