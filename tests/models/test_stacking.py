"""Stacking: shares that a formula gives, from predictions of rows that were held out."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.errors import DataError
from batteryops.evaluation.owners import Owners
from batteryops.models.algorithms import Floats, GroupedFit, Matrix, Predict
from batteryops.models.intervals import out_of_group_predictions
from batteryops.models.offers import features_used
from batteryops.models.stacking import Stack, StackFit, choose, out_of_group

LABELS = np.linspace(1.0, 2.0, 40)
GROUPS = np.array([f"cell {row // 10}" for row in range(40)], dtype=object)


def test_two_that_err_independently_share_by_their_variances() -> None:
    """Bates and Granger 1969: of uncorrelated errors, the shares go as the inverse variances."""
    wave = np.tile([1.0, -1.0], 20)
    slow = np.tile([1.0, 1.0, -1.0, -1.0], 10)  # orthogonal to `wave`, and both to a constant

    found = choose({"near": LABELS + 0.1 * wave, "far": LABELS + 0.2 * slow}, LABELS, GROUPS, top=2)

    assert found.members == ("near", "far")
    assert found.weights == pytest.approx((0.8, 0.2), abs=1e-4)
    assert str(found) == "0.80 near + 0.20 far"


def test_the_best_few_are_taken_each_group_weighing_the_same() -> None:
    """`long` errs on the three small groups, `short` on the one that has most of the rows."""
    groups = np.array(["big"] * 37 + ["a", "b", "c"], dtype=object)
    long, short = LABELS.copy(), LABELS.copy()
    long[37:] += 0.2
    short[:37] += 0.2

    found = choose({"long": long, "short": short, "none": LABELS + 9.0}, LABELS, groups, top=1)

    assert found == Stack(("short",), (1.0,))


@given(st.lists(st.floats(-0.5, 0.5), min_size=2, max_size=5))
def test_shares_are_never_negative_and_sum_to_one(offsets: list[float]) -> None:
    held_out = {f"m{place}": LABELS + offset for place, offset in enumerate(offsets)}

    found = choose(held_out, LABELS, GROUPS)

    assert len(found.members) == min(3, len(offsets))
    assert min(found.weights) >= 0.0
    assert sum(found.weights) == pytest.approx(1.0)


def test_without_an_algorithm_there_is_nothing_to_choose() -> None:
    with pytest.raises(DataError, match="no algorithm to choose from"):
        choose({}, LABELS, GROUPS)


def mean_of(features: Matrix, labels: Floats, owners: Owners) -> Predict:
    """A fit that answers the mean of its labels, and knows whose they were."""
    assert len(features) == len(owners)
    return lambda rows: np.full(len(rows), labels.mean())


def test_held_out_predictions_come_from_the_other_groups() -> None:
    features = np.zeros((40, 1), np.float32)

    found = out_of_group({"mean": mean_of}, features, LABELS, Owners(GROUPS, GROUPS), folds=10)[
        "mean"
    ]

    for group in set(GROUPS):
        own = group == GROUPS
        assert found[own] == pytest.approx(np.full(10, LABELS[~own].mean()))
    one = np.array(["cell"] * 40, dtype=object)
    with pytest.raises(DataError, match="all 40 rows are of one group"):
        out_of_group({"mean": mean_of}, features, LABELS, Owners(one, one), folds=2)


def test_members_without_a_share_are_not_fitted() -> None:
    def never(features: Matrix, labels: Floats, owners: Owners) -> Predict:
        raise AssertionError(len(features), len(labels), len(owners))

    stack = Stack(("mean", "never"), (1.0, 0.0))
    fitted = StackFit(stack, {"mean": mean_of, "never": never})(
        np.zeros((40, 1), np.float32), LABELS, Owners(GROUPS, GROUPS)
    )

    assert fitted.weights == (1.0,)
    assert fitted(np.zeros((2, 1), np.float32)) == pytest.approx([1.5, 1.5])


class Knowing:
    """A fit that answers 1.2 for every group left out, by itself, and looks at one feature."""

    def __call__(self, features: Matrix, labels: Floats, owners: Owners) -> Predict:
        raise AssertionError(len(features), len(labels), len(owners))

    def held_out(
        self, features: Matrix, labels: Floats, owners: Owners, *, folds: int, workers: int
    ) -> Floats:
        assert len(features) == len(owners)
        assert (folds, workers) == (2, 1)
        return np.full(labels.size, 1.2)

    def looks_at(self, names: Sequence[str]) -> frozenset[str]:
        return frozenset(names[:1])


def test_members_answer_for_groups_left_out_each_in_its_own_way() -> None:
    fit = StackFit(
        Stack(("knowing", "mean"), (0.75, 0.25)), {"knowing": Knowing(), "mean": mean_of}
    )
    rows, owners = np.zeros((40, 1), np.float32), Owners(GROUPS, GROUPS)
    alone = out_of_group_predictions(mean_of, rows, LABELS, owners, folds=2)

    found = out_of_group_predictions(fit, rows, LABELS, owners, folds=2)

    assert found == pytest.approx(0.75 * 1.2 + 0.25 * alone)


def test_a_stack_looks_at_what_one_member_looks_at() -> None:
    fits: dict[str, GroupedFit] = {"knowing": Knowing(), "mean": mean_of}
    assert features_used(StackFit(Stack(("knowing",), (1.0,)), fits), ("x", "y")) == {"x"}
    both = StackFit(Stack(("knowing", "mean"), (0.5, 0.5)), fits)
    assert features_used(both, ("x", "y")) == {"x", "y"}
