"""Monitoring and checks on their timers, until they are told to stop."""

import queue
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from batteryops.errors import BatteryOpsError, RecordsError
from batteryops.lifecycle import schedule
from batteryops.lifecycle.progress import Silent
from batteryops.settings import Settings, load_settings
from new_chemistry import loop_config

PATIENCE_S = 60.0
SOON = 0.02 / 60.0  # minutes

LOOP = "loop"

Heard = queue.Queue[Any]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    config = loop_config(
        tmp_path / "config.yaml", check_every_minutes=SOON, monitor_every_minutes=SOON
    )
    return load_settings(config, home=tmp_path / "home")


@contextmanager
def keeping(settings: Settings, stop: threading.Event | None = None) -> Iterator[Heard]:
    """Keep checking while the block runs; what is heard meanwhile. It has stopped after."""
    heard: Heard = queue.Queue()
    stop = stop or threading.Event()
    loop = threading.Thread(
        name=LOOP,
        target=schedule.keep_checking,
        args=(settings, Silent, heard.put, stop),
        daemon=True,
    )
    loop.start()
    try:
        yield heard
    finally:
        stop.set()
        loop.join(PATIENCE_S)
        assert not loop.is_alive()


def plant(
    monkeypatch: pytest.MonkeyPatch, check: Callable[[], object], monitor: Callable[[], object]
) -> None:
    """Put other jobs in the place of the two."""
    monkeypatch.setattr(schedule, "check", lambda *_: check())
    monkeypatch.setattr(schedule, "run_monitoring", lambda *_: monitor())


def until(heard: Heard, wanted: object) -> list[object]:
    """What is heard until that is, and that."""
    found: list[object] = []
    while not found or found[-1] != wanted:
        found.append(heard.get(timeout=PATIENCE_S))
    return found


def test_both_jobs_run_again_and_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, lambda: "checked", lambda: "monitored")
    with keeping(settings) as heard:
        for _ in range(3):
            until(heard, "checked")
            until(heard, "monitored")


def test_the_first_check_is_at_once_and_monitoring_waits(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours = settings.retraining.model_copy(
        update={"check_every_minutes": 600.0, "monitor_every_minutes": 600.0}
    )
    plant(monkeypatch, lambda: "checked", lambda: "monitored")
    with keeping(settings.model_copy(update={"retraining": hours})) as heard:
        assert heard.get(timeout=PATIENCE_S) == "checked"
    assert heard.empty()


def test_a_store_that_is_out_of_reach_is_told_and_tried_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = RecordsError("the database is out of reach")
    answers: Iterator[object] = iter([broken, broken, "checked"])

    def check() -> object:
        answer = next(answers, "checked again")
        if isinstance(answer, BatteryOpsError):
            raise answer
        return answer

    plant(monkeypatch, check, lambda: "monitored")
    with keeping(settings) as heard:
        told = until(heard, "checked")
    assert told.count(broken) == 2


def test_a_real_home_without_a_champion_is_told_of_and_looked_at_again(
    settings: Settings, trained_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "run_monitoring", lambda *_: "monitored")
    shutil.copytree(trained_home, settings.home)
    with keeping(settings) as heard:
        for _ in range(2):
            said = None
            while not isinstance(said, BatteryOpsError):
                said = heard.get(timeout=PATIENCE_S)
            assert re.match("no version of .* is @champion", str(said))


def test_a_job_is_not_begun_while_it_is_at_work_and_holds_up_no_other(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, go_on, twice = threading.Lock(), threading.Event(), threading.Event()
    begun = threading.Event()

    def check() -> object:
        if not at_work.acquire(blocking=False):
            twice.set()
            return "twice"
        begun.set()
        assert go_on.wait(PATIENCE_S)
        at_work.release()
        return "checked"

    plant(monkeypatch, check, lambda: "monitored")
    with keeping(settings) as heard:
        assert begun.wait(PATIENCE_S)
        for _ in range(5):  # so often a check was due meanwhile
            until(heard, "monitored")
        go_on.set()
        until(heard, "checked")
    assert not twice.is_set()


def test_what_is_under_way_is_finished_when_it_is_told_to_stop(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, stop = threading.Event(), threading.Event()

    def check() -> object:
        (loop,) = [thread for thread in threading.enumerate() if thread.name == LOOP]
        begun.set()
        assert stop.wait(PATIENCE_S)
        loop.join(0.2)  # which it would be after, were this not waited for
        return "waited for" if loop.is_alive() else "left behind"

    plant(monkeypatch, check, lambda: "monitored")
    with keeping(settings, stop) as heard:
        assert begun.wait(PATIENCE_S)
    assert "waited for" in [heard.get_nowait() for _ in range(heard.qsize())]
