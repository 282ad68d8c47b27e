"""Running servers are asked, all at once, until each answers with the version that it should."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from batteryops.errors import SettingsError
from batteryops.lifecycle.servers import wait_until_served
from batteryops.serving.signatures import SCHEME
from batteryops.settings import Settings, load_settings

FINGERPRINT = "f" * 64
SECRET = "bo_0123abcd_" + "x" * 43
Tell = Callable[[int, str, dict[str, str]], tuple[int, Any]]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    file = Path(__file__).parents[2] / "config" / "production.yaml"
    return load_settings(file, home=tmp_path_factory.mktemp("home"))


@pytest.fixture
def server() -> Iterator[Callable[[Tell], str]]:
    """Start a server that says what a function of its number of requests says; its address."""
    with ExitStack() as started:

        def start(tell: Tell) -> str:
            asked = [0]

            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    asked[0] += 1
                    status, told = tell(asked[0], self.path, dict(self.headers))
                    body = told if isinstance(told, bytes) else json.dumps(told).encode()
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                do_POST = do_GET  # noqa: N815 - the library's name

                def log_message(self, *_: object) -> None:
                    """Say nothing."""

            made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            threading.Thread(target=made.serve_forever, daemon=True).start()
            started.callback(made.server_close)
            started.callback(made.shutdown)
            return f"http://127.0.0.1:{made.server_port}"

        yield start


def says(version: int, fingerprint: str = FINGERPRINT) -> tuple[int, dict[str, str]]:
    return 200, {"model_version": str(version), "package_fingerprint": fingerprint}


def test_a_server_is_asked_until_it_answers_with_the_version_thrice_in_a_row(
    settings: Settings, server: Callable[[Tell], str]
) -> None:
    asked = []

    def workers(number: int, *_: object) -> tuple[int, Any]:  # two, of which one is later
        asked.append(number)
        return says(1 if number < 4 or number == 6 else 2)

    (state,) = wait_until_served(settings, 2, FINGERPRINT, urls=[server(workers)])
    assert (state.served, state.version, state.problem) == (True, "2", None)
    assert len(asked) == 9
    assert state.to_json()["served"] is True


def test_each_server_tells_for_itself_what_is_wrong(
    settings: Settings, server: Callable[[Tell], str]
) -> None:
    urls = [
        server(lambda *_: says(2)),
        server(lambda *_: says(1)),
        server(lambda *_: says(2, "0" * 64)),
        server(lambda *_: (200, b"<html>")),
        server(lambda *_: (401, {"detail": "no key"})),
        server(lambda *_: (503, {"detail": "the log is full"})),
        "http://127.0.0.1:9",
    ]
    states = wait_until_served(settings, 2, FINGERPRINT, urls=urls, within_s=0.1)
    assert [state.url for state in states] == urls
    told = [state.problem or "" for state in states]
    assert [state.served for state in states] == [True] + [False] * 6
    for problem, expected in zip(
        told[1:],
        [
            "answers with version 1, expected 2",
            "another package of version 2",
            "does not answer as a server of batteryops",
            "asks for an API key",
            "refuses with status 503: the log is full",
            "does not answer as a server of batteryops",
        ],
        strict=True,
    ):
        assert expected in problem


def test_a_key_has_the_server_look_at_once_and_is_not_sent(
    settings: Settings, server: Callable[[Tell], str]
) -> None:
    seen: list[tuple[str, str]] = []

    def tell(_number: int, path: str, headers: dict[str, str]) -> tuple[int, Any]:
        seen.append((path, headers["Authorization"]))
        return (403, {"detail": "no scope"}) if path == "/admin/refresh" else says(2)

    (state,) = wait_until_served(settings, 2, FINGERPRINT, urls=[server(tell)], secret=SECRET)
    assert state.served
    assert [path for path, _ in seen] == ["/admin/refresh", *["/model-version"] * 3]
    assert all(header.startswith(SCHEME) and SECRET not in header for _, header in seen)


def test_without_servers_nobody_is_asked(settings: Settings) -> None:
    assert wait_until_served(settings, 2, FINGERPRINT) == ()


@pytest.mark.parametrize(
    ("given", "match"),
    [({"urls": ["localhost:8000"]}, "no server's address"), ({"secret": "abc"}, "no API key")],
)
def test_what_is_no_address_or_key_is_refused(
    settings: Settings, given: dict[str, Any], match: str
) -> None:
    with pytest.raises(SettingsError, match=match):
        wait_until_served(settings, 2, FINGERPRINT, **given)


def test_a_key_is_read_from_the_file_of_the_settings(
    settings: Settings, server: Callable[[Tell], str], tmp_path: Path
) -> None:
    file = tmp_path / "key"

    def tell(_number: int, _path: str, headers: dict[str, str]) -> tuple[int, Any]:
        return says(2) if headers.get("Authorization", "").startswith(SCHEME) else (401, {})

    asked = {"servers": (server(tell),), "servers_key_file": str(file)}
    given = settings.model_copy(update={"retraining": settings.retraining.model_copy(update=asked)})
    with pytest.raises(SettingsError, match=r"servers_key_file .* cannot be read"):
        wait_until_served(given, 2, FINGERPRINT)
    file.write_text(f"{SECRET}\n")
    (state,) = wait_until_served(given, 2, FINGERPRINT)
    assert state.served
