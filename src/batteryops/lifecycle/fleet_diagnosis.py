"""Lab to fleet: what a model of laboratory cells says of trips, and whether it may be believed.

The source system applied its model of NASA cells to trips of five vehicles by giving pack values
the names of cell features, and found a correlation between predicted health and temperature rise
of the wrong sign: an aged battery has a higher resistance and warms more, so that the prediction
should fall where the rise grows. Here the same is done in every way that could have been meant,
the training domain is asked about each trip, and the sign is traced to its cause.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.evaluation.association import associate
from batteryops.features.files import read_feature_table
from batteryops.features.views import FeatureView, get_view, matrix
from batteryops.lifecycle.fleet_findings import (
    Diagnosis,
    DomainVerdict,
    Driver,
    Mapped,
    Rise,
)
from batteryops.lifecycle.loading import load_model
from batteryops.lifecycle.preparation import prepare
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.sources import open_source
from batteryops.lifecycle.trip_mappings import (
    AS_PUBLISHED,
    KINDEST,
    MAPPINGS,
    VIEW,
    Mapping,
    as_features,
    trip_values,
)
from batteryops.lifecycle.uncertainty import package_owners
from batteryops.models import boosting
from batteryops.models.algorithms import Boosted, Predict
from batteryops.models.domain import Domain
from batteryops.models.domain_fit import fit_domain
from batteryops.schema import LABEL, Kind
from batteryops.settings import Settings

PUBLISHED_TABLE: Final = "nasa_feature_matrix.csv"
"""The source system's own table of NASA features, under `source_system` of the data."""

LAST_BITS_C: Final = 1e-6
"""How far a mean of equal temperatures may be from them."""

LAB_NOMINAL_AH: Final = 2.0
"""Of the NASA cells; turns the model's answer to a share, which changes no correlation."""

READ: Final[tuple[Kind, ...]] = ("trip", "discharge")
"""Discharges too, so that a source of these is told that it has no trips."""

SEEDS: Final = 5
"""How many models, each with another seed, say how exact a repetition can be at all."""


@dataclass(frozen=True, slots=True)
class Lab:
    """A model of laboratory cells.

    Args:
        name: what it was fitted on.
        predict: the model: answers rows (n, k) with capacities (n,) in Ah.
        domain: what training covered.
        reseeded: the same fit with other seeds; empty where only the model was given.
    """

    name: str
    predict: Predict
    domain: Domain
    reseeded: tuple[Predict, ...] = ()


def diagnose(
    settings: Settings, progress: Progress, *, source: str = "chengdu", model: str | None = None
) -> Diagnosis:
    """Apply a lab model to trips in every way that could be meant, and say what is wrong with it.

    Args:
        settings: where data is; parameters, seed and groups of the lab model.
        progress: told of each step.
        source: a trip table, by name or path.
        model: a package folder, version or alias of view `discharge_summary`; None fits the
            configured parameters on the NASA cells that pass the quality checks, and, where it is
            there, on the source system's own feature table.

    Raises:
        DataError: no trips, a column missing, fewer than three trips, or the lab's data is not
            there.
        PackageError, RegistryError: the model cannot be had, or is of another view.
    """
    progress.step("read trips")
    trips = trip_values(open_source(source, settings, kinds=READ))
    progress.step("fit the lab model" if model is None else f"load {model}")
    labs = _labs(settings) if model is None else [_packaged(model, settings)]
    return diagnose_trips(trips, labs, source=source, progress=progress)


def diagnose_trips(
    trips: pl.DataFrame, labs: Sequence[Lab], *, source: str, progress: Progress
) -> Diagnosis:
    """The same for trips as `trip_values` gives them; the first lab model is the default one."""
    rise = trips["rise_k"].to_numpy()
    lab = labs[0]
    progress.step("predict under every mapping")
    ordered = (AS_PUBLISHED, *(mapping for mapping in MAPPINGS if mapping != AS_PUBLISHED))
    mapped = tuple(_mapped(each, mapping, trips) for each in labs for mapping in ordered)
    blind = as_features(trips, AS_PUBLISHED)
    predicted = lab.predict(blind)
    progress.step("ask the training domain")
    verdicts = tuple(_verdict(lab.domain, trips, mapping) for mapping in (AS_PUBLISHED, KINDEST))
    inside = np.array([place.inside for place in lab.domain.look_all(blind)], dtype=np.bool_)
    progress.step("trace the sign")
    seeds = {
        each.name: tuple(associate(predict(blind), rise) for predict in each.reseeded)
        for each in labs
        if each.reseeded
    }
    sound = trips["sound"].to_numpy()
    shown = trips.select("asset_id", "op_index", "rise_k", "duration_s").with_columns(
        soh=pl.Series(predicted / LAB_NOMINAL_AH), inside=pl.Series(inside)
    )
    return Diagnosis(
        source=source,
        mappings=mapped,
        sound=associate(predicted[sound], rise[sound]),
        seeds=seeds,
        per_vehicle=_per_vehicle(shown),
        drivers=_drivers(lab, blind, predicted, rise),
        domain=verdicts,
        rise=_rise(trips),
        trips=shown,
    )


def _labs(settings: Settings) -> list[Lab]:
    view = get_view(VIEW)
    prepared = prepare(open_source("nasa", settings, kinds=view.kinds), view, settings)
    labs = [_fitted("NASA cells, checked", prepared.table, view, settings)]
    if settings.data is not None:
        file = settings.data / "source_system" / PUBLISHED_TABLE
        if file.is_file():
            table = read_feature_table(file, view.names, labelled=True)
            labs.append(_fitted("NASA cells, published table", table, view, settings))
    return labs


def _fitted(name: str, table: pl.DataFrame, view: FeatureView, settings: Settings) -> Lab:
    features, labels = matrix(view, table), table[LABEL].to_numpy()
    training = settings.training
    models = [
        Boosted(
            boosting.fit(
                features,
                labels,
                feature_names=view.names,
                parameters=training.parameters,
                seed=training.seed + shift,
            )
        )
        for shift in range(SEEDS)
    ]
    domain = fit_domain(features, package_owners(table, settings).groups, view.names)
    return Lab(name, models[0], domain, tuple(models))


def _packaged(model: str, settings: Settings) -> Lab:
    package = load_model(model, settings).package
    if package.view.name != VIEW:
        raise DataError(
            f"model {model} takes the features of view {package.view.name}; trips resemble those "
            f"of {VIEW} only: name a model of that view, or none"
        )
    return Lab(f"model {model}", package.predict_batch, package.domain)


def _mapped(lab: Lab, mapping: Mapping, trips: pl.DataFrame) -> Mapped:
    features = as_features(trips, mapping)
    kept = ~np.isnan(features).all(axis=1)
    predicted = np.where(kept, lab.predict(features), np.nan)
    found = associate(predicted, trips["rise_k"].to_numpy())
    median_soh = float(np.median(predicted[kept])) / LAB_NOMINAL_AH if kept.any() else math.nan
    return Mapped(lab.name, mapping, found, median_soh)


def _verdict(domain: Domain, trips: pl.DataFrame, mapping: Mapping) -> DomainVerdict:
    places = domain.look_all(as_features(trips, mapping))
    inside = pl.Series([place.inside for place in places], dtype=pl.Boolean)
    counts = {name: sum(name in place.features for place in places) for name in domain.names}
    per_vehicle = (
        trips.select("asset_id")
        .with_columns(inside=inside)
        .group_by("asset_id")
        .agg(trips=pl.len(), inside=pl.col("inside").sum())
        .sort("asset_id")
    )
    return DomainVerdict(
        mapping=mapping,
        n=len(places),
        inside=int(inside.sum()),
        joint=sum(place.joint for place in places),
        features={name: count for name, count in counts.items() if count},
        per_vehicle=per_vehicle,
        median_distance=float(np.median([place.distance for place in places])),
        limit=domain.limit,
    )


def _drivers(
    lab: Lab,
    features: NDArray[np.float32],
    predicted: NDArray[np.float64],
    rise: NDArray[np.float64],
) -> tuple[Driver, ...]:
    drivers = []
    for column, name in enumerate(lab.domain.names):
        values = features[:, column].astype(np.float64)
        inside = (values >= lab.domain.low[column]) & (values <= lab.domain.high[column])
        frozen = features.copy()
        frozen[:, column] = lab.domain.centre[column]  # the median of the training rows
        drivers.append(
            Driver(
                feature=name,
                inside=float(inside.mean()),
                with_prediction=associate(values, predicted).spearman,
                with_rise=associate(values, rise).spearman,
                frozen=associate(lab.predict(frozen), rise),
            )
        )
    return tuple(drivers)


def _rise(trips: pl.DataFrame) -> Rise:
    # a mean of equal numbers may differ from them in its last bits
    constant = (pl.col("temperature_max_c") - pl.col("temperature_c")).abs() < LAST_BITS_C
    found = trips.select(
        constant=constant.mean(),
        with_rise=(constant & (pl.col("rise_k") > 0)).mean(),
        mean_k=pl.col("rise_k").filter(constant).mean(),
    ).row(0)
    return Rise(*(math.nan if value is None else float(value) for value in found))


def _per_vehicle(shown: pl.DataFrame) -> pl.DataFrame:
    rows = []
    for (asset,), own in shown.group_by("asset_id", maintain_order=True):
        found = associate(own["soh"], own["rise_k"]).to_json()
        rows.append((asset, own.height, found["pearson"], found["spearman"], own["inside"].sum()))
    schema = {
        "asset_id": pl.String,
        "trips": pl.Int64,
        "pearson": pl.Float64,
        "spearman": pl.Float64,
        "inside": pl.Int64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")
