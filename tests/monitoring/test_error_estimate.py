"""The estimate of errors without labels: right where it can be, bounded, and called an estimate."""

import json
import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from batteryops.errors import DataError, PackageError
from batteryops.evaluation.owners import Owners
from batteryops.features.views import get_view, matrix
from batteryops.lifecycle.decisions import as_it_is
from batteryops.lifecycle.evaluation import algorithm_for, task_of
from batteryops.lifecycle.preparation import prepare
from batteryops.lifecycle.sources import open_source
from batteryops.lifecycle.uncertainty import fit_uncertainty, package_owners
from batteryops.models.domain_fit import held_out_distances
from batteryops.models.intervals import Intervals, out_of_group_predictions
from batteryops.models.offers import features_used
from batteryops.monitoring.error_estimate import (
    ErrorEstimator,
    EstimateSums,
    distances_from_widths,
    fit_error_estimator,
)
from batteryops.settings import load_settings
from monitoring.logged import answer, log

Floats = NDArray[np.float64]
MEAN_OF_NORMAL = math.sqrt(2.0 / math.pi)  # E|x| of a standard normal variable


class World:
    """Cells of 2 Ah whose errors are normal: wider further away, times what a group has for all."""

    def __init__(self, n_groups: int, seed: int, rows: int = 60, spread: float = 0.0) -> None:
        random = np.random.default_rng(seed)
        self.groups = np.repeat([f"group {n:03}" for n in range(n_groups)], rows)
        near = np.repeat(random.uniform(0.2, 2.0, n_groups), rows)
        self.distances = near * random.uniform(0.7, 1.3, near.size)
        own = np.repeat(np.exp(random.normal(0.0, spread, n_groups)), rows)
        self.residuals = random.normal(0.0, 1.0, near.size) * own * self.sigma(self.distances)
        self.predicted = random.uniform(1.3, 1.9, near.size)

    @staticmethod
    def sigma(distances: Floats) -> Floats:
        return 0.01 + 0.03 * distances

    def fit(
        self, rows: NDArray[np.bool_] | slice = slice(None), times: float = 1.0
    ) -> ErrorEstimator:
        found = fit_error_estimator(
            times * self.residuals[rows],
            self.predicted[rows],
            2.0,
            self.distances[rows],
            self.groups[rows],
        )
        assert found is not None
        return found


def test_expected_errors_are_those_that_the_residuals_were_drawn_with() -> None:
    world = World(n_groups=60, seed=1)
    asked = np.array([0.3, 0.6, 1.0, 1.5, 2.0])
    expected = MEAN_OF_NORMAL * World.sigma(asked) / 2.0
    found = world.fit().expected_share(asked, np.full(5, 0.85))
    assert found == pytest.approx(expected, rel=0.12)


def test_errors_that_depend_on_the_predicted_soh_are_expected_by_band() -> None:
    world = World(n_groups=600, seed=2, rows=10)
    world.residuals *= np.where(world.predicted < 1.6, 3.0, 1.0)
    found = world.fit().expected_share(np.ones(2), [0.75, 0.85])
    assert found[0] / found[1] == pytest.approx(3.0, rel=0.15)


def test_a_group_of_many_rows_weighs_no_more_than_one_of_few() -> None:
    groups = np.repeat(["many", "few"], [900, 10])
    residuals = np.where(groups == "many", 0.02, 0.06)  # 0.01 and 0.03 of 2 Ah
    found = fit_error_estimator(residuals, np.full(910, 1.7), 2.0, np.ones(910), groups)
    assert found is not None
    assert found.expected_share([1.0], [0.85]) == pytest.approx([0.02], rel=1e-9)


def test_larger_residuals_make_larger_estimates_in_proportion() -> None:
    world = World(n_groups=12, seed=3)
    once, thrice = world.fit(), world.fit(times=3.0)
    assert thrice.shares == pytest.approx(3.0 * once.shares, rel=1e-9)
    assert thrice.ratios == pytest.approx(once.ratios, rel=1e-9)


def test_estimates_of_held_out_groups_have_the_mean_of_their_true_errors() -> None:
    world = World(n_groups=12, seed=4, spread=0.7)
    names = np.unique(world.groups)
    true, estimated = [], []
    for name in names:
        out = world.groups == name
        true.append(np.abs(world.residuals[out]).mean())
        estimated.append(estimate_of(world, ~out, out))
    # each fold is calibrated by itself here: the means agree, though not to the last digit
    assert np.mean(estimated) == pytest.approx(np.mean(true), rel=0.15)


def estimate_of(world: World, known: NDArray[np.bool_], asked: NDArray[np.bool_]) -> float:
    soh = world.predicted[asked] / 2.0
    return 2.0 * float(world.fit(known).expected_share(world.distances[asked], soh).mean())


def test_bounds_hold_the_true_errors_of_unseen_groups_as_often_as_they_say() -> None:
    held = 0
    for seed in range(60):
        world = World(n_groups=13, seed=100 + seed, rows=20, spread=0.6)
        out = world.groups == "group 012"
        bounds = world.fit(~out).bounds()
        assert bounds is not None
        true = np.abs(world.residuals[out]).mean()
        ratio = true / estimate_of(world, ~out, out)
        held += bounds[0] <= ratio <= bounds[1]
    # of 12 groups the first and the last: 11 of 13 on average; 4 standard errors below it
    assert held / 60 >= 11 / 13 - 4 * math.sqrt(11 / 13 * 2 / 13 / 60)


def test_with_few_groups_there_is_an_estimate_but_no_bounds() -> None:
    world = World(n_groups=8, seed=5)
    estimator = world.fit()
    assert estimator.bounds() is None
    sums = EstimateSums.of(estimator, log([answer()]), np.array([1.0]))
    estimate = sums.estimate(estimator)
    assert estimate is not None
    assert set(estimate.to_json()) == {"estimate", "method", "mae_ah", "n", "covered_share"}


def test_one_group_alone_gives_no_estimate() -> None:
    assert fit_error_estimator([0.1, 0.2], [1.5, 1.6], 2.0, [1.0, 1.0], ["a", "a"]) is None


def test_numbers_that_are_missing_or_too_few_are_refused() -> None:
    with pytest.raises(DataError, match="not a finite number"):
        fit_error_estimator([0.1, math.nan], [1.5, 1.6], 2.0, [1.0, 1.0], ["a", "b"])
    with pytest.raises(DataError, match="one of each per row"):
        fit_error_estimator([0.1, 0.1], [1.5], 2.0, [1.0, 1.0], ["a", "b"])
    with pytest.raises(DataError, match="one for each of 1"):
        EstimateSums.of(World(9, 1).fit(), log([answer()]), np.ones(2))


def test_errors_of_nothing_are_expected_to_be_nothing() -> None:
    found = fit_error_estimator(np.zeros(20), np.full(20, 1.8), 2.0, np.ones(20), np.arange(20) % 4)
    assert found is not None
    assert found.expected_share([0.0, 5.0], [0.9, 0.5]).tolist() == [0.0, 0.0]
    assert found.ratios.tolist() == [1.0] * 4


@given(seed=st.integers(0, 50), asked=st.lists(st.floats(0, 100), min_size=2, max_size=9))
def test_further_away_is_never_expected_to_be_better(seed: int, asked: list[float]) -> None:
    found = World(n_groups=5, seed=seed, rows=8, spread=1.0).fit()
    expected = found.expected_share(sorted(asked), np.full(len(asked), 0.85))
    assert (np.diff(expected) >= 0).all()


def test_an_estimator_comes_back_from_a_package_as_it_was() -> None:
    estimator = World(n_groups=12, seed=6, spread=0.5).fit()
    document = json.loads(json.dumps(estimator.to_json()))
    read = ErrorEstimator.from_json(document)
    assert read.to_json() == estimator.to_json()
    asked = np.linspace(0.0, 3.0, 7)
    assert read.expected_share(asked, asked / 3) == pytest.approx(
        estimator.expected_share(asked, asked / 3), rel=1e-6
    )


@pytest.mark.parametrize(
    "damage",
    [
        {"shares": "none"},
        {"shares": [1.0]},
        {"factors": [1.0]},
        {"distances": []},
        {"ratios": [-1.0]},
        {"n_rows": None},
    ],
)
def test_another_document_is_refused(damage: dict[str, object]) -> None:
    document = World(n_groups=9, seed=7).fit().to_json()
    with pytest.raises(PackageError, match="train again"):
        ErrorEstimator.from_json(document | damage)


INTERVALS = Intervals(
    nominal=0.9, score_ah=0.05, mean_distance=0.5, level=0.92, n_groups=25, n_rows=1694
)


def bounded(capacity_ah: float, distance: float, **changes: object) -> dict[str, object]:
    low, high = INTERVALS.around(capacity_ah, distance, (0.0, 2.5))
    numbers = {
        "capacity_ah": capacity_ah,
        "soh": capacity_ah / 2.0,
        "capacity_low_ah": low,
        "capacity_high_ah": high,
    }
    return answer() | numbers | changes


def test_the_width_of_an_interval_tells_the_distance_also_where_one_end_is_cut_off() -> None:
    rows = log([bounded(1.8, 0.3), bounded(2.45, 2.0), bounded(0.05, 2.0), bounded(1.0, 0.0)])
    found = distances_from_widths(rows, INTERVALS)
    assert found == pytest.approx([0.3, 2.0, 2.0, 0.0], abs=1e-12)


def test_where_an_interval_tells_nothing_there_is_no_distance() -> None:
    rows = log(
        [
            bounded(1.8, 0.3, status="out_of_domain"),
            bounded(1.8, 0.3, baseline="3f2a91c0d4e5-v2"),
            answer(capacity_low_ah=None, capacity_high_ah=None),
        ]
    )
    assert np.isnan(distances_from_widths(rows, INTERVALS)).all()
    unbounded = Intervals(0.9, math.inf, 1.0, 1.0, 1, 10)
    assert np.isnan(distances_from_widths(log([bounded(1.8, 0.3)]), unbounded)).all()


@pytest.mark.data
def test_errors_of_nasa_cells_are_estimated_by_what_was_learned_without_them(
    data_folder: Path,
) -> None:
    settings = load_settings(data=data_folder)
    view = get_view("discharge_physics")
    table = prepare(open_source("nasa", settings, kinds=view.kinds), view, settings).table
    fit = as_it_is(algorithm_for(view, settings), task_of(view, settings)).fit
    owners = package_owners(table, settings)
    features, labels = matrix(view, table), table["capacity_ah"].to_numpy()
    predicted = out_of_group_predictions(fit, features, labels, owners, folds=25)
    distances = held_out_distances(
        features, owners.groups, view.names, checked=features_used(fit, view.names)
    )
    true, estimated = [], []
    for group in np.unique(owners.groups):
        out = owners.groups == group
        known = fit_error_estimator(
            (labels - predicted)[~out], predicted[~out], 2.0, distances[~out], owners.groups[~out]
        )
        assert known is not None
        expected = 2.0 * known.expected_share(distances, predicted / 2.0)
        for cell in np.unique(owners.assets[out]):
            own = owners.assets == cell
            true.append(np.abs(labels - predicted)[own].mean())
            estimated.append(expected[own].mean())
    ratios = np.array(estimated) / np.array(true)
    assert len(ratios) == 27
    assert np.mean(estimated) == pytest.approx(np.mean(true), rel=0.1)
    assert np.count_nonzero(np.abs(np.log(ratios)) < math.log(2.0)) >= 20
    assert stats.spearmanr(true, estimated).statistic > 0.6


def test_a_package_is_told_which_errors_to_expect_where_nominal_capacities_are_known() -> None:
    random = np.random.default_rng(11)
    assets = np.repeat([f"RW{n}" for n in range(12)], 8).astype(object)
    features = random.uniform(1.2, 1.9, (96, 1)).astype(np.float32)
    labels = features[:, 0] + random.normal(0.0, 0.02, 96)

    def fit(*_: object) -> Callable[[NDArray[np.float32]], Floats]:
        return lambda asked: asked[:, 0].astype(np.float64)

    owners = Owners(assets, assets)
    without = fit_uncertainty(fit, features, labels, owners, ("x",), folds=12)
    assert without.errors is None
    found = fit_uncertainty(
        fit, features, labels, owners, ("x",), folds=12, nominal_ah=np.full(96, 2.0)
    ).errors
    assert found is not None
    expected = MEAN_OF_NORMAL * 0.02 / 2.0
    assert found.expected_share([0.01], [0.8])[0] == pytest.approx(expected, rel=0.25)


def test_answers_of_which_nothing_is_known_are_told_and_not_guessed() -> None:
    estimator = World(n_groups=12, seed=8).fit()
    rows = log([bounded(1.8, 1.0), bounded(1.8, 1.0, status="out_of_domain"), bounded(0.0, 1.0)])
    sums = EstimateSums.of(estimator, rows, distances_from_widths(rows, INTERVALS))
    estimate = sums.estimate(estimator)
    assert estimate is not None
    alone = 2.0 * estimator.expected_share([1.0], [0.9])[0]
    assert estimate.mae_ah == pytest.approx(alone, rel=1e-9)
    assert estimate.n == 1
    assert estimate.covered_share == pytest.approx(1 / 3)
    low, high = estimator.bounds() or (0.0, 0.0)
    told = estimate.to_json()
    assert told["estimate"] is True
    assert told["low"] == pytest.approx(low * alone)
    assert told["high"] == pytest.approx(high * alone)
    assert EstimateSums.of(estimator, rows[1:2], np.array([math.nan])).estimate(estimator) is None
    assert EstimateSums().estimate(estimator) is None


@given(
    distances=st.lists(st.floats(0, 3) | st.just(math.nan), min_size=1, max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=4),
)
def test_any_chunks_give_the_same_estimate(distances: list[float], cuts: Sequence[int]) -> None:
    estimator = ESTIMATOR
    rows = log([answer(capacity_ah=1.0 + n / 20, soh=0.5 + n / 40) for n in range(len(distances))])
    away = np.array(distances)
    whole = EstimateSums.of(estimator, rows, away)
    ends = [0, *sorted(min(cut, len(distances)) for cut in cuts), len(distances)]
    total = EstimateSums()
    for start, end in pairwise(ends):
        total += EstimateSums.of(estimator, rows[start:end], away[start:end])
    assert (total.n, total.asked) == (whole.n, whole.asked)
    assert total.total_ah == pytest.approx(whole.total_ah, rel=1e-12)


ESTIMATOR = World(n_groups=10, seed=9).fit()
