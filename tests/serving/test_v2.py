"""The Open Inference Protocol: what a public client sends is understood, and answered likewise."""

import json
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from starlette.testclient import TestClient

from batteryops.models.package import ModelPackage
from batteryops.records.predictions import PredictionLog
from batteryops.serving.deployment import Deployment, RoutingRule, Slot, deploy_package
from batteryops.settings import Settings

CLIENT = "TRITON_CLIENT_PYTHON"
"""Environment variable: a Python that has the package `tritonclient[http]`."""

MODEL = "/v2/models/ev-soh-predictor"
LENGTH = "Inference-Header-Content-Length"
ROW = (3.53, -1.82, 32.6, 39.0, 3690.0, 14.7, 2713.0)
Body = dict[str, object]

# as tritonclient 2.73 sends two inputs, vehicle_id and features, and asks for one output, or all
TRITON_ONE = (
    b'{"inputs":[{"name":"vehicle_id","shape":[1],"datatype":"BYTES",'
    b'"parameters":{"binary_data_size":11}},{"name":"features","shape":[1,7],'
    b'"datatype":"FP32","parameters":{"binary_data_size":28}}],'
    b'"outputs":[{"name":"soh","parameters":{"binary_data":true}}]}'
)
TRITON_ALL = (
    b'{"inputs":[{"name":"vehicle_id","shape":[1],"datatype":"BYTES",'
    b'"parameters":{"binary_data_size":11}},{"name":"features","shape":[1,7],'
    b'"datatype":"FP32","parameters":{"binary_data_size":28}}],'
    b'"parameters":{"binary_data_output":true}}'
)
TRITON_DATA = (
    b"\x07\x00\x00\x00EV-0001\x85\xeba@\xc3\xf5\xe8\xbfff\x02B\x00\x00\x1cB\x00\xa0fE33kA\x00\x90)E"
)


def is_error(response: Any, status: int, kind: str) -> str:  # noqa: ANN401  # httpx's
    """Assert that it is that problem document, with the protocol's member; give the member."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert document["type"] == f"urn:batteryops:problem:{kind}"
    assert document["error"].startswith(document["detail"])
    told: str = document["error"]
    return told


def inputs(*rows: tuple[float, ...], vehicles: tuple[str, ...] = ("EV-0001",)) -> list[Body]:
    """Rows as JSON has them."""
    return [
        {"name": "vehicle_id", "datatype": "BYTES", "shape": [len(rows)], "data": list(vehicles)},
        {"name": "features", "datatype": "FP64", "shape": [len(rows), 7], "data": list(rows)},
    ]


def infer(client: TestClient, sent: list[Body], path: str = MODEL, **more: object) -> Any:  # noqa: ANN401  # httpx's
    """Ask in JSON."""
    return client.post(f"{path}/infer", json={"inputs": sent} | more)


def data(response: Any) -> dict[str, Any]:  # noqa: ANN401  # httpx's
    """The outputs of an answer in JSON."""
    assert response.status_code == 200, response.text
    return {one["name"]: one["data"] for one in response.json()["outputs"]}


@pytest.fixture
def alone(client: TestClient, body: Body) -> Body:
    """What `/predict` says of the row."""
    answer: Body = client.post("/predict", json=body | {"vehicle_id": "EV-0001"}).json()
    return answer


def test_the_server_and_the_model_say_what_they_are(client: TestClient) -> None:
    assert client.get("/v2").json()["name"] == "batteryops"
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data"]
    for path in (MODEL, f"{MODEL}/versions/3"):
        told = client.get(path).json()
        assert (told["name"], told["versions"]) == ("ev-soh-predictor", ["3"])
        assert [one["shape"] for one in told["inputs"]] == [[-1], [-1, 7]]
        assert [one["name"] for one in told["outputs"]][:2] == ["soh", "capacity_ah"]
    for path in ("/v2/health/live", "/v2/health/ready", f"{MODEL}/ready"):
        assert client.get(path).status_code == 200


def test_a_server_without_its_log_is_alive_and_not_ready(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]  # FastAPI's
    monkeypatch.setattr(service, "failures", lambda: {"prediction_log": "disk is full"})
    assert client.get("/v2/health/live").status_code == 200
    assert "disk is full" in is_error(client.get("/v2/health/ready"), 503, "not-ready")


def test_rows_in_json_get_the_answers_that_they_get_alone(
    client: TestClient, alone: dict[str, Any], log: PredictionLog
) -> None:
    response = infer(client, inputs(ROW), id="order-66")
    answer = response.json()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == (
        "ev-soh-predictor",
        "3",
        "order-66",
    )
    outputs = data(response)
    assert outputs["soh"] == pytest.approx([alone["soh"]], abs=1e-5)
    assert outputs["low_ah"] == pytest.approx([alone["interval"]["low_ah"]], abs=1e-5)
    assert (outputs["status"], outputs["error"]) == (["ok"], [""])
    record = log.get(outputs["prediction_id"][0])
    assert record is not None
    assert record.vehicle_id == "EV-0001"


def test_tensors_may_be_flat_nested_or_one_for_each_feature(client: TestClient) -> None:
    vehicle, nested = inputs(ROW, ROW, vehicles=("EV-0001", "EV-0002"))
    flat = nested | {"data": [*ROW, *ROW]}
    names = client.get("/model-version").json()["feature_names"]
    single = [
        {"name": name, "datatype": "FP32", "shape": [2, 1], "data": [[value], [value]]}
        for name, value in zip(names, ROW, strict=True)
    ]
    expected = data(infer(client, [vehicle, nested]))["soh"]
    column = vehicle | {"shape": [2, 1], "data": [["EV-0001"], ["EV-0002"]]}
    for sent in ([vehicle, flat], [column, nested], [*single, vehicle]):
        assert data(infer(client, sent))["soh"] == pytest.approx(expected, abs=1e-6)


def test_what_the_triton_client_sends_is_answered_in_binary(
    client: TestClient, alone: dict[str, Any]
) -> None:
    response = client.post(
        f"{MODEL}/infer",
        content=TRITON_ONE + TRITON_DATA,
        headers={LENGTH: str(len(TRITON_ONE)), "Content-Type": "application/octet-stream"},
    )
    assert response.status_code == 200
    length = int(response.headers[LENGTH])
    (output,) = json.loads(response.content[:length])["outputs"]
    assert output == {
        "name": "soh",
        "datatype": "FP64",
        "shape": [1],
        "parameters": {"binary_data_size": 8},
    }
    (soh,) = struct.unpack("<d", response.content[length:])
    assert soh == pytest.approx(alone["soh"], abs=1e-5)


def test_all_outputs_in_binary_follow_each_other_in_their_order(client: TestClient) -> None:
    response = client.post(
        f"{MODEL}/infer",
        content=TRITON_ALL + TRITON_DATA,
        headers={LENGTH: str(len(TRITON_ALL))},
    )
    length = int(response.headers[LENGTH])
    outputs = json.loads(response.content[:length])["outputs"]
    sizes = [one["parameters"]["binary_data_size"] for one in outputs]
    assert length + sum(sizes) == len(response.content)
    at = length + sum(sizes[: [one["name"] for one in outputs].index("status")])
    assert response.content[at : at + 6] == b"\x02\x00\x00\x00ok"


def test_only_the_outputs_that_are_asked_for_are_given(client: TestClient) -> None:
    response = infer(client, inputs(ROW), outputs=[{"name": "status"}, {"name": "soh"}])
    assert list(data(response)) == ["status", "soh"]
    told = is_error(
        infer(client, inputs(ROW), outputs=[{"name": "logits"}]), 400, "malformed-inference"
    )
    assert "'logits'" in told


def test_a_bad_row_is_refused_by_itself(client: TestClient, log: PredictionLog) -> None:
    sent = inputs(ROW, (3529.8, *ROW[1:]), ROW, vehicles=("EV-0001", "EV-0001", "Zeppelin"))
    outputs = data(infer(client, sent))
    assert outputs["status"] == ["ok", "refused", "refused"]
    assert outputs["soh"][1:] == [None, None]
    assert "millivolts" in outputs["error"][1]
    assert "'Zeppelin' has no profile" in outputs["error"][2]
    assert log.count() == 1


def test_a_version_that_is_named_answers_whatever_the_routing(
    serve: Callable[..., TestClient], package: ModelPackage
) -> None:
    challenger = Slot(
        version="4", role="challenger", folder=package.folder, fingerprint=package.fingerprint
    )
    alone = deploy_package(package, "3", "champion")
    rule = RoutingRule(mode="off", share=0.0, salt="")
    deployment: Deployment = alone.model_copy(update={"challenger": challenger, "routing": rule})
    client = serve(deployment=deployment)
    assert infer(client, inputs(ROW)).json()["model_version"] == "3"
    response = infer(client, inputs(ROW), path=f"{MODEL}/versions/4")
    assert response.json()["model_version"] == "4"
    assert data(response)["role"] == ["challenger"]


def test_what_is_not_in_service_is_not_found(client: TestClient) -> None:
    for path in ("/v2/models/iris", f"{MODEL}/versions/9"):
        is_error(client.get(path), 404, "unknown-model")
        is_error(client.get(f"{path}/ready"), 404, "unknown-model")
        is_error(infer(client, inputs(ROW), path=path), 404, "unknown-model")
    response = client.post("/v2/repository/index")
    assert (response.status_code, "error" in response.json()) == (404, True)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v2", "GET"),
        ("POST", "/v2/health/live", "GET"),
        ("POST", "/v2/health/ready", "GET"),
        ("POST", MODEL, "GET"),
        ("POST", f"{MODEL}/ready", "GET"),
        ("DELETE", f"{MODEL}/versions/3", "GET"),
        ("GET", f"{MODEL}/infer", "POST"),
        ("PUT", f"{MODEL}/versions/3/infer", "POST"),
    ],
)
def test_another_method_is_an_error_that_names_the_right_one(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.headers["allow"]) == (405, allowed)
    assert response.json()["error"] == f"{path} does not take {method}; it takes {allowed}"


@pytest.mark.parametrize("path", ["/v2/", "/v2/nothing", "/v2/models", f"{MODEL}/infer/"])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_where_nothing_is_the_error_says_so(client: TestClient, method: str, path: str) -> None:
    response = client.request(method, path)
    assert response.status_code == 404
    assert response.json()["error"] == f"there is nothing at {path}; see /docs"
    assert "error" not in client.request(method, "/v2x").json()


VEHICLE, FEATURES = inputs(ROW)


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        ([FEATURES], 422, "expected an input 'vehicle_id'"),
        ([VEHICLE | {"datatype": "FP32", "data": [1.0]}, FEATURES], 422, "of datatype BYTES"),
        ([VEHICLE], 422, "column voltage_V_mean is missing"),
        ([VEHICLE, FEATURES | {"shape": [7, 1]}], 422, "has shape [7, 1], expected numbers [1, 7]"),
        ([VEHICLE, FEATURES, FEATURES], 400, "is given twice"),
        ([VEHICLE, FEATURES, FEATURES | {"name": "more"}], 422, "unknown input 'more'"),
        ([VEHICLE, FEATURES | {"data": [1.0]}], 400, "has 1 elements as data, expected 7"),
        ([VEHICLE, FEATURES | {"data": ["a"] * 7}], 400, "expected numbers as data"),
        ([VEHICLE, FEATURES | {"data": None}], 400, "has no array as data"),
        ([VEHICLE, FEATURES | {"datatype": "BOOL"}], 400, "is of datatype BOOL"),
        ([VEHICLE, FEATURES | {"shape": [-1, 7]}], 400, "has shape [-1, 7]"),
        ([VEHICLE, FEATURES | {"shape": "7"}], 400, "has shape 7"),
        ([VEHICLE | {"data": [5]}, FEATURES], 400, "expected texts as data"),
        ([VEHICLE | {"shape": [0], "data": []}], 422, "0 rows were sent"),
        ([VEHICLE | {"name": None}], 400, "an input has no name"),
        ([5], 400, 'an object with "inputs"'),
    ],
)
def test_tensors_that_are_no_questions_are_errors(
    client: TestClient, sent: list[Body], status: int, said: str
) -> None:
    kind = "malformed-inference" if status == 400 else "invalid-request"
    assert said in is_error(infer(client, sent), status, kind)


@pytest.mark.parametrize(
    ("content", "length"),
    [
        (b"{", None),
        (b"[]", None),
        (b"\xff", None),
        (TRITON_ONE + TRITON_DATA, "99999"),
        (TRITON_ONE + TRITON_DATA, "-1"),
        (TRITON_ONE + TRITON_DATA, None),
        (TRITON_ONE + TRITON_DATA[:-1], str(len(TRITON_ONE))),
        (TRITON_ONE + TRITON_DATA + b"x", str(len(TRITON_ONE))),
        (TRITON_ONE + b"\xff" + TRITON_DATA[1:], str(len(TRITON_ONE))),
        (TRITON_ONE + b"\x01" + TRITON_DATA[1:], str(len(TRITON_ONE))),
        (TRITON_ONE + TRITON_DATA.replace(b"EV", b"\xff\xff"), str(len(TRITON_ONE))),
        (TRITON_ONE.replace(b":28", b":24") + TRITON_DATA[:-4], str(len(TRITON_ONE))),
    ],
)
def test_binary_data_that_does_not_fit_is_an_error(
    client: TestClient, log: PredictionLog, content: bytes, length: str | None
) -> None:
    headers = {} if length is None else {LENGTH: length}
    response = client.post(f"{MODEL}/infer", content=content, headers=headers)
    is_error(response, 400, "malformed-inference")
    assert log.count() == 0


def test_a_body_that_is_too_large_or_compressed_is_an_error(
    serve: Callable[..., TestClient], settings: Settings
) -> None:
    limits = settings.serving.limits.model_copy(update={"batch_body_bytes": 100})
    serving = settings.serving.model_copy(update={"limits": limits})
    client = serve(settings=settings.model_copy(update={"serving": serving}))
    is_error(infer(client, inputs(ROW)), 413, "body-too-large")
    limits = settings.serving.limits.model_copy(update={"batch_json_bytes": 100})
    serving = settings.serving.model_copy(update={"limits": limits})
    other = serve(settings=settings.model_copy(update={"serving": serving}))
    is_error(infer(other, inputs(ROW)), 413, "body-too-large")
    sent = json.dumps({"inputs": inputs(ROW)}).encode()  # or the JSON before binary data
    response = other.post(
        f"{MODEL}/infer", content=sent, headers={"Inference-Header-Content-Length": str(len(sent))}
    )
    assert "binary" in is_error(response, 413, "body-too-large")
    response = client.post(f"{MODEL}/infer", content=b"{}", headers={"Content-Encoding": "gzip"})
    is_error(response, 400, "malformed-inference")


@pytest.fixture
def address(serve: Callable[..., TestClient]) -> Iterator[str]:
    """Of the app behind a real socket."""
    client = serve()
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(client.app, log_level="error", lifespan="off"))
        running = threading.Thread(target=lambda: server.run(sockets=[listening]))
        running.start()
        while not server.started:
            time.sleep(0.01)
        yield "{}:{}".format(*listening.getsockname())
        server.should_exit = True
        running.join()


@pytest.mark.integration
@pytest.mark.skipif(CLIENT not in os.environ, reason=f"{CLIENT} names no Python with tritonclient")
def test_the_triton_client_works_as_it_is(address: str, alone: dict[str, Any]) -> None:
    done = subprocess.run(  # noqa: S603  # the interpreter that the environment names
        [os.environ[CLIENT], str(Path(__file__).with_name("triton_client.py")), address],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["live"], told["ready"]
    assert told["versions"] == ["3"]
    for answer in told["answers"]:
        assert answer["soh"] == pytest.approx([alone["soh"], np.nan], abs=1e-5, nan_ok=True)
        assert answer["status"] == ["ok", "refused"]
    assert told["error"] == "[404] there is no model 'iris', only 'ev-soh-predictor'"
