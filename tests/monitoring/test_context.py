"""The sample beside the counts: the same however the rows come, and of whole assets."""

import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.errors import DataError
from batteryops.monitoring.context import ROWS, ROWS_PER_ASSET, Context
from batteryops.monitoring.counts import Counts
from batteryops.monitoring.reference import Reference

RNG = np.random.default_rng(40)


def table(rows: int, assets: int) -> pl.DataFrame:
    """Rows of assets in turn, with a value missing now and then."""
    return pl.DataFrame(
        {
            "asset_id": [f"EV-{row % assets}" for row in range(rows)],
            "op_index": [row // assets for row in range(rows)],
            "x": np.where(RNG.random(rows) < 0.1, np.nan, RNG.normal(size=rows)),
            "y": RNG.normal(size=rows).astype(np.float32),
        }
    )


def sample(rows: pl.DataFrame, *, by_asset: bool = True) -> Context:
    return Context.of(
        {name: rows[name].to_numpy() for name in ("x", "y")},
        rows.height,
        assets=rows["asset_id"] if by_asset else None,
        order=rows["op_index"],
    )


def same(one: Context, other: Context) -> bool:
    return one.rows.equals(other.rows) and one.assets.equals(other.assets)


MANY = table(20_000, 150)


@given(cuts=st.lists(st.integers(0, 20_000), max_size=4), seed=st.integers(0, 99))
def test_samples_of_pieces_in_any_order_are_the_sample_of_all(cuts: list[int], seed: int) -> None:
    shuffled = MANY.sample(fraction=1.0, shuffle=True, seed=seed)
    ends = [0, *sorted(cuts), MANY.height]
    pieces = [sample(shuffled[a:b]) for a, b in pairwise(ends)]
    total = pieces[-1]
    for piece in pieces[:-1]:
        total = total + piece
    assert same(total, sample(MANY))


@pytest.mark.parametrize("by_asset", [True, False])
def test_a_long_table_and_its_pieces_have_one_sample(*, by_asset: bool) -> None:
    # so long that not all of its rows are sorted
    rows = table(250_000, 3)
    pieces = [sample(rows[a : a + 60_000], by_asset=by_asset) for a in range(0, 250_000, 60_000)]
    total = pieces[0]
    for piece in pieces[1:]:
        total = total + piece
    whole = sample(rows, by_asset=by_asset)
    assert same(total, whole)
    assert whole.rows.height == (3 * ROWS_PER_ASSET if by_asset else ROWS)
    assert whole.weights.sum() == pytest.approx(250_000)


def test_whole_assets_are_sampled_and_the_same_ones_on_both_sides() -> None:
    first, second = sample(MANY[:12_000]), sample(MANY[5_000:])
    kept = first.rows.group_by("asset").len()
    assert first.rows.height <= ROWS
    assert kept["len"].unique().to_list() == [ROWS_PER_ASSET]
    assert {*first.assets["asset"]} == {*second.assets["asset"]}
    assert first.assets["seen"].unique().to_list() == [80]
    assert first.weights == pytest.approx(80 / ROWS_PER_ASSET)


def test_a_sample_stands_for_all_rows() -> None:
    rows = table(100_000, 1_000).with_columns(x=pl.col("op_index").cast(pl.Float64))
    kept = sample(rows)
    mean = np.average(kept.values(["x"])[:, 0], weights=kept.weights)
    assert mean == pytest.approx(49.5, abs=4 * 29 / np.sqrt(kept.rows.height))


def test_rows_that_are_all_alike_are_sampled_too() -> None:
    alike = pl.DataFrame({"asset_id": ["a"] * 150_000, "op_index": 1, "x": 1.0, "y": 2.0})
    kept = sample(alike)
    assert (kept.rows.height, kept.weights.sum()) == (ROWS_PER_ASSET, 150_000)


def test_a_sample_survives_json_and_tells_no_names() -> None:
    kept = sample(MANY)
    told = json.dumps(kept.to_json(), allow_nan=False)
    assert "EV-" not in told
    assert same(Context.from_json(json.loads(told)), kept)


def test_references_and_counts_carry_it() -> None:
    reference = Reference.fit(MANY, ["x", "y"])
    assert reference.context is not None
    assert same(reference.context, sample(MANY))
    again = Reference.from_json(json.loads(json.dumps(reference.to_json())))
    assert again.context is not None
    assert same(again.context, sample(MANY))
    counts = Counts.of(again, MANY[:500]) + Counts.of(again, MANY[500:])
    assert counts.context is not None
    assert same(counts.context, sample(MANY))
    kept = Counts.from_json(json.loads(json.dumps(counts.to_json())), again)
    assert kept.context is not None
    assert same(kept.context, sample(MANY))


def test_a_reference_without_a_sample_gathers_none() -> None:
    document = Reference.fit(MANY, ["x", "y"]).to_json()
    del document["context"]
    older = Reference.from_json(document)
    counts = Counts.of(older, MANY[:500])
    assert older.context is None
    assert counts.context is None
    assert (counts + counts).context is None


@pytest.mark.parametrize("field", ["asset", "seen"])
def test_a_sample_that_does_not_fit_together_is_refused(field: str) -> None:
    document = Reference.fit(MANY, ["x", "y"]).to_json()
    document["context"][field] = "1 2 3"
    with pytest.raises(DataError, match="no reference for drift"):
        Reference.from_json(document)
