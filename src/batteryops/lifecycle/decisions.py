"""What is decided on training rows before a model is fitted: searched values, a stack's shares.

A fold of a protocol decides anew, on its own training rows, so that the batteries that test it
have no part in the decision. What goes into service is decided on all rows in the same way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from batteryops.errors import SettingsError
from batteryops.evaluation.coverage import FitBounds, MakeBounds
from batteryops.evaluation.owners import Owners
from batteryops.features.views import FeatureView
from batteryops.lifecycle.uncertainty import bounds_fit
from batteryops.models.algorithms import (
    Floats,
    GroupedFit,
    Matrix,
    Predict,
    Task,
    get_algorithm,
)
from batteryops.models.manifest import ChosenAlgorithm
from batteryops.models.remembering import once_per_rows
from batteryops.models.search import Budget, Found, Rows, is_searchable, search
from batteryops.models.stacking import Stack, StackFit, choose, out_of_group
from batteryops.records.predictions import PredictionLog
from batteryops.settings import Settings

STACK: Final = "stack"
"""The name of a combination of algorithms."""


IN_TRAINING: Final = 2
"""Folds of groups that calibrate intervals in each fold of a protocol while a model is trained: two
more fits for each. The package's own intervals, and those of `evaluate`, take all folds; so does a
fit that `HoldsOut`, always."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How to fit, once everything is decided.

    Args:
        fit: decides nothing more.
        algorithm: what it fits, as a package names it.
        found: what the search said, where there was one.
    """

    fit: GroupedFit
    algorithm: ChosenAlgorithm
    found: Found | None = None


Decide = Callable[[Matrix, Floats, Owners], Decision]
"""Decides on features (n, k), labels (n,) in Ah and the rows' owners, and looks at nothing else."""


def as_it_is(name: str, task: Task) -> Decision:
    """An algorithm with its defaults.

    Raises:
        SettingsError: when there is no such algorithm.
    """
    return Decision(get_algorithm(name).make(task, {}), ChosenAlgorithm(name=name))


def always(decision: Decision) -> Decide:
    """The same whatever the rows: nothing is left to decide."""
    return lambda features, labels, owners: decision  # noqa: ARG005 - whatever the rows


def searching(name: str, task: Task, budget: Budget, *, entrant: str | None = None) -> Decide:
    """An algorithm with the values that a search finds, once for the same rows.

    Args:
        name: of the algorithm.
        task: what it is told.
        budget: of one search.
        entrant: what it is called with those values; its own name when None.

    Raises:
        SettingsError: when there is no such algorithm, or it has nothing to set.
    """
    algorithm, known_as = get_algorithm(name), entrant or name
    if not is_searchable(algorithm):
        raise SettingsError(
            f"{name} has no values to search for; leave --search out, or name another algorithm"
        )

    def decide(features: Matrix, labels: Floats, owners: Owners) -> Decision:
        found = search(algorithm, task, Rows(features, labels, owners), budget)
        values = {known_as: found.values} if found.values else {}
        chosen = ChosenAlgorithm(name=known_as, values=values)
        return Decision(algorithm.make(task, found.values), chosen, found)

    return once_per_rows(decide)


def stacking(entrants: Mapping[str, Decide], *, folds: int, top: int) -> Decide:
    """The best few, chosen and weighed on groups held out of the training rows, once for each.

    A search that takes part looks at all of the training rows once, not again without each group
    that the choice holds out: the choice then thinks a little too well of it, what the
    combination is measured by does not.

    Args:
        entrants: by name.
        folds: of groups, for the choice.
        top: how many to combine, at most.
    """

    def decide(features: Matrix, labels: Floats, owners: Owners) -> Decision:
        settled = {name: one(features, labels, owners) for name, one in entrants.items()}
        fits = {name: one.fit for name, one in settled.items()}
        held_out = out_of_group(fits, features, labels, owners, folds=folds)
        return combined(choose(held_out, labels, owners.groups, top=top), settled)

    return once_per_rows(decide)


def combined(stack: Stack, settled: Mapping[str, Decision]) -> Decision:
    """A stack of which all is decided.

    Args:
        stack: members and shares.
        settled: at least its members, by name.
    """
    members = {
        name: share for name, share in zip(stack.members, stack.weights, strict=True) if share
    }
    values = {
        name: found for one in members for name, found in settled[one].algorithm.values.items()
    }
    fits = {name: settled[name].fit for name in members}
    chosen = ChosenAlgorithm(name=STACK, shares=members, values=values)
    return Decision(StackFit(stack, fits), chosen)


def deciding_fit(decide: Decide) -> GroupedFit:
    """What decides on the rows that it is given, and fits on them."""

    def fit(features: Matrix, labels: Floats, owners: Owners) -> Predict:
        return decide(features, labels, owners).fit(features, labels, owners)

    return fit


def deciding_bounds(
    decide: Decide, view: FeatureView, settings: Settings, profile: str | None = None
) -> FitBounds:
    """Intervals for the protocols, as `bounds_fit` makes them, of what a fold decided.

    The decision is the fold's: it is not made again without each group that calibrates. Folds
    that decide the same share what is fitted for both.
    """
    of_decision: dict[GroupedFit, FitBounds] = {}

    def fit_bounds(features: Matrix, labels: Floats, owners: Owners) -> MakeBounds:
        decision = decide(features, labels, owners)
        fit = decision.fit
        if fit not in of_decision:
            of_decision[fit] = bounds_fit(fit, view.names, settings, profile)
        return of_decision[fit](features, labels, owners)

    return fit_bounds


def fewer_folds(settings: Settings, *, calibration: bool) -> Settings:
    """The same settings with as many folds as a tournament has, where there are more.

    Args:
        settings: with `evaluation.max_folds` and `evaluation.calibration_folds`.
        calibration: for intervals too.
    """
    given, at_most = settings.evaluation, settings.tournament.folds
    fewer = {"max_folds": min(given.max_folds, at_most)}
    if calibration:
        fewer["calibration_folds"] = min(given.calibration_folds, at_most)
    return settings.model_copy(update={"evaluation": given.model_copy(update=fewer)})


def fewer_calibrating(settings: Settings) -> Settings:
    """The same settings with `IN_TRAINING` folds for intervals, where there are more."""
    given = settings.evaluation
    fewer = {"calibration_folds": min(given.calibration_folds, IN_TRAINING)}
    return settings.model_copy(update={"evaluation": given.model_copy(update=fewer)})


def search_budget(settings: Settings, seconds: float) -> Budget:
    """The budget of one search, of so many seconds for all that a training can need.

    `unseen_assets` and `unseen_schedules` search in every fold, `random` and `later_cycles` once,
    and once more all rows are searched. The database is made where there is none.

    Raises:
        RecordsError: the database is out of reach.
    """
    with PredictionLog(settings.predictions_url):
        pass
    rules = settings.tournament
    return Budget(seconds / (2 * rules.folds + 3), settings.predictions_url, rules.inner_folds)
