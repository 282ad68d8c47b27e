"""What judges is of other batteries than what is learned from; labelled rows are checked."""

import numpy as np
import polars as pl
import pytest

from batteryops.errors import DataError
from batteryops.evaluation.owners import Owners
from batteryops.features.views import get_view
from batteryops.models.acceptance import Judges
from batteryops.models.labelled import LabelledRows
from batteryops.models.setting_aside import hold_out, set_aside
from models.labelled_fleets import VIEW, plain_rows


def rows(*assets: str, profiles: list[str] | None = None) -> LabelledRows:
    return plain_rows([[0.0]] * len(assets), [1.5] * len(assets), assets=assets, profiles=profiles)


def test_whole_groups_are_held_out() -> None:
    aged_together = plain_rows(
        [[0.0]] * 6, [1.5] * 6, assets=list("aabbcd"), groups=["ab"] * 4 + ["c", "d"]
    )
    for seed in range(20):
        kept, held = hold_out(aged_together, 0.4, seed=seed)
        assert set(kept.owners.groups) | set(held.owners.groups) == {"ab", "c", "d"}
        assert not set(kept.owners.groups) & set(held.owners.groups)


def test_every_profile_with_two_batteries_is_judged_and_learned_from() -> None:
    both = rows(*"abcdefghij", "x", "y", profiles=["cells"] * 10 + ["packs"] * 2)

    kept, held = hold_out(both, 0.3, seed=1)

    assert sorted(held.profiles.tolist()) == ["cells"] * 3 + ["packs"]
    assert sorted(kept.profiles.tolist()) == ["cells"] * 7 + ["packs"]


def test_labels_of_one_vehicle_cannot_be_held_out_by_vehicle() -> None:
    with pytest.raises(DataError, match=r"all 3 labelled rows are of EV-0007; a model is judged"):
        hold_out(rows("EV-0007", "EV-0007", "EV-0007"), 0.3, seed=1)
    with pytest.raises(DataError, match="share to hold out is 1"):
        hold_out(rows("a", "b"), 1.0, seed=1)


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ("abcdef", "uvwxyz"),  # another fleet
        ("abcdef", "abcdef"),  # the same
        ("abcdef", "defghi"),  # some of it
        ("abcdef", "ab"),  # few of it
    ],
)
def test_no_battery_is_learned_from_and_judges(new: str, old: str) -> None:
    for seed in range(20):
        parts = set_aside(rows(*new), rows(*old), share=0.3, seed=seed)
        learned = {*parts.learned.assets, *parts.past.assets}
        judging = {*parts.judges.new.assets, *parts.judges.old.assets}
        assert not learned & judging


def test_batteries_of_given_judges_are_not_learned_from() -> None:
    judges = Judges(rows("a"), rows("z"))

    parts = set_aside(rows("a", "b", "z"), rows("a", "y", "z"), share=0.3, seed=1, judges=judges)

    assert (parts.learned.assets, parts.past.assets) == (("b",), ("y",))
    with pytest.raises(DataError, match="all 2 old rows are of batteries that judge"):
        set_aside(rows("b", "c"), rows("a", "z"), share=0.3, seed=1, judges=judges)


PROFILES = {"B0005": "nasa", "B0006": "nasa"}


def table(**columns: object) -> pl.DataFrame:
    given = {"asset_id": ["B0005", "B0006"], **{name: [1.0, 2.0] for name in VIEW.names}}
    return pl.DataFrame({**given, "capacity_ah": [1.8, 1.6], **columns}, strict=False)


def of(given: pl.DataFrame) -> LabelledRows:
    return LabelledRows.of(
        VIEW,
        given,
        profiles=PROFILES,
        nominal_ah={"nasa": 2.0},
        groups={"B0005": "together", "B0006": "together"},
    )


def test_rows_of_a_table_know_their_profile_soh_and_group() -> None:
    given = of(table())

    assert given.soh.tolist() == [0.9, 0.8]
    assert given.profiles.tolist() == ["nasa", "nasa"]
    assert given.owners.groups.tolist() == ["together", "together"]
    assert given.assets == ("B0005", "B0006")


def test_rows_without_labels_and_labels_without_sense_are_refused() -> None:
    for labels in ([1.8, None], [1.8, float("nan")], [float("inf"), 1.8]):
        with pytest.raises(DataError, match="1 of 2 labels are missing or infinite"):
            of(table(capacity_ah=labels))
    with pytest.raises(DataError, match="2 of 2 labels are missing"):
        of(table(capacity_ah=[None, None]))
    with pytest.raises(DataError, match=r"no labelled rows; .* wait for labels"):
        of(table().head(0))
    with pytest.raises(DataError, match="has no capacity_ah"):
        of(table().drop("capacity_ah"))
    with pytest.raises(DataError, match="capacity_ah is String"):
        of(table(capacity_ah=["a", "b"]))
    with pytest.raises(DataError, match="X have no profile"):
        of(table(asset_id=["B0005", "X"]))
    with pytest.raises(DataError, match="voltage_V_mean holds an infinite value"):
        of(table(voltage_V_mean=[1.0, float("inf")]))
    with pytest.raises(DataError, match="missing feature"):
        LabelledRows.of(
            get_view("discharge_physics"), table(), profiles=PROFILES, nominal_ah={"nasa": 2.0}
        )


def test_arrays_that_do_not_fit_are_refused() -> None:
    owners = Owners(np.array(["a"], dtype=object), np.array(["a"], dtype=object))
    one, label = np.zeros((1, 1), dtype=np.float32), np.ones(1)
    profile = np.array(["p"], dtype=object)
    with pytest.raises(DataError, match=r"features are float64 \(1, 1\)"):
        LabelledRows(("x",), one.astype(np.float64), label, owners, profile, label)
    with pytest.raises(DataError, match=r"soh have shape \(2,\)"):
        LabelledRows(("x",), one, label, owners, profile, np.ones(2))
    with pytest.raises(DataError, match="the rows have the features a; expected a, b"):
        _ = plain_rows([[1.0, 2.0]], [1.0]) + rows("a")
