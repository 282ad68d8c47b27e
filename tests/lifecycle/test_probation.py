"""A new champion stays, or goes back: each reason by itself, and none on too little."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from batteryops.evaluation.ab_rules import ABRules
from batteryops.evaluation.ab_trial import Answers, Trial
from batteryops.lifecycle.probation import ProbationFacts, ProbationRules, judge_probation
from batteryops.settings import load_settings

RULES = ProbationRules(14.0, 100, 30, 0.10, 0.05, ABRules())
QUIET = ProbationFacts(days=3.0, asked=500, failed=0, out_of_range=0, pairs=None)


def pairs(more_ah: float, vehicles: int = 20, each: int = 5) -> Trial:
    """A new champion that errs so much more than the one before, whose errors scatter by 10 mAh."""
    random = np.random.default_rng(5)
    names = [f"EV-{n:03}" for n in range(vehicles) for _ in range(each)]
    before = np.abs(random.normal(0.03, 0.01, len(names)))
    new = np.abs(before + more_ah + random.normal(0, 0.003, len(names)))
    return Trial(Answers.of(names, before), Answers.of(names, new), paired=True, days=3.0)


def test_its_rules_are_those_of_the_settings() -> None:
    settings = load_settings(Path(__file__).parents[2] / "config" / "production.yaml")
    rules = ProbationRules.of(settings)
    assert (rules.days, rules.max_out_of_range_share, rules.min_labels) == (14.0, 0.10, 30)
    assert rules.trial.min_vehicles == settings.retraining.trial.min_vehicles


def test_without_a_fault_it_goes_on_until_its_days_are_over() -> None:
    assert judge_probation(QUIET, RULES).decision == "continue"
    verdict = judge_probation(replace(QUIET, days=14.0), RULES)
    assert verdict.decision == "good"
    assert "0 labelled questions, too few to judge errors by" in verdict.reasons


@pytest.mark.parametrize(("out_of_range", "decision"), [(50, "continue"), (51, "roll_back")])
def test_more_than_a_tenth_of_impossible_answers_sends_it_back(
    out_of_range: int, decision: str
) -> None:
    assert judge_probation(replace(QUIET, out_of_range=out_of_range), RULES).decision == decision


@pytest.mark.parametrize(("failed", "decision"), [(25, "continue"), (26, "roll_back")])
def test_questions_without_a_number_send_it_back(failed: int, decision: str) -> None:
    verdict = judge_probation(replace(QUIET, failed=failed), RULES)
    assert verdict.decision == decision
    assert ("26 of 500 questions got no number" in verdict.reasons[0]) == (failed == 26)


def test_shares_of_few_answers_decide_nothing() -> None:
    few = replace(QUIET, asked=99, out_of_range=99, failed=0)
    assert judge_probation(few, RULES).decision == "continue"
    assert judge_probation(replace(few, asked=100, out_of_range=99), RULES).decision == "roll_back"


def test_more_errors_than_the_champion_before_send_it_back() -> None:
    verdict = judge_probation(replace(QUIET, pairs=pairs(0.02)), RULES)
    assert verdict.decision == "roll_back"
    assert "errs 0.0203 Ah more than the champion before" in verdict.reasons[0]
    assert verdict.look is not None
    assert verdict.to_json()["look"]["improvement"]["high"] < 0


@pytest.mark.parametrize(
    "given",
    [pairs(-0.01), pairs(0.02, vehicles=9, each=10), pairs(0.02, vehicles=14, each=2)],
    ids=["errs less", "few vehicles", "few labels"],
)
def test_errors_that_show_nothing_do_not(given: Trial) -> None:
    assert judge_probation(replace(QUIET, pairs=given), RULES).decision == "continue"


def test_a_fault_on_the_last_day_counts() -> None:
    late = replace(QUIET, days=20.0, pairs=pairs(0.02))
    assert judge_probation(late, RULES).decision == "roll_back"


def test_looking_every_hour_seldom_sends_a_good_champion_back() -> None:
    """Twenty champions no worse than the one before, looked at as pairs come in: none goes back."""
    wrong = 0
    for seed in range(20):
        random = np.random.default_rng(seed)
        names = np.array([f"EV-{n % 25:03}" for n in range(400)])
        before, new = np.abs(random.normal(0, 0.03, (2, 400)))
        looks = (
            Trial(
                Answers.of(list(names[:n]), before[:n]),
                Answers.of(list(names[:n]), new[:n]),
                paired=True,
                days=1.0,
            )
            for n in range(40, 401, 20)
        )
        found = [judge_probation(replace(QUIET, pairs=look), RULES).decision for look in looks]
        wrong += "roll_back" in found
    assert wrong <= 2  # 5 percent of 20 is 1
