"""The benchmark of drift: what ours is held against is right."""

import numpy as np
import polars as pl
import pytest
from benchmarks.drift import floor, report
from benchmarks.drift.data import FEATURES, columns
from benchmarks.drift.run import Line, _check
from scipy.stats import ks_2samp

from batteryops.monitoring.counts import Counts
from batteryops.monitoring.drift_detection import detect
from batteryops.monitoring.reference import Reference

BEFORE, AFTER = columns(2_000, 1, moved=False), columns(5_000, 2, moved=True)


def test_both_floors_are_exact() -> None:
    plain, lean = floor.plain(BEFORE, AFTER), floor.lean(BEFORE, AFTER)
    for name in FEATURES:
        exact = ks_2samp(BEFORE[name], AFTER[name]).statistic
        assert plain[name][1] == pytest.approx(exact, abs=1e-12)
        assert lean[name] == pytest.approx(plain[name], abs=1e-12)


def test_an_answer_that_is_wrong_is_not_timed() -> None:
    reference = Reference.fit(pl.DataFrame(BEFORE), FEATURES)
    found = detect(reference, Counts.of(reference, pl.DataFrame(AFTER)))
    exact = floor.plain(BEFORE, AFTER)
    _check(found, exact)
    with pytest.raises(ValueError, match="plain NumPy says"):
        _check(found, {name: (value + 1e-6, away) for name, (value, away) in exact.items()})
    with pytest.raises(ValueError, match="plain NumPy says"):
        _check(found, {name: (value, away - 1e-6) for name, (value, away) in exact.items()})


def test_a_line_says_whether_its_goal_is_met() -> None:
    fast = Line("x", 1.0, "s", ours_is=3.5, floor=1.0, goal=3.0)
    assert fast.verdict == "goal met"
    small = Line("x", 300.0, "MB", floor=600.0, goal=200.0, more_is_better=False)
    assert small.verdict == "floor met"
    assert Line("x", 700.0, "MB", floor=600.0, goal=200.0, more_is_better=False).verdict == "MISSED"
    assert Line("x", None, "s").verdict == ""
    assert report.to_json([fast])[0]["verdict"] == "goal met"


def test_columns_move_where_they_should() -> None:
    many = columns(50_000, 3, moved=True)
    means = np.array([many[name].mean() for name in FEATURES])
    assert means == pytest.approx(0.05 * np.arange(20), abs=0.02)
