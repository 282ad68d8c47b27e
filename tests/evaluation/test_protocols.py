"""Splits: who trains, who is tested, and that nobody is on both sides."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from batteryops.errors import DataError, SettingsError
from batteryops.evaluation.protocols import (
    PROTOCOLS,
    Split,
    SplitPlan,
    asset_groups,
    make_splits,
    reveal,
    schedule_groups,
)
from batteryops.settings import find_config, load_settings

NASA_SCHEDULES = [
    "B0005 B0006 B0007",
    "B0018",
    "B0025 B0026 B0027 B0028",
    "B0029 B0030 B0031 B0032",
    "B0038 B0039 B0040",
    "B0041",
    "B0042 B0043 B0044",
    "B0049 B0050 B0051 B0052",
    "B0053",
    "B0054 B0055 B0056",
]


def nasa(data_folder: Path) -> pl.DataFrame:
    return pl.read_csv(data_folder / "source_system" / "nasa_feature_matrix.csv").rename(
        {"battery_id": "asset_id", "cycle": "op_index", "capacity": "capacity_ah"}
    )


def fleet(cycles: dict[str, int]) -> pl.DataFrame:
    """Assets with so many cycles each, every one on a clock of its own."""
    return pl.DataFrame(
        [
            {"asset_id": asset, "op_index": i, "discharge_time_s": 1000.0 * k + 10.0 * i}
            for k, (asset, n) in enumerate(cycles.items())
            for i in range(n)
        ],
        schema={"asset_id": pl.String, "op_index": pl.Int32, "discharge_time_s": pl.Float64},
    )


def members(groups: dict[str, str]) -> list[str]:
    return sorted(
        " ".join(sorted(asset for asset in groups if groups[asset] == name))
        for name in set(groups.values())
    )


@st.composite
def tables(draw: st.DrawFn) -> pl.DataFrame:
    """Shuffled tables of a few assets, some of which share clocks or leave them out."""
    rows = []
    for k in range(draw(st.integers(2, 6))):
        n = draw(st.integers(1, 9)) if k > 1 else draw(st.integers(4, 9))
        schedule = draw(st.integers(0, 3)) if k else 9  # the first is always alone
        cycles = draw(st.lists(st.integers(1, 40), min_size=n, max_size=n, unique=True))
        for i in cycles:
            clock = draw(st.sampled_from([100.0 * schedule + i, 100.0 * schedule + i, None]))
            rows.append({"asset_id": f"A{k}", "op_index": i, "discharge_time_s": clock})
    order = draw(st.permutations(range(len(rows))))
    table = pl.DataFrame(rows, schema_overrides={"discharge_time_s": pl.Float64})
    return table[list(order)]


def rows_of(splits: list[Split]) -> list[int]:
    return sorted(np.concatenate([split.test for split in splits]).tolist())


@settings(max_examples=60)
@given(table=tables(), protocol=st.sampled_from(PROTOCOLS))
def test_no_row_is_on_both_sides_and_every_row_is_used(table: pl.DataFrame, protocol: str) -> None:
    splits = make_splits(table, protocol, SplitPlan())
    for split in splits:
        together = np.concatenate([split.train, split.test])
        assert sorted(together.tolist()) == list(range(table.height))
        assert split.train.dtype == split.test.dtype == np.int64


@settings(max_examples=60)
@given(table=tables())
def test_each_row_is_tested_once_and_no_group_is_on_both_sides(table: pl.DataFrame) -> None:
    plan = SplitPlan(groups=(("A1", "A2"),))
    assets = table["asset_id"].to_numpy()
    for protocol, groups in (
        ("unseen_assets", asset_groups(assets.tolist(), plan.groups)),
        ("unseen_schedules", schedule_groups(table, groups=plan.groups)),
    ):
        splits = make_splits(table, protocol, plan)
        assert rows_of(splits) == list(range(table.height))
        for split in splits:
            trained = {groups[asset] for asset in assets[split.train]}
            tested = {groups[asset] for asset in assets[split.test]}
            assert tested == {split.name}
            assert not trained & tested


@settings(max_examples=60)
@given(table=tables(), share=st.floats(0.1, 0.9))
def test_no_later_cycle_trains(table: pl.DataFrame, share: float) -> None:
    [split] = make_splits(table, "later_cycles", SplitPlan(train_share=share))
    for asset in table["asset_id"].unique():
        of_asset = [
            table[rows].filter(pl.col("asset_id") == asset)["op_index"]
            for rows in (split.train, split.test)
        ]
        assert len(of_asset[0]) >= 1
        if len(of_asset[1]):
            assert of_asset[0].max() < of_asset[1].min()  # type: ignore[operator]  # any scalar


@settings(max_examples=60)
@given(table=tables())
def test_groups_by_schedule_are_at_least_as_coarse_as_configured_groups(
    table: pl.DataFrame,
) -> None:
    groups = schedule_groups(table, groups=[("A0", "A1")])
    assert groups["A0"] == groups["A1"]
    assert list(groups) == sorted(set(table["asset_id"]))


def test_random_is_the_split_of_scikit_learn_on_the_rows_as_given() -> None:
    table = fleet({"a": 60, "b": 41})
    [split] = make_splits(table, "random", SplitPlan(seed=42, test_share=0.3))
    train, test = train_test_split(np.arange(101), test_size=0.3, random_state=42)
    assert split.train.tolist() == train.tolist()
    assert split.test.tolist() == test.tolist()


def test_sixty_percent_of_fifteen_cycles_are_nine_despite_binary_fractions() -> None:
    [split] = make_splits(fleet({"a": 15, "b": 5}), "later_cycles", SplitPlan(train_share=0.6))
    assert split.train.size == 9 + 3
    assert split.test.size == 6 + 2


def test_an_asset_with_a_single_cycle_trains_and_is_not_tested() -> None:
    [split] = make_splits(fleet({"a": 10, "b": 1}), "later_cycles", SplitPlan(train_share=0.6))
    assert 10 in split.train


def test_configured_groups_are_held_out_together() -> None:
    table = fleet({"B0005": 3, "B0006": 3, "B0018": 3})
    splits = make_splits(table, "unseen_assets", SplitPlan(groups=(("B0005", "B0006", "B0007"),)))
    assert [split.name for split in splits] == ["B0005+B0006", "B0018"]
    assert splits[0].test.tolist() == [0, 1, 2, 3, 4, 5]


def test_configured_groups_that_share_an_asset_become_one() -> None:
    assert members(asset_groups("abcd", [("a", "b"), ("b", "c")])) == ["a b c", "d"]


def test_large_groups_are_named_after_their_first_asset() -> None:
    names = set(asset_groups("abcdef", ["abcde"]).values())
    assert names == {"a and 4 others", "f"}


def test_clocks_that_coincide_in_half_of_common_cycles_join_and_in_fewer_do_not() -> None:
    own = [1.5, 2.5, 3.5, 4.5]
    half = [1.5, 2.5, 7.5, 8.5]
    quarter = [0.5, 9.5, 3.5, 6.5]  # shares one reading with `own`, none with `half`
    table = pl.DataFrame(
        {
            "asset_id": ["own"] * 4 + ["half"] * 4 + ["quarter"] * 4,
            "op_index": [1, 2, 3, 4] * 3,
            "discharge_time_s": own + half + quarter,
        }
    )
    assert members(schedule_groups(table)) == ["half own", "quarter"]


def test_companions_of_companions_are_one_group() -> None:
    table = pl.DataFrame(
        {
            "asset_id": ["a", "b", "b", "c"],
            "op_index": [1, 1, 2, 2],
            "discharge_time_s": [3.25, 3.25, 4.25, 4.25],
        }
    )
    assert members(schedule_groups(table)) == ["a b c"]


def test_equal_clocks_at_different_cycles_and_missing_clocks_join_nobody() -> None:
    table = pl.DataFrame(
        {
            "asset_id": ["a", "a", "b", "b", "c", "c", "d"],
            "op_index": [1, 2, 2, 3, 1, 2, 1],
            "discharge_time_s": [5.5, None, float("nan"), 5.5, None, float("nan"), None],
        }
    )
    assert members(schedule_groups(table)) == ["a", "b", "c", "d"]


def test_another_clock_column_can_be_named() -> None:
    table = fleet({"a": 4, "b": 4}).with_columns(voltage_drop_time_s=pl.col("op_index") + 0.5)
    with pytest.raises(DataError, match=r"all 2 assets are one group \(a\+b\)"):
        make_splits(table, "unseen_schedules", SplitPlan(clock="voltage_drop_time_s"))


def test_an_unknown_protocol_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="'rendom' is not among random, later_cycles"):
        make_splits(fleet({"a": 5}), "rendom", SplitPlan())


@pytest.mark.parametrize("protocol", ["unseen_assets", "unseen_schedules"])
def test_a_single_group_cannot_be_unseen(protocol: str) -> None:
    with pytest.raises(DataError, match="expected at least two groups"):
        make_splits(fleet({"a": 5}), protocol, SplitPlan())


@pytest.mark.parametrize(
    ("protocol", "cycles", "plan"),
    [
        ("random", {"a": 3}, SplitPlan()),
        ("random", {"a": 10}, SplitPlan(test_share=0.95)),
        ("later_cycles", {"a": 2}, SplitPlan()),
        ("later_cycles", {"a": 1, "b": 1, "c": 1}, SplitPlan()),
        ("unseen_assets", {"a": 1, "b": 1}, SplitPlan()),
    ],
)
def test_too_few_rows_are_refused_with_what_is_needed(
    protocol: str, cycles: dict[str, int], plan: SplitPlan
) -> None:
    with pytest.raises(DataError, match=f"protocol {protocol}: .* expected at least 2 of each"):
        make_splits(fleet(cycles), protocol, plan)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (fleet({"a": 5}).drop("op_index"), "lacks op_index; given asset_id, discharge_time_s"),
        (fleet({}), "no labelled rows"),
        (fleet({"a": 5}).with_columns(asset_id=5), "asset_id is Int32, expected String"),
        (fleet({"a": 5}).with_columns(op_index=pl.lit("x")), "op_index is String, expected an int"),
        (fleet({"a": 5}).with_columns(op_index=pl.lit(None, pl.Int32)), "op_index is empty in 5"),
    ],
)
def test_a_broken_key_is_refused(table: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_splits(table, "random", SplitPlan())


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (fleet({"a": 5}).drop("discharge_time_s"), "lacks discharge_time_s"),
        (fleet({"a": 5}).with_columns(discharge_time_s=pl.lit("x")), "expected numbers: a clock"),
    ],
)
def test_schedules_cannot_be_found_without_a_clock(table: pl.DataFrame, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_splits(table, "unseen_schedules", SplitPlan())


@pytest.mark.data
def test_the_nasa_cells_fall_into_the_schedules_that_they_were_cycled_on(
    data_folder: Path,
) -> None:
    assert members(schedule_groups(nasa(data_folder))) == NASA_SCHEDULES


@pytest.mark.data
def test_the_nasa_cells_make_25_unseen_assets_and_10_unseen_schedules(data_folder: Path) -> None:
    table = nasa(data_folder)
    plan = SplitPlan(groups=(("B0005", "B0006", "B0007"),))
    assert len(make_splits(table, "unseen_assets", plan)) == 25
    assert len(make_splits(table, "unseen_schedules", plan)) == 10


@given(sizes=st.lists(st.integers(2, 9), min_size=2, max_size=12), max_folds=st.integers(2, 6))
def test_many_groups_share_a_limited_number_of_folds_and_stay_whole(
    sizes: list[int], max_folds: int
) -> None:
    table = pl.DataFrame(
        {
            "asset_id": [f"a{asset}" for asset, size in enumerate(sizes) for _ in range(size)],
            "op_index": [cycle for size in sizes for cycle in range(size)],
        }
    )
    splits = make_splits(table, "unseen_assets", SplitPlan(max_folds=max_folds))

    assert len(splits) == min(max_folds, len(sizes))
    assert sorted(row for split in splits for row in split.test) == list(range(table.height))
    for split in splits:
        assert not set(table["asset_id"][split.train]) & set(table["asset_id"][split.test])


def test_folds_of_several_groups_are_about_equal() -> None:
    sizes = {"a": 60, "b": 50, "c": 40, "d": 30, "e": 20, "f": 10}
    table = pl.DataFrame(
        {
            "asset_id": [asset for asset, size in sizes.items() for _ in range(size)],
            "op_index": [cycle for size in sizes.values() for cycle in range(size)],
        }
    )
    splits = make_splits(table, "unseen_assets", SplitPlan(max_folds=3))
    assert [split.test.size for split in splits] == [70, 70, 70]


def test_a_plan_of_ones_own_defaults_to_what_the_configuration_says() -> None:
    in_force = load_settings(find_config())
    configured = SplitPlan.from_settings(in_force.evaluation, in_force.training.seed)
    assert replace(configured, groups=()) == SplitPlan()


def test_known_measurements_are_the_first_of_each_tested_asset_and_are_not_tested() -> None:
    table = pl.DataFrame({"asset_id": ["a"] * 3 + ["b"] * 4, "op_index": [1, 2, 3, 8, 2, 6, 4]})
    split = Split("b", train=np.arange(3), test=np.arange(3, 7))
    [found] = reveal([split], table, first=2)
    assert table["op_index"][found.known.tolist()].to_list() == [2, 4]
    assert table["op_index"][found.test.tolist()].to_list() == [8, 6]
    assert found.train.tolist() == [0, 1, 2]

    [rolling] = reveal([split], table, first=None)
    assert rolling.known.tolist() == rolling.test.tolist() == split.test.tolist()


def test_nothing_is_left_to_ask_when_all_is_known() -> None:
    table = pl.DataFrame({"asset_id": ["a", "b"], "op_index": [1, 1]})
    split = Split("b", train=np.array([0]), test=np.array([1]))
    with pytest.raises(DataError, match="more than 1 measured cycles; let fewer be known"):
        reveal([split], table, first=1)
