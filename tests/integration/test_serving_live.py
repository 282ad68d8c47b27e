"""What a running server lives through: promotions, lost workers, stops, and what it needs gone."""

import json
import os
import resource
import signal
import time
from collections import defaultdict
from typing import Any

import pytest

from batteryops.lifecycle.loading import open_registry
from batteryops.lifecycle.promotion import promote
from batteryops.lifecycle.rollback import rollback
from batteryops.lifecycle.servers import wait_until_served
from batteryops.records.api_keys import ApiKeys
from batteryops.serving.lineup import Routing

pytestmark = pytest.mark.integration

PATIENCE_S = 60.0


@pytest.fixture
def two_versions(stage: Any) -> Any:  # noqa: ANN401  # conftest's
    """A stage whose registry holds the same package twice; version 1 is champion."""
    registry = open_registry(stage.settings)
    first = registry.version(1)
    registry.register(first.run_id, tags=first.tags)
    promote(1, stage.settings)
    return stage


def until(true: Any) -> float:  # noqa: ANN401  # a function
    """Wait for it to become true; the seconds that it took."""
    start = time.monotonic()
    while not true():
        assert time.monotonic() < start + PATIENCE_S
        time.sleep(0.01)
    return time.monotonic() - start


def metric(text: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that carry these labels."""
    total = 0.0
    for line in text.splitlines():
        sample, _, value = line.rpartition(" ")
        if sample.partition("{")[0] == name and all(
            f'{label}="{wanted}"' in sample for label, wanted in labels.items()
        ):
            total += float(value)
    return total


def new_version_answers_within(busy: Any, version: str, moved_at: float) -> float:  # noqa: ANN401
    """Seconds from the move of the alias to the first answer of the version."""
    until(lambda: busy.answers[-1][1] == version)
    return (
        float(next(at for at, told, _ in busy.answers if told == version and at > moved_at))
        - moved_at
    )


def test_promotion_and_rollback_reach_a_busy_server_without_a_failed_request(
    two_versions: Any,  # noqa: ANN401  # conftest's
) -> None:
    stage = two_versions
    with ApiKeys(stage.settings.predictions_url) as keys:
        _, secret = keys.create("clients", ["predict"])
        _, admin = keys.create("operators", ["admin"])
    served = stage.serve()
    registry = open_registry(stage.settings)
    busy = stage.load(served, headers={"Authorization": f"Bearer {secret}"})
    busy.until(answers=50)
    seconds = []
    for version in (2, 1, 2):
        registry.set_alias(version, "champion")
        seconds.append(new_version_answers_within(busy, str(version), time.monotonic()))
        busy.until(answers=50)
    told = ", ".join(f"{one:.2f} s" for one in seconds)
    print(f"promoted, rolled back, promoted: the version answered after {told}")  # noqa: T201  # shown with -s
    assert max(seconds) < 20  # 2 s where the machine is not busy with other tests

    registry.set_alias(1, "champion")
    status, answer = served.ask(
        "POST", "/admin/refresh", headers={"Authorization": f"Bearer {admin}"}
    )
    assert status == 200
    assert answer["models"] == [{"model_version": "1", "role": "champion"}]
    asked_at = time.monotonic()
    busy.until(answers=20)
    busy.stop()
    assert busy.answers[-1][1] == "1"
    assert {version for at, version, _ in busy.answers if at > asked_at + 1} <= {"1"}
    assert (busy.refused, busy.broken) == ([], [])
    assert set(busy.acknowledged) == stage.logged()
    assert served.stop() == 0
    log = served.log.read_text()
    assert secret not in log
    assert admin not in log


def test_a_rollback_is_verified_on_a_busy_server_without_a_failed_request(
    two_versions: Any,  # noqa: ANN401  # conftest's
) -> None:
    stage = two_versions
    with ApiKeys(stage.settings.predictions_url) as keys:
        _, secret = keys.create("clients", ["predict"])
        _, operators = keys.create("operators", ["predict", "admin"])
    promote(1, stage.settings)
    promote(2, stage.settings)
    served = stage.serve()
    busy = stage.load(served, headers={"Authorization": f"Bearer {secret}"})
    busy.until(answers=50)
    done = rollback(stage.settings, reason="a test", servers=[served.url], secret=operators)
    assert (done.version, done.replaced, done.verified) == (1, 2, True)
    back_at = time.monotonic()
    busy.until(answers=50)
    assert {version for at, version, _ in busy.answers if at > back_at + 1} <= {"1"}
    promote(2, stage.settings)
    (state,) = wait_until_served(
        stage.settings, 2, done.entry.details["package_fingerprint"], urls=[served.url], within_s=1
    )
    assert "asks for an API key" in (state.problem or "")
    key_file = stage.settings.home / "key"
    key_file.write_text(operators)
    began = time.monotonic()
    ran = stage.run(
        *("rollback", "--reason", "a test", "--to", "1", "--json"),
        *("--server", served.url, "--key-file", str(key_file)),
    )
    whole_s = time.monotonic() - began
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert (told["version"], told["verified"]) == (1, True)
    busy.until(answers=20)
    busy.stop()
    print(  # noqa: T201  # shown with -s
        f"rolled back and verified: {done.seconds:.2f} s, in the command {told['seconds']:.2f} s, "
        f"the command {whole_s:.2f} s"
    )
    assert (busy.refused, busy.broken) == ([], [])
    assert set(busy.acknowledged) == stage.logged()
    assert operators not in served.log.read_text()


def test_two_workers_count_together_route_alike_and_replace_each_other(
    two_versions: Any,  # noqa: ANN401  # conftest's
) -> None:
    stage = two_versions
    open_registry(stage.settings).set_alias(2, "challenger")
    served = stage.serve("--workers", "2", "--insecure-no-auth")
    busy = stage.load(served, clients=8)
    busy.until(answers=400)
    busy.stop()
    assert (busy.refused, busy.broken) == ([], [])
    n = len(busy.acknowledged)
    assert set(busy.acknowledged) == stage.logged()

    _, text = served.ask("GET", "/metrics")
    assert metric(text, "predictions_total") == n
    assert metric(text, "http_request_duration_seconds_count", path="/predict", status="200") == n
    assert metric(text, "prediction_log_rows_total") == n
    for version in ("1", "2"):
        told = sum(one == version for _, one, _ in busy.answers)
        assert metric(text, "predictions_total", version=version) == told
    assert metric(text, "http_requests_in_flight") == 1  # the asking itself
    models: dict[str, set[str]] = defaultdict(set)
    for _, version, vehicle in busy.answers:
        models[vehicle].add(version)
    rule = Routing("split", stage.settings.serving.routing.share, "1 against 2")
    assert all(
        told == {"2" if rule.is_challengers(vehicle) else "1"} for vehicle, told in models.items()
    )

    before = served.workers()
    assert len(before) == 2
    again = stage.load(served, clients=4)
    again.until(answers=20)
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(set(served.workers()) - set(before)) == 1)
    assert before[1] in served.workers()
    again.until(answers=20)
    again.stop()
    assert set(again.acknowledged) <= stage.logged()
    _, text = served.ask("GET", "/metrics")
    assert metric(text, "http_requests_in_flight") == 1  # what the dead one was doing is forgotten
    assert metric(text, "predictions_total") >= n + len(again.acknowledged)
    assert served.stop() == 0


def test_told_to_stop_it_answers_all_that_it_took_and_all_of_it_is_on_record(stage: Any) -> None:  # noqa: ANN401  # conftest's
    served = stage.serve_package()
    busy = stage.load(served, clients=8)
    busy.until(answers=200)
    assert served.stop() == 0
    busy.stop()
    assert not busy.refused
    assert set(busy.acknowledged) == stage.logged()  # none was answered to nobody


def test_a_supervisor_that_dies_takes_its_workers_with_it_and_nothing_is_lost(stage: Any) -> None:  # noqa: ANN401  # conftest's
    served = stage.serve_package()
    busy = stage.load(served)
    busy.until(answers=100)
    (worker,) = served.workers()
    served.process.kill()
    until(lambda: not os.path.exists(f"/proc/{worker}/exe"))  # noqa: PTH110  # a zombie has none
    busy.stop()
    assert not busy.refused
    assert set(busy.acknowledged) == stage.logged()


def test_without_the_registry_it_serves_what_was_served_last_and_says_so(
    two_versions: Any,  # noqa: ANN401  # conftest's
) -> None:
    stage = two_versions
    first = stage.serve("--insecure-no-auth")
    assert first.stop() == 0
    stage.home.joinpath("mlflow.db").rename(stage.home / "away.db")
    stage.home.joinpath("mlflow.db").mkdir()  # no database can be made there
    served = stage.serve("--insecure-no-auth")
    busy = stage.load(served, clients=1)
    busy.until(answers=5)
    status, ready = served.ask("GET", "/readyz")
    assert status == 200
    assert "what was known is served on" in ready["checks"]["registry"]
    status, told = served.ask("POST", "/admin/refresh")
    assert status == 200
    assert told["registry"]["reachable"] is False
    stage.home.joinpath("mlflow.db").rmdir()
    stage.home.joinpath("away.db").rename(stage.home / "mlflow.db")
    until(lambda: "registry" not in served.ask("GET", "/readyz")[1]["checks"])
    busy.stop()
    assert (busy.refused, busy.broken) == ([], [])


def test_a_full_disk_is_503_with_nothing_half_written_and_passes_by_itself(stage: Any) -> None:  # noqa: ANN401  # conftest's
    def no_large_file() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # write fails instead
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, most))

    served = stage.serve("--model", stage.package, "--insecure-no-auth", before=no_large_file)
    busy = stage.load(served)
    until(lambda: len(busy.refused) > 20)
    status, document = busy.refused[-1]
    assert status == 503
    assert document["type"] == "urn:batteryops:problem:log-unavailable"
    assert served.ask("GET", "/healthz")[0] == 200
    assert set(busy.acknowledged) == stage.logged()
    for pid in [served.process.pid, *served.workers()]:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    refused = len(busy.refused)
    busy.until(answers=100)
    busy.stop()
    assert {status for status, _ in busy.refused} == {503}
    assert len(busy.refused) < refused + 200
    assert not busy.broken
    assert set(busy.acknowledged) == stage.logged()


def test_a_database_that_goes_away_is_503_until_it_is_back(
    stage: Any,  # noqa: ANN401  # conftest's
    own_postgresql: Any,  # noqa: ANN401  # conftest's
) -> None:
    url = own_postgresql.url
    served = stage.serve_package(environment={"BATTERYOPS_RECORDS__PREDICTIONS_URL": url})
    busy = stage.load(served)
    busy.until(answers=50)
    own_postgresql.stop()
    until(lambda: len(busy.refused) > 10)
    status, ready = served.ask("GET", "/readyz")
    assert status == 503
    assert "secret" not in str(ready)
    own_postgresql.start()
    busy.until(answers=50)
    until(lambda: served.ask("GET", "/readyz")[0] == 200)
    busy.stop()
    assert {status for status, _ in busy.refused} == {503}
    assert not busy.broken
    assert set(busy.acknowledged) <= stage.logged(url)
