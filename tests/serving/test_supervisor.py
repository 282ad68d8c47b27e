"""The supervisor: as many workers as there should be, whatever the registry does meanwhile."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batteryops.errors import BatteryOpsError
from batteryops.models.package import ModelPackage
from batteryops.serving.deployment import (
    Deployment,
    RegistryState,
    deploy_package,
    read_deployment,
)
from batteryops.serving.server import listen, url_of
from batteryops.serving.supervisor import Look, Supervisor
from batteryops.settings import Settings

pytestmark = pytest.mark.integration

PATIENCE_S = 60.0


@pytest.fixture
def here(settings: Settings, tmp_path: Path) -> Settings:
    serving = settings.serving.model_copy(update={"watch_s": 0.05})
    return settings.model_copy(update={"home": tmp_path, "serving": serving})


@pytest.fixture
def deployment(package: ModelPackage) -> Deployment:
    """Of version 3, known from a registry."""
    state = RegistryState(followed=True, reachable=True, problem=None, since=datetime.now(UTC))
    alone = deploy_package(package, "3", "champion")
    return alone.model_copy(update={"registry": state})


def ask(url: str, method: str = "GET") -> Any:  # noqa: ANN401  # whatever the document holds
    """What it answers, however often a worker is not there yet."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            request = urllib.request.Request(url, method=method)  # noqa: S310  # our own server
            with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310  # the same
                return json.load(response)
        except (OSError, urllib.error.URLError):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def run(
    settings: Settings,
    deployment: Deployment,
    look: Look | None,
    visit: Callable[[str], None],
) -> None:
    """Run a supervisor of one worker; `visit` is given the URL, then it is told to stop."""
    failures: list[BaseException] = []

    def visiting(url: str) -> None:
        try:
            visit(url)
        except BaseException as error:  # noqa: BLE001  # told by the main thread
            failures.append(error)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    with listen("127.0.0.1", 0) as listener:
        url = url_of("127.0.0.1", listener)
        supervisor = Supervisor(
            settings, listener, workers=1, insecure=True, deployment=deployment, look=look
        )
        supervisor.run(lambda: threading.Thread(target=visiting, args=(url,)).start())
    for failure in failures:
        raise failure


def children(pid: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_it_follows_the_registry_and_neither_a_failure_nor_a_hanging_look_ends_it(
    here: Settings, deployment: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    hangs, may_go_on = threading.Event(), threading.Event()
    seen: list[Deployment] = []

    def look(before: Deployment) -> Deployment:
        seen.append(before)
        if len(seen) == 1:
            champion = before.champion.model_copy(update={"version": "4"})
            return before.model_copy(update={"generation": 2, "champion": champion})
        if len(seen) == 2:
            raise OSError("no space left on device")
        hangs.set()
        may_go_on.wait(PATIENCE_S)
        return before

    already = set(children(os.getpid()))

    def visit(url: str) -> None:
        while ask(f"{url}/model-version")["model_version"] != "4":
            time.sleep(0.02)
        assert hangs.wait(PATIENCE_S)
        (worker,) = set(children(os.getpid())) - already
        os.kill(worker, signal.SIGKILL)  # while nobody is there to look
        assert ask(f"{url}/model-version")["model_version"] == "4"
        (another,) = set(children(os.getpid())) - already
        assert another != worker

    try:
        run(here, deployment, look, visit)  # and it stops, though the look goes on
    finally:
        may_go_on.set()
    found = read_deployment(here.home / "serving")
    assert found is not None
    assert found.champion.version == "4"  # the last known, for another start
    assert "no space left on device" in caplog.text
    assert "ended with status -9; starting it again" in caplog.text
    assert set(children(os.getpid())) <= already


def test_a_look_that_was_asked_for_is_answered_though_nothing_is_new(
    here: Settings, deployment: Deployment
) -> None:
    def visit(url: str) -> None:
        answer = ask(f"{url}/admin/refresh", "POST")
        assert answer["generation"] == 1
        assert answer["models"] == [{"model_version": "3", "role": "champion"}]

    run(here, deployment, lambda before: before, visit)


def test_a_worker_that_cannot_start_says_why(here: Settings, deployment: Deployment) -> None:
    gone = deployment.champion.model_copy(update={"folder": here.home / "nowhere"})
    broken = deployment.model_copy(update={"champion": gone})
    with listen("127.0.0.1", 0) as listener:
        supervisor = Supervisor(
            here, listener, workers=1, insecure=True, deployment=broken, look=None
        )
        with pytest.raises(BatteryOpsError, match="nowhere"):
            supervisor.run(lambda: None)


INTERRUPTED_EVERYWHERE = """
import signal, sys
from batteryops.serving import supervisor

watching = supervisor.Supervisor.__new__(supervisor.Supervisor)
watching._news = supervisor._News()
times, within = 0, False

def interrupt(frame, event, argument):
    global times, within
    if not within:
        times, within = times + 1, True
        signal.raise_signal(signal.SIGTERM)
        within = False

with watching._stopped_by_signals():
    sys.setprofile(interrupt)
    signal.raise_signal(signal.SIGTERM)
    sys.setprofile(None)
assert times > 3 and watching._news.stopping, times
"""


def test_a_signal_that_interrupts_the_handler_of_another_does_not_wait_for_it() -> None:
    """`timeout` sends SIGTERM twice at once: to its child, and to the group that this is in."""
    command = [sys.executable, "-c", INTERRUPTED_EVERYWHERE]
    subprocess.run(command, check=True, timeout=60)  # noqa: S603 - a test's own words


def test_one_that_follows_nothing_leaves_what_others_know_alone(
    here: Settings, deployment: Deployment
) -> None:
    run(here, deployment, None, lambda url: ask(f"{url}/healthz"))
    assert read_deployment(here.home / "serving") is None
