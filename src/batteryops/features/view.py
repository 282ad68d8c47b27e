"""What a feature and a feature view are: the declarations that travel with a model."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import polars as pl

from batteryops.schema import Kind


@dataclass(frozen=True, slots=True)
class Feature:
    """One number that describes one cycle, declared once.

    Args:
        name: column of the feature table and key of a request.
        unit: unit of the number, as written in messages and in the reference page.
        low: least plausible value for one cell, inclusive.
        high: largest plausible value for one cell, inclusive.
        meaning: how it is computed.
        source: formula, paper or data set that it comes from.
        optional: null is a legitimate value, because some sound cycles do not have it; a model
            sees it as missing. Where False, a null makes the row unusable.
        leaks_label: how the label can be rebuilt from it; None where it cannot.
        why_safe: why the label cannot be rebuilt from it; a view that claims to be free of leakage
            says so for each of its features.
        trend: +1 where, all else equal, capacity can only rise with it, -1 where only fall, 0
            where physics does not say. A monotone model is held to it.
    """

    name: str
    unit: str
    low: float
    high: float
    meaning: str
    source: str
    optional: bool = False
    leaks_label: str | None = None
    why_safe: str | None = None
    trend: Literal[-1, 0, 1] = 0

    def __post_init__(self) -> None:
        """Refuse a range that nothing can lie in."""
        if not self.low < self.high:
            raise ValueError(f"feature {self.name}: low {self.low} is not below high {self.high}")

    @property
    def expected(self) -> str:
        """The plausible range in words, for messages.

        Examples:
            >>> Feature("v", "V", 0.0, 5.0, "mean voltage", "here").expected
            '0 to 5 V'
        """
        return f"{self.low:g} to {self.high:g} {self.unit}"


@dataclass(frozen=True)
class FeatureView:
    """A named, versioned set of features with the one function that computes it.

    Args:
        name: key among the views.
        version: grows when a feature's computation, or the set of features, changes.
        kind: kind of cycle that it describes; others are passed over.
        features: in the order in which a model sees them.
        compute: `(samples, cycles) -> table`, with samples as `schema.SAMPLES` and cycles as
            `schema.CYCLES` declare them. The table has one row per cycle of `kind` that has
            samples: `asset_id`, `op_index`, then the features as Float64, null where a feature
            is not computable; sorted by asset and op_index. Depends on nothing but its
            arguments, neither on the order of the rows nor on which other cycles are among them
            (but for those of `needs` since the asset's previous cycle of `kind`).
        leak_free: the view claims that no label can be rebuilt from it. The leakage check holds
            it to that: a finding blocks promotion. Not part of the schema hash.
        needs: further kinds of cycle that features are computed from, where there are any.
    """

    name: str
    version: int
    kind: Kind
    features: tuple[Feature, ...]
    compute: Callable[[pl.DataFrame, pl.DataFrame], pl.DataFrame]
    leak_free: bool = False
    needs: tuple[Kind, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a view that names a feature twice."""
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"view {self.name} names a feature twice: {', '.join(self.names)}")

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of cycle to read for this view."""
        return (self.kind, *self.needs)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the features, in the order in which a model sees them."""
        return tuple(feature.name for feature in self.features)

    @cached_property
    def trends(self) -> tuple[int, ...]:
        """Which way capacity goes with each feature, as physics has it."""
        return tuple(feature.trend for feature in self.features)

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Names of the features without which a row is unusable."""
        return tuple(feature.name for feature in self.features if not feature.optional)

    @cached_property
    def schema_hash(self) -> str:
        """SHA-256 over the canonical JSON of what a model relies on; 64 hex digits.

        Name and version of the view, name and unit of each feature, and their order count.
        Ranges and explanations may be improved without a new model.
        """
        declaration = {
            "features": [{"name": feature.name, "unit": feature.unit} for feature in self.features],
            "name": self.name,
            "version": self.version,
        }
        canonical = json.dumps(declaration, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()
