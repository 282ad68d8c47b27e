import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.integrate import quad

from batteryops.evaluation.ab_statistics import Estimate, clustered_mean, one_sided_p, welch
from batteryops.evaluation.confidence_sequence import (
    anytime_bounds,
    anytime_p,
    boundary,
    log_evidence,
)

LOOKS = 96  # four days, every hour
RHO = 100 / (2 * np.log(10) + np.log(1 + 2 * np.log(10)))  # confseq's for v_opt 100 at 0.05


def estimate(effect: float, se: float, df: float) -> Estimate:
    return Estimate(np.array(effect), np.array(se), np.array(df))


def test_the_mixture_and_its_boundary_are_those_of_the_authors_software() -> None:
    # tests of confseq, whose numbers "are from a reference implementation in R": the mixture at a
    # sum of 10 and a variance of 100, best tuned for 100, and the bound there at 5 percent
    assert log_evidence(1.0, 100 / RHO) == pytest.approx(-0.06502391, abs=1e-7)
    assert boundary(100 / RHO) * 10 == pytest.approx(27.66071, abs=1e-5)


@pytest.mark.parametrize("z", [-2.0, 0.0, 1.3, 4.0])
@pytest.mark.parametrize("information", [0.1, 3.0, 80.0])
def test_the_mixture_is_the_integral_that_it_stands_for(z: float, information: float) -> None:
    # exp(x W - x^2 v / 2) over a half-normal x of scale s, with v = 1 and s^2 = r
    scale = np.sqrt(information)

    def weighted(x: float) -> float:
        return float(np.exp(x * z - x**2 / 2) * stats.halfnorm.pdf(x, scale=scale))

    integral = quad(weighted, 0.0, np.inf)[0]
    assert np.exp(log_evidence(z, information)) == pytest.approx(integral, rel=1e-6)


@given(st.floats(1e-3, 1e6), st.floats(1e-4, 0.4))
def test_at_the_boundary_the_evidence_is_one_over_the_level(r: float, level: float) -> None:
    assert log_evidence(boundary(r, level), r) == pytest.approx(-np.log(level), abs=1e-8)


def test_brownian_motion_crosses_the_boundary_less_often_than_the_level_and_not_much() -> None:
    rng = np.random.default_rng(0)
    times = np.geomspace(1.0, 1e6, 600)
    steps = rng.normal(size=(4000, times.size)) * np.sqrt(np.diff(times, prepend=0.0))
    z = np.cumsum(steps, axis=1) / np.sqrt(times)
    crossed = (z > boundary(times / 30.0)).any(axis=1).mean()
    assert 0.025 < crossed <= 0.05


def test_where_nothing_is_known_nothing_is_claimed() -> None:
    alone = clustered_mean([5.0], [10])
    low, high = anytime_bounds(alone, 0.1)
    assert anytime_p(alone, 0.1) == 1.0
    assert (float(low), float(high)) == (-np.inf, np.inf)
    assert boundary(0.0) == np.inf


def test_vehicles_that_do_not_differ_are_certain_but_models_that_agree_are_equal() -> None:
    assert anytime_p(estimate(0.1, 0.0, 9.0), 0.1) < 1e-100
    assert anytime_p(estimate(-0.1, 0.0, 9.0), 0.1) == 1.0
    assert anytime_p(estimate(0.0, 0.0, 9.0), 0.1) == 1.0
    assert [float(end) for end in anytime_bounds(estimate(0.1, 0.0, 9.0), 0.1)] == [0.1, 0.1]


@given(st.floats(-5.0, 5.0), st.floats(0.01, 3.0), st.floats(2.0, 500.0), st.floats(0.05, 2.0))
def test_the_lower_bound_passes_zero_just_where_p_passes_the_level(
    effect: float, se: float, df: float, scale: float
) -> None:
    found = estimate(effect, se, df)
    low, high = anytime_bounds(found, scale)
    assert low <= effect <= high
    p = anytime_p(found, scale)
    if not np.isclose(p, 0.05, rtol=1e-3):
        assert (p < 0.05) == (low > 0.0)


def test_few_vehicles_need_more_and_an_unknown_look_costs_against_a_planned_one() -> None:
    few, many = (anytime_p(estimate(3.5, 1.0, df), 2.5) for df in (5.0, 500.0))
    assert few > many > one_sided_p(estimate(3.5, 1.0, 500.0))


def hourly(  # noqa: PLR0913  # what a fleet is like, by name
    *,
    vehicles: int,
    lasting: float,
    effect: float = 0.0,
    correlation: float = 0.0,
    entering: bool = False,
    unequal: bool = False,
    runs: int = 600,
    seed: int = 0,
) -> Estimate:
    """Paired differences of trials (runs, looks), looked at every hour.

    A vehicle has an own mean difference (`lasting`, its standard deviation) beside the noise of an
    answer (1), which may hang on from hour to hour; vehicles may come in later, or answer unequally
    often.
    """
    rng = np.random.default_rng(seed)
    shape = (runs, LOOKS, vehicles)
    rate = rng.lognormal(0.0, 1.0, (1, 1, vehicles)) if unequal else 1.0
    counts = rng.poisson(np.broadcast_to(rate, shape)).astype(np.float64)
    if entering:
        counts *= np.arange(LOOKS)[:, None] >= rng.integers(0, LOOKS, (runs, 1, vehicles))
    noise = rng.normal(size=shape)
    for hour in range(1, LOOKS if correlation else 0):
        noise[:, hour] *= np.sqrt(1 - correlation**2)
        noise[:, hour] += correlation * noise[:, hour - 1]
    noise *= counts if correlation else np.sqrt(counts)
    sums = counts * rng.normal(effect, lasting, (runs, 1, vehicles)) + noise
    return clustered_mean(np.cumsum(sums, axis=1), np.cumsum(counts, axis=1))


@pytest.mark.parametrize(
    "fleet",
    [
        {"vehicles": 10, "lasting": 1.0},
        {"vehicles": 30, "lasting": 0.0},
        {"vehicles": 30, "lasting": 0.5, "correlation": 0.9},
        {"vehicles": 20, "lasting": 0.5, "entering": True, "unequal": True},
    ],
    ids=["few vehicles", "no lasting differences", "noise that hangs on", "vehicles that come in"],
)
def test_who_looks_every_hour_is_deceived_in_at_most_5_percent_of_trials(
    fleet: dict[str, float],
) -> None:
    looks = hourly(**fleet)  # type: ignore[arg-type]  # each case names what it needs
    scale = 0.2 * np.hypot(1.0, fleet["lasting"])
    assert (anytime_p(looks, scale) < 0.05).any(axis=1).mean() <= 0.05
    assert (one_sided_p(looks) < 0.05).any(axis=1).mean() > 0.1  # the planned test, looked at


def test_split_vehicles_looked_at_every_hour_deceive_in_at_most_5_percent_of_trials() -> None:
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(2, 1000, LOOKS, 15)).cumsum(axis=2) / np.arange(1, LOOKS + 1)[:, None]
    means = noise + rng.normal(0.0, 0.3, (2, 1000, 1, 15))
    looks = welch(means[0], means[1])
    assert (anytime_p(looks, 0.2) < 0.05).any(axis=1).mean() <= 0.05
    assert (one_sided_p(looks) < 0.05).any(axis=1).mean() > 0.1


def test_an_effect_that_matters_is_found_in_most_trials_and_half_of_it_in_some() -> None:
    found = {
        effect: (anytime_p(hourly(vehicles=50, lasting=0.3, effect=effect, runs=300), 0.2) < 0.05)
        .any(axis=1)
        .mean()
        for effect in (0.1, 0.2)
    }
    assert found[0.2] > 0.9
    assert found[0.1] > 0.25


def test_a_worse_challenger_is_never_taken_for_a_better_one_and_soon_seen_as_worse() -> None:
    looks = hourly(vehicles=40, lasting=0.3, effect=-0.2, runs=300)
    high = anytime_bounds(looks, 0.2)[1]
    assert not (anytime_p(looks, 0.2) < 0.05).any()
    assert (high < 0).any(axis=1).mean() > 0.8
