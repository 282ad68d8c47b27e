"""The reference: what the rows looked like that a model was trained on, fitted once."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError, PackageError
from batteryops.features.view import FeatureView
from batteryops.monitoring.cells import Floats, Grid, Integers, fit_grid
from batteryops.monitoring.columns import column_values, each, prediction_values
from batteryops.monitoring.context import ORDER, Context
from batteryops.monitoring.tallies import Rows, Tally, real, whole, words

if TYPE_CHECKING:  # whoever compares two tables needs no model
    from batteryops.models.package import ModelPackage

DRIFT_REFERENCE: Final = "drift_reference"
"""The document of a model package that holds its reference."""

PREDICTION: Final = "prediction"
"""What the column of predictions is called among the others."""

FORMAT_VERSION: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class ColumnReference:
    """The reference of one column: its grid, and what of the reference lies in it."""

    grid: Grid
    tally: Tally

    @property
    def counts(self) -> Integers:
        """Rows (n_cells,) by cell."""
        return self.tally.cells

    @property
    def by_stratum(self) -> Mapping[str, Integers]:
        """Rows (n_cells,) by cell, for each stratum."""
        return self.tally.strata

    def quantile(self, share: float) -> float:
        """The least cut with at least this share of the known values up to it; NaN without any.

        Args:
            share: 0 to 1.
        """
        if not self.grid.cuts.size:
            return float("nan")
        up_to = np.cumsum(self.counts[:-1])
        place = int(np.searchsorted(up_to, max(share * up_to[-1], 1)))
        return float(self.grid.cuts[min(place, self.grid.cuts.size - 1)])


@dataclass(frozen=True, slots=True)
class ViewName:
    """Which feature view the columns are of."""

    name: str
    version: int
    schema_hash: str


@dataclass(frozen=True, eq=False)
class Reference:
    """What current rows are compared with.

    Args:
        features: by name, in the order of the view.
        prediction: of the model's predictions; None where none were given.
        rows: that it was fitted on.
        assets: how many assets these were of; None where none were given.
        view: of the features, where known.
        context: a sample of the rows, from which causes of drift are told; None where none is kept.
    """

    features: Mapping[str, ColumnReference]
    prediction: ColumnReference | None
    rows: int
    assets: int | None
    view: ViewName | None
    context: Context | None = None

    @classmethod
    def fit(  # noqa: PLR0913 - one argument per fact that is known of the rows
        cls,
        table: pl.DataFrame,
        features: Sequence[str],
        *,
        asset: str = "asset_id",
        strata: pl.Series | None = None,
        predictions: ArrayLike | None = None,
        view: FeatureView | None = None,
    ) -> Self:
        """Summarise the rows of a table.

        Args:
            table: the features as numeric columns, null or NaN where missing; perhaps `asset`, and
                `op_index`, which says what came first in an asset's life.
            features: which columns.
            asset: the column that says whose row it is. Rows of one asset may depend on each
                other; without the column all rows are taken to be independent.
            strata: (n,) labels, from `strata.strata_of`; rows are counted per label as well.
            predictions: (n,) of the model, NaN where there is none.
            view: what the features are of.

        Raises:
            DataError: when there are no rows or no features, a column is missing or not numeric,
                or strata or predictions are not one per row.

        Examples:
            >>> table = pl.DataFrame({"voltage_V_mean": [3.5, 3.6, None, 3.4]})
            >>> reference = Reference.fit(table, ["voltage_V_mean"])
            >>> reference.features["voltage_V_mean"].quantile(0.5)
            3.5
        """
        if table.is_empty() or not features:
            raise DataError(
                f"a reference of {table.height} rows and {len(features)} features says nothing; "
                "expected at least one of each"
            )
        absent = [name for name in features if name not in table.columns]
        if absent:
            raise DataError(
                f"a reference needs {', '.join(absent)}, which the table lacks; it has "
                f"{', '.join(table.columns)}"
            )
        assets = table[asset] if asset in table.columns else None
        rows = Rows.of(table.height, assets, _one_per_row(strata, table.height))
        values = [column_values(table, name) for name in features]
        if predictions is not None:
            values.append(prediction_values(predictions, table.height))

        def fit_one(column: NDArray[np.floating]) -> ColumnReference:
            grid, _ = fit_grid(column)
            return ColumnReference(grid, rows.tally(grid, column))

        found = each(fit_one, values, rows=table.height)
        return cls(
            features=dict(zip(features, found, strict=False)),
            prediction=None if predictions is None else found[-1],
            rows=table.height,
            assets=None if assets is None else assets.n_unique(),
            view=None if view is None else ViewName(view.name, view.version, view.schema_hash),
            context=Context.of(
                dict(zip([*features, PREDICTION], values, strict=False)),
                table.height,
                assets=assets,
                order=table[ORDER] if ORDER in table.columns else None,
            ),
        )

    @property
    def columns(self) -> Mapping[str, ColumnReference]:
        """Features, and predictions where there are any."""
        if self.prediction is None:
            return self.features
        return {**self.features, PREDICTION: self.prediction}

    @property
    def strata(self) -> tuple[str, ...]:
        """The labels that rows were counted under."""
        return tuple(next(iter(self.features.values())).by_stratum)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the grids: counts of one reference mean nothing in the grid of another."""
        digest = hashlib.sha256()
        for name, column in self.columns.items():
            digest.update(f"{name} {column.grid.cuts.size} {column.grid.ends.size} ".encode())
            digest.update(column.grid.cuts.astype("<f8").tobytes())
            digest.update(column.grid.ends.astype("<i8").tobytes())
        return digest.hexdigest()

    def require_view(self, view: FeatureView) -> None:
        """Refuse to be compared with rows of another view.

        Raises:
            DataError: when it was fitted on another view, or another version of it.
        """
        if self.view is None:
            return
        given = ViewName(view.name, view.version, view.schema_hash)
        if given != self.view:
            raise DataError(
                f"the reference is of view {self.view.name} version {self.view.version} "
                f"({self.view.schema_hash[:12]}), the rows are of {view.name} version "
                f"{view.version} ({view.schema_hash[:12]}); compute both with one view, or train "
                "again"
            )

    def to_json(self) -> dict[str, Any]:
        """All of it, from which `from_json` makes the very same."""
        return {
            "format_version": FORMAT_VERSION,
            "rows": self.rows,
            "assets": self.assets,
            "view": None
            if self.view is None
            else {
                "name": self.view.name,
                "version": self.view.version,
                "schema_hash": self.view.schema_hash,
            },
            "features": {name: _to_json(column) for name, column in self.features.items()},
            "prediction": None if self.prediction is None else _to_json(self.prediction),
            "context": None if self.context is None else self.context.to_json(),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            DataError: when it is something else.
        """
        try:
            given = document["format_version"]
            if given != FORMAT_VERSION:
                raise DataError(
                    f"the reference has format version {given!r}, expected {FORMAT_VERSION}; read "
                    "it with the batteryops that wrote it, or fit it again"
                )
            view, prediction = document["view"], document["prediction"]
            context = document.get("context")  # of a reference that tells no causes there is none
            read = cls(
                features={name: _read(entry) for name, entry in document["features"].items()},
                prediction=None if prediction is None else _read(prediction),
                rows=int(document["rows"]),
                assets=None if document["assets"] is None else int(document["assets"]),
                view=None if view is None else ViewName(**view),
                context=None if context is None else Context.from_json(context),
            )
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise DataError(
                f"this is no reference for drift ({error!r}); expected what was fitted at training "
                "or by `batteryops drift`"
            ) from error
        if not read.features:
            raise DataError("this reference has no features; fit it again")
        return read


def reference_of(package: "ModelPackage") -> Reference:
    """The reference in a model package.

    Raises:
        PackageError: when the package holds none, because it was trained before there were any.
    """
    if f"{DRIFT_REFERENCE}.json" not in package.manifest.files:
        raise PackageError(
            f"package {package.folder} holds no {DRIFT_REFERENCE}.json: it was trained before "
            "references were kept. Train again, or name a table of its training rows as the "
            "reference"
        )
    return Reference.from_json(package.document(DRIFT_REFERENCE))


def _one_per_row(strata: pl.Series | None, rows: int) -> pl.Series | None:
    if strata is not None and len(strata) != rows:
        raise DataError(f"given {len(strata)} strata for {rows} rows; expected one per row")
    return strata


def _to_json(column: ColumnReference) -> dict[str, Any]:
    return {
        "cuts": words(column.grid.cuts),
        "ends": words(column.grid.ends),
        **column.tally.to_json(),
    }


def _read(document: Mapping[str, Any]) -> ColumnReference:
    cuts = real(document["cuts"])
    if not np.isfinite(cuts).all() or not _increase(cuts):
        raise ValueError("cuts do not increase")
    ends = whole(document["ends"], len(document["ends"].split()))
    if not _increase(ends) or (ends >= cuts.size).any():
        raise ValueError("ends of bins are not among the cuts")
    grid = Grid(cuts, ends)
    return ColumnReference(grid, Tally.from_json(document, grid))


def _increase(numbers: Floats | Integers) -> bool:
    return bool((np.diff(numbers) > 0).all())
