"""How a feature table is split for evaluation: which rows train and which are tested.

Four protocols, from the most forgiving to the strictest question:

| protocol | what it asks |
|---|---|
| `random` | other cycles of the same assets; what the source system reports |
| `later_cycles` | the future of assets whose past was seen |
| `unseen_assets` | assets that were not in training, configured groups held out together |
| `unseen_schedules` | assets of which no companion on the same schedule was in training |

Assets that were cycled together share the clock of their records, so one of them in training tells
a model about the others. `unseen_schedules` finds such companions in the data.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from sklearn.model_selection import train_test_split

from batteryops.errors import DataError, SettingsError

if TYPE_CHECKING:
    from batteryops.settings import EvaluationSettings

CLOCK: Final = "discharge_time_s"
"""The column whose bits betray a shared schedule: the time of a record's last sample."""

SHARED_CLOCK_SHARE: Final = 0.5
"""Two assets share a schedule when their clocks coincide in this share of common cycles."""

MIN_ROWS: Final = 2
"""Rows that training and test each need, together, for any metric to be defined."""

ROUNDING: Final = 1e-9
"""Keeps 0.6 x 15 = 8.999999999999998 from losing a cycle."""

NAMED_MEMBERS: Final = 4
"""Groups of up to this many assets are named after all of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """One division of a table.

    Args:
        name: the protocol, or the group of assets that is held out.
        train: row numbers that train, int64, each once.
        test: row numbers that are tested, int64, each once and none of them in `train`.
        known: row numbers of tested assets whose labels are known when later cycles of the same
            asset are asked about; none trains. `reveal` fills it.
    """

    name: str
    train: NDArray[np.int64]
    test: NDArray[np.int64]
    known: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """What the protocols need to know.

    Args:
        seed: of the `random` split.
        test_share: share of rows that `random` tests, between 0 and 1.
        train_share: share of each asset's first cycles that `later_cycles` trains on.
        groups: assets known to have been aged together; they count as one.
        max_folds: of the `unseen_*` protocols; more groups than that are held out several at a
            time.
        clock: column in which `unseen_schedules` looks for coinciding clocks.
    """

    seed: int = 42
    test_share: float = 0.3
    train_share: float = 0.6
    groups: tuple[tuple[str, ...], ...] = ()
    max_folds: int = 40
    clock: str = CLOCK

    @classmethod
    def from_settings(cls, settings: "EvaluationSettings", seed: int, clock: str = CLOCK) -> Self:
        """The plan that the configuration asks for."""
        return cls(
            seed=seed,
            test_share=settings.test_share,
            train_share=settings.train_share,
            groups=settings.groups,
            max_folds=settings.max_folds,
            clock=clock,
        )


def make_splits(table: pl.DataFrame, protocol: str, plan: SplitPlan) -> list[Split]:
    """Divide the rows of a feature table.

    `random` and `later_cycles` give one split, whose train and test rows together are the whole
    table. The `unseen_*` protocols give one split per group, or per several groups where
    there are more than `plan.max_folds`; each row is tested exactly once.

    Args:
        table: columns `asset_id` (String) and `op_index` (integer), one row per cycle, in any
            order; `unseen_schedules` needs the clock column as well.
        protocol: one of `PROTOCOLS`.
        plan: shares, seed and groups.

    Raises:
        SettingsError: when there is no such protocol.
        DataError: when a column is missing, or rows, assets or groups are too few.

    Examples:
        >>> table = pl.DataFrame({"asset_id": ["a"] * 5 + ["b"] * 5, "op_index": [*range(5)] * 2})
        >>> [split] = make_splits(table, "later_cycles", SplitPlan(train_share=0.6))
        >>> split.train.tolist(), split.test.tolist()
        ([0, 1, 2, 5, 6, 7], [3, 4, 8, 9])
        >>> [(split.name, split.test.size) for split in make_splits(
        ...     table, "unseen_assets", SplitPlan())]
        [('a', 5), ('b', 5)]
    """
    if protocol not in _PROTOCOLS:
        raise SettingsError(f"protocol {protocol!r} is not among {', '.join(PROTOCOLS)}")
    check_key(table)
    splits = _PROTOCOLS[protocol](table, plan)
    for split in splits:
        if split.train.size < MIN_ROWS or sum(each.test.size for each in splits) < MIN_ROWS:
            raise _too_few(protocol, table.height, split.train.size, split.test.size)
    return splits


def reveal(splits: Sequence[Split], table: pl.DataFrame, first: int | None) -> list[Split]:
    """Make measurements of the tested assets known, as a workshop's would be.

    Args:
        splits: of the table.
        table: `asset_id` and `op_index`; every row has a label.
        first: so many measurements at the start of each asset's life are known, and not tested;
            None: at every cycle all earlier ones are known, and all rows are tested.

    Raises:
        DataError: when no row is left to test.

    Examples:
        >>> table = pl.DataFrame({"asset_id": ["a", "b", "b", "b"], "op_index": [1, 6, 2, 4]})
        >>> split = Split("b", train=np.array([0]), test=np.array([1, 2, 3]))
        >>> [found] = reveal([split], table, first=2)
        >>> found.known.tolist(), found.test.tolist()
        ([2, 3], [1])
    """
    age = table.select(pl.col("op_index").rank("ordinal").over("asset_id")).to_series().to_numpy()
    if first is None:
        revealed = [replace(split, known=split.test) for split in splits]
    else:
        revealed = [
            replace(
                split,
                known=split.test[age[split.test] <= first],
                test=split.test[age[split.test] > first],
            )
            for split in splits
        ]
    tested = [split for split in revealed if split.test.size]
    if not tested:
        raise DataError(
            f"no tested asset has more than {first} measured cycles; let fewer be known"
        )
    return tested


def check_key(table: pl.DataFrame) -> None:
    """Raise unless the table has its key columns, without gaps.

    Raises:
        DataError: naming what is missing, empty or of the wrong type.
    """
    _require(table, ("asset_id", "op_index"))
    if table.is_empty():
        raise DataError("the feature table has no labelled rows; expected one row per cycle")
    if table.schema["asset_id"] != pl.String:
        raise DataError(f"column asset_id is {table.schema['asset_id']}, expected String")
    if not table.schema["op_index"].is_integer():
        raise DataError(f"column op_index is {table.schema['op_index']}, expected an integer")
    for name in ("asset_id", "op_index"):
        if gaps := table[name].null_count():
            raise DataError(f"column {name} is empty in {gaps} rows; every cycle needs its key")


def schedule_groups(
    table: pl.DataFrame,
    *,
    groups: Collection[Sequence[str]] = (),
    clock: str = CLOCK,
) -> dict[str, str]:
    """Find the assets that were cycled together.

    Two assets are companions when `clock` is equal, bit for bit, at the same `op_index` in at
    least half of the cycles that both have. Companions of companions belong to one group, and so
    do configured groups.

    Args:
        table: columns `asset_id`, `op_index` and `clock`; a null or NaN clock never coincides.
        groups: assets that count as one whatever their clocks say.
        clock: column to compare; continuous, such as the time of the record's last sample.

    Returns:
        For each asset, sorted, the name of its group.

    Raises:
        DataError: when the clock column is missing or no number.

    Examples:
        >>> table = pl.DataFrame({
        ...     "asset_id": ["a", "a", "b", "b", "c", "c"],
        ...     "op_index": [1, 2, 1, 2, 1, 2],
        ...     "discharge_time_s": [3690.2, 3672.3, 3690.2, 3672.3, 3511.0, 3498.7],
        ... })
        >>> schedule_groups(table)
        {'a': 'a+b', 'b': 'a+b', 'c': 'c'}
    """
    _require(table, (clock,))
    if not table.schema[clock].is_numeric():
        raise DataError(f"column {clock} is {table.schema[clock]}, expected numbers: a clock")
    assets = table["asset_id"].unique().sort()
    records = (
        table.select("asset_id", "op_index", clock=pl.col(clock).cast(pl.Float64))
        .filter(pl.col("clock").is_not_nan())  # drops nulls as well
        .unique(["asset_id", "op_index"], keep="first", maintain_order=True)
        .select(
            asset=pl.col("asset_id").replace_strict(assets, range(len(assets))),
            cycle=pl.col("op_index").rank("dense").cast(pl.Int64) - 1,
            reading=pl.struct("op_index", "clock").rank("dense").cast(pl.Int64) - 1,
        )
    )
    # incidence matrices: products of them count what pairs of assets have in common
    has_cycle = _incidence(records, "cycle", len(assets)).toarray()
    has_reading = _incidence(records, "reading", len(assets))
    common = has_cycle @ has_cycle.T
    equal = (has_reading @ has_reading.T).toarray()
    together = (equal > 0) & (equal >= SHARED_CLOCK_SHARE * common)
    return _components(assets.to_list(), groups, together)


def held_out_groups(table: pl.DataFrame, protocol: str, plan: SplitPlan) -> dict[str, str]:
    """Each asset's group, as a protocol understands groups.

    `unseen_schedules` finds them in the data; for the other protocols they are as configured.

    Args:
        table: as `make_splits` takes it.
        protocol: one of `PROTOCOLS`.
        plan: the configured groups.

    Raises:
        DataError: when the clock column is needed and missing.
    """
    if protocol == "unseen_schedules":
        return schedule_groups(table, groups=plan.groups, clock=plan.clock)
    return asset_groups(table["asset_id"], plan.groups)


def asset_groups(
    asset_ids: Collection[str], groups: Collection[Sequence[str]] = ()
) -> dict[str, str]:
    """Each asset's group: itself, unless a configured group holds it.

    Configured groups that share an asset become one; assets that are absent are ignored.

    Examples:
        >>> asset_groups(["B0005", "B0006", "B0018"], [("B0005", "B0006", "B0007")])
        {'B0005': 'B0005+B0006', 'B0006': 'B0005+B0006', 'B0018': 'B0018'}
    """
    assets = sorted(set(asset_ids))
    return _components(assets, groups, np.eye(len(assets), dtype=np.bool_))


def _too_few(protocol: str, rows: int, train: int, test: int) -> DataError:
    return DataError(
        f"protocol {protocol}: {rows} labelled rows leave {train} to train and {test} to test; "
        f"expected at least {MIN_ROWS} of each: give more cycles"
    )


def _random(table: pl.DataFrame, plan: SplitPlan) -> list[Split]:
    n_test = math.ceil(plan.test_share * table.height)  # as scikit-learn rounds
    if min(n_test, table.height - n_test) < MIN_ROWS:
        raise _too_few("random", table.height, table.height - n_test, n_test)
    train, test = train_test_split(
        np.arange(table.height), test_size=plan.test_share, random_state=plan.seed
    )
    return [Split("random", train.astype(np.int64), test.astype(np.int64))]


def _unseen_assets(table: pl.DataFrame, plan: SplitPlan) -> list[Split]:
    return _hold_out(table, held_out_groups(table, "unseen_assets", plan), "unseen_assets", plan)


def _unseen_schedules(table: pl.DataFrame, plan: SplitPlan) -> list[Split]:
    found = held_out_groups(table, "unseen_schedules", plan)
    return _hold_out(table, found, "unseen_schedules", plan)


def _later_cycles(table: pl.DataFrame, plan: SplitPlan) -> list[Split]:
    position = pl.int_range(pl.len()).over("asset_id")
    # at least one: an asset of a single cycle trains and is not tested
    first = (pl.len().over("asset_id") * plan.train_share + ROUNDING).floor().clip(lower_bound=1)
    rows = (
        table.select("asset_id", "op_index")
        .with_row_index("row")
        .sort("asset_id", "op_index", maintain_order=True)
        .select(pl.col("row").cast(pl.Int64), train=position < first)
        .sort("row")
    )
    trains = rows["train"].to_numpy()
    every = rows["row"].to_numpy()
    return [Split("later_cycles", every[trains], every[~trains])]


_PROTOCOLS: Final[Mapping[str, Callable[[pl.DataFrame, SplitPlan], list[Split]]]] = {
    "random": _random,
    "later_cycles": _later_cycles,
    "unseen_assets": _unseen_assets,
    "unseen_schedules": _unseen_schedules,
}
PROTOCOLS: Final = tuple(_PROTOCOLS)
"""The names of all protocols, from the most forgiving to the strictest."""


def _hold_out(
    table: pl.DataFrame, group_of: Mapping[str, str], protocol: str, plan: SplitPlan
) -> list[Split]:
    group_names = sorted(set(group_of.values()))
    if len(group_names) < 2:  # noqa: PLR2004  # one to hold out and one to train on
        raise DataError(
            f"protocol {protocol}: all {len(group_of)} assets are one group ({group_names[0]}); "
            "expected at least two groups: give assets that were aged on their own"
        )
    fold_of = _folds(table["asset_id"].replace_strict(group_of), plan.max_folds)
    held = table["asset_id"].replace_strict(
        {asset: fold_of[group] for asset, group in group_of.items()}
    )
    fold = held.to_numpy()
    return [
        Split(name, np.flatnonzero(fold != name), np.flatnonzero(fold == name))
        for name in sorted(set(fold_of.values()))
    ]


def _folds(groups: pl.Series, max_folds: int) -> dict[str, str]:
    """Each group's fold: itself, or one of `max_folds` of about equal size where there are more.

    The largest group goes first, each to the fold that has the fewest rows so far.
    """
    sizes = groups.value_counts().sort("count", groups.name, descending=[True, False])
    if sizes.height <= max_folds:
        return {name: name for name in sizes[groups.name]}
    rows = [0] * max_folds
    fold_of = {}
    for name, count in sizes.iter_rows():
        smallest = rows.index(min(rows))
        rows[smallest] += count
        fold_of[name] = f"fold {smallest + 1:0{len(str(max_folds))}d}"
    return fold_of


def _incidence(records: pl.DataFrame, column: str, n_assets: int) -> sparse.csr_array:
    """Matrix (assets, distinct values of `column`): 1 where the asset has the value."""
    width = int(records[column].max() or 0) + 1  # type: ignore[arg-type]  # Polars: any scalar
    ones = np.ones(records.height, dtype=np.float32)
    places = (records["asset"].to_numpy(), records[column].to_numpy())
    return sparse.csr_array((ones, places), shape=(n_assets, width))


def _components(
    assets: Sequence[str], groups: Collection[Sequence[str]], together: NDArray[np.bool_]
) -> dict[str, str]:
    """Name the connected components of companions united with configured groups."""
    linked = together.copy()
    number = {asset: position for position, asset in enumerate(assets)}
    for group in groups:
        members = [number[asset] for asset in group if asset in number]
        linked[np.ix_(members, members)] = True
    _, labels = csgraph.connected_components(linked, directed=False)
    members_of: dict[int, list[str]] = {}
    for asset, label in zip(assets, labels.tolist(), strict=True):
        members_of.setdefault(label, []).append(asset)
    names = {label: _group_name(members) for label, members in members_of.items()}
    return {asset: names[label] for asset, label in zip(assets, labels.tolist(), strict=True)}


def _group_name(members: Sequence[str]) -> str:
    if len(members) > NAMED_MEMBERS:
        return f"{members[0]} and {len(members) - 1} others"
    return "+".join(members)


def _require(table: pl.DataFrame, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(
            f"the feature table lacks {', '.join(missing)}; given {', '.join(table.columns)}, "
            f"expected {', '.join(names)}"
        )
