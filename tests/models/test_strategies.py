"""Strategies: each is judged on batteries that it did not see, and one is chosen for a reason."""

import json

import numpy as np
import pytest
import xgboost as xgb

from batteryops.errors import DataError, SettingsError
from batteryops.models import strategies
from batteryops.models.acceptance import Errors, Judges, Limits
from batteryops.models.boosting import predict
from batteryops.models.labelled import LabelledRows
from batteryops.models.strategies import (
    Candidate,
    Comparison,
    Plan,
    _too_late,
    _Way,
    choose,
    run_strategies,
)
from models.labelled_fleets import (
    PARAMETERS,
    fleet,
    new_fleet,
    old_fleet,
    old_model,
    plain_rows,
    unseen_old,
)


def compare(plan: Plan, judges: Judges | None = None) -> Comparison:
    return run_strategies(
        old_model(),
        new_fleet(),
        old_fleet(),
        parameters=PARAMETERS,
        seed=1,
        plan=plan,
        judges=judges,
    )


def mae_ah(booster: xgb.Booster, rows: LabelledRows) -> float:
    """Over batteries, each weighing the same, which they do as each has as many rows."""
    return float(np.abs(predict(booster, rows.features) - rows.labels).mean())


def judges() -> Judges:
    return Judges(fleet("LFP", vehicles=6, cycles=12, seed=9), unseen_old())


def test_what_was_judged_is_what_serves_where_judges_are_given() -> None:
    before = bytes(old_model().save_raw("ubj"))

    found = compare(Plan(budget_s=1e9), judges())

    assert [one.name for one in found.candidates] == [
        "warm_start_10",
        "warm_start_50",
        "fine_tune_30",
        "fine_tune_100",
        "ensemble_0.3",
        "ensemble_fitted",
        "full",
    ]
    assert found.chosen is not None
    assert found.chosen.errors is not None
    assert found.booster is not None
    assert mae_ah(found.booster, judges().old) == pytest.approx(found.chosen.errors.old_ah)
    assert mae_ah(found.booster, judges().new) == pytest.approx(found.chosen.errors.new_ah)
    assert found.current.new_ah == pytest.approx(mae_ah(old_model(), judges().new))
    assert found.chosen.errors.new_ah < 0.5 * found.current.new_ah
    assert bytes(old_model().save_raw("ubj")) == before


def test_without_unseen_judges_a_stand_in_is_judged_and_the_model_itself_is_continued() -> None:
    found = compare(Plan(strategies=("warm_start",), rounds=(10,)))

    assert found.booster is not None
    assert found.booster.num_boosted_rounds() == 90
    # the stand-in errs on the past as on batteries that it has not seen, not as on its own rows
    honest, own = mae_ah(old_model(), unseen_old()), mae_ah(old_model(), old_fleet())
    assert found.current.old_ah > 0.7 * honest > 2 * own
    assert mae_ah(found.booster, unseen_old()) < 1.1 * honest


def test_a_candidate_that_passes_on_the_new_and_fails_on_the_old_is_refused() -> None:
    found = compare(Plan(strategies=("fine_tune",), last=(80,), replay=0.01), judges())

    (candidate,) = found.candidates
    assert candidate.outcome == "refused"
    assert candidate.reason.startswith("it forgets: old MAE")
    assert candidate.errors is not None
    assert candidate.errors.new_ah < 0.5 * found.current.new_ah
    assert found.chosen is None
    assert found.booster is None
    assert "the current model stays" in found.reason


def test_what_the_budget_does_not_allow_is_not_begun() -> None:
    found = compare(Plan(budget_s=0.0), judges())

    assert {one.outcome for one in found.candidates} == {"skipped"}
    assert "budget of 0 s is spent" in found.candidates[0].reason
    assert found.chosen is None


def test_a_full_fit_that_would_take_too_long_is_not_begun() -> None:
    tried = [Candidate("ensemble_0.3", "passed", "", work=100, seconds=1.0)]
    way = _Way("full", 6_000, old_model)

    assert "about 60 s" in _too_late(way, tried, 1.0, Plan(budget_s=50.0))
    assert not _too_late(way, tried, 1.0, Plan(budget_s=62.0))


def test_a_strategy_that_fails_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*given: object, **more: object) -> xgb.Booster:
        raise DataError(f"{len(given) + len(more)} things went wrong\nmore of it")

    monkeypatch.setattr(strategies, "warm_start", broken)

    found = compare(Plan(strategies=("warm_start", "full"), rounds=(10,)), judges())

    assert [one.outcome for one in found.candidates] == ["failed", "passed"]
    assert found.candidates[0].reason == "7 things went wrong"
    assert found.chosen is found.candidates[1]


def candidate(name: str, error_ah: float, work: int) -> Candidate:
    return Candidate(name, "passed", "", work, Errors(error_ah, error_ah))


def test_of_the_equally_good_the_cheapest_is_chosen() -> None:
    cheap, dear = candidate("cheap", 0.0208, 10), candidate("dear", 0.0200, 1000)
    worse = candidate("worse", 0.0220, 1)

    chosen, reason = choose([cheap, dear, worse], Plan(tie=0.05))
    assert chosen is cheap
    assert reason == (
        "cheap: error 0.0208 Ah over old and new; dear has 0.0200 for 100.0 times the work"
    )
    chosen, reason = choose([cheap, dear, worse], Plan(tie=0.01))
    assert chosen is dear
    assert reason.endswith("the least of 3 that pass")


def test_a_model_that_grew_too_large_is_refused() -> None:
    found = compare(Plan(strategies=("warm_start",), rounds=(10,), max_trees=85), judges())

    assert found.candidates[0].outcome == "refused"
    assert found.candidates[0].reason == "it has 90 trees, at most 85 are wanted"


def test_the_comparison_is_a_table_metrics_and_json() -> None:
    found = compare(Plan(strategies=("warm_start", "full"), rounds=(10,)), judges())

    told = json.loads(json.dumps(found.to_json(), allow_nan=False))
    table = found.table()
    assert told["candidates"][0]["name"] == "warm_start_10"
    assert told["rows"]["new_learned"] == len(new_fleet())
    assert table["strategy"].to_list() == ["warm_start_10", "full"]
    assert table["chosen"].sum() == 1
    assert table["mae_old_ah"].to_list() == [
        one.errors.old_ah for one in found.candidates if one.errors
    ]
    assert found.metrics["strategies.full.mae_new_ah"] == table["mae_new_ah"][1]


def test_trends_are_not_tuned_away() -> None:
    found = run_strategies(
        old_model(),
        new_fleet(),
        old_fleet(),
        parameters=PARAMETERS,
        seed=1,
        plan=Plan(strategies=("fine_tune",)),
        judges=judges(),
        trends=(1, 0, 0, 0, 0, 0, 0),
    )

    assert found.candidates == ()
    assert found.chosen is None


def test_bad_input_is_refused() -> None:
    one = new_fleet()[new_fleet().owners.assets == new_fleet().assets[0]]
    with pytest.raises(DataError, match="wait for labels of other batteries"):
        run_strategies(old_model(), one, old_fleet(), parameters=PARAMETERS, seed=1)
    other = plain_rows([[1.0], [2.0]], [1.0, 2.0])
    with pytest.raises(DataError, match="the rows have the features a"):
        run_strategies(old_model(), other, other, parameters=PARAMETERS, seed=1)
    with pytest.raises(SettingsError, match="no strategy magic; expected some of warm_start"):
        Plan(strategies=("magic",))
    with pytest.raises(SettingsError, match="replay above 0"):
        Plan(replay=0.0)
    with pytest.raises(SettingsError, match="min_gain of 0 to 1"):
        Limits(min_gain=float("nan"))
