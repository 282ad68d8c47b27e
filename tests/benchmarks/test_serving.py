import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from benchmarks.serving import closed_loop, report
from benchmarks.serving.closed_loop import Load
from benchmarks.serving.model import TURN, VIEW, Row, matrix, moved
from benchmarks.serving.open_loop import drive, requests_of
from benchmarks.serving.peers import BARE, EMPTY, OURS, PEERS, Peer
from benchmarks.serving.process import Running, cpu_s
from benchmarks.serving.run import CONNECTIONS, Found

from batteryops.features.views import get_view

NAMES = get_view(VIEW).names
ROW = Row("EV-0001", ("3.5", "-1.8", f"32.4{TURN}", "38.7", "3600.0", "14.5", "2650.0"))
OTHER = Row("EV-0002", ("3.6", "-1.7", f"31.1{TURN}", "37.0", "3500.0", "13.5", "2600.0"))


@contextmanager
def server(answer: Callable[[bytes], int]) -> Iterator[tuple[int, list[bytes]]]:
    """A server whose status is what `answer` says of the body; its port, and the bodies it got."""
    bodies: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            bodies.append(body)
            self.send_response(answer(body))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - its name there
            del format, arguments

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield running.server_port, bodies
        finally:
            running.shutdown()
            thread.join()


def load(per_s: float) -> Load:
    return Load(per_s=per_s, p50_ms=1.0, p99_ms=2.0, failed=0, cpu_us=None)


@pytest.mark.parametrize("peer", PEERS.values(), ids=list(PEERS))
def test_every_peer_is_sent_json_with_all_features_and_one_place_for_the_turn(peer: Peer) -> None:
    body = peer.body(ROW, NAMES)
    assert body.count(TURN) == 1
    assert "\n" not in body
    text = json.dumps(json.loads(body.replace(TURN, "1234")))
    assert all(value in text for value in ("3.5", "-1.8", "32.41234", "38.7", "3600.0", "2650.0"))


def test_a_row_in_another_turn_is_another_row_to_a_model_in_float32() -> None:
    rows = np.vstack([matrix([ROW], f"{turn:04d}") for turn in range(2000)])
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_moved_rows_stay_within_the_ranges_of_the_view() -> None:
    view = get_view(VIEW)
    low, high = (np.array([getattr(f, end) for f in view.features]) for end in ("low", "high"))
    rows = np.random.default_rng(1).uniform(low, high, (500, len(low)))
    found = moved(rows, view, np.random.default_rng(2))
    assert np.all((found >= low) & (found <= high))
    assert np.all(np.any(found != rows, axis=1))


def test_requests_are_never_the_same_and_say_how_long_they_are() -> None:
    bodies = [PEERS[OURS].body(row, NAMES) for row in (ROW, OTHER)]
    found = list(islice(requests_of(bodies, "127.0.0.1", 80, "/predict"), 100))
    assert len(set(found)) == 100
    for request in found:
        head, _, body = request.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        json.loads(body)


def test_a_constant_rate_sends_what_it_says_and_counts_refusals() -> None:
    bodies = [PEERS[OURS].body(row, NAMES) for row in (ROW, OTHER)]
    with server(lambda body: 503 if b"EV-0002" in body else 200) as (port, got):
        requests = requests_of(bodies, "127.0.0.1", port, "/predict")
        found = drive("127.0.0.1", port, requests, rate=200.0, seconds=0.5, connections=4)
    assert len(got) == 100
    assert found.failed == 50


def test_a_stall_counts_for_all_requests_that_were_due_meanwhile() -> None:
    stalls = iter([0.4])

    def answer(body: bytes) -> int:
        del body
        time.sleep(next(stalls, 0.0))
        return 200

    with server(answer) as (port, _):
        requests = requests_of([PEERS[OURS].body(ROW, NAMES)], "127.0.0.1", port, "/predict")
        found = drive("127.0.0.1", port, requests, rate=100.0, seconds=0.5, connections=1)
    # 40 of 50 requests were due during the stall, on average 200 ms before its end
    assert found.failed == 0
    assert found.p50_ms > 100.0
    assert found.p99_ms > 300.0


@pytest.mark.skipif(not closed_loop.is_installed(), reason=closed_loop.INSTALL)
def test_the_closed_loop_never_sends_a_row_twice_and_counts_refusals(tmp_path: Path) -> None:
    peer = PEERS[OURS]
    bodies = closed_loop.write_bodies(peer, [ROW, OTHER], NAMES, tmp_path)
    with server(lambda body: 503 if b"EV-0002" in body else 200) as (port, got):
        running = Running(peer, "127.0.0.1", port, os.getpid())
        found = closed_loop.load(running, bodies, connections=1, seconds=1)
    assert len(set(got)) == len(got) > 2
    assert found.failed > 0
    assert found.p50_ms <= found.p99_ms


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    found = Found()
    found.loads[OURS, CONNECTIONS] = [load(100.0), load(300.0), load(90.0)]
    found.loads[BARE, CONNECTIONS] = [load(50.0), load(100.0), load(30.0)]
    assert found.ratio(OURS, BARE) == pytest.approx(3.0)
    assert found.per_s(OURS) == pytest.approx(100.0)
    assert found.ratio(OURS, EMPTY) is None


def test_what_is_promised_is_judged_and_what_is_not_measured_says_so() -> None:
    found = Found()
    found.loads[OURS, CONNECTIONS] = [load(200.0)]
    found.loads[BARE, CONNECTIONS] = [load(100.0)]
    found.loads[EMPTY, CONNECTIONS] = [load(2000.0)]
    verdicts = {line["what"]: line["verdict"] for line in report.goals(found)}
    assert verdicts[f"answers a second, times {BARE}"] == "floor met"
    assert verdicts["share of the empty app's"] == "MISSED"
    assert verdicts["answers a second, times mlflow"] == "not measured"


def test_processor_time_of_a_process_is_told() -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("this system has no /proc")
    before = cpu_s(os.getpid())
    assert before is not None
    assert before > 0.0
