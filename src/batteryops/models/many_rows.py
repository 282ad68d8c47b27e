"""What a model says of very many rows: the same numbers as row by row, in columns.

`ModelPackage.estimate_batch` makes an object of every row, which for 100,000 rows takes longer than
the model itself. Here rows stay in arrays; objects are made only of those that lie outside of the
training domain, whose causes are to be named.
"""

import math
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

_CHUNK: Final = 16_384  # rows that a thread takes at a time, at most
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
    range_ah: tuple[Floats, Floats],
    pool: Executor,
    threads: int,
) -> Estimates:
    """The same as `ModelPackage.estimate_batch`, in columns.

    Intervals differ from those in the seventh digit: the nearest training row is looked for in
    single precision, the distance to it is then taken in double. Whether a row is inside is
    decided in double.

    Args:
        package: the model.
        features: (n, k), C-contiguous, NaN where missing, nowhere infinite.
        range_ah: least and largest capacity that each asset can have, (n,) each.
        pool: its threads share the rows; NumPy and the models let each other run.
        threads: how many these are.
    """
    near = Neighbours(package.domain)
    distances, capacity = np.empty(len(features)), np.empty(len(features))
    nearest = np.empty(len(features), dtype=np.uint16)
    outside: dict[int, Position] = {}

    def place(start: int) -> dict[int, Position]:
        rows = slice(start, start + chunk_rows)
        chunk = features[rows]
        distances[rows], nearest[rows], suspect = near.look(chunk)
        suspects = np.flatnonzero(suspect)
        if not suspects.size:
            return {}
        looked_at = package.domain.look_all(chunk[suspects])
        return {
            start + row: position
            for row, position in zip(suspects.tolist(), looked_at, strict=True)
            if not position.inside
        }

    def predict(start: int) -> None:
        rows = order[start : start + chunk_rows]
        capacity[rows] = package.predict_batch(features[rows])

    rounds = max(1, math.ceil(len(features) / (threads * _CHUNK)))
    chunk_rows = max(1, math.ceil(len(features) / (threads * rounds)))  # equal shares
    starts = range(0, len(features), chunk_rows)
    for found in pool.map(place, starts):
        outside |= found
    # rows that are alike go the same ways through the trees: a fifth faster one after the other
    order = nearest.argsort(kind="stable")
    for _ in pool.map(predict, starts):
        pass
    low, high = around_all(package.intervals, capacity, distances, range_ah)
    out = list(outside)
    low[out], high[out] = range_ah[0][out], range_ah[1][out]
    return Estimates(capacity, low, high, outside)


def around_all(
    intervals: Intervals, capacity_ah: Floats, distances: Floats, range_ah: tuple[Floats, Floats]
) -> tuple[Floats, Floats]:
    """`Intervals.around` for n rows: lower and upper ends, (n,) each."""
    least, largest = range_ah
    half = intervals.score_ah * (1.0 + distances / intervals.mean_distance)
    return (
        np.minimum(np.maximum(capacity_ah - half, least), largest),
        np.maximum(np.minimum(capacity_ah + half, largest), least),
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

    def look(
        self, features: NDArray[np.float32]
    ) -> tuple[Floats, NDArray[np.intp], NDArray[np.bool_]]:
        """Where rows (n, k) lie, (n,) each.

        Returns:
            Distances to training; which training rows are the nearest; and which rows may be
            outside of the domain: one that is not suspect is inside, as `Domain.look` has it.
        """
        placed, suspect = self._place(features.astype(np.float64))
        asked = np.ones((len(placed), placed.shape[1] + 1), dtype=np.float32)
        asked[:, :-1] = placed
        nearest = np.empty(len(features), dtype=np.intp)
        away = np.empty((_BLOCK, len(self._placed)), dtype=np.float32)
        for start in range(0, len(asked), _BLOCK):
            block = asked[start : start + _BLOCK]
            np.dot(block, self._table, out=away[: len(block)])
            away[: len(block)].argmin(axis=1, out=nearest[start : start + _BLOCK])
        steps = placed - self._placed[nearest]
        squares = np.einsum("nk,nk->n", steps, steps)
        distances: Floats = np.sqrt(squares / self._domain.n_checked)
        return distances, nearest, suspect | (distances > self._domain.limit)

    def _place(self, given: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Coordinates of rows, and which of them a feature alone makes suspect."""
        domain = self._domain
        squashed = np.arcsinh((given - domain.centre) * domain.weight)
        beyond = (given < domain.low) | (given > domain.high)  # NaN is neither
        suspect: NDArray[np.bool_] = np.any(beyond, axis=1)
        absent = np.isnan(squashed)
        if absent.any():
            squashed[absent] = 0.0
            suspect |= (absent & ~domain.may_lack).any(axis=1)
            suspect |= absent.sum(axis=1) > domain.most_lacking
        return squashed @ domain.mixing, suspect
