"""The replay sample: bounded, even over what is common and what is rare, the same for one seed."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.errors import DataError
from batteryops.models.replay import even_shares, replay_sample
from models.labelled_fleets import plain_rows

RARE = 10
OLD = plain_rows(
    [[float(row)] for row in range(1000)],
    # SoH 0.95 for nearly all, 0.75 for a few of the first profile
    [1.5 if row < RARE else 1.9 for row in range(1000)],
    assets=[f"cell {row % 5}" if row < 990 else f"pack {row % 2}" for row in range(1000)],
    profiles=["cells"] * 990 + ["packs"] * 10,
)


def test_what_is_rare_is_remembered_as_well_as_what_is_common() -> None:
    sample = replay_sample(OLD, 60, seed=3)

    kinds = Counter(zip(sample.profiles.tolist(), sample.soh_bands().tolist(), strict=True))
    # two strata have ten rows each, which is all of them; the third takes what is left
    assert kinds == {("cells", 1): 10, ("cells", 3): 40, ("packs", 3): 10}
    common = Counter(sample.owners.assets[sample.soh_bands() == 3].tolist())
    assert [common[f"cell {number}"] for number in range(5)] == [8] * 5
    assert len(set(sample.features[:, 0].tolist())) == 60  # no row twice


def test_the_same_seed_draws_the_same_rows_and_another_other_ones() -> None:
    first, again, other = (replay_sample(OLD, 60, seed=seed).features for seed in (3, 3, 4))

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_sample_is_never_larger_than_asked_for_nor_than_the_past() -> None:
    assert len(replay_sample(OLD, 1, seed=0)) == 1
    assert replay_sample(OLD, 1000, seed=0) is OLD
    with pytest.raises(DataError, match="0 rows remembers nothing"):
        replay_sample(OLD, 0, seed=0)


def test_an_unknown_nominal_capacity_is_a_band_of_its_own() -> None:
    rows = plain_rows([[0.0]] * 3, [1.3, 1.6, 2.1], nominal_ah=float("nan"))
    assert rows.soh_bands().tolist() == [-1, -1, -1]
    known = plain_rows([[0.0]] * 3, [1.3, 1.6, 2.1])
    assert known.soh_bands().tolist() == [0, 2, 4]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8), st.integers(0, 200))
def test_shares_are_even_and_within_what_there_is(sizes: list[int], wanted: int) -> None:
    there = np.array(sizes)
    total = min(wanted, int(there.sum()))

    shares = even_shares(there, total, np.random.default_rng(0))

    assert shares.sum() == total
    assert (shares <= there).all()
    open_ones = shares[shares < there]  # who could give more gave as much as anyone, but for one
    assert not open_ones.size or open_ones.min() >= shares.max() - 1
