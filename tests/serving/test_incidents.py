"""POST /incidents/alertmanager and GET /incidents: one incident per cause, faults refused."""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from batteryops.errors import RecordsError
from batteryops.records.api_keys import ApiKeys
from batteryops.records.incidents import Incidents
from batteryops.records.ledger import Ledger
from batteryops.serving.doors import Doors
from batteryops.settings import Settings

WEBHOOK = "/incidents/alertmanager"
NO_END = "0001-01-01T00:00:00Z"  # what Alertmanager sends for an alert that holds


def alert(name: str = "psi", *, firing: bool = True, **changes: object) -> dict[str, Any]:
    return {
        "status": "firing" if firing else "resolved",
        "labels": {"alertname": "DataDriftDetected", "feature": name, "severity": "critical"},
        "annotations": {"summary": f"{name} drifts"},
        "startsAt": "2026-03-01T12:20:00.123456789Z",
        "endsAt": NO_END if firing else "2026-03-01T13:00:00Z",
        "generatorURL": "http://prometheus:9090/graph",
        "fingerprint": f"f-{name}",
        **changes,
    }


def notification(*alerts: dict[str, Any], **changes: object) -> dict[str, Any]:
    told = alerts or (alert(),)
    return {
        "version": "4",
        "status": "firing" if any(one["status"] == "firing" for one in told) else "resolved",
        "receiver": "incidents",
        "groupKey": '{}:{cause="climate"}',
        "groupLabels": {"cause": "climate"},
        "commonLabels": {"cause": "climate"},
        "commonAnnotations": {},
        "externalURL": "http://alertmanager:9093",
        "truncatedAlerts": 0,
        "alerts": list(told),
        **changes,
    }


@pytest.fixture
def at_home(settings: Settings, tmp_path: Path) -> Settings:
    return settings.in_home(tmp_path)


@pytest.fixture
def client(serve: Callable[..., TestClient], at_home: Settings) -> TestClient:
    return serve(settings=at_home)


@pytest.fixture
def incidents(url: str) -> Iterator[Incidents]:
    with Incidents(url) as opened:
        yield opened


def test_a_cause_is_opened_updated_resolved_and_reopened_as_one_incident(
    client: TestClient, at_home: Settings
) -> None:
    outcomes = []
    for told in (
        notification(),
        notification(alert("psi"), alert("ks")),
        notification(alert("psi", firing=False), alert("ks", firing=False)),
        notification(),
        notification(groupLabels={"cause": "outage"}),
    ):
        response = client.post(WEBHOOK, json=told)
        assert response.status_code == 200, response.text
        outcomes.append((response.json()["outcome"], response.json()["incident"]["state"]))
    assert outcomes == [
        ("opened", "open"),
        ("updated", "open"),
        ("resolved", "resolved"),
        ("reopened", "open"),
        ("opened", "open"),
    ]
    newest, oldest = client.get("/incidents").json()["incidents"]
    assert (newest["cause"], oldest["cause"]) == ({"cause": "outage"}, {"cause": "climate"})
    assert (oldest["severity"], oldest["notifications"], oldest["reopened"]) == ("critical", 4, 1)
    assert oldest["started_at"] == "2026-03-01T12:20:00.123456+00:00"
    with Ledger(at_home.ledger_url) as ledger:
        assert [entry.event for entry in ledger.entries()] == [
            "incident_opened",
            "incident_reopened",
            "incident_opened",
        ]


def test_the_summary_is_that_of_the_first_alert_that_holds(client: TestClient) -> None:
    told = notification(alert("psi", firing=False), alert("ks"), alert("mae"))
    answer = client.post(WEBHOOK, json=told).json()
    assert answer["incident"]["summary"] == "ks drifts (and 1 more)"
    shared = notification(
        alert("x"), groupLabels={"cause": "x"}, commonAnnotations={"summary": "for all"}
    )
    assert client.post(WEBHOOK, json=shared).json()["incident"]["summary"] == "for all"


def test_alerts_that_are_not_grouped_are_told_apart_by_alertmanagers_own_key(
    client: TestClient,
) -> None:
    for key in ("a", "b", "a"):
        assert client.post(WEBHOOK, json=notification(groupLabels={}, groupKey=key)).is_success
    found = client.get("/incidents").json()["incidents"]
    assert [one["cause"] for one in found] == [{"group": "b"}, {"group": "a"}]


def test_what_is_over_and_was_never_known_is_ignored(client: TestClient) -> None:
    answer = client.post(WEBHOOK, json=notification(alert(firing=False)))
    assert answer.json() == {"outcome": "ignored", "incident": None}
    assert client.get("/incidents").json() == {"incidents": []}


@pytest.mark.parametrize(
    ("told", "pointer", "said"),
    [
        (notification(version="3"), "#/version", "Input should be '4'"),
        (notification(status="open"), "#/status", "'firing' or 'resolved'"),
        (notification(status="resolved"), "#/status", "the alerts say otherwise"),
        (notification(alerts=[]), "#/alerts", "at least 1 item"),
        (notification(alerts=[alert()] * 1001), "#/alerts", "at most 1000 items"),
        (notification(alerts=[1]), "#/alerts/0", "an object"),
        (notification(groupLabels={"cause": 1}), "#/groupLabels/cause", "valid string"),
        (notification(groupLabels={"a/b~": "\0"}), "#/groupLabels/a~1b~0", "null character"),
        (notification(alert(startsAt="noon")), "#/alerts/0/startsAt", "is no such time"),
        (
            notification(alert(startsAt="2026-03-01T12:20:00")),
            "#/alerts/0/startsAt",
            "has no zone",
        ),
        (
            notification(alert(startsAt="2999-03-01T12:20:00Z")),
            "#/alerts/0/startsAt",
            "in the future",
        ),
        (
            notification(alert(startsAt="0001-01-01T00:00:00+08:00")),
            "#/alerts/0/startsAt",
            "before 1970",
        ),
        (notification(alert(fingerprint="")), "#/alerts/0/fingerprint", "at least 1 character"),
        (notification(alert(labels=None)), "#/alerts/0/labels", "an object"),
    ],
)
def test_a_notification_with_faults_is_refused_and_its_faults_have_places(
    client: TestClient, told: dict[str, Any], pointer: str, said: str
) -> None:
    response = client.post(WEBHOOK, json=told)
    assert response.status_code == 422, response.text
    document = response.json()
    assert document["type"] == "urn:batteryops:problem:invalid-request"
    faults = {fault["pointer"]: fault["detail"] for fault in document["errors"]}
    assert said in faults[pointer]
    assert client.get("/incidents").json() == {"incidents": []}


def test_of_many_faults_a_hundred_are_named(client: TestClient) -> None:
    told = notification(alerts=[1] * 150)
    document = client.post(WEBHOOK, json=told).json()
    assert len(document["errors"]) == 100
    assert "(50 more were found)" in document["detail"]


def test_what_is_no_json_object_is_refused_as_everywhere(client: TestClient) -> None:
    headers = {"Content-Type": "application/json"}
    assert client.post(WEBHOOK, content=b"[]", headers=headers).status_code == 400
    assert client.post(WEBHOOK, content=b"{}", headers={"Content-Type": "text/plain"}).status_code
    large = json.dumps({"x": "y" * 5_000_000})
    response = client.post(WEBHOOK, content=large, headers=headers)
    assert response.status_code == 413
    assert "max_alerts" in response.json()["detail"]


def test_incidents_can_be_asked_for_by_number_and_state(
    client: TestClient, incidents: Incidents
) -> None:
    for name in ("a", "b", "c"):
        client.post(WEBHOOK, json=notification(groupLabels={"cause": name}))
    newest = client.get("/incidents").json()["incidents"][0]
    incidents.close_one(newest["incident_id"], at=datetime.now(UTC), by="ada", note="mended")
    told = client.get("/incidents?state=open&limit=1").json()["incidents"]
    assert [one["cause"] for one in told] == [{"cause": "b"}]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("limit=0", "limit=0; expected a whole number from 1 to 1000"),
        ("limit=1001", "limit=1001"),
        ("limit=%C2%B2", "limit=²"),
        ("limit=1&limit=2", "limit=1"),
        ("state=closed", "state=closed; expected all or open"),
        ("page=2", "unknown parameter 'page'"),
    ],
)
def test_a_query_for_anything_else_is_refused(client: TestClient, query: str, said: str) -> None:
    response = client.get(f"/incidents?{query}")
    assert response.status_code == 422
    assert said in response.json()["detail"]


def test_both_need_the_scope_admin(
    serve: Callable[..., TestClient], at_home: Settings, url: str
) -> None:
    with ApiKeys(url) as keys:
        _, admin = keys.create("alertmanager", ["admin"])
        _, other = keys.create("depot", ["predict", "label"])
        client = serve(settings=at_home, doors=Doors(keys.snapshot))
        for method, path, told in (
            ("POST", WEBHOOK, notification()),
            ("GET", "/incidents", None),
        ):
            for headers, status in (
                ({}, 401),
                ({"Authorization": f"Bearer {other}"}, 403),
                ({"Authorization": f"Bearer {admin}"}, 200),
            ):
                response = client.request(method, path, json=told, headers=headers)
                assert response.status_code == status


def test_a_ledger_that_is_away_hears_of_an_incident_later(
    client: TestClient,
    at_home: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuses(*_given: object) -> None:
        raise RecordsError("the ledger is not usable")

    with monkeypatch.context() as broken:
        broken.setattr(Ledger, "append", refuses)
        assert client.post(WEBHOOK, json=notification()).json()["outcome"] == "opened"
    assert "an incident is not on the ledger yet: the ledger is not usable" in caplog.text
    assert client.get("/incidents").is_success
    with Ledger(at_home.ledger_url) as ledger:
        assert [entry.event for entry in ledger.entries()] == ["incident_opened"]


def test_a_database_that_is_away_is_told_as_such(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(*_given: object, **_named: object) -> None:
        raise RecordsError("the prediction log is not usable")

    monkeypatch.setattr(Incidents, "receive", refuses)
    monkeypatch.setattr(Incidents, "list", refuses)
    for response in (client.post(WEBHOOK, json=notification()), client.get("/incidents")):
        assert response.status_code == 503
        assert response.headers["retry-after"] == "5"


def test_asking_closes_what_has_stayed_away(client: TestClient, incidents: Incidents) -> None:
    client.post(WEBHOOK, json=notification())
    client.post(WEBHOOK, json=notification(alert(firing=False)))
    later = datetime.now(UTC) + timedelta(hours=1)
    assert [one.state for one in incidents.list(at=later, quiet=timedelta(minutes=30))] == [
        "closed"
    ]
    assert client.get("/incidents?state=open").json() == {"incidents": []}
