"""What a model says of very many rows: the same numbers as row by row, in columns.

`ModelPackage.estimate_batch` makes an object of every row, which for 100,000 rows takes longer than
the model itself. Here rows stay in arrays; objects are made only of those that lie outside of the
training domain, whose causes are to be named.
"""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batteryops.models.domain import Domain, Position
from batteryops.models.intervals import Intervals
from batteryops.models.package import ModelPackage

Floats = NDArray[np.float64]

_CHUNK: Final = 8192  # rows that a thread takes at a time
_BLOCK: Final = 512  # of them whose distances to all training rows stay in the cache


@dataclass(frozen=True, slots=True)
class Estimates:
    """What a model says of n rows.

    Args:
        capacity_ah: (n,), predicted.
        low_ah: (n,), lower ends of the intervals.
        high_ah: (n,), upper ends; outside of the training domain all that is possible at all.
        outside: where those rows lie that are outside of the training domain, by row.
    """

    capacity_ah: Floats
    low_ah: Floats
    high_ah: Floats
    outside: Mapping[int, Position]


def estimate_columns(
    package: ModelPackage,
    features: NDArray[np.float32],
    least_ah: Floats,
    largest_ah: Floats,
    pool: Executor,
) -> Estimates:
    """The same as `ModelPackage.estimate_batch`, in columns.

    Intervals differ from those in the seventh digit: the nearest training row is looked for in
    single precision, the distance to it is then taken in double. Whether a row is inside is
    decided in double.

    Args:
        package: the model.
        features: (n, k), C-contiguous, NaN where missing, nowhere infinite.
        least_ah: (n,), the least capacity that each asset can have.
        largest_ah: (n,), the largest.
        pool: its threads share the rows; NumPy and the models let each other run.
    """
    domain, intervals = package.domain, package.intervals
    near = Neighbours(domain)
    capacity, low, high = (np.empty(len(features)) for _ in range(3))

    def fill(start: int) -> dict[int, Position]:
        rows = slice(start, start + _CHUNK)
        chunk = features[rows]
        capacity[rows] = package.predict_batch(chunk)
        distances, suspect = near.look(chunk)
        low[rows], high[rows] = around_all(
            intervals, capacity[rows], distances, least_ah[rows], largest_ah[rows]
        )
        suspects = np.flatnonzero(suspect)
        if not suspects.size:
            return {}
        outside = {
            start + row: position
            for row, position in zip(
                suspects.tolist(), domain.look_all(chunk[suspects]), strict=True
            )
            if not position.inside
        }
        out = list(outside)
        low[out], high[out] = least_ah[out], largest_ah[out]
        return outside

    found: dict[int, Position] = {}
    for part in pool.map(fill, range(0, len(features), _CHUNK)):
        found |= part
    return Estimates(capacity, low, high, found)


def around_all(
    intervals: Intervals, capacity_ah: Floats, distances: Floats, least_ah: Floats, largest: Floats
) -> tuple[Floats, Floats]:
    """`Intervals.around` for n rows: lower and upper ends, (n,) each."""
    half = intervals.score_ah * (1.0 + distances / intervals.mean_distance)
    return (
        np.minimum(np.maximum(capacity_ah - half, least_ah), largest),
        np.maximum(np.minimum(capacity_ah + half, largest), least_ah),
    )


class Neighbours:
    """Finds the nearest training rows of very many rows.

    Args:
        domain: whose training rows.
    """

    def __init__(self, domain: Domain) -> None:
        self._domain = domain
        self._placed = domain.rows @ domain.mixing
        # [p, 1] @ table = |q|^2 - 2 pq, which is the squared distance but for |p|^2
        squares = (self._placed**2).sum(axis=1)
        self._table = np.vstack([-2.0 * self._placed.T, squares]).astype(np.float32)

    def look(self, features: NDArray[np.float32]) -> tuple[Floats, NDArray[np.bool_]]:
        """Distances (n,) of rows (n, k) to training, and which rows may be outside of its domain.

        A row that is not suspect is inside, as `Domain.look` has it.
        """
        distances = np.empty(len(features))
        suspect = np.empty(len(features), dtype=np.bool_)
        for start in range(0, len(features), _BLOCK):
            rows = slice(start, start + _BLOCK)
            distances[rows], suspect[rows] = self._look(features[rows].astype(np.float64))
        return distances, suspect

    def _look(self, given: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        domain = self._domain
        squashed = np.arcsinh((given - domain.centre) * domain.weight)
        suspect = ((given < domain.low) | (given > domain.high)).any(axis=1)  # NaN is neither
        absent = np.isnan(squashed)
        if absent.any():
            squashed[absent] = 0.0
            suspect |= (absent & ~domain.may_lack).any(axis=1)
            suspect |= absent.sum(axis=1) > domain.most_lacking
        placed = squashed @ domain.mixing
        asked = np.ones((len(placed), placed.shape[1] + 1), dtype=np.float32)
        asked[:, :-1] = placed
        nearest = (asked @ self._table).argmin(axis=1)
        steps = placed - self._placed[nearest]
        distances: Floats = np.sqrt(np.einsum("nk,nk->n", steps, steps) / placed.shape[1])
        return distances, suspect | (distances > domain.limit)
