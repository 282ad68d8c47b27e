"""Where a quantity first reaches a level: by hand, and where it never does."""

import polars as pl
import pytest

from batteryops.features.crossings import between, crossings


def run(times: list[float], values: list[float], number: int = 0) -> pl.DataFrame:
    return pl.DataFrame({"run": number, "time_s": times, "v": values, "q": [t / 10 for t in times]})


def test_a_level_is_crossed_between_two_samples() -> None:
    crossed = crossings(run([0.0, 10.0], [3.0, 4.0]), "v", [3.25], ["time_s", "q"])

    assert crossed.rows() == [(0, 0, 2.5, 0.25)]


def test_a_level_that_is_met_exactly_is_crossed_there() -> None:
    crossed = crossings(run([0.0, 10.0, 20.0], [3.0, 3.5, 4.0]), "v", [3.5], ["time_s"])

    assert crossed.rows() == [(0, 0, 10.0)]


def test_one_step_may_cross_several_levels() -> None:
    crossed = crossings(run([0.0, 10.0], [3.0, 4.0]), "v", [3.1, 3.5, 3.9, 4.5], ["time_s"])

    assert crossed["level"].to_list() == [0, 1, 2]
    assert crossed["time_s"].to_list() == pytest.approx([1.0, 5.0, 9.0])


def test_only_the_first_crossing_counts() -> None:
    samples = run([0.0, 10.0, 20.0, 30.0], [3.0, 3.6, 3.2, 3.8])

    crossed = crossings(samples, "v", [3.3, 3.7], ["time_s"])

    assert crossed["level"].to_list() == [0, 1]
    # the second lies between the last two samples, not after the earlier peak
    assert crossed["time_s"].to_list() == pytest.approx([5.0, 20.0 + 10.0 * 0.5 / 0.6])


def test_a_level_is_not_crossed_from_above_nor_from_another_run() -> None:
    samples = pl.concat([run([0.0, 10.0], [3.6, 3.8]), run([20.0, 30.0], [3.9, 4.0], 1)])

    assert crossings(samples, "v", [3.5, 3.85, 3.9], ["time_s"]).is_empty()


def test_nothing_is_interpolated_across_a_long_gap() -> None:
    assert crossings(run([0.0, 61.0], [3.0, 4.0]), "v", [3.5], ["time_s"]).is_empty()


def test_growth_is_between_two_levels_that_were_both_crossed() -> None:
    samples = pl.concat([run([0.0, 10.0], [3.0, 4.0]), run([0.0, 10.0], [3.0, 3.5], 1)])
    crossed = crossings(samples, "v", [3.25, 3.75], ["time_s", "q"])

    assert between(crossed, 0, 1, {"q": "charge"}).rows() == [(0, pytest.approx(0.5))]
