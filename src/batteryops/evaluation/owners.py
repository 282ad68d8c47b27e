"""Whose row each row is: its asset, and the group of assets that were aged together."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from batteryops.errors import DataError

Names = NDArray[np.object_]


@dataclass(frozen=True, slots=True, eq=False)
class Owners:
    """The owners of n rows.

    Args:
        assets: (n,), whose row it is; rows of one asset are in the order of its life.
        groups: (n,), assets that were aged together are one. What holds rows out of its own
            training holds out whole groups.

    Raises:
        DataError: when there is not one of each per row.

    Examples:
        >>> owners = Owners(np.array(["B0005", "B0018"]), np.array(["B0005+B0006", "B0018"]))
        >>> owners[np.array([False, True])].assets.tolist(), len(owners)
        (['B0018'], 2)
    """

    assets: Names
    groups: Names

    def __post_init__(self) -> None:
        """Hold the arrays to their contract."""
        if self.assets.shape != self.groups.shape or self.assets.ndim != 1:
            raise DataError(
                f"owners are {self.assets.shape} assets and {self.groups.shape} groups; expected "
                "one of each per row"
            )

    def __len__(self) -> int:
        """How many rows."""
        return int(self.assets.size)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> "Owners":
        """The owners of these rows."""
        return Owners(self.assets[rows], self.groups[rows])
