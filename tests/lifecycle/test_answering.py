"""Serving a model: how long an absent registry keeps the server from saying so."""

import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from batteryops.errors import RegistryError
from batteryops.lifecycle.answering import _be_impatient
from batteryops.registry.mlflow_tracking import ModelRegistry

NAMES = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_TIMEOUT")


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is as it was afterwards
        monkeypatch.delenv(name)


@pytest.fixture
def overloaded() -> Iterator[tuple[str, list[str]]]:
    """An MLflow server that is alive and answers nothing but 503; what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200 if self.path == "/health" else 503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("unset")
def test_a_registry_that_is_overloaded_is_asked_twice_and_not_for_minutes(
    overloaded: tuple[str, list[str]],
) -> None:
    url, asked = overloaded
    _be_impatient()
    registry = ModelRegistry(
        tracking_uri=url, artifact_root=None, experiment="e", model_name="ev-soh-predictor"
    )
    with pytest.raises(RegistryError):
        registry.version_at("champion")
    assert len([path for path in asked if path != "/health"]) == 2


@pytest.mark.usefixtures("unset")
def test_what_the_user_says_of_mlflow_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAMES[0], "5")
    _be_impatient()
    assert [os.environ[name] for name in NAMES] == ["5", "10"]
