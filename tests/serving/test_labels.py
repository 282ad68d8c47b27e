"""POST /labels: measured capacities, on record before they are acknowledged, or refused as one."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from batteryops.errors import RecordsError
from batteryops.records.api_keys import ApiKeys
from batteryops.records.labels import Labels
from batteryops.records.ledger import Ledger
from batteryops.records.predictions import PredictionLog
from batteryops.serving.doors import Doors
from batteryops.serving.labelling import MOST_LABELS
from batteryops.settings import Settings

LABEL: dict[str, Any] = {
    "vehicle_id": "B0005",
    "measured_at": "2026-03-01T20:30:00+08:00",
    "capacity_ah": 1.8421,
    "source": "bench 2",
}
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def labels(url: str) -> Iterator[Labels]:
    with Labels(url) as opened:
        yield opened


def faults_of(response: Any) -> dict[str, str]:  # noqa: ANN401  # httpx's
    """Assert that a response is a refusal, and give its faults by their places."""
    assert response.status_code == 422, response.text
    document = response.json()
    assert document["type"] == "urn:batteryops:problem:invalid-request"
    return {fault["pointer"]: fault["detail"] for fault in document["errors"]}


def test_one_label_is_on_record_when_it_is_acknowledged(client: TestClient, labels: Labels) -> None:
    response = client.post("/labels", json=LABEL)
    assert response.status_code == 200
    assert response.json() == {
        "labels": [{"vehicle_id": "B0005", "measured_at": "2026-03-01T12:30:00Z", "outcome": "new"}]
    }
    kept = labels.frame(LONG_AGO).select("asset_id", "measured_at", "capacity_ah", "source")
    assert kept.rows() == [("B0005", datetime(2026, 3, 1, 12, 30, tzinfo=UTC), 1.8421, "bench 2")]
    assert labels.frame(LONG_AGO)["key_name"].to_list() == [None]


def test_said_again_it_is_known_and_with_another_capacity_it_is_a_correction(
    client: TestClient, labels: Labels
) -> None:
    sent = [LABEL, LABEL, LABEL | {"capacity_ah": 1.84}, LABEL | {"vehicle_id": "B0006"}]
    told = client.post("/labels", json={"labels": sent}).json()["labels"]
    assert [one["outcome"] for one in told] == ["new", "known", "correction", "new"]
    told = client.post("/labels", json={"labels": sent}).json()["labels"]
    assert {one["outcome"] for one in told} == {"known"}
    kept = labels.frame(LONG_AGO).filter(asset_id="B0005")
    assert kept["capacity_ah"].to_list() == [1.84]


def test_a_label_needs_no_source(client: TestClient, labels: Labels) -> None:
    sent = {name: value for name, value in LABEL.items() if name != "source"}
    assert client.post("/labels", json=sent).status_code == 200
    assert labels.frame(LONG_AGO)["source"].to_list() == ["not stated"]


@pytest.mark.parametrize(
    ("field", "wrong", "said"),
    [
        ("vehicle_id", "Zeppelin", "asset 'Zeppelin' has no profile"),
        ("vehicle_id", 5, "expected 1 to 128 printable characters"),
        ("vehicle_id", "", "expected 1 to 128 printable characters"),
        ("vehicle_id", None, "expected 1 to 128 printable characters"),
        ("measured_at", "2026-03-01T12:30:00", "has no zone; expected a time of ISO 8601"),
        ("measured_at", "2026-03-01", "has no zone"),
        ("measured_at", "yesterday", "'yesterday' is no such time"),
        ("measured_at", "0001-01-01T00:00:00+10:00", "is no such time"),
        ("measured_at", 1767225600, "expected a time of ISO 8601 with its zone"),
        ("measured_at", None, "expected a time of ISO 8601 with its zone"),
        ("capacity_ah", 2.6, "2.6 Ah, expected 0 to 2.5 Ah by its profile"),
        ("capacity_ah", -1, "-1 Ah, expected 0 to 2.5 Ah"),
        ("capacity_ah", 0, "0 Ah, expected"),
        ("capacity_ah", 1842, "1842 Ah, expected"),
        ("capacity_ah", "1.84", "expected a number of Ah"),
        ("capacity_ah", True, "expected a number of Ah"),
        ("capacity_ah", None, "expected a number of Ah"),
        ("source", "", "expected 1 to 128 printable characters"),
        ("source", "bench\n2", "expected 1 to 128 printable characters"),
        ("source", None, "expected 1 to 128 printable characters, or no such field"),
    ],
)
def test_a_fault_is_named_with_its_place_and_nothing_is_written(
    client: TestClient, labels: Labels, field: str, wrong: object, said: str
) -> None:
    (place, detail), *others = faults_of(
        client.post("/labels", json=LABEL | {field: wrong})
    ).items()
    assert place == f"#/{field}"
    assert said in detail
    assert not others

    sent = [LABEL, LABEL | {field: wrong}, LABEL | {"vehicle_id": "B0006"}]
    assert list(faults_of(client.post("/labels", json={"labels": sent}))) == [f"#/labels/1/{field}"]
    assert labels.frame(LONG_AGO).is_empty()


def test_a_label_from_the_future_is_refused(client: TestClient) -> None:
    soon = (datetime.now(UTC) + timedelta(minutes=6)).isoformat()
    faults = faults_of(client.post("/labels", json=LABEL | {"measured_at": soon}))
    assert "is in the future; check the clock and the zone" in faults["#/measured_at"]
    now = (datetime.now(UTC) + timedelta(minutes=4)).isoformat()  # clocks differ
    assert client.post("/labels", json=LABEL | {"measured_at": now}).status_code == 200


def test_every_fault_is_named(client: TestClient) -> None:
    wrong = {"vehicle_id": 1, "measured_at": 2, "capacity_ah": "3", "source": 4, "other": 5}
    faults = faults_of(client.post("/labels", json={"labels": [wrong, "no label"]}))
    assert list(faults) == [
        "#/labels/0",
        "#/labels/0/vehicle_id",
        "#/labels/0/source",
        "#/labels/0/measured_at",
        "#/labels/0/capacity_ah",
        "#/labels/1",
    ]
    assert "unknown fields: other" in faults["#/labels/0"]
    response = client.post("/labels", json={"labels": [1] * 150})
    assert len(faults_of(response)) == 100
    assert "50 more were found" in response.json()["detail"]


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"labels": []}, "#/labels"),
        ({"labels": [LABEL] * (MOST_LABELS + 1)}, "#/labels"),
        ({"labels": {}}, "#"),
        ({"labels": None}, "#"),
        ({"labels": [LABEL], **LABEL}, "#"),
    ],
)
def test_labels_of_another_form_are_refused(
    client: TestClient, body: dict[str, object], place: str
) -> None:
    assert place in faults_of(client.post("/labels", json=body))


def test_a_thousand_labels_are_one_request(client: TestClient, labels: Labels) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    sent = [
        LABEL | {"measured_at": (start + timedelta(hours=n)).isoformat()}
        for n in range(MOST_LABELS)
    ]
    assert client.post("/labels", json={"labels": sent}).status_code == 200
    assert labels.frame(LONG_AGO).height == MOST_LABELS


def test_of_an_asset_without_a_nominal_capacity_any_capacity_is_taken(
    serve: Callable[..., TestClient], settings: Settings, labels: Labels
) -> None:
    profile = settings.profiles["nasa_18650"].model_copy(update={"nominal_capacity_ah": None})
    unknown = settings.model_copy(update={"profiles": settings.profiles | {"nasa_18650": profile}})
    client = serve()
    client.app.state.service.assets._settings = unknown  # type: ignore[attr-defined]  # noqa: SLF001
    assert client.post("/labels", json=LABEL | {"capacity_ah": 250.0}).status_code == 200
    assert "#/capacity_ah" in faults_of(client.post("/labels", json=LABEL | {"capacity_ah": 0.0}))
    assert labels.frame(LONG_AGO)["capacity_ah"].to_list() == [250.0]


def test_other_media_types_other_json_and_long_bodies_are_refused(client: TestClient) -> None:
    assert client.post("/labels", content=b"{}").status_code == 415
    headers = {"Content-Type": "application/json"}
    assert client.post("/labels", content=b"[]", headers=headers).status_code == 400
    long = client.post("/labels", content=b" " * 1_100_000, headers=headers)
    assert long.status_code == 413
    assert "send at most 1000 labels at a time" in long.json()["detail"]


def test_a_key_needs_the_scope_and_its_name_is_kept_with_the_label(
    serve: Callable[..., TestClient], url: str, labels: Labels
) -> None:
    with ApiKeys(url) as keys:
        _, bench = keys.create("bench", ["label"])
        _, fleet = keys.create("fleet", ["predict"])
        client = serve(doors=Doors(keys.snapshot))
        assert client.post("/labels", json=LABEL).status_code == 401
        refused = client.post("/labels", json=LABEL, headers={"Authorization": f"Bearer {fleet}"})
        assert refused.status_code == 403
        assert "no scope 'label'" in refused.json()["detail"]
        kept = client.post("/labels", json=LABEL, headers={"Authorization": f"Bearer {bench}"})
        assert kept.status_code == 200
    assert labels.frame(LONG_AGO)["key_name"].to_list() == ["bench"]


@pytest.mark.usefixtures("on_sqlite")
def test_without_its_database_labels_are_not_acknowledged(
    client: TestClient, tmp_path: Path
) -> None:
    (tmp_path / "predictions.db").unlink()
    response = client.post("/labels", json=LABEL)
    assert response.status_code == 503
    assert response.json()["type"] == "urn:batteryops:problem:records-unavailable"
    assert response.headers["retry-after"] == "5"


def test_labels_stand_in_the_database_of_the_log_and_in_no_other(
    log: PredictionLog, tmp_path: Path
) -> None:
    assert Labels.beside(log).frame(LONG_AGO).is_empty()
    with (
        Ledger(f"sqlite:///{tmp_path}/ledger.db") as ledger,
        pytest.raises(RecordsError, match="Labels stand with the predictions, not the ledger"),
    ):
        Labels.beside(ledger)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=6,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.fixed_dictionaries(
        {},
        optional={
            "vehicle_id": json_values | st.just("B0005"),
            "measured_at": json_values
            | st.datetimes(timezones=st.timezones()).map(lambda at: at.isoformat()),
            "capacity_ah": json_values,
            "source": json_values,
            "labels": json_values,
        },
    )
)
def test_whatever_is_sent_it_is_taken_or_refused(
    client: TestClient, body: dict[str, object]
) -> None:
    assert client.post("/labels", json=body).status_code in {200, 400, 422}


def test_the_examples_on_the_page_are_true(client: TestClient) -> None:
    page = client.get("/openapi.json").json()["paths"]["/labels"]["post"]
    examples = page["requestBody"]["content"]["application/json"]["examples"]
    for example in examples.values():
        assert client.post("/labels", json=example["value"]).status_code == 200
