"""Ways to compress a model, alone and combined, all fitted on the same rows."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from batteryops.models.boosting import Parameters
from batteryops.models.compression import (
    DEPTH,
    N_FEATURES,
    Slim,
    best_features,
    fit_on,
    half_leaves,
    shallower,
)

Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to compress, or several together.

    Args:
        shallow: trees of at most 7 levels of splits.
        few: refitted on the five best features of the training rows.
        half: leaves rounded to float16.
    """

    shallow: bool = False
    few: bool = False
    half: bool = False

    @property
    def name(self) -> str:
        """The ways by name, joined by `+`; `full` when there are none."""
        ways = {
            f"depth_{DEPTH}": self.shallow,
            "five_features": self.few,
            "float16_leaves": self.half,
        }
        return "+".join(way for way, taken in ways.items() if taken) or "full"


VARIANTS: Final = (
    Variant(),
    Variant(shallow=True),
    Variant(few=True),
    Variant(half=True),
    Variant(shallow=True, few=True),
    Variant(shallow=True, half=True),
    Variant(few=True, half=True),
    Variant(shallow=True, few=True, half=True),
)
"""The full model, each way alone, and all combinations."""


class Fits:
    """Fits variants on rows.

    Args:
        names: all features.
        parameters: for `boosting.fit`.
        seed: for `boosting.fit`.
    """

    def __init__(self, names: tuple[str, ...], parameters: Parameters, seed: int) -> None:
        self.names, self._parameters, self._seed = names, parameters, seed

    def every(self, features: Matrix, labels: Floats) -> dict[Variant, Slim]:
        """All variants on the same rows (n, k) with labels (n,) in Ah; the full one first.

        The five features are those that the full model gained most by on these rows.
        """
        full = self._fit(features, labels, Variant(), self.names)
        best = best_features(full.booster, N_FEATURES)
        models = {Variant(): full}
        for variant in VARIANTS[1:]:
            if variant.half:
                models[variant] = rounded(models[Variant(variant.shallow, variant.few)])
            else:
                models[variant] = self._fit(features, labels, variant, best)
        return models

    def _fit(
        self, features: Matrix, labels: Floats, variant: Variant, best: tuple[str, ...]
    ) -> Slim:
        given = self._parameters
        return fit_on(
            features,
            labels,
            best if variant.few else self.names,
            feature_names=self.names,
            parameters=shallower(given) if variant.shallow else given,
            seed=self._seed,
        )


def rounded(model: Slim) -> Slim:
    """The model with float16 leaves, on one thread."""
    booster = half_leaves(model.booster)
    booster.set_param({"nthread": 1})  # XGBoost's file does not keep it
    return Slim(booster, model.names, model.columns)
