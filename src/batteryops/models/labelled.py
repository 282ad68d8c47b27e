"""Rows with measured labels that a fitted model may learn from, or be judged by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.evaluation.owners import Names, Owners
from batteryops.features.views import FeatureView, matrix
from batteryops.schema import LABEL

Floats = NDArray[np.float64]

SOH_BANDS: Final = (0.7, 0.8, 0.9, 1.0)
"""A band of SoH ends before each of these, and the next begins; 0.8 is where batteries retire."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledRows:
    """Labelled rows of one feature view.

    Args:
        names: of the k features.
        features: (n, k), float32; NaN where missing.
        labels: (n,), measured capacity, Ah.
        owners: of the n rows.
        profiles: (n,), names of their profiles.
        soh: (n,), label / nominal capacity; NaN where that is not published.

    Raises:
        DataError: no rows, arrays of other shapes, a label that is no finite number, or an
            infinite feature.
    """

    names: tuple[str, ...]
    features: NDArray[np.float32]
    labels: Floats
    owners: Owners
    profiles: Names
    soh: Floats

    def __post_init__(self) -> None:
        """Hold the arrays to their contract."""
        rows = len(self.owners)
        if not rows:
            raise DataError("no labelled rows; expected one or more: wait for labels to arrive")
        if self.features.shape != (rows, len(self.names)) or self.features.dtype != np.float32:
            raise DataError(
                f"features are {self.features.dtype} {self.features.shape}; expected float32 "
                f"({rows}, {len(self.names)}), one column for each of {', '.join(self.names)}"
            )
        for what, given in (
            ("labels", self.labels),
            ("profiles", self.profiles),
            ("soh", self.soh),
        ):
            if given.shape != (rows,):
                raise DataError(f"{what} have shape {given.shape}; expected ({rows},)")
        if bad := int((~np.isfinite(self.labels)).sum()):
            raise DataError(
                f"{bad} of {rows} labels are missing or infinite; expected a capacity in Ah for "
                "every row: leave unlabelled cycles out"
            )
        if np.isinf(self.features).any():
            column = int(np.isinf(self.features).any(axis=0).argmax())
            raise DataError(
                f"feature {self.names[column]} holds an infinite value; expected finite numbers, "
                "or NaN where the feature is missing"
            )

    @classmethod
    def of(
        cls,
        view: FeatureView,
        table: pl.DataFrame,
        *,
        profiles: Mapping[str, str],
        nominal_ah: Mapping[str, float | None],
        groups: Mapping[str, str] | None = None,
    ) -> Self:
        """Rows of a feature table.

        Args:
            view: whose features they are.
            table: `asset_id`, the view's features, `capacity_ah`; a label for every row.
            profiles: name of each asset's profile.
            nominal_ah: nominal capacity by profile, Ah; None where not published.
            groups: of assets that were aged together; an asset that is not there is its own.

        Raises:
            DataError: as for the class; a column is missing, or an asset has no profile.
        """
        if absent := [name for name in ("asset_id", LABEL) if name not in table.columns]:
            raise DataError(f"the table has no {' and no '.join(absent)}; expected labelled rows")
        if not (table[LABEL].dtype.is_numeric() or table[LABEL].dtype == pl.Null):
            raise DataError(f"{LABEL} is {table[LABEL].dtype}, expected numbers in Ah")
        assets = table["asset_id"].cast(pl.String).to_list()
        if strange := sorted({str(asset) for asset in assets if asset not in profiles}):
            raise DataError(f"{', '.join(strange)} have no profile; name one for each asset")
        own = [profiles[asset] for asset in assets]
        labels = table[LABEL].cast(pl.Float64).fill_null(np.nan).to_numpy()
        together = groups or {}
        return cls(
            names=view.names,
            features=matrix(view, table),
            labels=labels,
            owners=Owners(
                np.array(assets, dtype=object),
                np.array([together.get(asset, asset) for asset in assets], dtype=object),
            ),
            profiles=np.array(own, dtype=object),
            soh=labels / np.array([nominal_ah.get(name) or np.nan for name in own], dtype=float),
        )

    def __len__(self) -> int:
        """How many rows."""
        return len(self.owners)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> "LabelledRows":
        """Some of the rows."""
        return LabelledRows(
            self.names,
            self.features[rows],
            self.labels[rows],
            self.owners[rows],
            self.profiles[rows],
            self.soh[rows],
        )

    def __add__(self, other: "LabelledRows") -> "LabelledRows":
        """The rows of both.

        Raises:
            DataError: when they are of different features.
        """
        other.expect(self.names)
        return LabelledRows(
            self.names,
            np.concatenate([self.features, other.features]),
            np.concatenate([self.labels, other.labels]),
            Owners(
                np.concatenate([self.owners.assets, other.owners.assets]),
                np.concatenate([self.owners.groups, other.owners.groups]),
            ),
            np.concatenate([self.profiles, other.profiles]),
            np.concatenate([self.soh, other.soh]),
        )

    def of_groups(self, other: "LabelledRows") -> NDArray[np.bool_]:
        """Which rows are of a group of assets that the other rows have too, (n,)."""
        theirs = set(other.owners.groups.tolist())
        return np.array(list(map(theirs.__contains__, self.owners.groups.tolist())))

    @property
    def assets(self) -> tuple[str, ...]:
        """Whose rows they are, sorted."""
        return tuple(sorted(set(self.owners.assets.tolist())))

    def expect(self, names: tuple[str, ...]) -> None:
        """See that the features are those that a model takes, in its order.

        Raises:
            DataError: naming both.
        """
        if self.names != names:
            raise DataError(
                f"the rows have the features {', '.join(self.names)}; expected "
                f"{', '.join(names)}: compute the features of the model's view"
            )

    def soh_bands(self) -> NDArray[np.intp]:
        """Each row's band of SoH, (n,): 0 below 0.7, 4 from 1.0 on, -1 where SoH is not known."""
        bands = np.digitize(self.soh, SOH_BANDS)
        return np.where(np.isnan(self.soh), -1, bands)
