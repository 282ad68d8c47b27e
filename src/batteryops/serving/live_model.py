"""A model in service with everything prebuilt that a row's answer needs, and its cache."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from operator import ge, itemgetter, le
from typing import Any, Final, cast

import numpy as np

from batteryops.models.manifest import TWIN
from batteryops.models.onnx_twin import BATCH_ROWS, OnnxRow
from batteryops.models.package import PARITY_AH, Estimate, ModelPackage
from batteryops.serving.answer_cache import AnswerCache
from batteryops.serving.faults import VEHICLE
from batteryops.settings import CacheSettings

_FEW: Final = 3  # rows up to which looking at each by itself is faster than at all at once
_NUMBERS: Final = frozenset((float, int))  # bool is a type of its own

Values = tuple[float | None, ...]
Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model in service.

    Args:
        package: loaded and verified.
        version: its version in the registry.
        role: what the version stands for: champion, challenger.
    """

    package: ModelPackage
    version: str
    role: str


@dataclass(slots=True)
class Row:
    """One question: features that have been checked, and, once it was asked, what the model says.

    Args:
        vehicle_id: the asset.
        values: features in the order of the view; None where missing.
        nominal_ah: its nominal capacity, Ah.
        range_ah: least and largest capacity that it can have, Ah.
    """

    vehicle_id: str
    values: Values
    nominal_ah: float
    range_ah: Range
    estimate: Estimate = field(init=False)
    cached: bool = field(init=False, default=False)

    @property
    def soh(self) -> float:
        """The predicted share of the nominal capacity."""
        return self.estimate.capacity_ah / self.nominal_ah


class LiveModel:
    """Answers rows by ONNX Runtime on one thread; a row that it knows it answers from its cache.

    The cache is the model's own: another version begins with an empty one.

    Args:
        served: which model.
        cache: how many answers are kept, and how long.

    Raises:
        PackageError: the package lacks a file, or one was changed.
    """

    def __init__(self, served: ServedModel, cache: CacheSettings) -> None:
        package = served.package
        self.package: Final = package
        self.version: Final = served.version
        self.role: Final = served.role
        self.view: Final = package.view
        self.names: Final = package.view.names
        self.level: Final = package.manifest.level
        self.model_name: Final = package.manifest.model_name
        self.fingerprint: Final = package.fingerprint
        self.nominal: Final = package.intervals.nominal
        self._domain = package.domain
        self._intervals = package.intervals
        self._answer = OnnxRow(package.read(TWIN))
        self._pick = itemgetter(*self.names)
        self._low = tuple(feature.low for feature in self.view.features)
        self._high = tuple(feature.high for feature in self.view.features)
        self._known: AnswerCache[tuple[Values, Range], Estimate] | None = (
            AnswerCache(cache.max_entries, cache.ttl_s) if cache.max_entries else None
        )

    def same_question(self, row: Row, asked_of: "LiveModel") -> Row | None:
        """A row for this model as well; None where it takes other features or assets."""
        if self.names != asked_of.names or self.level != asked_of.level:
            return None
        return Row(row.vehicle_id, row.values, row.nominal_ah, row.range_ah)

    def sound_values(self, body: Mapping[str, Any]) -> Values | None:
        """The features of a body in the order of the view; None where a closer look is needed.

        That is where one is not a number within the view's range, or the body holds more than the
        features and `vehicle_id`.
        """
        try:
            values: Values = self._pick(body)
        except KeyError:
            return None
        if (
            len(body) == len(values) + 1
            and VEHICLE in body
            and _NUMBERS.issuperset(map(type, values))
            and all(map(le, self._low, cast("tuple[float, ...]", values)))
            and all(map(ge, self._high, cast("tuple[float, ...]", values)))
        ):
            return values
        return None

    def estimate(self, rows: Sequence[Row]) -> int:
        """Answer rows, all at once; each row holds its answer then.

        Returns:
            How many were known from the cache.
        """
        known = self._known
        if known is None:
            fresh = list(rows)
        else:
            fresh = []
            for row in rows:
                found = known.get((row.values, row.range_ah))
                if found is None:
                    fresh.append(row)
                else:
                    row.estimate, row.cached = found, True
        if fresh:
            self._estimate(fresh)
            if known is not None:
                for row in fresh:
                    if isfinite(row.estimate.capacity_ah):  # a fault is not to last
                        known.put((row.values, row.range_ah), row.estimate)
        return len(rows) - len(fresh)

    def _estimate(self, rows: list[Row]) -> None:
        features = np.array([row.values for row in rows], dtype=np.float32)  # None becomes NaN
        capacities: list[float] = []
        for start in range(0, len(rows), BATCH_ROWS):
            capacities += self._answer.few(features[start : start + BATCH_ROWS])
        if len(rows) <= _FEW:
            positions = [self._domain.look(row) for row in features]
        else:
            positions = self._domain.look_few(features)
        around = self._intervals.around
        for row, capacity, position in zip(rows, capacities, positions, strict=True):
            low, high = (
                around(capacity, position.distance, row.range_ah)
                if position.inside
                else row.range_ah
            )
            row.estimate = Estimate(capacity, low, high, position)

    def self_test(self) -> str | None:
        """Predict the first row that was recorded with the package; what is wrong, or None."""
        recorded = self.package.manifest.recorded
        expected = recorded.outputs_ah[0]
        given = self._answer(np.array(recorded.rows[0], dtype=np.float32))
        if abs(given - expected) <= PARITY_AH:
            return None
        return f"the model answers {given:.6f} Ah to its recorded row, expected {expected:.6f} Ah"
