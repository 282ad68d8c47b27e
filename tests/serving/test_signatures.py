"""Requests that an API key signs: let in for what was signed, while it is new."""

import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from batteryops.models.package import ModelPackage
from batteryops.records.api_keys import ApiKeys, KeyRecord
from batteryops.serving import app as app_module
from batteryops.serving.deployment import deploy_package, write_deployment
from batteryops.serving.doors import Doors
from batteryops.serving.problems import ProblemError
from batteryops.serving.signatures import WINDOW_S, SignedRequest, signed_header

SECRET = "bo_0123abcd_" + "x" * 43
REQUEST = SignedRequest("POST", "/admin/refresh", b"{}")
NOW = 1_767_225_600


def signed_elsewhere(secret: str, method: str, path: str, body: bytes, at: int) -> str:
    """What docs/SERVING.md says to send, written down a second time."""
    key = hashlib.sha256(secret.encode()).digest()
    told = f"BatteryOps-HMAC-SHA256\n{at}\n{method}\n{path}\n{hashlib.sha256(body).hexdigest()}"
    signature = hmac.new(key, told.encode(), hashlib.sha256).hexdigest()
    return f"BatteryOps-HMAC-SHA256 {secret[3:11]}:{at}:{signature}"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The server's clock stands still, but for tests of a whole server."""
    if "serve" not in request.fixturenames:
        monkeypatch.setattr("batteryops.serving.doors.time.time", lambda: float(NOW))


def doors_of(**changes: Any) -> Doors:  # noqa: ANN401  # fields of a record
    made = KeyRecord("0123abcd", "ops", ("admin",), None, datetime.now(UTC), None, None)
    known = {hashlib.sha256(SECRET.encode()).digest(): replace(made, **changes)}
    return Doors(lambda: known)


def refusal(doors: Doors, header: str, request: SignedRequest = REQUEST) -> ProblemError:
    with pytest.raises(ProblemError) as refused:
        doors.admit_signed(header.encode(), request, "admin")
    return refused.value


def test_what_a_key_signed_is_let_in() -> None:
    header = signed_elsewhere(SECRET, "POST", "/admin/refresh", b"{}", NOW)
    assert header == signed_header(SECRET, REQUEST, NOW)
    assert doors_of().admit_signed(header.encode(), REQUEST, "admin").name == "ops"
    shouted = header.replace("BatteryOps", "BATTERYOPS").encode()
    assert doors_of().admit_signed(shouted, REQUEST, "admin").name == "ops"


def test_the_secret_itself_is_let_in_as_before() -> None:
    assert doors_of().admit_signed(f"Bearer {SECRET}".encode(), REQUEST, "admin").name == "ops"
    assert refusal(doors_of(), "").kind.status == 401


@pytest.mark.parametrize(
    "other",
    [
        SignedRequest("GET", "/admin/refresh", b"{}"),
        SignedRequest("POST", "/admin/refresh?all=1", b"{}"),
        SignedRequest("POST", "/labels", b"{}"),
        SignedRequest("POST", "/admin/refresh", b"{ }"),
    ],
)
def test_a_signature_is_of_one_request_only(other: SignedRequest) -> None:
    problem = refusal(doors_of(), signed_header(SECRET, REQUEST, NOW), other)
    assert problem.kind.status == 401
    assert "has not signed this request" in problem.detail


@pytest.mark.parametrize("away_s", [300, 301])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_signature_is_worth_something_for_five_minutes_around_its_time(
    away_s: int, sign: int
) -> None:
    header = signed_header(SECRET, REQUEST, NOW + sign * away_s)
    if away_s <= WINDOW_S:
        assert doors_of().admit_signed(header.encode(), REQUEST, "admin").name == "ops"
    else:
        problem = refusal(doors_of(), header)
        assert problem.kind.status == 401
        assert "within 300 s" in problem.detail


def test_the_time_is_signed_too() -> None:
    old = signed_header(SECRET, REQUEST, NOW - 1000)
    assert refusal(doors_of(), old.replace(str(NOW - 1000), str(NOW))).kind.status == 401


@pytest.mark.parametrize(
    "header",
    [
        "BatteryOps-HMAC-SHA256 ",
        "BatteryOps-HMAC-SHA256 0123abcd",
        f"BatteryOps-HMAC-SHA256 0123abcd:{NOW}:abc",
        f"BatteryOps-HMAC-SHA256 0123abcd:-{NOW}:{'0' * 64}",
        f"BatteryOps-HMAC-SHA256 0123abcd:{'9' * 4000}:{'0' * 64}",
    ],
)
def test_a_header_of_another_form_is_refused_with_the_form(header: str) -> None:
    problem = refusal(doors_of(), header)
    assert problem.kind.status == 401
    assert "KEY_ID:UNIX_TIME:SIGNATURE" in problem.detail


def test_another_keys_signature_and_that_of_nobodys_key_are_refused() -> None:
    stolen_name = signed_header("bo_0123abcd_" + "y" * 43, REQUEST, NOW)
    assert refusal(doors_of(), stolen_name).kind.status == 401
    zeros = REQUEST.signature(bytes(32), NOW)  # what an unknown key is compared with
    assert refusal(doors_of(), f"BatteryOps-HMAC-SHA256 ffffffff:{NOW}:{zeros}").kind.status == 401


def test_a_signature_opens_what_its_key_does_and_no_longer() -> None:
    header = signed_header(SECRET, REQUEST, NOW)
    wrong = refusal(doors_of(scopes=("predict", "label")), header)
    assert (wrong.kind.status, "no scope 'admin'" in wrong.detail) == (403, True)
    ended = datetime.now(UTC) - timedelta(seconds=1)
    expired = refusal(doors_of(expires_at=ended), header)
    assert (expired.kind.status, "expired" in expired.detail) == (401, True)
    often = doors_of(rate_per_s=1.0)
    often.admit_signed(header.encode(), REQUEST, "admin")
    assert refusal(often, header).kind.status == 429


def test_a_signature_opens_no_other_operation(
    serve: Callable[..., TestClient], url: str, body: dict[str, object]
) -> None:
    with ApiKeys(url) as keys:
        _, secret = keys.create("all", ["predict", "label", "admin"])
        client = serve(doors=Doors(keys.snapshot))
        header = signed_header(secret, SignedRequest("POST", "/predict"))
        answer = client.post("/predict", json=body, headers={"Authorization": header})
        assert answer.status_code == 401


def test_a_signed_call_has_the_registry_looked_at_until_its_key_is_revoked(  # noqa: PLR0913, PLR0917 - fixtures
    serve: Callable[..., TestClient],
    url: str,
    package: ModelPackage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(app_module, "_FOLLOW_S", 0.01)
    first = deploy_package(package, "3", "champion")
    write_deployment(first, tmp_path)

    def look() -> None:
        now = first.model_copy(update={"checked_at": datetime.now(UTC)})
        write_deployment(now, tmp_path)

    with ApiKeys(url) as keys:
        _, secret = keys.create("ops", ["admin"])
        doors = Doors(keys.snapshot)
        client = serve(deployment=first, folder=tmp_path, refresh=look, doors=doors)
        path = "/admin/refresh?why=now"
        header = signed_elsewhere(secret, "POST", path, b"please", int(time.time()))
        for _ in range(2):  # sent again it has the registry looked at again, and does no more
            answer = client.post(path, content=b"please", headers={"Authorization": header})
            assert answer.status_code == 200, answer.text
            assert answer.json()["models"] == [{"model_version": "3", "role": "champion"}]
        other = client.post(path, content=b"thanks", headers={"Authorization": header})
        assert other.status_code == 401
        assert other.headers["www-authenticate"].startswith("Bearer")
        keys.revoke("ops")
        doors.refresh()
        answer = client.post(path, content=b"please", headers={"Authorization": header})
        assert answer.status_code == 401
        assert secret not in caplog.text
