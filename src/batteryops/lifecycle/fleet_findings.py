"""What a lab model on trips gives: the numbers found, and what they say in sentences."""

import math
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from batteryops.evaluation.association import Association
from batteryops.lifecycle.trip_mappings import AS_PUBLISHED, Mapping

PUBLISHED: Final = Association(pearson=0.16, spearman=0.22, n=7391)
"""What the source system publishes, predicted SoH against temperature rise."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """What one lab model gives under one mapping."""

    lab: str
    mapping: Mapping
    found: Association
    median_soh: float

    @property
    def distance(self) -> float:
        """From the published pair of correlations."""
        return math.hypot(
            self.found.pearson - PUBLISHED.pearson, self.found.spearman - PUBLISHED.spearman
        )

    def to_json(self) -> dict[str, Any]:
        """The fields, flat."""
        return {
            "lab": self.lab,
            "voltage": self.mapping.voltage,
            "current": self.mapping.current,
            "missing_drop_time": self.mapping.missing,
            **self.found.to_json(),
            "median_soh": self.median_soh,
            "distance": self.distance,
        }


@dataclass(frozen=True, slots=True)
class Driver:
    """What one feature has to do with the prediction and with the sign.

    Args:
        feature: its name.
        inside: share of trips whose value lies in the range that training covered.
        with_prediction: Spearman's correlation with what the model predicts; NaN if constant.
        with_rise: Spearman's correlation with the temperature rise.
        frozen: prediction against rise when this feature alone is held at the lab's median.
    """

    feature: str
    inside: float
    with_prediction: float
    with_rise: float
    frozen: Association

    def to_json(self) -> dict[str, Any]:
        """By name; null where undefined."""
        return {
            "feature": self.feature,
            "share_inside_training_range": self.inside,
            "spearman_with_prediction": _finite(self.with_prediction),
            "spearman_with_rise": _finite(self.with_rise),
            "frozen_at_lab_median": self.frozen.to_json(),
        }


@dataclass(frozen=True, slots=True)
class DomainVerdict:
    """What the domain check says of the trips under one mapping.

    Args:
        mapping: how they were given to it.
        n: trips.
        inside: how many lie inside what training covered.
        joint: how many are unlike any training row in all features together.
        features: by name, how many trips it puts outside.
        per_vehicle: `asset_id`, `trips`, `inside`.
        median_distance: to the nearest training row; the limit is `limit`.
        limit: of the distance.
    """

    mapping: Mapping
    n: int
    inside: int
    joint: int
    features: dict[str, int]
    per_vehicle: pl.DataFrame
    median_distance: float
    limit: float

    def to_json(self) -> dict[str, Any]:
        """All numbers by name."""
        return {
            "mapping": str(self.mapping),
            "trips": self.n,
            "inside": self.inside,
            "unlike_jointly": self.joint,
            "outside_by_feature": self.features,
            "per_vehicle": self.per_vehicle.to_dicts(),
            "median_distance": self.median_distance,
            "distance_limit": _finite(self.limit),
        }


@dataclass(frozen=True, slots=True)
class Rise:
    """Whether the published temperature rise can be one.

    A hottest probe whose mean over a trip equals its maximum did not change, so that a rise above
    0 is not its rise. Most likely it is the difference between the hottest and the coolest probe;
    the raw record has both, the trip table does not say how it was computed.

    Args:
        constant: share of trips whose hottest probe did not change.
        constant_with_rise: share of trips where it did not, and a rise above 0 is published.
        mean_of_constant_k: mean published rise of the trips whose hottest probe did not change.
    """

    constant: float
    constant_with_rise: float
    mean_of_constant_k: float

    def to_json(self) -> dict[str, Any]:
        """By name; null where undefined."""
        return {
            "share_hottest_probe_constant": self.constant,
            "share_constant_yet_rise_published": self.constant_with_rise,
            "mean_published_rise_of_constant_k": _finite(self.mean_of_constant_k),
        }


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything found out about a lab model on trips.

    Args:
        source: of the trips.
        mappings: every lab model under every mapping; the first is `AS_PUBLISHED` with the
            default lab model.
        sound: the first again, without the trips that hold a sentinel; nothing else is changed.
        seeds: by lab model, correlations of the reseeded fits under `AS_PUBLISHED`.
        per_vehicle: `asset_id`, `trips`, `pearson`, `spearman`; as published, default lab model.
        drivers: per feature, likewise.
        domain: what the domain check says, as published and under the kindest mapping.
        rise: whether the temperature rise is one.
        trips: `asset_id`, `op_index`, `rise_k`, `duration_s`, `soh`, `inside`, for a plot.
    """

    source: str
    mappings: tuple[Mapped, ...]
    sound: Association
    seeds: dict[str, tuple[Association, ...]]
    per_vehicle: pl.DataFrame
    drivers: tuple[Driver, ...]
    domain: tuple[DomainVerdict, ...]
    rise: Rise
    trips: pl.DataFrame

    @property
    def as_published(self) -> Mapped:
        """The default lab model, applied as the source system did."""
        return self.mappings[0]

    @property
    def repeated(self) -> tuple[Mapped, ...]:
        """What the source system did, with each lab model."""
        return tuple(each for each in self.mappings if each.mapping == AS_PUBLISHED)

    @property
    def closest(self) -> Mapped:
        """What comes closest to what is published; another seed moves it as far as a mapping."""
        return min(self.mappings, key=lambda mapped: mapped.distance)

    @property
    def wrong_signs(self) -> int:
        """How many of the mappings give the wrong sign by both correlations."""
        return sum(each.found.pearson > 0 and each.found.spearman > 0 for each in self.mappings)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the sign is what it is and what the domain check says, in sentences."""
        blind, kind = self.domain
        told = [
            (
                f"{blind.inside} of {blind.n} trips lie inside what the lab covered; even per cell "
                f"and with the lab's sign of the current it is {kind.inside}. The domain check "
                "withholds the answers to all others."
            )
        ]
        blindfolded = [d.feature for d in self.drivers if d.inside == 0.0]
        if blindfolded:
            told.append(
                f"{', '.join(blindfolded)}: no trip's value lies in the range that training saw, "
                "so that nothing in training says what it means."
            )
        steering = max(
            (d for d in self.drivers if math.isfinite(d.with_prediction)),
            key=lambda d: abs(d.with_prediction),
            default=None,
        )
        if steering is not None:
            told.append(
                f"The prediction follows {steering.feature} (Spearman "
                f"{steering.with_prediction:+.2f}). In the lab a discharge ends when the cell is "
                "empty, so that a longer one means more capacity; a trip ends where the driver "
                f"arrives. With {steering.feature} held at the lab's median the correlations are "
                f"{steering.frozen.pearson:+.2f} and {steering.frozen.spearman:+.2f} instead of "
                f"{self.as_published.found.pearson:+.2f} and "
                f"{self.as_published.found.spearman:+.2f}."
            )
        unsound = self.trips.height - self.sound.n
        if unsound:
            told.append(
                f"{unsound} trips hold a number that means no measurement; without them it is "
                f"{self.sound.pearson:+.2f} and {self.sound.spearman:+.2f}."
            )
        if self.rise.constant_with_rise > 0:
            told.append(
                f"In {self.rise.constant:.0%} of the trips the hottest probe never changed, and "
                f"their published rise is {self.rise.mean_of_constant_k:.1f} K on average: that "
                "cannot be its rise, and most likely is the difference between probes, hottest "
                "and coolest. That says how evenly a pack is cooled, and only indirectly how old "
                "it is."
            )
        return tuple(told)

    def to_json(self) -> dict[str, Any]:
        """Everything but the single trips."""
        return {
            "source": self.source,
            "trips": self.trips.height,
            "published": PUBLISHED.to_json(),
            "as_published": self.as_published.to_json(),
            "repeated": [mapped.to_json() for mapped in self.repeated],
            "closest": self.closest.to_json(),
            "mappings_with_wrong_sign": self.wrong_signs,
            "mappings": [mapped.to_json() for mapped in self.mappings],
            "as_published_without_sentinels": self.sound.to_json(),
            "seeds": {
                lab: [found.to_json() for found in every] for lab, every in self.seeds.items()
            },
            "per_vehicle": self.per_vehicle.to_dicts(),
            "drivers": [driver.to_json() for driver in self.drivers],
            "domain": [verdict.to_json() for verdict in self.domain],
            "temperature_rise": self.rise.to_json(),
            "reasons": list(self.reasons),
        }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
