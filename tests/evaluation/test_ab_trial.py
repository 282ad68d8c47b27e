from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from scipy import stats

from batteryops.errors import DataError
from batteryops.evaluation.ab_statistics import one_sided_p
from batteryops.evaluation.ab_trial import (
    UNKNOWN,
    Answers,
    Trial,
    hides_end_of_life,
    improvement,
)


def rows(**columns: Sequence[object]) -> pl.DataFrame:
    """Two questions about each of two vehicles, answered by both models."""
    frame = pl.DataFrame(
        {
            "answer_id": ["q1", "q2", "q3", "q4"] * 2,
            "vehicle_id": ["A", "A", "B", "B"] * 2,
            "role": ["champion"] * 4 + ["challenger"] * 4,
            "absolute_error_ah": [0.04, 0.02, 0.03, 0.05, 0.01, 0.02, 0.02, 0.01],
        }
    )
    return frame.with_columns(
        pl.Series(name, values, strict=False) for name, values in columns.items()
    )


def test_answers_to_the_same_questions_are_paired_in_whatever_order_they_come() -> None:
    trial = Trial.from_frame(rows().sample(fraction=1.0, shuffle=True, seed=3), days=2.0)
    assert trial.paired
    assert trial.champion.error.tolist() == [0.04, 0.02, 0.03, 0.05]
    assert trial.challenger.error.tolist() == [0.01, 0.02, 0.02, 0.01]
    assert trial.challenger.vehicle.tolist() == ["A", "A", "B", "B"]
    assert set(trial.champion.profile) == {UNKNOWN}
    assert np.isnan(trial.champion.latency_ms).all()
    assert trial.champion.hides is None


def test_answers_to_different_questions_are_split() -> None:
    frame = rows(answer_id=[f"q{at}" for at in range(8)], vehicle_id=list("AABBCCDD"))
    trial = Trial.from_frame(frame, days=2.0)
    assert not trial.paired
    assert trial.unpaired == 0
    assert len(trial.champion.vehicle) == len(trial.challenger.vehicle) == 4


def test_questions_that_one_model_alone_answered_are_left_out_and_counted() -> None:
    trial = Trial.from_frame(rows().slice(0, 7), days=2.0)
    assert trial.unpaired == 1
    assert len(trial.champion.vehicle) == len(trial.challenger.vehicle) == 3


def test_no_label_is_null_and_no_number_is_a_failure() -> None:
    errors = [0.04, None, 0.03, 0.05, 0.01, None, float("nan"), 0.01]
    trial = Trial.from_frame(rows(absolute_error_ah=errors), days=2.0)
    assert trial.challenger.failed.tolist() == [False, False, True, False]
    assert not trial.champion.failed.any()
    champion, challenger = trial.compared
    assert champion.error.tolist() == [0.04, 0.05]
    assert challenger.error.tolist() == [0.01, 0.01]


def test_a_failure_is_known_before_its_label() -> None:
    failed = [False] * 7 + [True]
    trial = Trial.from_frame(
        rows(failed=failed, absolute_error_ah=[None] * 8).cast({"absolute_error_ah": pl.Float64}),
        days=0.1,
    )
    assert trial.challenger.failed.sum() == 1
    assert len(trial.compared[0].vehicle) == 0


def test_plain_sequences_make_answers_too() -> None:
    found = Answers.of(
        ["A", "B", "C"],
        [0.1, np.nan, np.nan],
        labelled=[True, True, False],
        profile=["cell", "cell", "pack"],
    )
    assert found.failed.tolist() == [False, True, False]
    assert found.labelled.tolist() == [True, False, False]
    assert found.profile.tolist() == ["cell", "cell", "pack"]


def test_what_is_wrong_with_a_frame_is_said() -> None:
    with pytest.raises(DataError, match="lacks vehicle_id"):
        Trial.from_frame(rows().drop("vehicle_id"), days=1.0)
    with pytest.raises(DataError, match="role referee; expected champion or challenger"):
        Trial.from_frame(rows(role=["champion"] * 4 + ["referee"] * 4), days=1.0)
    with pytest.raises(DataError, match="question q1 has two answers of one model"):
        Trial.from_frame(rows(answer_id=["q1"] * 8), days=1.0)
    with pytest.raises(DataError, match="lacks its answer_id, vehicle_id or role"):
        Trial.from_frame(rows(vehicle_id=["A", None] * 4), days=1.0)
    with pytest.raises(DataError, match="1 absolute errors are negative"):
        Trial.from_frame(rows(absolute_error_ah=[-0.04, *[0.02] * 7]), days=1.0)


def test_what_is_wrong_with_plain_sequences_is_said() -> None:
    pair = Answers.of(["A", "B"], [0.1, 0.2])
    with pytest.raises(DataError, match="do not pair"):
        Trial(pair, Answers.of(["A", "C"], [0.1, 0.2]), paired=True, days=1.0)
    with pytest.raises(DataError, match="do not pair"):
        Trial(pair, Answers.of(["A"], [0.1]), paired=True, days=1.0)
    with pytest.raises(DataError, match="trial of nan days"):
        Trial(pair, pair, paired=True, days=float("nan"))
    with pytest.raises(DataError, match="one of each per answer"):
        Answers.of(["A", "B"], [0.1])
    with pytest.raises(DataError, match="latency_ms has shape"):
        Answers.of(["A", "B"], [0.1, 0.2], latency_ms=[1.0])


def test_the_improvement_of_split_vehicles_is_welchs_on_their_means() -> None:
    rng = np.random.default_rng(0)
    champion = Answers.of(list("AABBBCCD"), rng.exponential(1.0, 8))
    challenger = Answers.of(list("EEEFFGHH"), rng.exponential(0.5, 8))
    means = [
        [one.error[one.vehicle == name].mean() for name in sorted(set(one.vehicle))]
        for one in (champion, challenger)
    ]
    theirs = stats.ttest_ind(*means, equal_var=False, alternative="greater")
    found = improvement(champion, challenger, paired=False)
    assert one_sided_p(found) == pytest.approx(theirs.pvalue)


def test_errors_that_hide_an_end_of_life_cost_more_where_it_is_known_which_do() -> None:
    hidden = hides_end_of_life([0.75, 0.79, 0.82], [0.81, 0.70, 0.85])
    assert hidden.tolist() == [True, False, False]
    found = Answers.of(["A", "B", "C"], [0.1, 0.2, 0.3], hides=hidden).weighted(5.0)
    assert found.error.tolist() == [0.5, 0.2, 0.3]
    with pytest.raises(DataError, match="give `hides`"):
        Answers.of(["A"], [0.1]).weighted(5.0)
