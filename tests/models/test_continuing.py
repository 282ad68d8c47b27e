"""Warm start: new trees on a copy, all of them used; and what a model forgets that sees no past."""

import numpy as np
import pytest
import xgboost as xgb

from batteryops.errors import DataError, SettingsError
from batteryops.models.acceptance import Judges, Limits
from batteryops.models.algorithms import Boosted
from batteryops.models.boosting import fit, predict
from batteryops.models.compression import same_trees, tree_document, trees_of
from batteryops.models.continuing import cut_copy, warm_start
from batteryops.models.labelled import LabelledRows
from batteryops.models.onnx_twin import max_difference_ah, to_onnx
from batteryops.models.replay import replay_sample
from models.labelled_fleets import (
    PARAMETERS,
    new_fleet,
    old_fleet,
    old_model,
    plain_rows,
    random_rows,
    unseen_old,
)

ROWS = random_rows(300, seed=1)
LATER = random_rows(120, seed=2, shift=1.0)


def mae_ah(booster: xgb.Booster, rows: LabelledRows) -> float:
    return float(np.abs(predict(booster, rows.features) - rows.labels).mean())


def fitted() -> xgb.Booster:
    return fit(ROWS.features, ROWS.labels, feature_names=ROWS.names, parameters=PARAMETERS, seed=7)


def stopped_early(*, save_best: bool) -> tuple[xgb.Booster, int]:
    """A booster that learned noise beyond its best iteration, and that iteration."""
    rng = np.random.default_rng(0)
    noisy = xgb.DMatrix(
        ROWS.features,
        label=ROWS.labels + 0.2 * rng.normal(size=len(ROWS)),
        feature_names=list(ROWS.names),
    )
    held = xgb.DMatrix(ROWS.features, label=ROWS.labels, feature_names=list(ROWS.names))
    stop = xgb.callback.EarlyStopping(rounds=8, save_best=save_best)
    booster = xgb.train(
        {"max_depth": 6, "learning_rate": 0.3, "nthread": 1},
        noisy,
        num_boost_round=100,
        evals=[(held, "held")],
        callbacks=[stop],
        verbose_eval=False,
    )
    return booster, booster.best_iteration


@pytest.mark.parametrize("method", ["hist", "exact", "approx"])
def test_the_new_trees_are_those_of_xgboosts_own_continued_training(method: str) -> None:
    booster = fitted()
    parameters: dict[str, float | int | str] = {**PARAMETERS, "tree_method": method}

    continued = warm_start(booster, LATER, parameters=parameters, seed=3, rounds=5)

    container = xgb.QuantileDMatrix if method == "hist" else xgb.DMatrix
    data = container(LATER.features, label=LATER.labels, feature_names=list(LATER.names))
    settings = {name: value for name, value in parameters.items() if name != "n_estimators"}
    expected = xgb.train(
        {"objective": "reg:squarederror", "seed": 3, **settings}, data, 5, xgb_model=booster
    )
    given, theirs = (trees_of(tree_document(one)) for one in (continued, expected))
    assert len(given) == 85
    assert same_trees(given, theirs)


def test_the_model_in_service_stays_as_it_is() -> None:
    booster = fitted()
    before = bytes(booster.save_raw("ubj"))

    warm_start(booster, LATER, parameters=PARAMETERS, seed=3, replay=ROWS)

    assert bytes(booster.save_raw("ubj")) == before


def test_equal_seeds_give_equal_trees_also_the_seed_of_the_first_fit() -> None:
    """`xgboost.train` goes on with whatever was drawn before where the seed is the booster's."""
    parameters = {**PARAMETERS, "subsample": 0.7, "colsample_bytree": 0.6}
    booster = fit(
        ROWS.features, ROWS.labels, feature_names=ROWS.names, parameters=parameters, seed=7
    )

    found = []
    for seed in (7, 7, 8):
        continued = warm_start(booster, LATER, parameters=parameters, seed=seed)
        found.append(trees_of(tree_document(continued)))
        fitted()  # draws numbers as well

    assert same_trees(found[0], found[1])
    assert not same_trees(found[0], found[2])


@pytest.mark.parametrize("save_best", [True, False])
def test_a_continued_model_uses_its_new_trees_after_early_stopping(save_best: bool) -> None:  # noqa: FBT001 - a parameter of the test
    booster, best = stopped_early(save_best=save_best)

    continued = warm_start(booster, LATER, parameters=PARAMETERS, seed=3, rounds=10)

    assert continued.num_boosted_rounds() == best + 1 + 10
    kept = trees_of(tree_document(continued))[: best + 1]
    assert same_trees(kept, trees_of(tree_document(booster))[: best + 1])
    # every reader answers with all of them, and better than without
    answers = predict(continued, LATER.features)
    estimator = xgb.XGBRegressor()
    estimator.load_model(bytearray(continued.save_raw("ubj")))
    np.testing.assert_array_equal(estimator.predict(LATER.features), answers)
    assert max_difference_ah(continued, to_onnx(continued, 3), LATER.features) < 1e-5
    assert mae_ah(continued, LATER) < 0.7 * mae_ah(cut_copy(booster), LATER)


def test_the_trap_is_real_without_the_cut_new_trees_are_never_used() -> None:
    booster, best = stopped_early(save_best=True)
    data = xgb.DMatrix(LATER.features, label=LATER.labels, feature_names=list(LATER.names))
    naive = xgb.train({"nthread": 1}, data, 10, xgb_model=booster)
    assert naive.attr("best_iteration") == str(best)
    estimator = xgb.XGBRegressor()
    estimator.load_model(bytearray(naive.save_raw("ubj")))

    np.testing.assert_array_equal(
        estimator.predict(LATER.features), predict(cut_copy(booster), LATER.features)
    )


def test_an_update_that_sees_no_past_forgets_it_several_fold_and_is_refused() -> None:
    old, new, judges = old_fleet(), new_fleet(), Judges(new_fleet(), unseen_old())
    current = judges.errors(Boosted(old_model()))

    naive = warm_start(old_model(), new, parameters=PARAMETERS, seed=1)
    careful = warm_start(
        old_model(), new, parameters=PARAMETERS, seed=1, replay=replay_sample(old, 240, seed=1)
    )

    forgot, kept = judges.errors(Boosted(naive)), judges.errors(Boosted(careful))
    assert forgot.old_ah > 3 * current.old_ah
    assert kept.old_ah < 1.1 * current.old_ah
    assert forgot.new_ah < 0.6 * current.new_ah  # on new rows alone it looks like progress
    assert kept.new_ah < 0.6 * current.new_ah
    refused = judges.look(current, forgot, Limits())
    assert not refused.passed
    assert "it forgets: old MAE" in refused.reason
    assert judges.look(current, kept, Limits()).passed


def test_trends_hold_for_new_trees() -> None:
    falling = plain_rows([[float(x)] for x in range(60)], [2.0 - 0.01 * x for x in range(60)])
    booster = fit(
        falling.features,
        falling.labels,
        feature_names=falling.names,
        parameters=PARAMETERS,
        seed=1,
        trends=(-1,),
    )
    rising = plain_rows([[float(x)] for x in range(60)], [1.0 + 0.01 * x for x in range(60)])

    held = warm_start(booster, rising, parameters=PARAMETERS, seed=1, rounds=40, trends=(-1,))
    free = warm_start(booster, rising, parameters=PARAMETERS, seed=1, rounds=40)

    assert np.diff(predict(held, rising.features)).max() <= 1e-6
    assert np.diff(predict(free, rising.features)).max() > 0.001


def test_rows_of_another_view_no_round_and_unknown_parameters_are_refused() -> None:
    other = plain_rows([[1.0, 2.0]], [1.5])
    with pytest.raises(DataError, match=r"the features a, b; expected a, b, c"):
        warm_start(fitted(), other, parameters=PARAMETERS, seed=1)
    with pytest.raises(DataError, match="the features a, b; expected a, b, c"):
        warm_start(fitted(), ROWS, parameters=PARAMETERS, seed=1, replay=other)
    with pytest.raises(DataError, match="0 rounds more"):
        warm_start(fitted(), ROWS, parameters=PARAMETERS, seed=1, rounds=0)
    with pytest.raises(SettingsError, match="n_trees"):
        warm_start(fitted(), ROWS, parameters={"n_trees": 3}, seed=1)
    nameless = fitted()
    nameless.feature_names = None
    with pytest.raises(DataError, match="no feature names"):
        warm_start(nameless, ROWS, parameters=PARAMETERS, seed=1)
