"""The benchmark of continuing: what is timed is the same, and is told as it is."""

import pytest
from benchmarks.continuing import _check, fleet, to_json
from benchmarks.drift.run import Line

from batteryops.models.boosting import fit
from batteryops.models.continuing import warm_start

PARAMETERS = {"n_jobs": 1, "n_estimators": 5, "max_depth": 3}


def test_the_fleet_has_the_rows_that_were_asked_for() -> None:
    rows = fleet("LFP", 42, seed=2)

    assert len(rows) == 42
    assert len(rows.assets) == 4
    assert set(rows.profiles) == {"LFP"}


def test_a_warm_start_that_is_not_xgboosts_own_is_not_timed() -> None:
    rows = fleet("NMC", 40, seed=1)
    booster = fit(
        rows.features, rows.labels, feature_names=rows.names, parameters=PARAMETERS, seed=1
    )
    _check(booster, booster, rows)
    other = fleet("LFP", 40, seed=1)
    continued = warm_start(booster, other, parameters=PARAMETERS, seed=1)
    with pytest.raises(ValueError, match="differs from XGBoost's own"):
        _check(continued, booster, other)


def test_a_line_is_told_with_its_verdict() -> None:
    (told,) = to_json([Line("warm start", 0.1, "s", 60.0, floor=50.0, goal=100.0)])
    assert told["verdict"] == "floor met"
