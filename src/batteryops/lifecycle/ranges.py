"""Predictions that no battery of its profile can have."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.settings import Settings


def count_out_of_range(
    asset_ids: pl.Series, predicted_ah: NDArray[np.float64], settings: Settings
) -> int:
    """How many predictions lie outside of their asset's capacity range, NaN included.

    Args:
        asset_ids: whose prediction it is, n of them.
        predicted_ah: predicted capacities, shape (n,), Ah.
        settings: says which asset has which profile.
    """
    ranges = {asset: settings.profile_of(asset).capacity_range_ah for asset in asset_ids.unique()}
    low, high = (np.array([ranges[asset][end] for asset in asset_ids]) for end in (0, 1))
    return int(np.count_nonzero(~((predicted_ah >= low) & (predicted_ah <= high))))
