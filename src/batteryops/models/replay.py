"""A few rows of the past, learned from along with the new ones, so that the past is not forgotten.

Rehearsal: Robins, Catastrophic forgetting, rehearsal and pseudorehearsal, Connection Science 7,
1995. What is rare in the past is as easily forgotten as what is common, so that each stratum has
the same share of the sample, and in it each asset, as far as they have rows.
"""

import numpy as np
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.models.held_out import group_codes
from batteryops.models.labelled import SOH_BANDS, LabelledRows


def replay_sample(old: LabelledRows, size: int, *, seed: int) -> LabelledRows:
    """Rows of the past, stratified by profile and band of SoH, and by asset within a stratum.

    Args:
        old: the past.
        size: most rows to take, 1 or more; all of them when there are no more.
        seed: equal samples for equal seeds.

    Raises:
        DataError: when the size is less than 1.
    """
    return old if size >= max(1, len(old)) else old[replay_places(old, size, seed=seed)]


def replay_places(old: LabelledRows, size: int, *, seed: int) -> NDArray[np.intp]:
    """Where the rows of `replay_sample` stand, in order.

    Raises:
        DataError: when the size is less than 1.
    """
    if size < 1:
        raise DataError(f"a replay sample of {size} rows remembers nothing; expected 1 or more")
    if size >= len(old):
        return np.arange(len(old))
    rng = np.random.default_rng(seed)
    bands = len(SOH_BANDS) + 2  # below the first, above the last, and not known
    kinds = group_codes(old.profiles, len(old)) * bands + old.soh_bands() + 1
    assets = group_codes(old.owners.assets, len(old))
    taken: list[NDArray[np.intp]] = []
    strata = _places(kinds)
    for rows, count in zip(strata, even_shares(_sizes(strata), size, rng), strict=True):
        own = [rows[places] for places in _places(assets[rows])]
        for these, share in zip(own, even_shares(_sizes(own), int(count), rng), strict=True):
            taken.append(rng.choice(these, int(share), replace=False))
    return np.sort(np.concatenate(taken))


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


def _places(codes: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """Where each code stands, in the order of the codes."""
    order = np.argsort(codes, kind="stable")
    _, first = np.unique(codes[order], return_index=True)
    return np.split(order, first[1:])


def _sizes(parts: list[NDArray[np.intp]]) -> NDArray[np.intp]:
    return np.array([part.size for part in parts], dtype=np.intp)
