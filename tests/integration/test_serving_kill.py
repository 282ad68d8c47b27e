"""Acknowledged means logged: a server that is killed under load loses no answer that it gave."""

import os
import random
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

pytestmark = pytest.mark.integration


def kill_again_and_again(stage: Any, seed: int, url: str, plan: list[list[str]]) -> int:  # noqa: ANN401  # conftest's
    """Kill at random moments; after each time everything acknowledged must be on record.

    Args:
        stage: where servers run.
        seed: of the moments.
        url: of the log.
        plan: of each server, what is killed: its worker, or the whole of it.

    Returns:
        How many answers were acknowledged.
    """
    chance = random.Random(seed)  # noqa: S311  # no secret
    acknowledged = 0
    for kills in plan:
        served = stage.serve_package(environment={"BATTERYOPS_RECORDS__PREDICTIONS_URL": url})
        for kill in kills:
            busy = stage.load(served)
            busy.until(answers=50)
            time.sleep(chance.uniform(0.0, 0.1))
            if kill == "worker":
                (worker,) = served.workers()
                os.kill(worker, signal.SIGKILL)
                busy.until(answers=10)  # it is started again, at the same address
            else:
                served.kill()
            busy.stop()
            assert not busy.refused
            assert busy.broken
            missing = set(busy.acknowledged) - stage.logged(url)
            assert not missing
            acknowledged += len(busy.acknowledged)
    return acknowledged


def test_twenty_kills_lose_no_acknowledged_answer(new_stage: Callable[[], Any]) -> None:
    plan = [["worker"] * 4 + ["whole"]] * 2

    def lane(seed: int) -> int:
        stage = new_stage()
        return kill_again_and_again(stage, seed, stage.settings.predictions_url, plan)

    with ThreadPoolExecutor(2) as lanes:
        given = sum(lanes.map(lane, (1, 2)))
    print(f"20 kills, {given} answers acknowledged, none lost")  # noqa: T201  # shown with -s


def test_kills_lose_no_acknowledged_answer_on_postgresql(stage: Any, postgresql: str) -> None:  # noqa: ANN401  # conftest's
    kill_again_and_again(stage, 3, postgresql, [["worker", "whole"]])
