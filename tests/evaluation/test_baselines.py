"""Baselines against second implementations."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.evaluation.baselines import last_measured_baseline, mean_baseline, ridge_baseline
from batteryops.evaluation.protocols import Split


def halves(n: int) -> Split:
    return Split("halves", np.arange(0, n, 2), np.arange(1, n, 2))


def test_mean_is_the_mean_training_label_and_nothing_else() -> None:
    labels = np.array([1.0, 99.0, 2.0, 99.0])
    assert mean_baseline(labels, halves(4)).tolist() == [1.5, 1.5]


def test_ridge_equals_its_normal_equations() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(5, 3, (40, 3)) * [1, 100, 0.01]
    y = x @ [0.1, 0.002, 9.0] + rng.normal(0, 0.1, 40)
    split = halves(40)
    train, test = x[split.train], x[split.test]
    mean, deviation = train.mean(axis=0), train.std(axis=0)
    z = (train - mean) / deviation
    centre = y[split.train].mean()
    weights = np.linalg.solve(z.T @ z + np.eye(3), z.T @ (y[split.train] - centre))
    expected = centre + (test - mean) / deviation @ weights
    assert ridge_baseline(x, y, split) == pytest.approx(expected, rel=1e-9)


def test_ridge_fills_missing_features_with_the_median_of_training_rows() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(0, 1, (30, 2))
    y = x.sum(axis=1)
    gaps, filled = x.copy(), x.copy()
    gaps[[0, 1, 5], 1] = np.nan
    training_rows = [row for row in range(0, 30, 2) if row != 0]
    filled[[0, 1, 5], 1] = np.median(x[training_rows, 1])
    assert ridge_baseline(gaps, y, halves(30)) == pytest.approx(
        ridge_baseline(filled, y, halves(30))
    )


def test_ridge_lives_with_a_feature_that_training_never_saw() -> None:
    x = np.column_stack([np.arange(10.0), np.full(10, np.nan)])
    assert np.isfinite(ridge_baseline(x, np.arange(10.0), halves(10))).all()


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(1, 30), st.booleans()),
        min_size=2,
        max_size=25,
        unique_by=lambda row: row[:2],
    )
)
def test_last_measured_is_the_latest_earlier_training_label_of_the_same_asset(
    rows: list[tuple[str, int, bool]],
) -> None:
    trains = np.array([row[2] for row in rows])
    split = Split("any", np.flatnonzero(trains), np.flatnonzero(~trains))
    if not split.train.size or not split.test.size:
        return
    labels = np.arange(len(rows), dtype=np.float64)
    found = last_measured_baseline(
        np.array([row[0] for row in rows], dtype=object),
        np.array([row[1] for row in rows]),
        labels,
        split,
    )
    for row, value in zip(split.test, found, strict=True):
        earlier = [
            (rows[i][1], labels[i])
            for i in split.train
            if rows[i][0] == rows[row][0] and rows[i][1] < rows[row][1]
        ]
        assert value == max(earlier)[1] if earlier else np.isnan(value)
