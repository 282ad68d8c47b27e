"""Chance: bounds, p-values, many tests, and cycles that depend on each other."""

import numpy as np
import pytest
from scipy.stats import ks_2samp

from batteryops.monitoring.cells import Integers
from batteryops.monitoring.drift_detection import psi
from batteryops.monitoring.significance import (
    FEW_ASSETS,
    autoregressive_effect,
    benjamini_hochberg,
    ks_p_value,
    psi_bound,
    psi_critical,
    share_p_value,
    spread_of,
)


@pytest.mark.parametrize(("n", "m", "expected"), [(100, 100, 0.33838), (10_000, 1_000, 0.01861)])
def test_critical_values_of_psi_are_those_published(n: int, m: int, expected: float) -> None:
    assert psi_critical(10, n, m) == pytest.approx(expected, abs=5e-6)


def test_of_the_fifteen_p_values_of_benjamini_and_hochberg_four_are_rejected() -> None:
    # 1995, page 294: thrombolysis in myocardial infarction
    p_values = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344,
        0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000,
    ]  # fmt: skip
    assert benjamini_hochberg(p_values).tolist() == [True] * 4 + [False] * 11
    order = np.random.default_rng(0).permutation(15)
    assert benjamini_hochberg(np.array(p_values)[order]).tolist() == (order < 4).tolist()


def test_what_was_not_tested_is_neither_rejected_nor_counted() -> None:
    assert benjamini_hochberg([np.nan, 0.04, np.nan]).tolist() == [False, True, False]
    assert benjamini_hochberg([]).tolist() == []
    assert benjamini_hochberg([np.nan]).tolist() == [False]


@pytest.mark.parametrize("distance", [0.03, 0.05, 0.07, 0.09])
def test_p_values_of_the_distance_agree_with_the_exact_ones(distance: float) -> None:
    n = 1000
    step = round(distance * n)
    before, after = np.arange(n) + 0.5, np.arange(n) + step
    found = ks_2samp(before, after, method="exact")
    assert ks_p_value(float(found.statistic), n / 2) == pytest.approx(found.pvalue, rel=0.1)


def test_an_estimated_variance_makes_a_distance_less_surprising() -> None:
    known = ks_p_value(0.2, 100)
    assert ks_p_value(0.2, 100, freedom=9_999) == pytest.approx(known, rel=0.02)
    assert known < ks_p_value(0.2, 100, 50) < ks_p_value(0.2, 100, 5) < ks_p_value(0.2, 100, 2)
    # E[K^2] = pi^2 / 12 for Kolmogorov's variable K, and P(chi2_2 / 2 < x) = x for small x
    assert ks_p_value(1.0, 1e6, freedom=2) == pytest.approx(np.pi**2 / 12 / 1e6, rel=0.02)


def test_shares_are_compared_as_by_the_normal_distribution() -> None:
    assert share_p_value(1.959964, 1.0, np.inf) == pytest.approx(0.05, abs=1e-6)
    assert share_p_value(0.0, 0.0, np.inf) == 1.0
    assert share_p_value(0.1, 0.0, np.inf) == 0.0


def multinomial(rng: np.random.Generator, assets: int, cycles: int, bins: int) -> Integers:
    """Rows by asset and bin, independent; the last bin is that of missing values."""
    found = np.zeros((assets, bins + 1), dtype=np.int64)
    found[:, :-1] = rng.multinomial(cycles, np.full(bins, 1 / bins), size=assets)
    return found


def beside(first: Integers, second: Integers) -> tuple[Integers, Integers]:
    """Groups of different assets, in one numbering."""
    none = np.zeros_like
    return np.vstack([first, none(second)]), np.vstack([none(first), second])


def test_independent_cycles_lose_nothing_by_belonging_to_assets() -> None:
    rng = np.random.default_rng(6)
    before, after = beside(multinomial(rng, 200, 20, 10), multinomial(rng, 200, 20, 10))
    plain = spread_of(before.sum(axis=0), after.sum(axis=0))
    by_asset = spread_of(before.sum(axis=0), after.sum(axis=0), before, after)
    assert psi_bound(plain, 0.05) == pytest.approx(psi_critical(10, 4000, 4000))
    assert psi_bound(by_asset, 0.05) == pytest.approx(psi_bound(plain, 0.05), rel=0.15)
    assert by_asset.design_effect == pytest.approx(1.0, abs=0.15)


def test_cycles_that_repeat_an_asset_count_once() -> None:
    rng = np.random.default_rng(7)
    before, after = beside(multinomial(rng, 200, 1, 10), multinomial(rng, 200, 1, 10))
    once = spread_of(before.sum(axis=0), after.sum(axis=0), before, after)
    before, after = before * 25, after * 25
    repeated = spread_of(before.sum(axis=0), after.sum(axis=0), before, after)
    assert repeated.design_effect == pytest.approx(25, rel=0.1)
    assert psi_bound(repeated, 0.05) == pytest.approx(psi_bound(once, 0.05), rel=0.1)
    assert repeated.rows == pytest.approx(once.rows, rel=0.1)


def test_the_variance_of_few_assets_is_estimated_without_bias() -> None:
    own = np.hstack([np.eye(4, dtype=np.int64) * 400, np.zeros((4, 1), dtype=np.int64)])
    before, after = beside(own, own)
    found = spread_of(before.sum(axis=0), after.sum(axis=0), before, after)
    # in each of four bins an asset's share is 1 or 0: variance 1/4 x 3/4, unbiased 1/4, of the mean
    # of four 1/16; over the bin's 1/4, times four bins, times two samples
    assert found.psi_mean == pytest.approx(2 * 4 * (1 / 16) / (1 / 4), rel=0.01)
    assert found.freedom == 6


def test_what_is_lasting_in_assets_of_both_samples_cancels() -> None:
    own = np.kron(np.eye(10, dtype=np.int64), np.full((5, 1), 40))  # each asset has a bin
    own = np.hstack([own, np.zeros((50, 1), dtype=np.int64)])
    same = spread_of(own.sum(axis=0), own.sum(axis=0), own, own)
    before, after = beside(own, own)
    others = spread_of(before.sum(axis=0), after.sum(axis=0), before, after)
    assert same.design_effect == 1.0
    assert others.design_effect == pytest.approx(40, rel=0.05)


def test_an_only_asset_is_taken_to_vary_as_those_of_the_reference_do() -> None:
    rng = np.random.default_rng(8)
    many = multinomial(rng, 100, 1, 10) * 30
    before, after = beside(many, many[:1])
    found = spread_of(before.sum(axis=0), after.sum(axis=0), before, after)
    assert found.freedom == 99
    # that of one asset's shares, whatever the number of its cycles
    assert found.psi_mean == pytest.approx(9.0, rel=0.15)


def test_one_asset_in_each_sample_says_nothing_of_assets() -> None:
    one = multinomial(np.random.default_rng(9), 1, 400, 10)
    before, after = beside(one, one)
    assert spread_of(before.sum(axis=0), after.sum(axis=0), before, after).freedom == np.inf


def test_few_assets_compared_with_themselves_are_taken_to_be_autoregressive() -> None:
    rng = np.random.default_rng(10)
    few = multinomial(rng, 3, 50, 10)
    found = spread_of(few.sum(axis=0), few.sum(axis=0), few, few)
    assert found.design_effect == pytest.approx(autoregressive_effect(50))
    assert psi_bound(found, 0.05) == pytest.approx(
        psi_critical(10, 150, 150) * autoregressive_effect(50)
    )
    enough = multinomial(rng, FEW_ASSETS, 50, 10)
    assert spread_of(enough.sum(axis=0), enough.sum(axis=0), enough, enough).freedom == 9


def test_the_effect_of_an_autoregression_is_that_of_its_covariances() -> None:
    lags = np.abs(np.subtract.outer(np.arange(20), np.arange(20)))
    assert autoregressive_effect(20) == pytest.approx((0.9**lags).sum() / 20)


def test_values_that_go_missing_do_not_hide_behind_a_bin_that_the_reference_lacks() -> None:
    rng = np.random.default_rng(5)
    before = np.zeros((512, 3), dtype=np.int64)
    before[:30, :2] = rng.multinomial(60, [0.5, 0.5], size=30)
    after = np.zeros_like(before)
    for vehicle in range(100, 105):
        after[vehicle] = rng.multinomial(1000, [0.2, 0.2, 0.6])

    spread = spread_of(before.sum(0), after.sum(0), before, after)
    found = psi(before.sum(0), after.sum(0))

    assert found > 5.0
    assert psi_bound(spread, 0.05) < 0.5 * found
