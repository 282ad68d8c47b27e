"""POST /predict: an answer that is on record, or a problem document."""

import json
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from batteryops.models.onnx_twin import OnnxRow
from batteryops.models.package import ModelPackage
from batteryops.records.predictions import PredictionLog, PredictionRecord
from batteryops.serving.problems import FAILED
from batteryops.settings import Settings

JSON = {"Content-Type": "application/json"}


def is_problem(response: Any, status: int, kind: str) -> dict[str, Any]:  # noqa: ANN401  # httpx's
    """Assert that a response is that problem document, and give it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["type"] == f"urn:batteryops:problem:{kind}"
    assert document["status"] == status
    assert document["instance"] == f"urn:batteryops:request:{response.headers['x-request-id']}"
    assert document["title"]
    assert document["detail"]
    assert "Traceback" not in response.text
    return document


def test_an_answer_holds_capacity_soh_and_who_answered(
    client: TestClient, body: dict[str, object], package: ModelPackage
) -> None:
    response = client.post("/predict", json=body)
    assert response.status_code == 200
    answer = response.json()
    row = np.array([[body[name] for name in package.view.names]], dtype=np.float32)
    assert answer["capacity_ah"] == pytest.approx(package.predict_batch(row)[0], abs=1e-5)
    assert answer["soh"] == answer["capacity_ah"] / 2.0  # nominal capacity of the NASA cells
    assert {
        name: answer[name] for name in ("vehicle_id", "model_name", "model_version", "role")
    } == {
        "vehicle_id": "B0005",
        "model_name": "ev-soh-predictor",
        "model_version": "3",
        "role": "champion",
    }
    assert answer["request_id"] == response.headers["x-request-id"]
    assert set(answer) == {
        "prediction_id",
        "vehicle_id",
        "status",
        "soh",
        "capacity_ah",
        "interval",
        "domain",
        "model_name",
        "model_version",
        "role",
        "cached",
        "request_id",
    }


def test_an_answer_carries_its_interval_and_says_that_it_is_inside_the_training_domain(
    client: TestClient, body: dict[str, object], log: PredictionLog
) -> None:
    answer = client.post("/predict", json=body).json()
    assert answer["status"] == "ok"
    assert answer["domain"] == {"features": [], "joint": False}
    assert answer["interval"]["low_ah"] < answer["capacity_ah"] < answer["interval"]["high_ah"]
    assert answer["interval"]["nominal"] == 0.9
    record = log.get(answer["prediction_id"])
    assert record is not None
    assert record.status == "ok"
    assert (record.capacity_low_ah, record.capacity_high_ah) == (
        answer["interval"]["low_ah"],
        answer["interval"]["high_ah"],
    )


def test_outside_of_the_training_domain_no_number_is_given_and_the_cause_is_named(
    client: TestClient, body: dict[str, object], log: PredictionLog
) -> None:
    answer = client.post("/predict", json=body | {"temperature_C_max": 61.0}).json()
    assert answer["status"] == "out_of_domain"
    assert (answer["soh"], answer["capacity_ah"]) == (None, None)
    assert answer["domain"]["features"] == ["temperature_C_max"]
    assert answer["interval"] == {"low_ah": 0.0, "high_ah": 2.5, "nominal": 0.9}  # the profile's
    record = log.get(answer["prediction_id"])
    assert record is not None
    assert (record.status, record.outside) == ("out_of_domain", ("temperature_C_max",))
    assert 1.0 < record.capacity_ah < 2.5  # what the model said is kept, to be judged later


def test_a_server_that_is_set_to_gives_the_number_beside_its_status(
    serve: Callable[..., TestClient], settings: Settings, body: dict[str, object]
) -> None:
    serving = settings.serving.model_copy(update={"out_of_domain": "give"})
    client = serve(settings=settings.model_copy(update={"serving": serving}))
    answer = client.post("/predict", json=body | {"temperature_C_max": 61.0}).json()
    assert answer["status"] == "out_of_domain"
    assert answer["soh"] == answer["capacity_ah"] / 2.0


def test_the_page_of_the_interface_shows_both_kinds_of_answer(client: TestClient) -> None:
    page = client.get("/openapi.json").json()
    shown = page["paths"]["/predict"]["post"]["responses"]["200"]["content"]["application/json"]
    inside, outside = (example["value"] for example in shown["examples"].values())
    assert (inside["status"], outside["status"]) == ("ok", "out_of_domain")
    assert outside["capacity_ah"] is None
    assert (
        set(inside)
        == set(outside)
        == set(page["components"]["schemas"]["Prediction"]["properties"])
    )


def test_the_answer_is_in_the_log_with_all_that_led_to_it(
    client: TestClient, body: dict[str, object], log: PredictionLog, package: ModelPackage
) -> None:
    before = datetime.now(UTC)
    answer = client.post("/predict", json=body, headers={"X-Request-ID": "order-66"}).json()
    record = log.get(answer["prediction_id"])
    assert record is not None
    assert record.request_id == "order-66"
    assert record.features == {name: body[name] for name in package.view.names}
    assert record.package_fingerprint == package.fingerprint
    assert (record.capacity_ah, record.soh) == (answer["capacity_ah"], answer["soh"])
    assert before <= record.answered_at <= datetime.now(UTC)
    assert record.latency_ms > 0


def test_the_row_is_committed_before_the_answer_begins(
    client: TestClient, url: str, body: dict[str, object]
) -> None:
    on_disk: list[int] = []

    class Watching:
        """The app, with a look at the log from outside when the answer begins."""

        def __init__(self, app: Any) -> None:  # noqa: ANN401  # any ASGI app
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401  # ASGI
            async def look(message: Any) -> None:  # noqa: ANN401  # ASGI
                if message["type"] == "http.response.start":
                    with PredictionLog(url) as other:
                        on_disk.append(other.count())
                await send(message)

            await self.app(scope, receive, look)

    with TestClient(Watching(client.app)) as watched:
        for _ in range(3):
            watched.post("/predict", json=body)
    assert on_disk == [1, 2, 3]


def test_whole_numbers_are_numbers(client: TestClient, body: dict[str, object]) -> None:
    assert client.post("/predict", json=body | {"discharge_time_s": 3690}).status_code == 200


def test_a_media_type_with_a_parameter_or_in_capitals_is_json(
    client: TestClient, body: dict[str, object]
) -> None:
    for media_type in ("application/json; charset=utf-8", "Application/JSON"):
        response = client.post(
            "/predict", content=json.dumps(body), headers={"Content-Type": media_type}
        )
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("voltage_V_mean", (3529.8, "it looks like millivolts")),
        ("temperature_C_mean", (305.7, "it looks like kelvin")),
        ("current_A_mean", ("-1.8", "expected a number")),
        ("current_A_mean", (True, "expected a number")),
        ("delta_T_C", ([14.7], "expected a number")),
        ("discharge_time_s", (-1, "expected")),
        ("discharge_time_s", (None, "is null")),
        ("discharge_time_s", (10**30, "expected 0 to")),
        ("vehicle_id", (5, "not a name")),
        ("vehicle_id", ("", "not a name")),
        ("vehicle_id", (None, "not a name")),
        ("vehicle_id", ("EV-\x00", "not a name")),
        ("vehicle_id", ("EV-" + "1" * 126, "1 to 128 printable")),
    ],
)
def test_a_value_that_cannot_be_true_is_named_with_its_field(
    client: TestClient,
    log: PredictionLog,
    body: dict[str, object],
    field: str,
    wrong: tuple[object, str],
) -> None:
    value, said = wrong
    response = client.post("/predict", json=body | {field: value})
    (fault,) = is_problem(response, 422, "invalid-request")["errors"]
    assert fault["pointer"] == f"#/{field}"
    assert said in fault["detail"]
    assert log.count() == 0


def test_every_missing_field_is_named(client: TestClient, package: ModelPackage) -> None:
    document = is_problem(client.post("/predict", json={}), 422, "invalid-request")
    pointers = [fault["pointer"] for fault in document["errors"]]
    assert pointers == [f"#/{name}" for name in ("vehicle_id", *package.view.names)]


def test_unknown_fields_are_named_and_refused(client: TestClient, body: dict[str, object]) -> None:
    one = client.post("/predict", json=body | {"voltage_mean": 3.5})
    (fault,) = is_problem(one, 422, "invalid-request")["errors"]
    assert fault["detail"].startswith("unknown field: voltage_mean; expected vehicle_id, voltage_V")
    many = client.post("/predict", json=body | {f"extra_{n:02}": 1 for n in range(12)})
    (fault,) = is_problem(many, 422, "invalid-request")["errors"]
    assert fault["detail"].startswith("unknown fields: extra_00, extra_01")
    assert "extra_09 and 2 more;" in fault["detail"]


def test_an_unknown_asset_is_refused(client: TestClient, body: dict[str, object]) -> None:
    response = client.post("/predict", json=body | {"vehicle_id": "Zeppelin"})
    document = is_problem(response, 422, "unknown-asset")
    assert "asset 'Zeppelin' has no profile" in document["detail"]


def test_a_pack_is_refused_by_a_model_of_cells(client: TestClient, body: dict[str, object]) -> None:
    response = client.post("/predict", json=body | {"vehicle_id": "Vehicle 3"})
    document = is_problem(response, 422, "asset-not-served")
    assert "asset 'Vehicle 3' is a pack (profile chengdu_pack_408v)" in document["detail"]
    assert "trained on cells" in document["detail"]


def test_an_asset_without_nominal_capacity_is_refused(
    serve: Callable[..., TestClient], settings: Settings, body: dict[str, object]
) -> None:
    unknown = settings.profiles["nasa_18650"].model_copy(update={"nominal_capacity_ah": None})
    profiles = settings.profiles | {"nasa_18650": unknown}
    client = serve(settings=settings.model_copy(update={"profiles": profiles}))
    response = client.post("/predict", json=body)
    document = is_problem(response, 422, "asset-not-served")
    assert "no nominal capacity, so SoH cannot be stated" in document["detail"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty document"),
        (b"{", "cannot be read as JSON"),
        (b'{"vehicle_id": NaN}', "without NaN or Infinity"),
        (b'{"vehicle_id": -Infinity}', "without NaN or Infinity"),
        (b'{"voltage_V_mean": 1e999}', "infinity"),
        (b'{"vehicle_id": "\\ud800"}', "cannot be read as JSON"),
        (b'\xef\xbb\xbf{"vehicle_id": "B0005"}', "cannot be read as JSON"),
        ('{"vehicle_id": "ä"}'.encode("latin-1"), "cannot be read as JSON"),
        (b"[" * 60_000, "cannot be read as JSON"),
        (b"[]", "is a JSON array, expected one object"),
        (b'"text"', "is a JSON string"),
        (b"1", "is a JSON number"),
        (b"1.5", "is a JSON number"),
        (b"true", "is a JSON boolean"),
        (b"null", "is a JSON null"),
    ],
)
def test_what_is_no_json_object_is_refused(client: TestClient, content: bytes, said: str) -> None:
    response = client.post("/predict", content=content, headers=JSON)
    assert said in is_problem(response, 400, "malformed-json")["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": ""},
        JSON | {"Content-Encoding": "gzip"},
    ],
)
def test_a_body_that_is_not_sent_as_json_is_refused(
    client: TestClient, body: dict[str, object], headers: dict[str, str]
) -> None:
    response = client.post("/predict", content=json.dumps(body), headers=headers)
    is_problem(response, 415, "wrong-media-type")


def test_a_body_above_the_limit_is_refused_whether_or_not_it_says_its_length(
    client: TestClient, settings: Settings, body: dict[str, object]
) -> None:
    text = json.dumps(body).encode()
    most = settings.serving.limits.body_bytes
    fitting = client.post("/predict", content=text.ljust(most), headers=JSON)
    assert fitting.status_code == 200
    too_large = text.ljust(most + 1)
    is_problem(client.post("/predict", content=too_large, headers=JSON), 413, "body-too-large")
    chunks = (too_large[start : start + 1000] for start in range(0, len(too_large), 1000))
    is_problem(client.post("/predict", content=chunks, headers=JSON), 413, "body-too-large")


@pytest.mark.usefixtures("on_sqlite")
@pytest.mark.parametrize("loss", ["the file", "the table"])
def test_without_the_log_there_is_no_answer(
    client: TestClient, body: dict[str, object], tmp_path: Path, loss: str
) -> None:
    assert client.post("/predict", json=body).status_code == 200
    path = tmp_path / "predictions.db"
    if loss == "the file":
        path.unlink()
    else:
        with closing(sqlite3.connect(path)) as other:
            other.execute("DROP TABLE predictions")
    response = client.post("/predict", json=body)
    document = is_problem(response, 503, "log-unavailable")
    assert response.headers["retry-after"] == "5"
    assert "prediction log" in document["detail"]
    assert 'predictions_total{role="champion",version="3"} 1.0' in client.get("/metrics").text


def test_a_model_that_answers_no_number_is_a_failure_not_an_answer(
    client: TestClient,
    body: dict[str, object],
    log: PredictionLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(OnnxRow, "few", lambda _self, rows: [math.nan] * len(rows))
    response = client.post("/predict", json=body)
    assert response.status_code == 500
    assert response.json()["detail"] == FAILED
    assert log.count() == 0


FEATURES = (
    "voltage_V_mean",
    "current_A_mean",
    "temperature_C_mean",
    "temperature_C_max",
    "discharge_time_s",
    "delta_T_C",
    "voltage_drop_time_s",
)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
NAMED = st.dictionaries(st.sampled_from(["vehicle_id", *FEATURES]) | st.text(), ANY_JSON)
NEARLY_RIGHT = st.fixed_dictionaries(
    {name: st.floats(-50, 50) | ANY_JSON for name in FEATURES}
    | {"vehicle_id": st.sampled_from(["B0005", "EV-1", "Vehicle 1"]) | st.text()}
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.binary(max_size=200)
    | (ANY_JSON | NAMED | NEARLY_RIGHT).map(lambda value: json.dumps(value).encode())
)
def test_no_body_whatever_makes_the_server_fail(client: TestClient, content: bytes) -> None:
    response = client.post("/predict", content=content, headers=JSON)
    if response.status_code == 200:
        answer = response.json()
        assert (answer["soh"] is None) == (answer["status"] == "out_of_domain")
        assert answer["interval"]["low_ah"] <= answer["interval"]["high_ah"]
    else:
        assert response.status_code in {400, 422}
        assert response.headers["content-type"] == "application/problem+json"
        assert response.json()["status"] == response.status_code


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.dictionaries(st.sampled_from(FEATURES), st.floats(-20, 5), max_size=3))
def test_every_answer_given_is_in_the_log(
    client: TestClient, log: PredictionLog, body: dict[str, object], change: dict[str, float]
) -> None:
    response = client.post("/predict", json=body | change)
    if response.status_code == 200:
        record = log.get(response.json()["prediction_id"])
        assert isinstance(record, PredictionRecord)
        assert record.features == {name: (body | change)[name] for name in FEATURES}
