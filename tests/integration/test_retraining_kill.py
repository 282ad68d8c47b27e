"""A retraining that is killed at any step goes on, and ends as one that never was.

A look is killed (SIGKILL) at every step that it tells of, before and after every move of the run,
before and after every commit of anything written (runs, ledger, registry), and before every rename.
Then the loop looks again. By default some of the points are tried, of all kinds; all of them with
ALL_KILLS=1 in the environment.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import time_machine

from new_chemistry import LATER, START, Saved

pytestmark = pytest.mark.integration

ALL = bool(os.environ.get("ALL_KILLS"))
PARTS = 4
TRIED = 4  # one in so many of the points, by default; each part begins at another kind of them

LOOKS = {
    "retrain": "trial",
    "trial": "probation",
    "good": "promoted",
    "bad": "rolled_back",
}
"""The looks that are killed, and where each brings the run."""


@dataclass
class Course:
    """A home before each of the looks, and a process that looks in children."""

    saved: Saved
    process: "subprocess.Popen[str]"

    def look(self, home: Path, at: datetime, kill_at: int | None = None) -> dict[str, Any]:
        """Have a child look at that time, and kill itself at that point."""
        return self._ask(home, do="look", at=at.isoformat(), kill_at=kill_at)

    def recover(self, home: Path, at: datetime) -> dict[str, Any]:
        """Have a child look again."""
        return self._ask(home, do="recover", at=at.isoformat())

    def _ask(self, home: Path, **more: object) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"home": str(home), **more}) + "\n")
        self.process.stdin.flush()
        told = json.loads(self.process.stdout.readline())
        assert "error" not in told, told["error"]
        assert isinstance(told, dict)
        return told


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Course]:
    saved = Saved(tmp_path_factory.mktemp("course"))
    with time_machine.travel(START) as clock:
        saved.take_course(clock)
    environment = {name: value for name, value in os.environ.items() if "COVERAGE" not in name}
    paths = [str(Path(__file__).parents[1]), environment.get("PYTHONPATH", "")]
    process = subprocess.Popen(  # noqa: S603 - our own
        [
            sys.executable,
            str(Path(__file__).parents[1] / "killing.py"),
            str(saved.config),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment
        | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        | dict.fromkeys(("OMP_NUM_THREADS", "POLARS_MAX_THREADS"), "1"),
    )
    with process:
        yield Course(saved, process)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="module")
def never_killed(course: Course) -> Callable[[str], tuple[list[str], dict[str, Any]]]:
    """Gives the points of a look, and what is on record after it."""
    known: dict[str, tuple[list[str], dict[str, Any]]] = {}

    def of(name: str) -> tuple[list[str], dict[str, Any]]:
        if name not in known:
            with course.saved.copy(name) as (home, now):
                told = course.look(home, now + LATER)
                known[name] = told["points"], told["got"]
        return known[name]

    return of


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("name", LOOKS)
def test_a_look_that_is_killed_at_any_point_ends_as_one_that_never_was(
    course: Course,
    never_killed: Callable[[str], tuple[list[str], dict[str, Any]]],
    name: str,
    part: int,
) -> None:
    points, expected = never_killed(name)
    assert [run["state"] for run in expected["runs"]] == [LOOKS[name]]
    first, step = (part, PARTS) if ALL else (part * TRIED + part % TRIED, PARTS * TRIED)
    problems = []
    for number in range(first, len(points), step):
        with course.saved.copy(name) as (home, now):
            at = now + LATER
            assert course.look(home, at, kill_at=number)["killed"]
            told = course.recover(home, at)
        if wrong := differences(told["left"], told["got"], expected):
            problems.append(f"{number}, {points[number]}: {wrong}")
    print(f"{name}: {len(range(first, len(points), step))} of {len(points)} kills")  # noqa: T201  # shown with -s
    assert not problems, "\n".join(problems)


def differences(left: dict[str, Any], got: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """What is otherwise than in the run that was not killed."""
    found = [
        f"{what} is {got[what]}, expected {expected[what]}"
        for what in expected
        if what != "ledger" and got[what] != expected[what]
    ]
    for event in got["ledger"].keys() | expected["ledger"].keys():
        lines, wanted = got["ledger"].get(event, 0), expected["ledger"].get(event, 0)
        # a decision that was not carried out is written again, by who carries it out
        repeats = event.startswith(("gate_verdict", "model_promoted", "model_rolled_back"))
        if not wanted <= lines <= wanted + repeats:
            found.append(f"{lines} lines of {event}, expected {wanted}")
    if not left["intact"] or left["aliases"]["champion"] not in {1, 2}:
        found.append(f"left {left}")
    return found
