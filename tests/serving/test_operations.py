"""What surrounds predictions: identifiers, health, metrics, documentation, errors of the router."""

import logging
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from batteryops import __version__
from batteryops.models.onnx_twin import OnnxRow
from batteryops.models.package import ModelPackage
from batteryops.serving.deployment import deploy_package
from batteryops.serving.logs import REQUEST_ID


def samples(client: TestClient, name: str) -> dict[frozenset[tuple[str, str]], float]:
    """The values of one metric by their labels."""
    text = client.get("/metrics").text
    return {
        frozenset(sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


def test_the_callers_request_id_is_kept(client: TestClient) -> None:
    response = client.get("/healthz", headers={"X-Request-ID": "Trip.7:a_b-c"})
    assert response.headers["x-request-id"] == "Trip.7:a_b-c"


@pytest.mark.parametrize("given", ["", "x" * 129, "two words", "ä", 'a"b'])
def test_a_request_id_that_could_not_be_logged_is_replaced(client: TestClient, given: str) -> None:
    response = client.get("/healthz", headers={b"X-Request-ID": given.encode()})
    assert uuid.UUID(response.headers["x-request-id"]).version == 7


def test_model_version_says_which_model_answers(client: TestClient, package: ModelPackage) -> None:
    answer = client.get("/model-version").json()
    assert answer == {
        "model_name": "ev-soh-predictor",
        "model_version": "3",
        "role": "champion",
        "view": "discharge_summary",
        "view_version": 1,
        "feature_names": list(package.view.names),
        "schema_hash": package.view.schema_hash,
        "level": "cell",
        "package_fingerprint": package.fingerprint,
        "trained_at": package.manifest.created_at.isoformat().replace("+00:00", "Z"),
        "generation": 1,
        "challenger": None,
    }


def test_an_app_is_alive_and_ready(client: TestClient) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {
        "status": "ready",
        "checks": {
            "model": "ok",
            "prediction_log": "ok",
            "doors": "open: everybody is let in (--insecure-no-auth)",
        },
    }


@pytest.mark.usefixtures("on_sqlite")
def test_without_its_log_an_app_is_alive_but_not_ready(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "predictions.db").unlink()
    assert client.get("/healthz").status_code == 200
    response = client.get("/readyz")
    assert response.status_code == 503
    assert response.headers["retry-after"] == "5"
    assert response.json()["type"] == "urn:batteryops:problem:not-ready"
    assert response.json()["detail"].startswith("prediction_log: ")


def test_a_model_that_answers_otherwise_than_when_it_was_new_is_not_ready(
    client: TestClient, package: ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = package.manifest.recorded.outputs_ah[0]
    for wrong in (recorded + 0.1, float("nan")):
        monkeypatch.setattr(OnnxRow, "__call__", lambda _self, _row, wrong=wrong: wrong)
        response = client.get("/readyz")
        assert response.status_code == 503
        assert "model_champion: the model answers" in response.json()["detail"]


def test_requests_are_timed_by_method_path_and_status(
    client: TestClient, body: dict[str, object]
) -> None:
    client.post("/predict", json=body)
    client.post("/predict", json=body)
    client.post("/predict", json={})
    client.get("/nowhere/1")
    client.get("/nowhere/2")
    client.request("BREW", "/predict")
    counts = samples(client, "http_request_duration_seconds_count")

    def count(method: str, path: str, status: str) -> float:
        return counts[frozenset({("method", method), ("path", path), ("status", status)})]

    assert count("POST", "/predict", "200") == 2
    assert count("POST", "/predict", "422") == 1
    assert count("GET", "unmatched", "404") == 2
    assert count("other", "/predict", "405") == 1


def test_predictions_are_counted_by_version_and_role(
    client: TestClient, body: dict[str, object]
) -> None:
    labels = frozenset({("version", "3"), ("role", "champion")})
    assert samples(client, "predictions_total") == {labels: 0}
    client.post("/predict", json=body)
    client.post("/predict", json={})
    assert samples(client, "predictions_total") == {labels: 1}


def test_the_model_in_service_and_the_requests_in_flight_are_exposed(
    client: TestClient, package: ModelPackage
) -> None:
    ((labels, value),) = samples(client, "model_info").items()
    assert value == 1
    assert dict(labels) == {
        "name": "ev-soh-predictor",
        "version": "3",
        "role": "champion",
        "view": "discharge_summary v1",
        "fingerprint": package.fingerprint,
    }
    assert samples(client, "http_requests_in_flight") == {frozenset(): 1}  # the asking itself


def test_metrics_speak_openmetrics_when_asked(client: TestClient) -> None:
    assert client.get("/metrics").headers["content-type"].startswith("text/plain")
    asked = client.get("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert asked.headers["content-type"].startswith("application/openmetrics-text")
    assert asked.text.endswith("# EOF\n")


def test_two_apps_in_one_process_count_apart(
    client: TestClient,
    serve: Callable[..., TestClient],
    package: ModelPackage,
    body: dict[str, object],
) -> None:
    other = serve(deployment=deploy_package(package, "4", "champion"))
    other.post("/predict", json=body)
    assert sum(samples(client, "predictions_total").values()) == 0
    assert sum(samples(other, "predictions_total").values()) == 1


@pytest.mark.parametrize(
    ("method", "path", "status", "detail"),
    [
        ("GET", "/nowhere", 404, "there is nothing at /nowhere; see /docs"),
        ("POST", "/predict/", 404, "there is nothing at /predict/"),
        ("GET", "/predict", 405, "/predict does not take GET; it takes POST"),
        ("DELETE", "/readyz", 405, "/readyz does not take DELETE; it takes GET"),
        ("GET", "/predict/batch", 405, "/predict/batch does not take GET; it takes POST"),
        ("POST", "/explain/1", 405, "/explain/1 does not take POST; it takes GET"),
        ("GET", "/labels", 405, "/labels does not take GET; it takes POST"),
        ("GET", "/admin/refresh", 405, "/admin/refresh does not take GET; it takes POST"),
        ("POST", "/docs", 405, "/docs does not take POST; it takes GET"),
    ],
)
def test_a_wrong_path_or_method_is_a_problem_document(
    client: TestClient, method: str, path: str, status: int, detail: str
) -> None:
    response = client.request(method, path)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["type"] == "about:blank"
    assert document["detail"].startswith(detail)
    if status == 405:
        assert response.headers["allow"] in detail


@pytest.fixture
def failing(client: TestClient) -> TestClient:
    """An app with routes that fail."""
    app = client.app
    assert isinstance(app, FastAPI)

    @app.get("/fails")
    async def fails() -> None:
        raise ZeroDivisionError("a secret of the code")

    @app.get("/teapot")
    async def teapot() -> None:
        raise HTTPException(418, "short and stout")

    return client


def test_a_failure_is_a_problem_document_without_its_trace_which_is_logged(
    failing: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        response = failing.get("/fails", headers={"X-Request-ID": "unlucky"})
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-request-id"] == "unlucky"
    assert response.json()["instance"] == "urn:batteryops:request:unlucky"
    assert "secret" not in response.text
    (failure,) = (one for one in caplog.records if one.message == "request failed")
    assert vars(failure)[REQUEST_ID] == "unlucky"
    assert "a secret of the code" in caplog.text
    labels = {("method", "GET"), ("path", "/fails"), ("status", "500")}
    assert samples(failing, "http_request_duration_seconds_count")[frozenset(labels)] == 1


def test_any_other_http_error_keeps_its_words(failing: TestClient) -> None:
    document = failing.get("/teapot").json()
    assert (document["status"], document["detail"]) == (418, "short and stout")


def test_the_openapi_page_describes_requests_answers_and_problems(
    client: TestClient, package: ModelPackage
) -> None:
    page = client.get("/openapi.json").json()
    assert page["info"]["version"] == __version__
    predict = page["paths"]["/predict"]["post"]
    content = predict["requestBody"]["content"]["application/json"]
    assert content["schema"]["required"] == ["vehicle_id", *package.view.names]
    assert content["schema"]["additionalProperties"] is False
    voltage = content["schema"]["properties"]["voltage_V_mean"]
    assert (voltage["minimum"], voltage["maximum"]) == (0.0, 5.0)
    assert set(predict["responses"]) == {
        *("200", "400", "401", "403", "409", "413", "415", "422", "429", "503")
    }
    refused = predict["responses"]["422"]["content"]["application/problem+json"]
    assert set(refused["examples"]) == {"invalid-request", "unknown-asset", "asset-not-served"}
    assert client.get("/docs").status_code == 200


def test_the_examples_on_the_openapi_page_are_true(client: TestClient) -> None:
    page = client.get("/openapi.json").json()
    predict = page["paths"]["/predict"]["post"]
    examples = predict["requestBody"]["content"]["application/json"]["examples"]
    for example in examples.values():
        answer = client.post("/predict", json=example["value"])
        assert answer.status_code == 200
        declared = page["components"]["schemas"]["Prediction"]
        assert set(answer.json()) == set(declared["properties"]) == set(declared["example"])

    refused: dict[str, Any] = client.post("/predict", json={}).json()
    example = predict["responses"]["422"]["content"]["application/problem+json"]["examples"]
    assert set(refused) == set(example["invalid-request"]["value"])
    assert refused["title"] == example["invalid-request"]["value"]["title"]
