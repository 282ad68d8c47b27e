"""What current rows are compared with: a package, a fitted reference, or a table, by its name."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from batteryops.errors import DataError, UnknownAssetError
from batteryops.features.files import SUFFIXES
from batteryops.features.views import VIEWS
from batteryops.files import replacing
from batteryops.lifecycle.drift_tables import ASSET, TableFiles, features_in, listed, renamings
from batteryops.lifecycle.loading import load_model
from batteryops.lifecycle.progress import Progress
from batteryops.monitoring.columns import column_values
from batteryops.monitoring.reference import Reference, reference_of
from batteryops.monitoring.strata import strata_of
from batteryops.settings import Settings


@dataclass(frozen=True, slots=True)
class NamedReference:
    """A reference, and where it comes from.

    Args:
        reference: what is compared with.
        name: in words, for people.
        notes: what was done to read it.
    """

    reference: Reference
    name: str
    notes: tuple[str, ...] = ()


def open_reference(
    named: str,
    settings: Settings,
    progress: Progress,
    *,
    features: Sequence[str] = (),
    prediction: str | None = None,
) -> NamedReference:
    """The reference that a person names.

    Args:
        named: a model's version or alias, the folder of a package, a reference in a `.json` file,
            or a table in a `.csv` or `.parquet` file, from which one is fitted.
        settings: say where the registry is, and the profiles of assets.
        progress: told what is being done.
        features: columns of a table that are compared; found by name where none is given.
        prediction: the column of a table that holds a model's predictions.

    Raises:
        DataError: a file that is none of these, or a reference of another version of its view.
        PackageError, RegistryError: no such model, or one without a reference.
    """
    path = Path(named)
    notes: tuple[str, ...] = ()
    if path.suffix in SUFFIXES:
        found, notes = _fit(path, settings, progress, features, prediction)
        name = f"{path.name}, {found.rows} rows"
    elif path.suffix == ".json":
        found, name = read_reference(path), path.name
    else:
        progress.step("load the model's reference")
        model = load_model(named, settings)
        found = reference_of(model.package)
        name = f"version {model.version}" if model.version.isdigit() else f"package {path.name}"
    if features and path.suffix not in SUFFIXES:
        raise DataError(
            f"features {', '.join(features)} were named, but {named} was fitted on its own: "
            f"{', '.join(found.features)}; name features only where the reference is a table"
        )
    if found.view is not None and found.view.name in VIEWS:
        found.require_view(VIEWS[found.view.name])
    return NamedReference(found, name, notes)


def read_reference(path: Path) -> Reference:
    """A reference from a JSON file.

    Raises:
        DataError: when the file is missing or holds something else.
    """
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{path} is no JSON ({error}); expected a fitted reference") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} holds a {type(document).__name__}, expected a fitted reference")
    return Reference.from_json(document)


def save_reference(reference: Reference, path: Path) -> None:
    """Write a reference as JSON; the old file stays until it is done."""
    with replacing(path) as beside:
        beside.write_text(json.dumps(reference.to_json(), allow_nan=False), encoding="utf-8")


def profile_names(settings: Settings) -> Callable[[pl.DataFrame], Mapping[str, str]]:
    """Gives the profile of every asset of a table by name; those without one are left out."""
    known: dict[str, str | None] = {}

    def of(rows: pl.DataFrame) -> Mapping[str, str]:
        if ASSET not in rows.columns:
            return {}
        assets = rows[ASSET].cast(pl.String).drop_nulls().unique().to_list()
        for asset in assets:
            if asset not in known:
                try:
                    known[asset] = settings.profile_of(asset).name
                except UnknownAssetError:
                    known[asset] = None
        return {asset: name for asset in assets if (name := known[asset]) is not None}

    return of


def _fit(
    path: Path,
    settings: Settings,
    progress: Progress,
    features: Sequence[str],
    prediction: str | None,
) -> tuple[Reference, tuple[str, ...]]:
    """A reference of a table's rows."""
    table = TableFiles.open(path)
    progress.step(f"read {path.name}")
    rows = pl.concat([*table.pieces(table.names, progress)])
    kinds = dict(rows.schema)
    if prediction is not None and prediction not in rows.columns:
        raise DataError(f"{path} has no column {prediction}; it has {listed(rows.columns)}")
    candidates = [name for name in rows.columns if name != prediction]
    names, view = features_in(candidates, kinds, features, str(path))
    progress.step(f"fit the reference to {rows.height} rows")
    try:
        strata = strata_of(
            rows, profile_names(settings)(rows), settings.monitoring.temperature_bands_c
        )
        fitted = Reference.fit(
            rows,
            names,
            strata=strata,
            predictions=None if prediction is None else column_values(rows, prediction),
            view=view,
        )
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return fitted, tuple(renamings(table))
