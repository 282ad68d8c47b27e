"""A few rows of the past, learned from along with the new ones, so that the past is not forgotten.

Rehearsal: Robins, Catastrophic forgetting, rehearsal and pseudorehearsal, Connection Science 7,
1995. What is rare in the past is as easily forgotten as what is common, so that each stratum has
the same share of the sample, and in it each asset, as far as they have rows.
"""

import numpy as np
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.models.held_out import group_codes
from batteryops.models.labelled import LabelledRows


def replay_sample(old: LabelledRows, size: int, *, seed: int) -> LabelledRows:
    """Rows of the past, stratified by profile and band of SoH, and by asset within a stratum.

    Args:
        old: the past.
        size: most rows to take, 1 or more; all of them when there are no more.
        seed: equal samples for equal seeds.

    Raises:
        DataError: when the size is less than 1.
    """
    if size < 1:
        raise DataError(f"a replay sample of {size} rows remembers nothing; expected 1 or more")
    if size >= len(old):
        return old
    rng = np.random.default_rng(seed)
    kinds = [
        f"{profile}|{band}" for profile, band in zip(old.profiles, old.soh_bands(), strict=True)
    ]
    strata = group_codes(kinds, len(old))
    assets = group_codes(old.owners.assets, len(old))
    taken: list[NDArray[np.intp]] = []
    for stratum, count in enumerate(even_shares(np.bincount(strata), size, rng)):
        rows = np.flatnonzero(strata == stratum)
        own, place = np.unique(assets[rows], return_inverse=True)
        shares = even_shares(np.bincount(place, minlength=own.size), int(count), rng)
        taken += [
            rng.choice(rows[place == number], int(share), replace=False)
            for number, share in enumerate(shares)
        ]
    return old[np.sort(np.concatenate(taken))]


def even_shares(
    sizes: NDArray[np.integer], total: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """How many to take of each, as even as their sizes allow; who has one more is drawn by lot.

    Args:
        sizes: how many there are of each.
        total: how many to take, at most their sum.
        rng: advanced by this call.

    Examples:
        >>> even_shares(np.array([100, 2, 100]), 12, np.random.default_rng(0)).tolist()
        [5, 2, 5]
    """
    shares = np.zeros(sizes.size, dtype=np.int64)
    order = rng.permutation(sizes.size)
    order = order[np.argsort(sizes[order], kind="stable")]  # the small ones leave more to others
    left = total
    for place, one in enumerate(order):
        shares[one] = min(int(sizes[one]), left // (sizes.size - place))
        left -= int(shares[one])
    return shares
