"""Fine tuning: leaves by XGBoost's formula, shrunk to the old ones; splits and other trees stay."""

import numpy as np
import pytest
import xgboost as xgb

from batteryops.errors import DataError
from batteryops.models.boosting import fit, predict
from batteryops.models.compression import leaves_of, same_trees, tree_document, trees_of
from batteryops.models.refitting import fine_tune
from models.labelled_fleets import PARAMETERS, plain_rows, random_rows

ROWS = random_rows(300, seed=1)
SHALLOW = {**PARAMETERS, "max_depth": 2, "n_estimators": 20, "reg_lambda": 0.5}


def fitted() -> xgb.Booster:
    return fit(ROWS.features, ROWS.labels, feature_names=ROWS.names, parameters=SHALLOW, seed=7)


def test_with_no_rows_for_the_old_leaves_it_is_xgboosts_own_refresh() -> None:
    booster, later = fitted(), random_rows(4000, seed=2, shift=0.3)  # every leaf is reached
    data = xgb.DMatrix(later.features, label=later.labels, feature_names=list(later.names))
    theirs = xgb.train(
        {
            "process_type": "update",
            "updater": "refresh",
            "refresh_leaf": True,
            "learning_rate": 0.1,
            "reg_lambda": 0.5,
            "nthread": 1,
            "verbosity": 0,
        },
        data,
        num_boost_round=20,
        xgb_model=booster,
    )

    ours = fine_tune(booster, later, parameters=SHALLOW, last=20, prior_rows=0.0)

    np.testing.assert_allclose(
        predict(ours, later.features), predict(theirs, later.features), atol=2e-6
    )
    assert np.abs(predict(ours, later.features) - predict(booster, later.features)).max() > 0.05


def test_leaves_move_by_how_many_rows_speak_for_them_and_untouched_ones_stay() -> None:
    """One split; two rows, of label 1.9, on the left of it."""
    old = plain_rows([[0.0]] * 10 + [[1.0]] * 10, [1.0] * 10 + [2.0] * 10)
    parameters = {"n_estimators": 1, "max_depth": 1, "learning_rate": 0.5, "n_jobs": 1}
    booster = fit(old.features, old.labels, feature_names=("a",), parameters=parameters, seed=0)
    left, right = (float(value) for value in predict(booster, [[0.0], [1.0]]))

    tuned = fine_tune(
        booster, plain_rows([[0.0]] * 2, [1.9] * 2), parameters=parameters, prior_rows=3.0
    )

    base = 1.5  # the mean of the labels; lambda is 1
    expected = base + 0.6 * (left - base) + 0.4 * (0.5 * 2 * (1.9 - base) / (2 + 1))
    assert predict(tuned, [[0.0], [1.0]]) == pytest.approx([expected, right], abs=1e-6)


def test_only_the_last_trees_change_and_only_in_their_leaves() -> None:
    booster = fitted()
    before = bytes(booster.save_raw("ubj"))

    tuned = fine_tune(booster, random_rows(200, seed=5, shift=0.5), parameters=SHALLOW, last=4)

    given, old = (trees_of(tree_document(one)) for one in (tuned, booster))
    assert same_trees(given[:16], old[:16])
    for one, other in zip(given[16:], old[16:], strict=True):
        inner = ~leaves_of(other)
        assert not same_trees([one], [other])
        assert one["left_children"] == other["left_children"]
        np.testing.assert_array_equal(
            np.array(one["split_conditions"])[inner], np.array(other["split_conditions"])[inner]
        )
    assert bytes(booster.save_raw("ubj")) == before


def test_it_learns_the_new_level() -> None:
    booster, later = fitted(), random_rows(400, seed=5, shift=1.0)
    judge = random_rows(200, seed=6, shift=1.0)

    tuned = fine_tune(booster, later, parameters=SHALLOW, last=20)

    def error(one: xgb.Booster) -> float:
        return float(np.abs(predict(one, judge.features) - judge.labels).mean())

    assert error(tuned) < 0.4 * error(booster)


def test_no_tree_a_negative_prior_and_other_features_are_refused() -> None:
    for wrong in ({"last": 0}, {"prior_rows": -1.0}, {"prior_rows": float("nan")}):
        with pytest.raises(DataError, match="trees to refit"):
            fine_tune(fitted(), ROWS, parameters=SHALLOW, **wrong)
    with pytest.raises(DataError, match="expected a, b, c"):
        fine_tune(fitted(), plain_rows([[1.0]], [1.0]), parameters=SHALLOW)
