"""Whole groups of assets set aside, new and old, to judge what learns from the others."""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from batteryops.errors import DataError
from batteryops.models.acceptance import Judges
from batteryops.models.held_out import group_codes
from batteryops.models.labelled import LabelledRows

_FEWEST_GROUPS: Final = 2


def hold_out(rows: LabelledRows, share: float, *, seed: int) -> tuple[LabelledRows, LabelledRows]:
    """Set whole groups of assets aside: cycles of one battery resemble each other.

    Of every profile that has two groups or more, at least one is set aside and one is kept; where
    no profile has two, groups are drawn from all.

    Args:
        rows: of two groups or more.
        share: of each profile's groups, above 0 and below 1.
        seed: of the draw.

    Returns:
        What is kept, and what is set aside.

    Raises:
        DataError: all rows are of one group, or the share is out of range.
    """
    if not 0.0 < share < 1.0:
        raise DataError(f"the share to hold out is {share:g}; expected above 0 and below 1")
    codes = group_codes(rows.owners.groups, len(rows))
    groups, first = np.unique(codes, return_index=True)
    if groups.size < _FEWEST_GROUPS:
        raise DataError(
            f"all {len(rows)} labelled rows are of {' and '.join(rows.assets)}; a model is judged "
            "on batteries that it did not learn from, which needs labels of two or more: wait for "
            "labels of other batteries"
        )
    profile_of = rows.profiles[first].astype(str)
    drawn: list[int] = []
    rng = np.random.default_rng(seed)
    kinds = [groups[profile_of == profile] for profile in np.unique(profile_of)]
    if all(kind.size < _FEWEST_GROUPS for kind in kinds):
        kinds = [groups]
    for kind in kinds:
        if kind.size >= _FEWEST_GROUPS:
            count = min(max(1, round(share * kind.size)), kind.size - 1)
            drawn += rng.choice(kind, count, replace=False).tolist()
    out = np.isin(codes, drawn)
    return rows[~out], rows[out]


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """New and old rows in parts; no group is in one that is learned from and in one that judges.

    Args:
        learned: new rows to learn from.
        past: old rows to draw a replay sample from.
        judges: new and old rows that judge.
    """

    learned: LabelledRows
    past: LabelledRows
    judges: Judges


def set_aside(  # noqa: PLR0913 - two tables, and how to divide them
    new: LabelledRows,
    old: LabelledRows,
    *,
    share: float,
    seed: int,
    judges: Judges | None = None,
    unseen_ah: float = 0.0,
) -> Parts:
    """Set whole groups aside of new and of old rows, which may be of the same assets.

    Args:
        new: of two groups or more.
        old: what the groups set aside of the new rows have there judges too; beside it a share of
            the groups that have no new rows.
        share: of the groups, above 0 and below 1.
        seed: of the draw.
        judges: rows to judge by; when None they are drawn from the new and the old.
        unseen_ah: as for `Judges`, where they are drawn.

    Raises:
        DataError: rows of other features; nothing can be set aside, or nothing is left.
    """
    new.expect(old.names)
    if judges is None:
        judges = replace(_drawn(new, old, share, seed), unseen_ah=unseen_ah)
    both = judges.new + judges.old
    parts = []
    for what, rows in (("new", new), ("old", old)):
        kept = ~rows.of_groups(both)
        if not kept.any():
            raise DataError(
                f"all {len(rows)} {what} rows are of batteries that judge, so none is left to "
                "learn from; give labels of more batteries"
            )
        parts.append(rows[kept])
    return Parts(parts[0], parts[1], judges)


def _drawn(new: LabelledRows, old: LabelledRows, share: float, seed: int) -> Judges:
    _, judged = hold_out(new, share, seed=seed)
    out = old.of_groups(judged)
    others = ~old.of_groups(new)
    if not out.any() or len(set(old.owners.groups[others].tolist())) >= _FEWEST_GROUPS:
        free = others if others.any() else ~out
        _, drawn = hold_out(old[free], share, seed=seed)
        out |= old.of_groups(drawn)
    return Judges(judged, old[out])
