"""`batteryops refresh`: a signed call that has a server look at the registry."""

import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from batteryops.cli.main import main
from batteryops.records.api_keys import digest
from batteryops.serving.signatures import SignedRequest, read_signature

SECRET = "bo_0123abcd_" + "x" * 43
SERVED: dict[str, Any] = {
    "generation": 7,
    "models": [{"model_version": "4", "role": "champion"}],
    "registry": {"followed": True, "reachable": True, "problem": None, "since": "2026-03-01"},
    "problem": None,
}
Run = Callable[..., tuple[int, str, str]]


class Told:
    """What a server that stands in was told, and what it says."""

    def __init__(self) -> None:
        self.says: tuple[int, bytes] = 200, json.dumps(SERVED).encode()
        self.heard: list[tuple[str, bytes]] = []
        self.url = ""


@pytest.fixture
def server() -> Iterator[Told]:
    """A server of one operation."""
    told = Told()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.heard.append((self.path, self.headers["Authorization"].encode()))
            status, content = told.says
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        told.url = f"http://127.0.0.1:{listening.server_port}"
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield told
        listening.shutdown()
        thread.join()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `batteryops refresh` with these words and a key in a file."""
    (tmp_path / "key").write_text(f"{SECRET}\n")

    def run(*words: str, key: str = str(tmp_path / "key")) -> tuple[int, str, str]:
        words = (*words, "--key-file", key, "--home", str(tmp_path))
        monkeypatch.setattr("sys.argv", ["batteryops", "refresh", *words])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def test_it_signs_with_the_key_and_shows_what_is_served(run: Run, server: Told) -> None:
    code, out, _ = run(server.url)
    assert code == 0
    assert "7" in out
    assert "champion" in out
    [(path, header)] = server.heard
    signature = read_signature(header)
    assert signature is not None
    assert signature.key_id == "0123abcd"
    assert signature.is_of_now(time.time())
    assert signature.fits(SignedRequest("POST", path), digest(SECRET))
    assert SECRET[12:].encode() not in header


def test_as_json_it_is_what_the_server_said(
    run: Run, server: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{SECRET}\n"))
    code, out, _ = run(f"{server.url}/", "--json", key="-")
    assert (code, json.loads(out)) == (0, SERVED)


def test_what_keeps_a_version_out_of_service_is_told(run: Run, server: Told) -> None:
    away = {"followed": True, "reachable": False, "problem": "refused", "since": "2026-03-01"}
    served = SERVED | {"problem": "package 5 is gone", "registry": away}
    server.says = 200, json.dumps(served).encode()
    code, _, err = run(server.url)
    assert code == 0
    assert "package 5 is gone" in err
    assert "the registry does not answer: refused" in err


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (401, b'{"detail": "the API key is not known"}', "status 401: the API key is not known"),
        (409, b"[]", "status 409: without a reason"),
        (200, b"<html>", "does not answer as a server of batteryops"),
        (302, b"{}", "status 302"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(
    run: Run, server: Told, status: int, content: bytes, said: str
) -> None:
    server.says = status, content
    code, out, err = run(server.url)
    assert (code, out) == (1, "")
    assert said in err
    assert SECRET not in err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:1", "check the address"),
        ("127.0.0.1:8000", "expected http://HOST:PORT"),
        ("ftp://127.0.0.1", "expected http://HOST:PORT"),
    ],
)
def test_an_address_where_no_server_is_is_refused(run: Run, url: str, said: str) -> None:
    code, _, err = run(url)
    assert code == 1
    assert said in err


def test_what_is_no_key_signs_nothing(run: Run, server: Told, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("hunter2")
    for key, said in ((tmp_path / "other", "that is no API key"), (tmp_path, "cannot be read")):
        code, _, err = run(server.url, key=str(key))
        assert code == 1
        assert said in err
        assert "hunter2" not in err
    assert server.heard == []
