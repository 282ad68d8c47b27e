import json
from dataclasses import replace

import numpy as np
import pytest

from batteryops.errors import DataError, SettingsError
from batteryops.evaluation.ab_groups import judge_groups
from batteryops.evaluation.ab_rules import ABRules
from batteryops.evaluation.ab_statistics import holm
from batteryops.evaluation.ab_testing import ABVerdict, Answers, Trial, judge
from batteryops.evaluation.ab_trial import UNKNOWN

VEHICLES, ANSWERS = 60, 30


def fleet(
    seed: int = 0,
    *,
    worse: float = 0.7,
    worse_below_80: float | None = None,
    paired: bool = True,
    vehicles: int = VEHICLES,
) -> tuple[Answers, Answers]:
    """Answers of two models whose errors agree, as those of two fits to like data do.

    A vehicle has a lasting bias and a scale of its own, and the challenger's errors are `worse`
    times the champion's in the mean, more or less so by vehicle; a third of the vehicles has an SoH
    below 0.8, half of them are packs. Where split, every other vehicle is the challenger's.
    """
    rng = np.random.default_rng(seed)
    code = np.repeat(np.arange(vehicles), ANSWERS)
    bias, scale = rng.normal(0.0, 0.01, vehicles), 0.02 * rng.lognormal(0.0, 0.2, vehicles)
    shared, own = rng.normal(size=(2, code.size))
    champion = np.abs(bias[code] + scale[code] * shared)
    factor = np.full(vehicles, worse)
    if worse_below_80 is not None:
        factor[np.arange(vehicles) % 3 == 0] = worse_below_80
    factor *= np.exp(rng.normal(0.0, 0.15, vehicles))
    challenger = factor[code] * np.abs(bias[code] + scale[code] * (0.8 * shared + 0.6 * own))
    order = rng.permutation(code.size)  # of time
    code, champion, challenger = code[order], champion[order], challenger[order]
    names = np.array([f"V{at:03}" for at in range(vehicles)], dtype=object)[code]
    mine = [
        Answers.of(
            names,
            error,
            profile=[("cell", "pack")[at % 2] for at in code],
            soh_band=[("<0.8", "0.8-0.9", ">0.9")[at % 3] for at in code],
            latency_ms=rng.gamma(4.0, 0.5, code.size),
        )
        for error in (champion, challenger)
    ]
    if not paired:
        turn = code // 2 % 2 == 0
        mine = [mine[0].take(turn), mine[1].take(~turn)]
    return mine[0], mine[1]


def after(both: tuple[Answers, Answers], days: float, *, paired: bool = True) -> Trial:
    """The trial of 28 days so far."""
    first, second = (
        one.take(np.arange(len(one.vehicle)) < days / 28 * len(one.vehicle)) for one in both
    )
    return Trial(first, second, paired=paired, days=days)


def ended(both: tuple[Answers, Answers], *, paired: bool = True) -> ABVerdict:
    """The first verdict that ends the trial, or the last."""
    for days in (1.0, 3.0, 5.0, 7.0, 10.0, 14.0, 21.0, 28.0):
        found = judge(after(both, days, paired=paired))
        if found.decision != "continue":
            break
    return found


def test_a_better_challenger_is_promoted_with_its_numbers() -> None:
    found = judge(after(fleet(), 14.0))
    assert found.decision == "promote"
    assert found.design == "paired"
    assert found.improvement is not None
    assert found.improvement.p < 0.05
    assert 0.0 < found.improvement.low < found.improvement.effect < found.improvement.high
    assert found.improvement.size.d > 0.2
    assert found.champion.mae_ah is not None
    assert found.challenger.mae_ah is not None
    assert found.improvement.effect == pytest.approx(
        found.champion.mae_ah - found.challenger.mae_ah
    )
    assert {group.status for group in found.groups} == {"not inferior"}
    assert [group.name for group in found.groups] == ["cell", "pack", "0.8-0.9", "<0.8", ">0.9"]
    assert "not inferior for profile cell" in found.reasons[-1]


def test_no_rule_is_met_by_what_is_far_too_early_and_all_that_is_missing_is_told() -> None:
    found = judge(after(fleet(), 3.0))
    assert found.decision == "continue"
    assert found.reasons == (
        "3 days, expected 7",
        "193 labelled answers of the champion, expected 500",
        "193 labelled answers of the challenger, expected 500",
    )


def test_a_verdict_is_json() -> None:
    for days in (0.0, 0.2, 14.0):
        given = json.loads(json.dumps(judge(after(fleet(), days)).to_json(), allow_nan=False))
        assert given["decision"] in {"continue", "promote"}
        assert given["rules"]["min_predictions"] == 500
    assert given["improvement"]["size"]["d_bounds"]["low"] > 0.2


@pytest.mark.parametrize("paired", [True, False], ids=["paired", "split"])
def test_of_50_planted_worse_challengers_none_is_promoted_at_any_look(paired: bool) -> None:  # noqa: FBT001  # a case, not an option
    decisions = [
        ended(fleet(seed, worse=1.15, paired=paired), paired=paired).decision for seed in range(50)
    ]
    assert "promote" not in decisions
    if paired:
        assert decisions.count("stop_for_harm") > 40


def test_of_50_challengers_that_are_worse_near_the_end_of_life_none_is_promoted() -> None:
    ends = [ended(fleet(seed, worse=0.6, worse_below_80=1.5)) for seed in range(50)]
    assert all(one.decision != "promote" for one in ends)
    told = [one for one in ends if one.decision == "reject"]
    assert len(told) > 40
    assert all("soh_band <0.8" in one.reasons[0] for one in told)


def test_good_challengers_are_promoted_sooner_where_they_shadow_than_where_split() -> None:
    shadowed = [ended(fleet(seed)) for seed in range(20)]
    split = [ended(fleet(seed, paired=False), paired=False) for seed in range(20)]
    assert all(one.decision == "promote" for one in shadowed)
    assert any(one.decision == "promote" for one in split)
    assert min(one.days for one in split) >= 7.0
    assert sum(one.days for one in shadowed) < 0.8 * sum(one.days for one in split)


def test_the_same_model_again_is_never_promoted() -> None:
    champion, _ = fleet()
    found = judge(Trial(champion, champion, paired=True, days=20.0))
    assert found.decision == "reject"
    assert "above 0.2 is asked for" in found.reasons[0]


def test_an_improvement_that_may_be_chance_waits_however_large_it_looks() -> None:
    champion, challenger = fleet(vehicles=20)
    factor = np.array([2.0 if name < "V005" else 0.2 for name in challenger.vehicle])
    error = factor * champion.error
    found = judge(
        Trial(champion, replace(challenger, error=error), paired=True, days=9.0),
        ABRules(min_group_vehicles=100),
    )
    assert found.improvement is not None
    assert found.improvement.size.d > 0.2
    assert found.improvement.p_one_look < 0.05
    assert found.decision == "continue"
    assert found.reasons == (f"p = {found.improvement.p:.3g} at every look, expected < 0.05",)


def test_an_improvement_that_may_yet_prove_large_enough_waits_though_it_is_certain() -> None:
    found = judge(after(fleet(worse=0.87), 14.0))
    assert found.improvement is not None
    assert found.improvement.p < 0.05
    assert found.decision == "continue"
    assert found.reasons == (f"Cohen's d = {found.improvement.size.d:.3g}, expected > 0.2",)


def test_claims_about_groups_hold_together() -> None:
    champion, challenger = (
        replace(one, profile=np.full(one.profile.shape, UNKNOWN, dtype=object))
        for one in fleet(worse=0.95)
    )
    together = judge_groups(champion, challenger, ABRules(), paired=True)
    alone = []
    for name in ("0.8-0.9", "<0.8", ">0.9"):
        rows = champion.soh_band == name
        (one,) = judge_groups(champion.take(rows), challenger.take(rows), ABRules(), paired=True)
        alone.append(one.p_not_inferior or 0.0)
    assert [group.by for group in together] == ["soh_band"] * 3
    assert [group.p_not_inferior for group in together] == pytest.approx(list(holm(alone)))


def test_a_pair_belongs_to_the_group_that_the_champions_answer_names() -> None:
    champion, challenger = fleet()
    silent = replace(challenger, soh_band=np.full(challenger.soh_band.shape, UNKNOWN, dtype=object))
    told = judge_groups(champion, challenger, ABRules(), paired=True)
    assert judge_groups(champion, silent, ABRules(), paired=True) == told


def test_an_improvement_too_small_to_matter_is_rejected_though_it_is_certain() -> None:
    found = judge(after(fleet(worse=0.92, vehicles=300), 28.0))
    assert found.improvement is not None
    assert found.improvement.p < 0.05
    assert found.decision == "reject"
    assert "Cohen's d" in found.reasons[0]


def test_without_any_label_a_trial_goes_on_and_says_so_until_its_time_is_over() -> None:
    champion, challenger = (replace(one, error=one.error * np.nan) for one in fleet())
    trial = Trial(champion, challenger, paired=True, days=9.0)
    found = judge(trial)
    assert found.decision == "continue"
    assert found.reasons == (
        "no label has come for the champion's 1800 answers",
        "no label has come for the challenger's 1800 answers",
    )
    assert found.improvement is None
    late = judge(replace(trial, days=60.0))
    assert late.decision == "reject"
    assert late.reasons[0] == "not shown to be better within 60 days"


def test_labels_of_one_vehicle_alone_decide_nothing_however_many_they_are() -> None:
    champion, challenger = (
        replace(one, vehicle=np.full(one.vehicle.shape, "V1", dtype=object)) for one in fleet()
    )
    found = judge(Trial(champion, challenger, paired=True, days=9.0))
    assert found.decision == "continue"
    assert found.improvement is None
    assert "one vehicle says nothing of others" in found.reasons[0]
    assert {group.status for group in found.groups} == {"too few"}


def test_a_challenger_that_answers_no_number_is_stopped_before_any_label() -> None:
    champion, challenger = (replace(one, error=one.error * np.nan) for one in fleet())
    failed = np.arange(len(challenger.vehicle)) % 40 == 0
    trial = Trial(champion, replace(challenger, failed=failed), paired=True, days=0.1)
    found = judge(trial)
    assert found.decision == "stop_for_harm"
    assert "gave no number for 45 of 1800 questions" in found.reasons[0]
    alike = judge(replace(trial, champion=replace(champion, failed=failed)))
    assert alike.decision == "continue"


def test_a_single_answer_without_a_number_ends_nothing() -> None:
    champion, challenger = after(fleet(), 1.0).compared
    failed = np.arange(len(challenger.vehicle)) == 3
    error = np.where(failed, np.nan, challenger.error)
    found = judge(
        Trial(champion, replace(challenger, failed=failed, error=error), paired=True, days=1.0)
    )
    assert found.decision == "continue"
    assert found.challenger.failed == 1
    assert found.challenger.compared == len(failed) - 1


def test_a_slower_challenger_is_rejected_however_well_it_answers() -> None:
    champion, challenger = fleet()
    slower = replace(challenger, latency_ms=1.3 * champion.latency_ms)
    found = judge(Trial(champion, slower, paired=True, days=9.0))
    assert found.decision == "reject"
    assert len(found.reasons) == 1
    assert "takes 1.3 times as long as the champion" in found.reasons[0]


def test_a_challenger_whose_latency_is_not_known_waits() -> None:
    champion, challenger = fleet()
    unknown = replace(challenger, latency_ms=np.full(challenger.vehicle.shape, np.nan))
    found = judge(Trial(champion, unknown, paired=True, days=9.0))
    assert found.decision == "continue"
    assert found.reasons == ("how long the models take is not known",)


def test_an_empty_trial_and_an_empty_side_are_told() -> None:
    champion, _ = fleet()
    nothing = Answers.of([], [])
    empty = judge(Trial(nothing, nothing, paired=True, days=0.0))
    assert empty.decision == "continue"
    assert "the champion has answered nothing" in empty.reasons
    assert empty.groups == ()
    one_sided = judge(
        Trial(champion, nothing, paired=False, days=0.5), ABRules(sample_ratio_level=1e-300)
    )
    assert one_sided.decision == "continue"
    assert "the challenger has answered nothing" in one_sided.reasons
    assert {group.status for group in one_sided.groups} == {"too few"}
    assert one_sided.groups[0].challenger_mae_ah is None


def test_a_split_that_is_not_by_chance_is_no_trial() -> None:
    champion, challenger = fleet(paired=False)
    few = challenger.take(np.isin(challenger.vehicle, sorted(set(challenger.vehicle))[:8]))
    found = judge(Trial(champion, few, paired=False, days=9.0))
    assert found.decision == "reject"
    assert found.sample_ratio_p == pytest.approx(0.00036, abs=0.00002)
    assert "it was not chance that split them" in found.reasons[0]
    meant = judge(Trial(champion, few, paired=False, days=9.0), ABRules(challenger_share=0.2))
    assert meant.decision == "continue"


def test_vehicles_that_both_models_answered_are_no_split() -> None:
    champion, challenger = fleet()
    found = judge(Trial(champion, challenger, paired=False, days=9.0))
    assert found.decision == "reject"
    assert "60 vehicles were answered by both models, among them V000" in found.reasons[0]


def test_many_questions_that_one_model_alone_answered_hold_a_promotion_back() -> None:
    found = judge(replace(after(fleet(), 14.0), unpaired=200))
    assert found.decision == "continue"
    assert "200 of 1100 questions were answered by one model alone" in found.reasons[0]


def test_a_group_of_few_vehicles_decides_nothing_and_is_named() -> None:
    champion, challenger = fleet(vehicles=42)  # 21 of each profile, 14 of each band
    found = judge(Trial(champion, challenger, paired=True, days=9.0))
    assert found.decision == "promote"
    assert found.reasons[-1] == (
        "too few vehicles to judge soh_band 0.8-0.9, soh_band <0.8, soh_band >0.9"
    )


def test_hidden_ends_of_life_can_turn_a_verdict() -> None:
    champion, challenger = fleet(worse=0.75)
    hides = np.arange(len(champion.vehicle)) % 5 == 0
    trial = Trial(
        replace(champion, hides=np.zeros(hides.shape, dtype=bool)),
        replace(challenger, hides=hides),
        paired=True,
        days=14.0,
    )
    assert judge(trial).decision == "promote"
    dear = judge(trial, ABRules(hidden_cost=5.0))
    assert dear.decision == "stop_for_harm"
    assert dear.challenger.mae_ah == judge(trial).challenger.mae_ah
    with pytest.raises(DataError, match="give `hides`"):
        judge(after(fleet(), 14.0), ABRules(hidden_cost=5.0))


def far_off(share: float, worse_below_80: float | None = None) -> tuple[Answers, Answers]:
    """A champion that a change put far off; the challenger errs a share of that."""
    both = fleet(worse=share, worse_below_80=worse_below_80)
    return tuple(replace(one, error=8.0 * one.error) for one in both)  # type: ignore[return-value]  # two


def test_where_far_more_is_sure_to_be_gained_a_day_is_enough() -> None:
    soon = after(far_off(0.2), 2.0)
    found = judge(soon)
    assert found.decision == "promote"
    assert found.improvement is not None
    assert found.improvement.low > 0.03
    assert any(reason.startswith("urgent, after 2 days") for reason in found.reasons)
    assert judge(soon, ABRules(urgent_gain_ah=1.0)).decision == "continue"
    assert judge(soon, ABRules(urgent_days=2.5)).reasons == ("2 days, expected 2.5",)
    assert "expected 140" in judge(soon, ABRules(urgent_predictions=140)).reasons[0]


def test_where_it_is_urgent_nobody_waits_for_a_group_that_may_be_harmed() -> None:
    few = ABRules(min_group_vehicles=10)
    soon = after(far_off(0.2, worse_below_80=1.0), 3.0)
    found = judge(soon, few)
    assert found.decision == "promote"
    assert "urgent, though not shown to be no worse for soh_band <0.8" in found.reasons
    calm = judge(soon, replace(few, urgent_gain_ah=1.0))
    assert any(reason.startswith("soh_band <0.8: not shown") for reason in calm.reasons)
    harmed = judge(after(far_off(0.2, worse_below_80=2.0), 10.0), few)
    assert harmed.decision == "reject"


def test_a_trial_is_not_urgent_for_a_gain_that_chance_may_have_made() -> None:
    found = judge(after(far_off(0.85), 2.0))
    assert found.improvement is not None
    assert found.improvement.effect > 0.015
    assert found.decision == "continue"
    assert "2 days, expected 7" in found.reasons


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("level", 0.0),
        ("level", float("nan")),
        ("margin_share", -0.1),
        ("min_predictions", 1),
        ("max_failed_share", 2.0),
        ("min_days", 90.0),
        ("urgent_days", 8.0),
        ("urgent_gain_ah", 0.0),
        ("hidden_cost", 0.5),
    ],
)
def test_rules_that_no_trial_can_be_judged_by_are_refused(rule: str, value: float) -> None:
    with pytest.raises(SettingsError, match="expected"):
        ABRules(**{rule: value})  # type: ignore[arg-type]  # some are whole numbers
