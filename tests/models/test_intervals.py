"""Prediction intervals: they hold the prediction, and what is measured on groups never seen."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from batteryops.errors import DataError, PackageError
from batteryops.evaluation.owners import Owners
from batteryops.models.intervals import Intervals, calibrate, out_of_group_predictions

CELL = (0.0, 2.5)
SOME = Intervals(0.9, 0.05, 0.5, 0.92, 20, 400)


def mean_of_training(
    features: NDArray[np.float32], labels: NDArray[np.float64], owners: Owners
) -> "MeanOfTraining":
    """A model that always answers with the mean label it saw."""
    del features, owners
    return MeanOfTraining(float(labels.mean()))


class MeanOfTraining:
    """Answers one number."""

    def __init__(self, mean: float) -> None:
        self.mean = mean

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.full(len(features), self.mean)


@given(
    capacity=st.floats(0.0, 2.5),
    distance=st.floats(0.0, 100.0),
    score=st.one_of(st.floats(0.0, 3.0), st.just(math.inf)),
)
def test_an_interval_holds_its_prediction_and_stays_in_what_is_possible(
    capacity: float, distance: float, score: float
) -> None:
    low, high = Intervals(0.9, score, 0.5, 0.9, 9, 90).around(capacity, distance, CELL)
    assert 0.0 <= low <= capacity <= high <= 2.5


@given(st.floats(-50.0, 50.0), st.floats(0.0, 10.0))
def test_an_impossible_prediction_gives_an_interval_of_possible_capacities(
    capacity: float, distance: float
) -> None:
    low, high = SOME.around(capacity, distance, CELL)
    assert 0.0 <= low <= high <= 2.5


@given(st.floats(0.0, 20.0), st.floats(0.0, 20.0))
def test_a_row_farther_from_training_never_has_a_narrower_interval(
    one: float, other: float
) -> None:
    near, far = sorted((one, other))
    assert SOME.half_width_ah(near) <= SOME.half_width_ah(far)


def test_intervals_cover_what_they_claim_on_exchangeable_groups() -> None:
    random = np.random.default_rng(3)
    covered = []
    for _ in range(60):
        # 30 batteries of 20 cycles: an offset of their own, and noise; as many are asked
        offsets = random.normal(0.0, 0.03, 60)
        errors = offsets[:, None] + random.normal(0.0, 0.01, (60, 20))
        groups = np.repeat(np.arange(30), 20)
        found = calibrate(errors[:30].ravel(), np.zeros(600), groups)
        covered.append(float((np.abs(errors[30:]) <= found.score_ah).mean()))
    assert np.mean(covered) == pytest.approx(0.9, abs=0.025)


def test_groups_that_are_covered_wholly_or_not_at_all_need_the_rank_of_their_worst() -> None:
    # ten groups of constant error 1 to 10: at least nine of ten must be covered by the others'
    errors = np.repeat(np.arange(1.0, 11.0), 5)
    found = calibrate(errors, np.zeros(50), np.repeat(np.arange(10), 5))
    assert found.score_ah == 10.0  # the ceil(0.9 (K + 1))-th of K


def test_with_too_few_groups_nothing_is_known_and_the_interval_is_all_that_is_possible() -> None:
    errors = np.repeat([1.0, 2.0, 3.0], 5)
    found = calibrate(errors, np.zeros(15), np.repeat(["a", "b", "c"], 5))
    assert found.score_ah == math.inf
    assert found.around(1.7, 0.1, CELL) == CELL


def test_nested_calibration_never_shows_a_group_to_the_model_that_answers_for_it() -> None:
    labels = np.repeat([1.0, 2.0, 3.0], 4)
    groups = np.repeat(np.array(["a", "b", "c"], dtype=object), 4)
    given_ah = out_of_group_predictions(
        mean_of_training, np.zeros((12, 1)), labels, Owners(groups, groups), folds=9
    )
    assert given_ah.tolist() == [2.5] * 4 + [2.0] * 4 + [1.5] * 4


def test_one_group_alone_cannot_be_predicted_from_others() -> None:
    same = np.full(3, "a", dtype=object)
    alone = out_of_group_predictions(
        mean_of_training, np.zeros((3, 1)), np.ones(3), Owners(same, same), folds=5
    )
    assert np.isnan(alone).all()


def test_a_missing_residual_is_refused() -> None:
    with pytest.raises(DataError, match="not a finite number"):
        calibrate([0.1, math.nan], [0.0, 0.0], ["a", "b"])
    with pytest.raises(DataError, match="expected one of each per row"):
        calibrate([0.1, 0.2], [0.0], ["a", "b"])


@pytest.mark.parametrize("score", [0.05, math.inf])
def test_intervals_survive_their_document(score: float) -> None:
    found = Intervals(0.9, score, 0.5, 0.92, 20, 400)
    assert Intervals.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"score_ah": "wide"}, "cannot be read"),
        ({"score_ah": -1.0}, "make no sense"),
        ({"nominal": 1.0}, "make no sense"),
        ({"mean_distance": None}, "cannot be read"),
    ],
)
def test_a_document_that_is_something_else_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(PackageError, match=said):
        Intervals.from_json(SOME.to_json() | change)
