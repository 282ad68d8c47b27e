"""The reference for drift that goes into a model package: the very rows the model was fitted on."""

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.features.views import FeatureView
from batteryops.monitoring.reference import Reference
from batteryops.monitoring.strata import strata_of
from batteryops.settings import Settings


def training_reference(
    table: pl.DataFrame,
    view: FeatureView,
    settings: Settings,
    *,
    held_out_ah: NDArray[np.float64],
    fitted_ah: NDArray[np.float64],
) -> Reference:
    """The reference of a model.

    Predictions are those that models gave who had not seen the battery: on its own training rows a
    model follows the labels more closely than it will follow those of a battery in service, and
    every battery in service would look like drift. Where there is but one group of batteries, and
    nobody to hold out, they are the model's own.

    Args:
        table: the rows it was fitted on.
        view: of the features.
        settings: which asset has which profile, and the bands of temperature.
        held_out_ah: (n,) capacities predicted without the battery's group, NaN without any, Ah.
        fitted_ah: (n,) the model's own answers, Ah.
    """
    return Reference.fit(
        table,
        view.names,
        strata=training_strata(table, settings),
        predictions=fitted_ah if np.isnan(held_out_ah).all() else held_out_ah,
        view=view,
    )


def training_strata(table: pl.DataFrame, settings: Settings) -> pl.Series:
    """The stratum of each row, by the configured profiles and bands.

    Raises:
        UnknownAssetError: an asset without a profile.
    """
    assets = table["asset_id"].unique().to_list()
    profiles = {asset: settings.profile_of(asset).name for asset in assets}
    return strata_of(table, profiles, settings.monitoring.temperature_bands_c)
