"""The model for batteries never seen: mixed-effects processes on what physics says to compare.

What to compare, a view's recipe says (`models.process_recipes`). Several processes, each on another
choice of features, answer together: their mean.

Far from all training rows a process knows nothing and falls back to the mean capacity. A line says
more there: with u the share of the labels' variance that the processes leave unexplained at a row,
the answer is (1 - u^2) of theirs and u^2 of a ridge's.

`fit_battery_process` needs to know whose row is whose, `assets`, not only which assets were aged
together: what one asset has of its own is told apart from what holds for all.
"""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import RidgeCV

from batteryops.errors import DataError, PackageError
from batteryops.models.held_out import Floats, group_codes, group_weights
from batteryops.models.mixed_effects import Design, MixedEffects, fit_mixed_effects
from batteryops.models.process_recipes import (
    LEAST_AH,
    RECIPES,
    Columns,
    Recipe,
    recipe_of,
    with_added,
)

_NORMAL_90: Final = 3.29  # standard deviations between the 5 and 95 percent quantiles
_FORMAT: Final = 1
_PENALTIES: Final = tuple(10.0**power for power in np.arange(-2.0, 4.1, 0.5))


@dataclass(frozen=True, slots=True, eq=False)
class Encoding:
    """Features made comparable: centred, scaled, outliers drawn in, gaps marked.

    2 arcsinh((x - c) / 2 s) is (x - c) / s near c and grows like its logarithm far from it.

    Args:
        names: of the features, (k,).
        centre: their medians in training, (k,).
        scale: of a normal variable with the same 5 and 95 percent quantiles, (k,).
        marked: places of the features that some training rows lack, (m,).
    """

    names: tuple[str, ...]
    centre: Floats
    scale: Floats
    marked: tuple[int, ...]

    @classmethod
    def of(cls, names: Sequence[str], columns: Columns) -> Self:
        """Learn it from training rows; features that none of them has are left out."""
        known = tuple(name for name in names if np.isfinite(columns[name]).any())
        values = np.column_stack([columns[name] for name in known])
        low, high = np.nanquantile(values, [0.05, 0.95], axis=0)
        scale = (high - low) / _NORMAL_90
        gaps = ~np.isfinite(values).all(axis=0)
        return cls(
            known,
            np.nanmedian(values, axis=0),
            np.where(scale > 0.0, scale, 1.0),
            tuple(np.flatnonzero(gaps).tolist()),
        )

    def __call__(self, columns: Columns) -> Floats:
        """Encode rows: (n, k + m), zero where missing, and marks of 1 where not."""
        values = np.column_stack([columns[name] for name in self.names])
        known = np.isfinite(values)
        encoded = 2.0 * np.arcsinh((values - self.centre) / (2.0 * self.scale))
        marks = known[:, list(self.marked)].astype(np.float64)
        return np.column_stack([np.where(known, encoded, 0.0), marks])

    def places(self, names: Sequence[str]) -> tuple[int, ...]:
        """Encoded columns of these features, marks included; none for features left out."""
        found = [self.names.index(name) for name in names if name in self.names]
        marks = [len(self.names) + self.marked.index(at) for at in found if at in self.marked]
        return (*found, *marks)


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A ridge on encoded features, every asset weighing the same.

    Args:
        slopes: (k,) per encoded feature.
        intercept: where all encoded features are zero.
        variance: of the labels it was fitted to, assets weighing the same.
    """

    slopes: Floats
    intercept: float
    variance: float

    @classmethod
    def through(cls, rows: Floats, labels: Floats, assets: NDArray[np.object_]) -> Self:
        """Fit it; leave-one-out error chooses the penalty."""
        weights = group_weights(group_codes(assets, len(rows)))
        ridge = RidgeCV(_PENALTIES).fit(rows, labels, sample_weight=weights * len(rows))
        variance = float(weights @ (labels - weights @ labels) ** 2)
        return cls(np.asarray(ridge.coef_), float(ridge.intercept_), variance)

    def __call__(self, rows: Floats) -> Floats:
        """Labels (n,) of encoded rows (n, k)."""
        return rows @ self.slopes + self.intercept


@dataclass(frozen=True, slots=True, eq=False)
class BatteryProcess:
    """A fitted model; `fit_battery_process` yields it, calling it predicts.

    Args:
        view: name of the feature view, which decides the recipe.
        names: of the view's k features.
        members: encoding and process of each.
        line: encoding and ridge to fall back to.
    """

    view: str
    names: tuple[str, ...]
    members: tuple[tuple[Encoding, MixedEffects], ...]
    line: tuple[Encoding, Line]

    def __call__(self, features: ArrayLike) -> Floats:
        """Predicted capacities (n,) in Ah of rows (n, k), NaN where missing."""
        return self.predict(features)[0]

    def predict(self, features: ArrayLike) -> tuple[Floats, Floats]:
        """Capacities (n,) and standard deviations (n,) in Ah, of assets that did not train.

        The deviation is that of a mixture of the members; it holds what an asset has of its own.

        Raises:
            DataError: when the features are not (n, k).
        """
        columns = with_added(self.names, features)
        encode, line = self.line
        return self._joined(
            columns,
            [process.predict(encoded(columns)) for encoded, process in self.members],
            line(encode(columns)),
            line.variance,
        )

    def without_groups(
        self, features: ArrayLike, labels: ArrayLike, assets: ArrayLike, groups: ArrayLike
    ) -> tuple[Floats, Floats]:
        """As `predict`, for the rows that trained, each as if its whole group had not.

        The line is fitted anew without each group. The processes are not: what is exact about that
        and what is not, `MixedEffects.without_groups` says. The encoding stays too, which saw
        features of the group but no label.

        Args:
            features: all that `fit_battery_process` was given, in their order.
            labels: likewise.
            assets: likewise.
            groups: (n,), which rows are left out together; an asset is in one group.

        Raises:
            DataError: when they are other rows than those that trained, or all are one group.
        """
        columns = with_added(self.names, features)
        capacity, whose = _labels(columns, labels), _names(assets)
        codes = group_codes(groups, capacity.size)
        if not codes.any():
            raise DataError("all rows are of one group; nothing is left to answer without it")
        target = _target(RECIPES[self.view], columns, capacity)
        of_group = np.asarray(groups).astype(str).astype(object)
        answers = [
            process.without_groups(encoded(columns), whose, of_group)
            for encoded, process in self.members
        ]
        rows = self.line[0](columns)
        by_line, variance = np.empty(len(rows)), np.empty(len(rows))
        for code in range(int(codes.max()) + 1):
            out = codes == code
            line = Line.through(rows[~out], target[~out], whose[~out])
            by_line[out], variance[out] = line(rows[out]), line.variance
        return self._joined(columns, answers, by_line, variance)

    def _joined(
        self,
        columns: Columns,
        answers: Sequence[tuple[Floats, Floats]],
        by_line: Floats,
        line_variance: Floats | float,
    ) -> tuple[Floats, Floats]:
        """Capacities and deviations in Ah from what members and line say of the labels."""
        means = np.array([mean for mean, _ in answers])
        mean = means.mean(axis=0)
        variance = np.mean([each for _, each in answers], axis=0) + means.var(axis=0)
        known = np.where(np.asarray(line_variance) > 0.0, line_variance, np.inf)  # all alike: none
        unexplained = np.minimum(variance / known, 1.0)
        mean += unexplained**2 * (by_line - mean)
        charge_ah = RECIPES[self.view].charge_ah
        if charge_ah is not None:
            mean = charge_ah(columns) * np.exp(mean)
            return mean, mean * np.sqrt(variance)  # d exp(u) = exp(u) du
        return np.maximum(mean, 0.0), np.sqrt(variance)

    def to_bytes(self) -> bytes:
        """As a package holds it: numbers and JSON in one archive, nothing that can run."""
        encode, line = self.line
        arrays = _arrays("line", encode, _ENCODED) | _arrays("line", line, _LINE)
        told = {"names": encode.names, "marked": encode.marked}
        members = []
        for place, (encoding, process) in enumerate(self.members):
            arrays |= _arrays(f"{place}", encoding, _ENCODED) | _arrays(
                f"{place}", process, _FITTED
            )
            members.append(
                {"names": encoding.names, "marked": encoding.marked, **asdict(process.design)}
            )
        document = {
            "format": _FORMAT,
            "view": self.view,
            "names": self.names,
            "members": members,
            "line": told,
        }
        held = io.BytesIO()
        np.savez(held, allow_pickle=False, document=np.array(json.dumps(document)), **arrays)
        return held.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """What `to_bytes` gave.

        Raises:
            PackageError: when it is something else.
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as held:
                return cls._read(json.loads(str(held["document"])), dict(held))
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise PackageError(
                f"the fitted process cannot be read ({error!r}); train again"
            ) from error

    @classmethod
    def _read(cls, document: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Self:
        if document["format"] != _FORMAT or document["view"] not in RECIPES:
            raise ValueError(f"format {document['format']} of view {document['view']}")

        def encoding(place: str, told: Mapping[str, Any]) -> Encoding:
            return Encoding(
                names=tuple(told["names"]),
                marked=tuple(told["marked"]),
                **_values(arrays, f"{place} encoding", _ENCODED),
            )

        members = []
        for place, told in enumerate(document["members"]):
            asked = {name: told[name] for name in _DESIGN}
            design = Design(tuple(map(tuple, told["blocks"])), **asked)
            fitted = _values(arrays, f"{place} fitted", _FITTED)
            members.append((encoding(f"{place}", told), MixedEffects(design, **fitted)))
        line = Line(**_values(arrays, "line fitted", _LINE))
        return cls(
            document["view"],
            tuple(document["names"]),
            tuple(members),
            (encoding("line", document["line"]), line),
        )


_ENCODED: Final = ("centre", "scale")
_FITTED: Final = ("parameters", "mean", "scale", "rows", "weights", "factor", "log_evidence")
_DESIGN: Final = ("slopes", "cycles_per_asset", "rows_per_asset", "rounds", "max_steps")
_LINE: Final = ("slopes", "intercept", "variance")


def _arrays(place: str, holder: object, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    kind = "encoding" if isinstance(holder, Encoding) else "fitted"
    return {f"{place} {kind} {name}": np.asarray(getattr(holder, name)) for name in names}


def _values(arrays: Mapping[str, NDArray[Any]], place: str, names: Sequence[str]) -> dict[str, Any]:
    """Arrays by name; those without dimension as numbers."""
    found = {name: arrays[f"{place} {name}"] for name in names}
    return {name: value if value.ndim else value.item() for name, value in found.items()}


def fit_battery_process(
    features: ArrayLike,
    labels: ArrayLike,
    assets: ArrayLike,
    *,
    view: str,
    names: Sequence[str],
) -> BatteryProcess:
    """Fit the recipe of a view.

    Args:
        features: (n, k) in the order of the view, NaN where missing.
        labels: (n,) capacity in Ah.
        assets: (n,) whose cycle each is, two assets or more.
        view: `partial_window`, `discharge_summary` or `discharge_physics`.
        names: of the k features.

    Raises:
        DataError: when there is no recipe for the view, a feature that it needs is not there, or
            shapes disagree.
    """
    recipe = recipe_of(view)
    given = tuple(names)
    columns = with_added(given, features)
    capacity, whose = _labels(columns, labels), _names(assets)
    target = _target(recipe, columns, capacity)
    members = []
    for blocks, slopes in zip(recipe.members, recipe.slopes, strict=True):
        encode = Encoding.of([name for block in blocks for name in block], columns)
        places = tuple(filter(None, (encode.places(block) for block in blocks)))
        fitted = fit_mixed_effects(encode(columns), target, whose, Design(places, slopes))
        members.append((encode, fitted))
    encode = Encoding.of(recipe.line, columns)
    line = Line.through(encode(columns), target, whose)
    return BatteryProcess(view, given, tuple(members), (encode, line))


def _target(recipe: Recipe, columns: Columns, capacity_ah: Floats) -> Floats:
    """What the recipe learns (n,): capacities, or logarithms of their ratios to a charge."""
    if recipe.charge_ah is None:
        return capacity_ah
    return np.log(np.maximum(capacity_ah, LEAST_AH) / recipe.charge_ah(columns))


def _labels(columns: Columns, labels: ArrayLike) -> Floats:
    capacity = np.asarray(labels, dtype=np.float64)
    if capacity.shape != (len(next(iter(columns.values()))),):
        raise DataError(
            f"labels have shape {capacity.shape}; expected one for each row of features"
        )
    return capacity


def _names(assets: ArrayLike) -> NDArray[np.object_]:
    return np.asarray(assets).astype(str).astype(object)
