"""Whether a row lies inside what training covered: each feature alone, and all of them together.

A model of trees answers anything; where no training row was near, its answer is the value of a leaf
that was made for something else. Two checks, both fitted on training rows alone, with
the constants of `domain_fit`:

* **Each feature** lies inside the range that training saw, widened by `MARGIN` of its spread. A
  feature that training never lacked is not missing, and no more are missing at a time than in some
  training row: where nothing was measured, nothing is known.
* **All together**: the distance to the nearest of up to `MAX_ROWS` training rows is not above a
  limit. Each feature is centred by its median, scaled by its spread, squashed by arcsinh so that
  long tails do not decide, and all are decorrelated, as in the Mahalanobis distance. The nearest
  row and not the common mean, because batteries are tested in regimes: 4, 24 and 43 degC are three
  clouds with nothing in between (nearest-neighbour data description: Tax, One-class classification,
  2001, section 3.4). The limit is the quantile `SHARE` of the distances of rows whose whole group
  was held out, where each group weighs the same. One group alone gives no limit.

A missing value is put at the median, in training and afterwards, so that rows which lack the same
features stay near each other. A feature that did not vary has no weight in the distance. What the
model does not look at is not checked: a range that one battery alone has shown says nothing of the
next, and an answer that does not depend on it is not worse for it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError, PackageError
from batteryops.models.held_out import Floats

_EXPLAINED: Final = 0.5  # of the squared distance, by the features that are named
_CHUNK: Final = 2048


@dataclass(frozen=True, slots=True)
class Position:
    """Where a row lies relative to the training rows.

    Args:
        distance: to the nearest training row, in standard deviations per feature, 0 or more.
        features: those that put it outside, in the order of the view; empty when it is inside.
            Where it is outside only jointly, those that make up most of the distance.
        joint: the features together are unlike any that training saw.
    """

    distance: float
    features: tuple[str, ...] = ()
    joint: bool = False

    @property
    def inside(self) -> bool:
        """Nothing speaks against an answer."""
        return not self.features and not self.joint


@dataclass(frozen=True, eq=False)
class Domain:
    """What training covered; `domain_fit.fit_domain` yields it.

    Args:
        names: k features, in the order of the view.
        low: (k,), least accepted value; -inf where training never saw the feature.
        high: (k,), largest accepted value; inf where training never saw the feature.
        may_lack: (k,), whether training lacked the feature in some row.
        most_lacking: how many checked features at a time training lacked at most.
        centre: (k,), medians.
        weight: (k,), one over the spread, 0 for a feature that did not vary.
        mixing: (k, k), from squashed features to decorrelated coordinates.
        rows: (m, k), squashed training rows to which distances are measured.
        limit: largest accepted distance; inf when only one group was given.
        checked: (k,), whether the feature is looked at here at all.
    """

    names: tuple[str, ...]
    low: Floats
    high: Floats
    may_lack: NDArray[np.bool_]
    most_lacking: int
    centre: Floats
    weight: Floats
    mixing: Floats
    rows: Floats
    limit: float
    checked: NDArray[np.bool_]

    def look(self, row: NDArray[np.float32]) -> Position:
        """Where one row (k,) lies; some ten microseconds.

        Examples:
            >>> from batteryops.models.domain_fit import fit_domain
            >>> rng = np.random.default_rng(0)
            >>> life = rng.uniform(size=(200, 1)) * [1.0, 2.0] + rng.normal(0, 0.01, (200, 2))
            >>> domain = fit_domain(life, [f"cell {n % 20}" for n in range(200)], ["a", "b"])
            >>> domain.look(np.array([0.5, 1.0], dtype=np.float32)).inside
            True
            >>> domain.look(np.array([0.5, 9.0], dtype=np.float32)).features
            ('b',)
            >>> domain.look(np.array([0.9, 0.3], dtype=np.float32)).joint
            True
        """
        given = row.astype(np.float64)
        if self._ignored.size:
            given[self._ignored] = np.nan
        squashed = np.arcsinh((given - self.centre) * self.weight)
        absent = np.isnan(given)
        lacks = absent.any()
        if lacks:
            squashed[absent] = 0.0
        place = squashed @ self.mixing
        away = self._square_of_rows - self._twice_placed @ place
        nearest = int(away.argmin())
        distance = self._distance(float(away[nearest]) + float(place @ place))
        outside = (given < self.low) | (given > self.high)  # NaN is neither
        if lacks:
            too_many = absent.sum() > self._most_absent
            outside |= absent & self.checked & (~self.may_lack | too_many)
        if distance <= self.limit and not outside.any():
            return Position(distance)
        return self._explained(squashed, nearest, distance, outside)

    def look_all(self, features: ArrayLike) -> list[Position]:
        """Where each row of (n, k) lies.

        Raises:
            DataError: when the features are not (n, k) numbers.
        """
        matrix = as_matrix(features, len(self.names), self.checked)
        squashed = squash(matrix, self.centre, self.weight)
        distances, nearest = self.nearest(squashed)
        absent = np.isnan(matrix)
        too_many = absent.sum(axis=1, keepdims=True) > self._most_absent
        outside = (matrix < self.low) | (matrix > self.high)
        outside |= absent & self.checked & (~self.may_lack | too_many)
        suspect = outside.any(axis=1) | (distances > self.limit)
        return [
            self._explained(squashed[row], int(nearest[row]), float(distance), outside[row])
            if suspect[row]
            else Position(float(distance))
            for row, distance in enumerate(distances)
        ]

    def look_few(self, features: NDArray[np.float32]) -> list[Position]:
        """As `look_all`, for some rows (n, k), in a third of the time where all is well with them.

        Examples:
            >>> from batteryops.models.domain_fit import fit_domain
            >>> life = np.linspace(0.0, 1.0, 200)[:, None] * [1.0, 2.0]
            >>> domain = fit_domain(life, [f"cell {n % 20}" for n in range(200)], ["a", "b"])
            >>> asked = np.array([[0.5, 1.0], [0.5, 9.0]], dtype=np.float32)
            >>> domain.look_few(asked) == domain.look_all(asked)
            True
        """
        given = features.astype(np.float64)
        sound = not self._ignored.size and ((given >= self.low) & (given <= self.high)).all()
        if not sound:  # nor is it where a feature is missing
            return self.look_all(features)
        placed = np.arcsinh((given - self.centre) * self.weight) @ self.mixing
        away = self._square_of_rows - placed @ self._twice_placed.T
        squares = (away.min(axis=1) + (placed * placed).sum(axis=1)).tolist()
        distances = list(map(self._distance, squares))
        if max(distances) > self.limit:
            return self.look_all(features)
        return list(map(Position, distances))

    def _explained(
        self, squashed: Floats, nearest: int, distance: float, outside: NDArray[np.bool_]
    ) -> Position:
        joint = distance > self.limit
        named = outside.copy()
        if joint and not outside.any():
            step = squashed - self.rows[nearest]
            parts = step * (self.mixing @ (self.mixing.T @ step))  # they sum to the square
            order = np.argsort(-parts)
            enough = int(np.searchsorted(np.cumsum(parts[order]), _EXPLAINED * parts.sum())) + 1
            named[order[:enough]] = True
        return Position(
            distance,
            tuple(name for name, is_named in zip(self.names, named, strict=True) if is_named),
            joint,
        )

    def nearest(self, squashed: Floats) -> tuple[Floats, NDArray[np.intp]]:
        """Distance of squashed rows (n, k) to the nearest kept ones, and which these are."""
        distances = np.empty(len(squashed))
        nearest = np.empty(len(squashed), dtype=np.intp)
        for start in range(0, len(squashed), _CHUNK):
            rows = slice(start, start + _CHUNK)
            placed = squashed[rows] @ self.mixing
            away = self._square_of_rows - placed @ self._twice_placed.T
            nearest[rows] = away.argmin(axis=1)
            squares = away.min(axis=1) + (placed**2).sum(axis=1)
            distances[rows] = np.sqrt(np.maximum(squares, 0.0) / self.n_checked)
        return distances, nearest

    def _distance(self, square: float) -> float:
        return math.sqrt(max(square, 0.0) / self.n_checked)

    @cached_property
    def _ignored(self) -> NDArray[np.intp]:
        return np.flatnonzero(~self.checked)

    @cached_property
    def n_checked(self) -> int:
        """How many features are looked at; distances are per one of them."""
        return len(self.names) - self._ignored.size

    @cached_property
    def _most_absent(self) -> int:
        return self.most_lacking + self._ignored.size

    @cached_property
    def _twice_placed(self) -> Floats:
        return 2.0 * (self.rows @ self.mixing)

    @cached_property
    def _square_of_rows(self) -> Floats:
        squares: Floats = ((self.rows @ self.mixing) ** 2).sum(axis=1)
        return squares

    def to_json(self) -> dict[str, Any]:
        """As a package holds it: numbers to seven digits, null where there is no bound."""
        return {
            "features": {
                name: {
                    "low": _number(self.low[column]),
                    "high": _number(self.high[column]),
                    "may_be_missing": bool(self.may_lack[column]),
                    "centre": _number(self.centre[column]),
                    "weight": _number(self.weight[column]),
                    "checked": bool(self.checked[column]),
                }
                for column, name in enumerate(self.names)
            },
            "most_missing": self.most_lacking,
            "limit": _number(self.limit),
            "mixing": [[_number(value) for value in row] for row in self.mixing],
            "rows": [[_number(value) for value in row] for row in self.rows],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            PackageError: when it is something else.
        """
        try:
            features = document["features"]
            width = len(features)
            read = cls(
                names=tuple(features),
                low=_read([entry["low"] for entry in features.values()], -math.inf),
                high=_read([entry["high"] for entry in features.values()], math.inf),
                may_lack=np.array(
                    [bool(entry["may_be_missing"]) for entry in features.values()], dtype=np.bool_
                ),
                most_lacking=int(document["most_missing"]),
                centre=_read([entry["centre"] for entry in features.values()]),
                weight=_read([entry["weight"] for entry in features.values()]),
                mixing=_read(document["mixing"]).reshape(width, width),
                rows=_read(document["rows"]).reshape(-1, width),
                limit=float(_read([document["limit"]], math.inf)[0]),
                checked=np.array(
                    [bool(entry.get("checked", True)) for entry in features.values()],
                    dtype=np.bool_,
                ),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PackageError(
                f"the training domain cannot be read ({error!r}); train again"
            ) from error
        if not len(read.rows) or not read.checked.any():
            raise PackageError("the training domain holds no rows; train again")
        return read


def squash(matrix: Floats, centre: Floats, weight: Floats) -> Floats:
    """Features (n, k) centred, scaled and squashed; 0 where missing."""
    squashed: Floats = np.arcsinh((matrix - centre) * weight)
    squashed[np.isnan(squashed)] = 0.0
    return squashed


def as_matrix(features: ArrayLike, width: int, checked: NDArray[np.bool_]) -> Floats:
    """Features (n, k) as numbers, missing where they are not looked at."""
    matrix = np.array(features, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[1] != width:  # noqa: PLR2004 - rows and columns
        raise DataError(f"features have shape {matrix.shape}; expected (n, {width})")
    if np.isinf(matrix).any():
        raise DataError("a feature is infinite; expected numbers, NaN where missing")
    matrix[:, ~checked] = np.nan
    return matrix


def _number(value: float) -> float | None:
    return float(f"{value:.7g}") if math.isfinite(value) else None


def _read(values: Any, absent: float = math.nan) -> Floats:  # noqa: ANN401 - JSON
    """Numbers of a document, `absent` for null, which only bounds may be.

    Raises:
        ValueError: when they are not numbers.
    """
    read = np.array(values, dtype=np.float64)
    read[np.isnan(read)] = absent
    if np.isnan(read).any():
        raise ValueError("a number is missing")
    return read
