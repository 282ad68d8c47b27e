"""Ensembles: two boosters become one that answers, explains itself and converts like any other."""

from pathlib import Path

import numpy as np
import pytest
import xgboost as xgb

from batteryops.errors import DataError
from batteryops.models.boosting import fit, predict
from batteryops.models.combining import ensemble, fitted_share, merged
from batteryops.models.compression import same_trees, tree_document, trees_of
from batteryops.models.continuing import names_of, warm_start
from batteryops.models.domain_fit import fit_domain
from batteryops.models.intervals import Intervals
from batteryops.models.labelled import LabelledRows
from batteryops.models.manifest import ChosenAlgorithm
from batteryops.models.onnx_twin import max_difference_ah, to_onnx
from batteryops.models.package_writing import write_package
from batteryops.models.refitting import fine_tune
from batteryops.settings import load_settings
from models.labelled_fleets import PARAMETERS, VIEW, new_fleet, old_model, plain_rows, random_rows

ROWS = random_rows(300, seed=1)
LATER = random_rows(120, seed=2, shift=1.0)


def fitted(rows: LabelledRows) -> xgb.Booster:
    return fit(rows.features, rows.labels, feature_names=rows.names, parameters=PARAMETERS, seed=7)


@pytest.mark.parametrize("scale", [1.0, 100.0])
def test_a_merged_booster_answers_the_weighted_sum_up_to_float32s_rounding(scale: float) -> None:
    old, new = (
        fit(
            rows.features,
            scale * rows.labels,
            feature_names=rows.names,
            parameters=PARAMETERS,
            seed=7,
        )
        for rows in (ROWS, LATER)
    )

    both = merged([old, new], [0.7, 0.3])

    exact = 0.7 * predict(old, LATER.features) + 0.3 * predict(new, LATER.features)
    # each of the 2 * (80 + 80) additions rounds by half a unit of what it has, at most 2 * scale
    bound = 2 * 160 * 2.0**-24 * 2 * scale
    assert np.abs(predict(both, LATER.features) - exact).max() < bound
    assert np.abs(predict(both, LATER.features) - exact).mean() < 1e-6 * scale
    assert both.num_boosted_rounds() == 160
    assert max_difference_ah(both, to_onnx(both, 3), LATER.features[:40]) < 1e-6 * scale


def test_shapley_values_of_the_merged_are_the_weighted_sum_of_the_members() -> None:
    old, new = fitted(ROWS), fitted(LATER)
    data = xgb.DMatrix(LATER.features, feature_names=list(LATER.names))

    given = merged([old, new], [0.7, 0.3]).predict(data, pred_contribs=True)

    expected = 0.7 * old.predict(data, pred_contribs=True) + 0.3 * new.predict(
        data, pred_contribs=True
    )
    np.testing.assert_allclose(given, expected, atol=2e-6)


def test_what_its_trees_say_of_themselves_has_the_weights_as_well() -> None:
    old, new = fitted(ROWS), fitted(LATER)

    both = merged([old, new], [0.7, 0.3])

    gains = [one.get_score(importance_type="total_gain") for one in (old, new, both)]
    for name in ROWS.names:
        assert gains[2][name] == pytest.approx(
            0.7 * gains[0][name] + 0.3 * gains[1][name], rel=1e-4
        )
    first, last = (trees_of(tree_document(both))[number]["base_weights"] for number in (0, -1))
    own, other = (trees_of(tree_document(one)) for one in (old, new))
    assert first == pytest.approx([0.7 * value for value in own[0]["base_weights"]], rel=1e-6)
    assert last == pytest.approx([0.3 * value for value in other[-1]["base_weights"]], rel=1e-6)


def test_the_new_model_has_three_tenths_and_the_old_stays_as_it_is() -> None:
    old = fitted(ROWS)
    before = bytes(old.save_raw("ubj"))

    found = ensemble(old, LATER, parameters=PARAMETERS, seed=7)

    expected = 0.7 * predict(old, ROWS.features) + 0.3 * predict(fitted(LATER), ROWS.features)
    np.testing.assert_allclose(predict(found.booster, ROWS.features), expected, atol=1e-5)
    assert found.share == 0.3
    assert bytes(old.save_raw("ubj")) == before


def test_trees_without_weight_are_left_out() -> None:
    old, new = fitted(ROWS), fitted(LATER)

    only = merged([old, new], [1.0, 0.0])

    assert only.num_boosted_rounds() == 80
    np.testing.assert_array_equal(predict(only, ROWS.features), predict(old, ROWS.features))


def test_a_fitted_share_has_the_least_error_of_all_each_group_weighing_the_same() -> None:
    rng = np.random.default_rng(4)
    assets = ["big"] * 50 + ["small"] * 5
    held = plain_rows([[0.0]] * 55, rng.uniform(1, 2, 55).tolist(), assets=assets)
    old, new = held.labels + rng.normal(size=55), held.labels + 0.5 * rng.normal(size=55)

    def error(share: float) -> float:
        off = np.abs((1 - share) * old + share * new - held.labels)
        return float(off[:50].mean() + off[50:].mean())

    found = fitted_share(old, new, held)

    best = min(np.linspace(0, 1, 2001), key=error)
    assert error(found) <= error(best) + 1e-12
    assert found == pytest.approx(best, abs=1e-3)
    assert 0.0 < found < 1.0


def test_a_share_stays_between_none_and_all() -> None:
    held = plain_rows([[0.0]] * 4, [1.0, 1.2, 1.4, 1.6])
    assert fitted_share(held.labels + 0.2, held.labels + 0.1, held) == 1.0
    assert fitted_share(held.labels + 0.1, held.labels + 0.2, held) == 0.0
    assert fitted_share(held.labels, held.labels, held) == 0.0


def test_a_share_is_fitted_where_none_is_given() -> None:
    """The old model says nothing true of another chemistry."""
    found = ensemble(old_model(), new_fleet(), parameters=PARAMETERS, seed=1, share=None)

    assert found.share > 0.8


def test_an_ensemble_is_packaged_like_any_booster(tmp_path: Path) -> None:
    new = new_fleet()
    both = ensemble(old_model(), new, parameters=PARAMETERS, seed=1).booster

    package = write_package(
        tmp_path / "package",
        model=both,
        onnx=to_onnx(both, len(VIEW.names)),
        algorithm=ChosenAlgorithm(name="xgboost"),
        model_name="ev-soh-predictor",
        view=VIEW,
        profiles=[load_settings().profile("nasa_18650")],
        parameters=PARAMETERS,
        seed=1,
        features=new.features,
        training_assets=new.assets,
        data_fingerprint="a" * 64,
        domain=fit_domain(new.features, new.owners.groups.tolist(), VIEW.names),
        intervals=Intervals(0.9, 0.02, 0.5, 0.92, 20, 100),
    )

    package.verify()
    assert package.manifest.booster
    assert package.predict_one(new.features[0]) == pytest.approx(
        predict(both, new.features[:1])[0], abs=1e-5
    )


def test_what_was_combined_or_tuned_can_be_continued_and_combined_again() -> None:
    both = ensemble(fitted(ROWS), LATER, parameters=PARAMETERS, seed=7).booster
    tuned = fine_tune(both, LATER, parameters=PARAMETERS, last=20)

    continued = warm_start(tuned, LATER, parameters=PARAMETERS, seed=7, rounds=30)
    again = merged([continued, tuned], [0.5, 0.5])

    assert same_trees(trees_of(tree_document(continued))[:160], trees_of(tree_document(tuned)))
    errors = [
        np.abs(predict(one, LATER.features) - LATER.labels).mean() for one in (tuned, continued)
    ]
    assert errors[1] < 0.5 * errors[0]
    halves = 0.5 * predict(continued, ROWS.features) + 0.5 * predict(tuned, ROWS.features)
    np.testing.assert_allclose(predict(again, ROWS.features), halves, atol=1e-5)


def test_what_cannot_be_combined_is_refused() -> None:
    old = fitted(ROWS)
    other = fitted(plain_rows([[0.0, 1.0], [1.0, 0.0]], [1.0, 2.0]))
    with pytest.raises(DataError, match="the same features in the same order"):
        merged([old, other], [0.5, 0.5])
    with pytest.raises(DataError, match="one finite number"):
        merged([old], [0.5, 0.5])
    with pytest.raises(DataError, match="one finite number"):
        merged([old], [np.nan])
    with pytest.raises(DataError, match=r"share is 1\.5"):
        ensemble(old, LATER, parameters=PARAMETERS, seed=1, share=1.5)
    one = LATER[LATER.owners.assets == LATER.assets[0]]
    with pytest.raises(DataError, match="labels of two or more"):
        ensemble(old, one, parameters=PARAMETERS, seed=1, share=None)
    with pytest.raises(DataError, match="expected a, b, c"):
        ensemble(old, plain_rows([[1.0]], [1.0]), parameters=PARAMETERS, seed=1)
    assert names_of(old) == ("a", "b", "c")
