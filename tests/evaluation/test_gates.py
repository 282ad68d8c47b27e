"""Gates say no whenever they cannot say yes."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.errors import DataError, SettingsError
from batteryops.evaluation.gates import Gate, GateResult, Verdict, judge
from batteryops.settings import GateSettings, load_settings

FACTS = {"random": {"mae_ah": 0.018, "r2": 0.987}, "unseen_assets": {"mae_ah": 0.11}}
BASELINES = {"unseen_assets": {"ridge": {"mae_ah": 0.266}, "mean": {"r2": 0.0}}}


def gate(limit: str, protocol: str = "random", metric: str = "mae_ah") -> Gate:
    return Gate.parse(GateSettings(name="g", protocol=protocol, metric=metric, limit=limit))


def outcome(limit: str, protocol: str = "random", metric: str = "mae_ah") -> GateResult:
    [result] = judge([gate(limit, protocol, metric)], FACTS, BASELINES).results
    return result


@pytest.mark.parametrize(
    ("limit", "passes"),
    [
        ("< 0.020", True),
        ("< 0.018", False),
        ("<= 0.018", True),
        ("<=0.0179", False),
        ("> 0.017", True),
        ("> 0.018", False),
        (">= 1.8e-2", True),
        (">= +0.019", False),
        ("> -1", True),
    ],
)
def test_a_number_is_compared_as_it_is_written(limit: str, passes: bool) -> None:  # noqa: FBT001  # a column of the table
    assert outcome(limit).passed is passes


def test_a_baseline_is_compared_by_its_own_metric_under_the_same_protocol() -> None:
    result = outcome("< ridge", "unseen_assets")
    assert (result.passed, result.value, result.threshold) == (True, 0.11, 0.266)
    assert "as expected < ridge (0.266)" in result.reason
    assert not outcome("> ridge", "unseen_assets").passed


@given(value=st.floats(allow_nan=False, allow_infinity=False), limit=st.floats(0, 1e6))
def test_exactly_one_of_below_and_at_least_holds(value: float, limit: float) -> None:
    verdicts = [
        judge([Gate("g", "p", "m", sign, limit)], {"p": {"m": value}}, {}).passed
        for sign in ("<", ">=")
    ]
    assert sorted(verdicts) == [False, True]


def test_a_failure_says_what_was_measured_and_what_was_expected() -> None:
    assert outcome("> 0.99", metric="r2").reason == "g: random r2 is 0.987, expected > 0.99"


@pytest.mark.parametrize(
    ("limit", "protocol", "metric", "reason"),
    [
        ("< 1", "later_cycles", "mae_ah", "later_cycles was not evaluated (there is random, uns"),
        ("< 1", "random", "mae", "random has no mae (there is mae_ah, r2)"),
        ("< ridge", "random", "mae_ah", "random baseline ridge was not evaluated (there is noth"),
        ("< lasso", "unseen_assets", "mae_ah", "baseline lasso was not evaluated (there is ridge"),
        ("< mean", "unseen_assets", "mae_ah", "unseen_assets baseline mean has no mae_ah"),
    ],
)
def test_a_missing_fact_or_baseline_fails_the_gate_with_the_reason(
    limit: str, protocol: str, metric: str, reason: str
) -> None:
    result = outcome(limit, protocol, metric)
    assert not result.passed
    assert reason in result.reason


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("limit", ["< 1", "> -1", "< ridge", "> ridge"])
def test_a_fact_or_baseline_that_is_no_finite_number_fails(limit: str, bad: float) -> None:
    for value, baseline in ((bad, 0.5), (0.5, bad)):
        if "ridge" not in limit and value == 0.5:
            continue
        verdict = judge(
            [gate(limit)],
            {"random": {"mae_ah": value}},
            {"random": {"ridge": {"mae_ah": baseline}}},
        )
        assert not verdict.passed
        assert "not a finite number" in verdict.reasons[0]
        json.dumps(verdict.to_json(), allow_nan=False)


def test_a_verdict_is_yes_only_when_every_gate_is() -> None:
    gates = [Gate("a", "random", "mae_ah", "<", 0.02), Gate("b", "random", "r2", ">", 0.99)]
    verdict = judge(gates, FACTS, BASELINES)
    assert not verdict.passed
    assert [failure.name for failure in verdict.failures] == ["b"]
    assert judge(gates[:1], FACTS, BASELINES).passed


def test_without_gates_nothing_vouches_for_the_model() -> None:
    verdict = judge([], FACTS, BASELINES)
    assert not verdict.passed
    assert verdict.reasons == ("no gate is configured, so nothing vouches for the model",)


def test_gates_of_one_name_are_refused() -> None:
    twice = [Gate("a", "random", "mae_ah", "<", 0.02)] * 2
    with pytest.raises(SettingsError, match="gates share a name: a"):
        judge(twice, FACTS, BASELINES)


@pytest.mark.parametrize("limit", ["< 1.2.3", "< .", "0.02", "= 1", "< "])
def test_a_limit_that_cannot_be_read_is_refused(limit: str) -> None:
    raw = GateSettings.model_construct(name="g", protocol="p", metric="m", limit=limit)
    with pytest.raises(SettingsError, match=r"gate g: limit .* expected an operator"):
        Gate.parse(raw)


def test_the_configured_gates_can_be_read() -> None:
    gates = [Gate.parse(each) for each in load_settings().training.gates]
    assert {"random_mae", "random_r2", "unseen_beats_ridge"} <= {each.name for each in gates}
    limits = {each.name: each.limit_text for each in gates}
    assert limits["random_mae"] == "< 0.02"
    assert limits["unseen_beats_ridge"] == "< ridge"


def test_a_verdict_survives_json() -> None:
    gates = [
        Gate("a", "random", "mae_ah", "<", 0.02),
        Gate("b", "later_cycles", "r2", ">", 0.99),
        Gate("c", "unseen_assets", "mae_ah", "<", "ridge"),
    ]
    verdict = judge(gates, FACTS, BASELINES)
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"passed": True}, "passed = True but its gates say False"),
        ({"gates": [{"name": "a"}]}, "not a gate's result"),
        ({"gates": [7]}, "not a gate's result"),
        ({"gates": "none"}, "not a verdict"),
    ],
)
def test_a_verdict_that_was_changed_is_refused(change: dict[str, object], message: str) -> None:
    failed = judge([Gate("a", "random", "r2", ">", 0.99)], FACTS, {}).to_json()
    with pytest.raises(DataError, match=message):
        Verdict.from_json(failed | change)


def test_what_is_no_verdict_is_refused() -> None:
    with pytest.raises(DataError, match="not a verdict"):
        Verdict.from_json(["passed"])
