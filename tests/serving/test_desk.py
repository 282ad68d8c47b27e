"""The desk: one look at the cache, one call of the model, one submission to the log, each told."""

import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from batteryops.errors import RecordsError
from batteryops.models.onnx_twin import OnnxRow
from batteryops.models.package import ModelPackage
from batteryops.records.group_commit import (
    BadRowsError,
    Done,
    GroupCommit,
    QueueFullError,
    Row,
    encode_row,
)
from batteryops.records.predictions import PredictionLog
from batteryops.serving import answer_cache, desk, live_model
from batteryops.serving.deployment import Deployment, RoutingRule, Slot, deploy_package
from batteryops.serving.lineup import Routing
from batteryops.serving.service import Service
from batteryops.settings import CacheSettings, Settings

Serve = Callable[..., TestClient]
Body = dict[str, object]
LATELY = (datetime.now(UTC) - timedelta(hours=1), datetime.now(UTC) + timedelta(days=1))


def service_of(client: TestClient) -> Service:
    assert isinstance(client.app, FastAPI)
    service = client.app.state.service
    assert isinstance(service, Service)
    return service


def sample(client: TestClient, name: str, **labels: str) -> float | None:
    return service_of(client).metrics.registry.get_sample_value(name, labels)


def changed(settings: Settings, section: str, **values: object) -> Settings:
    """The settings with another value in a section of `serving`."""
    part = getattr(settings.serving, section).model_copy(update=values)
    serving = settings.serving.model_copy(update={section: part})
    return settings.model_copy(update={"serving": serving})


def beside(package: ModelPackage, mode: str, share: float = 0.2) -> Deployment:
    """Version 3 as champion, the same package as challenger, version 4."""
    alone = deploy_package(package, "3", "champion")
    challenger = Slot(
        version="4", role="challenger", folder=package.folder, fingerprint=package.fingerprint
    )
    rule = RoutingRule.model_validate({"mode": mode, "share": share, "salt": "3 against 4"})
    return alone.model_copy(update={"challenger": challenger, "routing": rule})


class Held:
    """A log that is slow, or gone, as a test wants it; stands in for `GroupCommit.submit`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, enough: int = 1) -> None:
        self.rows: list[Row] = []
        self.done: list[Done] = []
        self.failure: RecordsError | None = None
        monkeypatch.setattr(desk, "_ENOUGH", enough)
        monkeypatch.setattr(GroupCommit, "submit", self.submit)
        monkeypatch.setattr(GroupCommit, "write_now", lambda _group, _rows: False)

    def submit(self, rows: Sequence[Row], done: Done) -> None:
        if self.failure is not None:
            raise self.failure
        self.rows += rows
        self.done.append(done)


def test_the_same_features_again_are_answered_from_the_cache_and_are_on_record_by_themselves(
    client: TestClient, body: Body, log: PredictionLog
) -> None:
    first, second = (client.post("/predict", json=body).json() for _ in range(2))
    assert (first["cached"], second["cached"]) == (False, True)
    own = {"prediction_id", "request_id", "cached"}
    assert {k: v for k, v in first.items() if k not in own} == {
        k: v for k, v in second.items() if k not in own
    }
    records = [log.get(answer["prediction_id"]) for answer in (first, second)]
    assert [record.cached for record in records if record is not None] == [False, True]
    assert log.count() == 2
    assert sample(client, "prediction_cache_hits_total", version="3", role="champion") == 1
    assert sample(client, "predictions_total", version="3", role="champion") == 2


def test_another_asset_of_the_same_profile_shares_the_answer_under_its_own_name(
    client: TestClient, body: Body, log: PredictionLog
) -> None:
    client.post("/predict", json=body)
    answer = client.post("/predict", json=body | {"vehicle_id": "B0018"}).json()
    assert (answer["vehicle_id"], answer["cached"]) == ("B0018", True)
    record = log.get(answer["prediction_id"])
    assert record is not None
    assert record.vehicle_id == "B0018"


def test_an_answer_is_forgotten_after_its_time(
    serve: Serve, settings: Settings, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(
        live_model, "AnswerCache", partial(answer_cache.AnswerCache, clock=lambda: now)
    )
    client = serve(settings=changed(settings, "cache", ttl_s=60.0))

    def ask() -> bool:
        return bool(client.post("/predict", json=body).json()["cached"])

    assert not ask()
    now += 59.0
    assert ask()
    now += 2.0
    assert not ask()


def test_the_cache_keeps_no_more_than_it_may_and_nothing_where_it_may_not(
    serve: Serve, settings: Settings, body: Body
) -> None:
    small = serve(settings=changed(settings, "cache", max_entries=1))
    other = body | {"delta_T_C": 14.0}
    sent = [body, other, body, body]
    assert [small.post("/predict", json=one).json()["cached"] for one in sent] == [
        False,
        False,
        False,
        True,
    ]
    none = serve(settings=changed(settings, "cache", max_entries=0))
    assert [none.post("/predict", json=body).json()["cached"] for _ in range(2)] == [False, False]


def test_another_version_begins_with_an_empty_cache(
    serve: Serve, package: ModelPackage, body: Body
) -> None:
    for version in ("3", "4"):
        client = serve(deployment=deploy_package(package, version, "champion"))
        assert not client.post("/predict", json=body).json()["cached"]
        assert client.post("/predict", json=body).json()["cached"]


@pytest.mark.parametrize("change", [{}, {"temperature_C_max": 61.0}, {"discharge_time_s": 3690}])
def test_the_row_for_the_log_is_that_of_the_record(
    client: TestClient,
    body: Body,
    log: PredictionLog,
    change: Body,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows: list[Row] = []
    write_now = GroupCommit.write_now

    def watched(self: GroupCommit, given: Sequence[Row]) -> bool:
        rows.extend(given)
        return write_now(self, given)

    monkeypatch.setattr(GroupCommit, "write_now", watched)
    for _ in range(2):  # the second from the cache
        answer = client.post("/predict", json=body | change).json()
        record = log.get(answer["prediction_id"])
        assert record is not None
        assert rows.pop() == encode_row(record)


def test_a_shadow_is_on_record_and_its_answer_is_not_given(
    serve: Serve, package: ModelPackage, body: Body, log: PredictionLog
) -> None:
    client = serve(deployment=beside(package, "shadow"))
    answers = [client.post("/predict", json=body | {"delta_T_C": 14.0 + n}).json() for n in (0, 1)]
    assert [answer["model_version"] for answer in answers] == ["3", "3"]
    records = {record.prediction_id: record for record in log.recent(10)}
    assert len(records) == 4
    told = [records.pop(answer["prediction_id"]) for answer in answers]
    assert all(record.served and record.role == "champion" for record in told)
    for record in records.values():
        assert (record.served, record.role, record.model_version) == (False, "challenger", "4")
    assert {record.request_id for record in records.values()} == {
        record.request_id for record in told
    }
    assert sample(client, "predictions_total", version="3", role="champion") == 2
    assert sample(client, "predictions_total", version="4", role="challenger") == 0
    assert sample(client, "shadow_predictions_total", version="4") == 2


@pytest.mark.parametrize("wrong", ["raises", "answers no number"])
def test_a_shadow_that_fails_takes_no_answer_away(
    serve: Serve, package: ModelPackage, body: Body, log: PredictionLog, wrong: str
) -> None:
    client = serve(deployment=beside(package, "shadow"))
    shadow = service_of(client).lineup.shadow
    assert shadow is not None

    class Broken:
        def few(self, rows: Any) -> list[float]:  # noqa: ANN401  # an array
            if wrong == "raises":
                raise RuntimeError("broken")
            return [math.nan] * len(rows)

    shadow._answer = Broken()  # type: ignore[assignment]  # noqa: SLF001  # a broken model cannot be loaded
    answer = client.post("/predict", json=body)
    assert answer.status_code == 200
    assert [record.served for record in log.recent(10)] == [True]
    challenger, champion = asked(log, 2).sort("role").iter_rows(named=True)
    assert (champion["status"], champion["served"]) == ("ok", True)
    assert (challenger["status"], challenger["served"]) == ("failed", False)
    assert challenger["capacity_ah"] is None
    assert challenger["soh"] is None
    assert challenger["request_id"] == champion["request_id"]
    assert challenger["delta_T_C"] == body["delta_T_C"]
    assert log.count() == 1
    assert log.get(challenger["prediction_id"]) is None
    assert sum(frame.height for frame in log.frames(*LATELY)) == 1
    assert sample(client, "shadow_predictions_total", version="4") == 0


def asked(log: PredictionLog, rows: int) -> pl.DataFrame:
    """What models were asked of late, also what they gave no number for, once it is on record."""
    for _ in range(500):
        found = list(log.frames(*LATELY, features=["delta_T_C"], failed=True))
        if found and sum(frame.height for frame in found) >= rows:
            break
        time.sleep(0.01)
    return pl.concat(found)


def test_a_shadow_fails_at_single_questions_of_those_it_is_asked_together(
    serve: Serve, package: ModelPackage, body: Body, log: PredictionLog
) -> None:
    client = serve(deployment=beside(package, "shadow"))
    shadow = service_of(client).lineup.shadow
    assert shadow is not None
    honest = shadow._answer  # noqa: SLF001  # a broken model cannot be loaded

    class Broken:
        def few(self, rows: Any) -> list[float]:  # noqa: ANN401  # an array
            if (rows[:, 5] == 11.0).any():  # delta_T_C
                raise RuntimeError("broken")
            return honest.few(rows)

    shadow._answer = Broken()  # type: ignore[assignment]  # noqa: SLF001  # as above
    with ThreadPoolExecutor(8) as asking:
        answers = [
            asking.submit(client.post, "/predict", json=body | {"delta_T_C": 11.0 + n % 4})
            for n in range(40)
        ]
        assert {answer.result().status_code for answer in answers} == {200}
    rows = asked(log, 80)
    failed = rows.filter(pl.col("status") == "failed")
    assert rows.height == 80
    assert failed["delta_T_C"].to_list() == [11.0] * 10
    assert set(failed["role"]) == {"challenger"}


@pytest.mark.parametrize("wrong", ["raises", "answers no number"])
def test_a_challenger_that_fails_its_vehicles_takes_nothing_from_the_champions(
    serve: Serve, package: ModelPackage, body: Body, log: PredictionLog, wrong: str
) -> None:
    client = serve(deployment=beside(package, "split", 0.5))
    challenger = service_of(client).lineup.challenger
    assert challenger is not None

    class Broken:
        def few(self, rows: Any) -> list[float]:  # noqa: ANN401  # an array
            if wrong == "raises":
                raise RuntimeError("broken")
            return [math.nan] * len(rows)

    challenger._answer = Broken()  # type: ignore[assignment]  # noqa: SLF001  # as above
    vehicles = [f"B{n:04}" for n in range(5, 25)]
    with ThreadPoolExecutor(8) as asking:
        answers = [
            asking.submit(client.post, "/predict", json=body | {"vehicle_id": vehicle})
            for vehicle in vehicles
        ]
        statuses = [answer.result().status_code for answer in answers]
    rows = asked(log, 20)
    by_status = dict(rows.group_by("status").agg(pl.col("vehicle_id").sort()).rows())
    routed = [service_of(client).lineup.answering(vehicle) is challenger for vehicle in vehicles]
    assert statuses == [500 if theirs else 200 for theirs in routed]
    assert by_status["failed"] == [v for v, theirs in zip(vehicles, routed, strict=True) if theirs]
    assert not rows.filter(pl.col("status") == "failed")["served"].any()
    assert log.count() == statuses.count(200)


def test_the_latency_of_a_shadow_is_that_of_its_own_model(
    serve: Serve,
    package: ModelPackage,
    body: Body,
    log: PredictionLog,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = serve(deployment=beside(package, "shadow"))
    lineup = service_of(client).lineup
    assert lineup.shadow is not None
    passed_s = 0.0
    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + passed_s)
    monkeypatch.setattr(desk, "time", clock)

    class Slow:
        def __init__(self, honest: OnnxRow, takes_s: float) -> None:
            self._honest, self._takes_s = honest, takes_s

        def few(self, rows: Any) -> list[float]:  # noqa: ANN401  # an array
            nonlocal passed_s
            passed_s += self._takes_s
            return self._honest.few(rows)

    for model, takes_s in ((lineup.champion, 30.0), (lineup.shadow, 80.0)):
        model._answer = Slow(model._answer, takes_s)  # type: ignore[assignment]  # noqa: SLF001  # a slow model
    client.post("/predict", json=body)
    rows = asked(log, 2)
    took = dict(rows.select("role", "latency_ms").iter_rows())
    assert took["champion"] == pytest.approx(30_000, abs=5_000)
    assert took["challenger"] == pytest.approx(80_000, abs=5_000)


def test_a_split_is_sticky_and_of_about_its_share(
    serve: Serve, package: ModelPackage, body: Body, log: PredictionLog
) -> None:
    client = serve(deployment=beside(package, "split", 0.3))
    vehicles = [f"B0{number:03}" for number in range(150)]
    rounds = [
        [client.post("/predict", json=body | {"vehicle_id": one}).json() for one in vehicles]
        for _ in range(2)
    ]
    first, second = ([answer["model_version"] for answer in answers] for answers in rounds)
    assert first == second
    rule = Routing("split", 0.3, "3 against 4")
    assert first == ["4" if rule.is_challengers(one) else "3" for one in vehicles]
    assert 0.15 < first.count("4") / len(first) < 0.45
    for answer in rounds[0][:20]:
        record = log.get(answer["prediction_id"])
        assert record is not None
        assert (record.model_version, record.role) == (answer["model_version"], answer["role"])
    assert sample(client, "predictions_total", version="4", role="challenger") == 2 * first.count(
        "4"
    )


def test_a_challenger_that_is_not_to_be_asked_answers_nobody(
    serve: Serve, package: ModelPackage, body: Body, log: PredictionLog
) -> None:
    client = serve(deployment=beside(package, "off", 1.0))
    assert client.post("/predict", json=body).json()["model_version"] == "3"
    assert log.count() == 1


def test_without_waiting_for_the_disk_an_answer_comes_before_its_commit(
    serve: Serve, settings: Settings, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(settings=changed(settings, "log", mode="async"))
    held = Held(monkeypatch)
    assert client.post("/predict", json=body).status_code == 200
    (done,) = held.done
    assert len(held.rows) == 1
    done(None)
    assert sample(client, "predictions_lost_total") == 0
    client.post("/predict", json=body)
    held.done[1](RecordsError("the disk is full"))
    client.get("/healthz")  # by now the loop has heard
    assert sample(client, "predictions_lost_total") == 1


def test_with_waiting_for_the_disk_an_answer_comes_after_its_commit(
    client: TestClient, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    with ThreadPoolExecutor(1) as asking:
        answer = asking.submit(client.post, "/predict", json=body)
        while not held.done:
            client.get("/healthz")
        assert not answer.done()
        held.done[0](None)
        assert answer.result(10).status_code == 200


def test_a_full_queue_is_503_and_says_when_to_come_again(
    client: TestClient, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    held.failure = QueueFullError("20000 answers wait", 2.3)
    response = client.post("/predict", json=body)
    assert response.status_code == 503
    assert response.headers["retry-after"] == "3"
    assert response.json()["type"] == "urn:batteryops:problem:overloaded"
    assert sample(client, "predictions_total", version="3", role="champion") == 0


def test_a_queue_of_one_row_takes_one_request_at_a_time(
    serve: Serve, settings: Settings, body: Body, log: PredictionLog
) -> None:
    client = serve(settings=changed(settings, "log", queue_rows=1))
    with ThreadPoolExecutor(8) as asking:
        responses = list(asking.map(lambda _: client.post("/predict", json=body), range(60)))
    given = [one for one in responses if one.status_code == 200]
    assert given
    assert log.count() == len(given)
    for refused in (one for one in responses if one.status_code != 200):
        assert refused.json()["type"] == "urn:batteryops:problem:overloaded"
        assert int(refused.headers["retry-after"]) >= 1


@pytest.mark.usefixtures("on_sqlite")
def test_it_recovers_by_itself_once_the_log_is_back(
    client: TestClient, body: Body, tmp_path: Path, log: PredictionLog
) -> None:
    assert client.post("/predict", json=body).status_code == 200
    files = sorted(tmp_path.glob("predictions.db*"))
    for file in files:
        file.rename(file.with_name(f"away-{file.name}"))
    refused = client.post("/predict", json=body)
    assert refused.status_code == 503
    assert refused.json()["type"] == "urn:batteryops:problem:log-unavailable"
    assert int(refused.headers["retry-after"]) >= 1
    for file in files:
        file.with_name(f"away-{file.name}").rename(file)
    statuses: list[int] = []
    while not statuses or statuses[-1] != 200:
        statuses.append(client.post("/predict", json=body).status_code)
        assert set(statuses) <= {200, 503}
        threading.Event().wait(0.05)
        assert len(statuses) < 200
    assert log.count() == 2


def test_rows_that_the_database_refuses_take_no_others_with_them(
    client: TestClient, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    with ThreadPoolExecutor(2) as asking:
        answers = [asking.submit(client.post, "/predict", json=body) for _ in range(2)]
        while len(held.rows) < 2:
            client.get("/healthz")
        bad = RecordsError("no such row")
        for number, done in enumerate(held.done):  # one submission of two rows, or two of one
            at = {0: bad} if number == 0 else {}
            done(BadRowsError("one cannot be kept", at) if at else None)
        statuses = sorted(answer.result(10).status_code for answer in answers)
    assert statuses == [200, 503]


def test_a_model_that_answers_no_number_fails_that_request_only(
    client: TestClient,
    body: Body,
    log: PredictionLog,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    honest = OnnxRow.few

    def sometimes(self: OnnxRow, rows: Any) -> list[float]:  # noqa: ANN401  # an array
        return [
            math.nan if row[5] == 11.0 else capacity  # delta_T_C
            for row, capacity in zip(rows, honest(self, rows), strict=True)
        ]

    monkeypatch.setattr(OnnxRow, "few", sometimes)
    headers = {"X-Request-ID": "unlucky"}
    with ThreadPoolExecutor(4) as asking:
        good = [
            asking.submit(client.post, "/predict", json=body | {"delta_T_C": 12.0 + n})
            for n in range(6)
        ]
        bad = asking.submit(
            client.post, "/predict", json=body | {"delta_T_C": 11.0}, headers=headers
        )
        assert [one.result().status_code for one in good] == [200] * 6
    assert bad.result().status_code == 500
    assert bad.result().json()["instance"] == "urn:batteryops:request:unlucky"
    assert log.count() == 6
    assert "version 3 answered nan" in caplog.text
    monkeypatch.setattr(OnnxRow, "few", honest)  # what was no number was not remembered
    assert client.post("/predict", json=body | {"delta_T_C": 11.0}).json()["cached"] is False


def test_a_failure_of_the_code_leaves_nobody_waiting(
    client: TestClient,
    body: Body,
    log: PredictionLog,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def breaks(_self: OnnxRow, _rows: object) -> None:
        raise RuntimeError("a secret of the code")

    monkeypatch.setattr(OnnxRow, "few", breaks)
    response = client.post("/predict", json=body)
    assert response.status_code == 500
    assert response.headers["content-type"] == "application/problem+json"
    assert "secret" not in response.text
    assert "a secret of the code" in caplog.text
    monkeypatch.undo()
    assert client.post("/predict", json=body).status_code == 200
    assert log.count() == 1
    assert sample(client, "http_requests_in_flight") == 0


def test_what_comes_in_during_a_commit_is_put_on_record_together_after_it(
    client: TestClient, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch, enough=4)
    with ThreadPoolExecutor(8) as asking:

        def ask(times: int) -> list[Any]:
            return [asking.submit(client.post, "/predict", json=body) for _ in range(times)]

        def until(rows: int) -> None:
            while len(held.rows) < rows:
                client.get("/healthz")
            for _ in range(5):
                client.get("/healthz")
            assert len(held.rows) == rows

        try:
            answers = ask(1)
            until(1)
            answers += ask(3)  # too few for a commit of their own
            until(1)
            held.done.pop(0)(None)
            until(4)
            assert len(held.done) == 1
            answers += ask(4)  # enough
            until(8)
        finally:  # nobody is left waiting, whatever was found
            for done in held.done:
                done(None)
        assert [answer.result(10).status_code for answer in answers] == [200] * 8


def test_a_few_are_written_by_the_loop_itself_and_many_by_the_writer(
    client: TestClient, body: Body, url: str, log: PredictionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    here: list[int] = []
    there: list[int] = []
    write_now, submit = GroupCommit.write_now, GroupCommit.submit

    def watch_here(self: GroupCommit, rows: Sequence[Row]) -> bool:
        here.append(len(rows))
        return write_now(self, rows)

    def watch_there(self: GroupCommit, rows: Sequence[Row], done: Done) -> None:
        there.append(len(rows))
        submit(self, rows, done)

    monkeypatch.setattr(GroupCommit, "write_now", watch_here)
    monkeypatch.setattr(GroupCommit, "submit", watch_there)
    first = client.post("/predict", json=body)
    assert (here, there) == ([1], [] if url.startswith("sqlite") else [1])
    there.clear()
    monkeypatch.setattr(desk, "_ENOUGH", 1)
    second = client.post("/predict", json=body)
    assert (here, there) == ([1], [1])
    assert log.count() == len({first.json()["prediction_id"], second.json()["prediction_id"]}) == 2


def test_an_answer_that_goes_out_before_its_commit_never_waits_for_one(
    serve: Serve, settings: Settings, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(settings=changed(settings, "log", mode="async"))

    def never(_group: GroupCommit, _rows: Sequence[Row]) -> bool:
        raise AssertionError

    monkeypatch.setattr(GroupCommit, "write_now", never)
    assert client.post("/predict", json=body).status_code == 200


class Looks:
    """An event loop that runs nothing, and remembers what it should have run."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def call_soon(self, *what: Any) -> None:  # noqa: ANN401  # a function and what it is given
        self.asked.append(what)

    def turn(self) -> None:
        function, *given = self.asked.pop()
        function(*given)


@pytest.fixture
def idle(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Looks, list[int]]:
    """A desk whose loop stands still, that loop, and how many it answered at a time."""
    assert isinstance(client.app, FastAPI)
    seated, looks = client.app.state.desk, Looks()
    answered: list[int] = []
    monkeypatch.setattr(seated, "_loop", looks)

    def answer() -> None:
        seated._begun = False  # noqa: SLF001  # as it does itself
        answered.append(len(seated._waiting))  # noqa: SLF001
        seated._waiting.clear()  # noqa: SLF001

    monkeypatch.setattr(seated, "_answer_waiting", answer)
    return seated, looks, answered


def test_those_who_were_answered_together_have_a_moment_to_ask_together(
    idle: tuple[Any, Looks, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seated, looks, answered = idle
    monkeypatch.setattr(desk, "_COME_BACK_S", 1000.0)
    seated._gather_after(5)  # noqa: SLF001  # a turn of the desk is looked into
    for came in (2, 0, 3):
        seated._waiting.extend([object()] * came)  # noqa: SLF001  # a turn of the desk is looked into
        looks.turn()
    assert answered == [5]
    assert not looks.asked


def test_nobody_waits_longer_than_that_moment_for_those_who_do_not_ask_again(
    idle: tuple[Any, Looks, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seated, looks, answered = idle
    monkeypatch.setattr(desk, "_COME_BACK_S", 0.0)
    seated._gather_after(5)  # noqa: SLF001  # a turn of the desk is looked into
    seated._waiting.append(object())  # noqa: SLF001  # a turn of the desk is looked into
    looks.turn()
    assert answered == [1]
    seated._gather_after(5)  # noqa: SLF001  # a turn of the desk is looked into
    looks.turn()  # nobody came
    assert answered == [1]
    assert not looks.asked
    assert not seated._begun  # noqa: SLF001  # a turn of the desk is looked into


def test_one_alone_is_waited_for_by_nobody(
    idle: tuple[Any, Looks, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seated, looks, _ = idle
    monkeypatch.setattr(desk, "_COME_BACK_S", 1000.0)
    seated._gather_after(1)  # noqa: SLF001  # a turn of the desk is looked into
    looks.turn()
    assert not looks.asked


def test_a_challenger_of_other_features_or_assets_is_not_asked(package: ModelPackage) -> None:
    served = live_model.ServedModel(package, "3", "champion")
    cache = CacheSettings(max_entries=0, ttl_s=1.0)
    one, other = (live_model.LiveModel(served, cache) for _ in range(2))
    row = live_model.Row("B0005", (1.0,) * 7, 2.0, (0.0, 2.5))
    again = other.same_question(row, one)
    assert again is not None
    assert again is not row
    assert (again.vehicle_id, again.values) == (row.vehicle_id, row.values)
    assert (again.nominal_ah, again.range_ah) == (row.nominal_ah, row.range_ah)
    for name, value in (("names", ("a",)), ("level", "pack")):
        different = live_model.LiveModel(served, cache)
        setattr(different, name, value)
        assert different.same_question(row, one) is None


def test_many_at_once_get_each_their_own_answer(
    client: TestClient, body: Body, log: PredictionLog
) -> None:
    sent = [{"vehicle_id": f"B{number:04}", "delta_T_C": 10 + number / 10} for number in range(40)]

    def ask(change: dict[str, object]) -> Any:  # noqa: ANN401  # httpx's
        return client.post(
            "/predict", json=body | change, headers={"X-Request-ID": str(change["vehicle_id"])}
        ).json()

    with ThreadPoolExecutor(8) as asking:
        answers = list(asking.map(ask, sent))
    for change, answer in zip(sent, answers, strict=True):
        assert answer["vehicle_id"] == answer["request_id"] == change["vehicle_id"]
        record = log.get(answer["prediction_id"])
        assert record is not None
        assert record.vehicle_id == change["vehicle_id"]
        assert record.features["delta_T_C"] == change["delta_T_C"]
        assert json.loads(json.dumps(record.soh)) == answer["soh"]
    assert log.count() == 40


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_share_of_answers_is_explained_on_record_after_they_went_out(
    serve: Serve, settings: Settings, body: Body, log: PredictionLog, mode: str
) -> None:
    some = changed(settings, "log", mode=mode)
    serving = some.serving.model_copy(update={"explain_share": 0.5})
    client = serve(settings=some.model_copy(update={"serving": serving}))
    explainer = service_of(client).explainer
    given = [client.post("/predict", json=body).json()["prediction_id"] for _ in range(30)]
    service_of(client).writer.close(5.0)
    client.get("/healthz")  # a turn of the event loop, in which the last ones are offered
    explainer.close()
    wanted = {one for one in given if explainer.wants(one)}
    assert 0 < len(wanted) < len(given)
    for one in given:
        record = log.get(one)
        assert record is not None
        assert (record.contributions is not None) == (one in wanted)
        if record.contributions is not None and record.base_ah is not None:
            total = record.base_ah + sum(record.contributions.values())
            assert total == pytest.approx(record.capacity_ah, abs=1e-5)
