"""`batteryops ab` and `rollback`: what they print, and what their exit says."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from batteryops.evaluation.ab_rules import ABRules
from batteryops.evaluation.ab_testing import judge
from batteryops.evaluation.ab_trial import Answers, Trial
from batteryops.lifecycle import rollback as rollback_module
from batteryops.lifecycle import trials
from batteryops.lifecycle.loading import open_registry
from batteryops.lifecycle.promotion import promote
from batteryops.lifecycle.servers import ServerState
from batteryops.lifecycle.trials import TrialLook
from batteryops.settings import Settings, load_settings
from cli.running import Run, runner

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    return runner(monkeypatch, capsys)


@pytest.fixture
def settings(tmp_path: Path, trained_home: Path, quick_config: Path) -> Settings:
    """A home in which version 2 followed version 1 as champion."""
    shutil.copytree(trained_home, tmp_path / "home")
    found = load_settings(quick_config, home=tmp_path / "home")
    registry = open_registry(found)
    registry.register(registry.version(1).run_id, tags=registry.version(1).tags)
    promote(1, found)
    promote(2, found)
    return found


def look(less: float, **given: Any) -> TrialLook:  # noqa: ANN401 - fields of the look
    """A trial in which the challenger errs by such a share of what the champion does."""
    random = np.random.default_rng(0)
    names = [f"EV-{n:03}" for n in range(40) for _ in range(20)]
    error = np.abs(random.normal(0, 0.02, 800))
    profile = ["simulated_nmc_18650"] * 800
    trial = Trial(
        Answers.of(names, error, latency_ms=np.full(800, 2.0), profile=profile),
        Answers.of(names, less * error, latency_ms=np.full(800, 2.1), profile=profile),
        paired=True,
        days=8.0,
    )
    asked = {"champion": 900, "challenger": 900}
    failed = {"champion": 0, "challenger": 3}
    made = TrialLook(
        1, 2, NOW, NOW, NOW, trial, judge(trial, ABRules()), asked, failed, 100, sampled=True
    )
    return replace(made, **given)


@pytest.mark.parametrize(("less", "code", "says"), [(0.7, 0, "promote"), (1.5, 1, "stop for harm")])
def test_a_verdict_is_told_with_its_numbers_and_the_exit_says_it(  # noqa: PLR0913, PLR0917 - fixtures
    run: Run,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    less: float,
    code: int,
    says: str,
) -> None:
    asked: list[dict[str, Any]] = []

    def told(_settings: Settings, **given: Any) -> TrialLook:  # noqa: ANN401 - as it is called
        asked.append(given)
        return look(less)

    monkeypatch.setattr(trials, "look_at_trial", told)
    words = ["ab", "--champion", 1, "--challenger", 2, "--since", "2026-02-20"]
    ran = run(*words, "--home", settings.home)
    assert ran.code == code
    for expected in ("version 2 against version 1", "Cohen's d", "simulated_nmc_18650", "900"):
        assert expected in ran.out
    assert says in ran.err
    assert "100 pairs from before were replayed" in ran.err
    assert "a sample was looked at" in ran.err
    assert (asked[0]["champion"], asked[0]["challenger"]) == (1, 2)
    assert asked[0]["since"] == datetime(2026, 2, 20, tzinfo=UTC)
    as_json = run(*words, "--home", settings.home, "--json")
    assert as_json.code == code
    assert as_json.json["decision"] == says.replace(" ", "_")
    assert as_json.json["improvement"]["size"]["d"] == look(less).verdict.improvement.size.d  # type: ignore[union-attr]  # there is one


def test_what_cannot_be_judged_ends_with_2(run: Run, settings: Settings) -> None:
    none = run("ab", "--home", settings.home)
    assert none.code == 2
    assert "no version of ev-soh-predictor is @challenger" in none.err
    same = run(
        *("ab", "--champion", 2, "--challenger", 2, "--since", "2026-01-01"),
        *("--home", settings.home),
    )
    assert (same.code, "with itself" in same.err) == (2, True)
    later = run("ab", "--challenger", 1, "--since", "2999-01-01", "--home", settings.home)
    assert (later.code, "in the future" in later.err) == (2, True)


def test_a_trial_without_answers_goes_on(run: Run, settings: Settings) -> None:
    promote(1, settings, to="challenger")
    ran = run("ab", "--home", settings.home, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["decision"] == "continue"
    assert "the challenger has answered nothing" in ran.json["reasons"]
    assert ran.json["replayed_pairs"] == 0


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """Have servers say what is wrong with them."""

    def say(problem: str | None) -> None:
        state = ServerState("http://one:8000", "1", "f" * 64, problem, 0.5)
        monkeypatch.setattr(rollback_module, "wait_until_served", lambda *_, **__: (state,))

    return say


def test_going_back_tells_what_was_done_and_what_servers_say(
    run: Run, settings: Settings, served: Callable[[str | None], None]
) -> None:
    served(None)
    ran = run("rollback", "--reason", "it errs", "--home", settings.home)
    assert ran.code == 0, ran.err
    assert "version 1 is @champion; version 2 is archived" in ran.err
    assert "http://one:8000" in ran.out


def test_a_server_that_is_not_there_yet_ends_with_1_and_nowhere_to_go_with_2(
    run: Run, settings: Settings, served: Callable[[str | None], None]
) -> None:
    served("does not answer")
    ran = run("rollback", "--reason", "it errs", "--home", settings.home, "--json")
    assert ran.code == 1
    assert (ran.json["version"], ran.json["verified"]) == (1, False)
    assert open_registry(settings).version_at("champion").version == 1
    again = run("rollback", "--reason", "it errs", "--home", settings.home)
    assert again.code == 2
    assert "no version to go back to" in again.err
    to = run("rollback", "--reason", "it was right", "--to", 2, "--home", settings.home)
    assert to.code == 1
    assert "the registry is as it should be" in to.err
