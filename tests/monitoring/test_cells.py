"""Cells of a column: the grid of a reference, and counting into it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import ks_2samp

from batteryops.monitoring.cells import SHARES, Floats, Grid, Integers, fit_grid

ANY = arrays(
    np.float64,
    st.integers(0, 60),
    # few different numbers, so that values repeat and lie on the cuts
    elements=st.one_of(
        st.integers(-5, 5).map(float),
        st.floats(width=64),
        st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, np.finfo(np.float64).max]),
    ),
)


def one_by_one(grid: Grid, values: Floats) -> Integers:
    """The counts of a grid from its definition."""
    places = (grid.cuts < values[:, None]).sum(axis=1)
    places[np.isnan(values)] = grid.n_cells - 1
    return np.bincount(places, minlength=grid.n_cells).astype(np.int64)


@given(reference=ANY, values=ANY)
def test_every_value_is_counted_in_the_cell_it_lies_in(reference: Floats, values: Floats) -> None:
    grid, own = fit_grid(reference)
    cells, infinite = grid.count(values)
    assert cells.tolist() == one_by_one(grid, values).tolist()
    assert infinite == np.isinf(values).sum()
    assert own.tolist() == one_by_one(grid, reference).tolist()


@given(reference=ANY, values=ANY)
def test_groups_are_counted_as_each_by_itself(reference: Floats, values: Floats) -> None:
    grid, _ = fit_grid(reference)
    groups = np.arange(values.size) % 3
    found = grid.count_by_group(values, groups, 3)
    for group in range(3):
        own, _ = grid.count(values[groups == group])
        assert found[group].tolist() == grid.to_bins(own).tolist()


@given(reference=ANY)
def test_cuts_and_bins_are_in_order(reference: Floats) -> None:
    grid, _ = fit_grid(reference)
    assert (np.diff(grid.cuts) > 0).all()
    assert (np.diff(grid.ends) > 0).all()
    assert grid.ends.size == 0 or 0 <= grid.ends[0] <= grid.ends[-1] < grid.cuts.size


def test_values_of_single_precision_are_counted_as_what_they_are() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=5_000).astype(np.float32)
    grid, _ = fit_grid(rng.normal(size=3_000))
    assert (grid.count(values)[0] == grid.count(values.astype(np.float64))[0]).all()


def test_many_values_are_counted_as_few_are() -> None:
    values = np.random.default_rng(2).normal(size=100_001)  # more than is sorted at a time
    grid, _ = fit_grid(values[:1000])
    assert (
        grid.count(values)[0] == np.bincount(grid.cuts.searchsorted(values), minlength=grid.n_cells)
    ).all()


def test_bins_of_a_smooth_column_are_between_its_deciles() -> None:
    values = np.random.default_rng(3).normal(size=20_000)
    grid, own = fit_grid(values)
    assert grid.edges == pytest.approx(np.quantile(values, np.arange(1, 10) / 10), abs=1e-3)
    assert grid.to_bins(own).tolist() == [2000] * 10 + [0]


def test_a_heavy_value_is_a_bin_of_its_own() -> None:
    rng = np.random.default_rng(4)
    values = np.concatenate([np.zeros(3000), rng.uniform(1, 2, size=7000)])
    grid, own = fit_grid(values)
    # below zero, zero, seven equal shares of the rest, NaN
    assert grid.to_bins(own).tolist() == [0, 3000, *[1000] * 7, 0]
    moved = grid.to_bins(grid.count(np.array([-1e-300, 0.0, 1e-300]))[0])
    assert moved.tolist() == [1, 1, 1, *[0] * 7]


def test_the_bins_of_a_constant_are_below_it_it_and_above() -> None:
    grid, own = fit_grid(np.full(50, 3.7))
    assert grid.to_bins(own).tolist() == [0, 50, 0, 0]
    assert grid.to_bins(grid.count(np.array([3.6, 3.7, 3.8, np.nan]))[0]).tolist() == [1, 1, 1, 1]


def test_a_column_without_values_still_tells_values_from_none() -> None:
    grid, own = fit_grid(np.full(20, np.nan))
    assert own.tolist() == [0, 20]
    assert grid.count(np.array([1.0, -np.inf, np.nan]))[0].tolist() == [2, 1]


@pytest.mark.parametrize("shift", [0.0, 0.1, 0.5, 3.0])
def test_the_grid_leaves_out_no_more_of_the_distance_than_one_share(shift: float) -> None:
    rng = np.random.default_rng(5)
    before, after = rng.normal(size=20_000), rng.normal(shift, size=5_000)
    grid, own = fit_grid(before)
    cells, _ = grid.count(after)
    apart = np.cumsum(own[:-1]) / before.size - np.cumsum(cells[:-1]) / after.size
    exact = ks_2samp(before, after).statistic
    assert exact - 1 / SHARES <= np.abs(apart).max() <= exact
