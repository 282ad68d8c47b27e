"""Warm start: boost a few rounds more on a copy of a booster."""

from collections.abc import Sequence
from typing import Any, Final

import xgboost as xgb

from batteryops.errors import DataError
from batteryops.models.boosting import (
    Parameters,
    booster_from_bytes,
    read_parameters,
    training_data,
)
from batteryops.models.labelled import LabelledRows

ROUNDS: Final = 10
"""Trees that a warm start adds."""


def warm_start(  # noqa: PLR0913 - the data of a fit, and how to continue
    booster: xgb.Booster,
    rows: LabelledRows,
    *,
    parameters: Parameters,
    seed: int,
    rounds: int = ROUNDS,
    replay: LabelledRows | None = None,
    trends: Sequence[int] = (),
) -> xgb.Booster:
    """A copy with more trees, fitted to what the old ones leave of the rows.

    Args:
        booster: for squared error, as `boosting.fit` gives it; stays as it is.
        rows: what is new.
        parameters: as for `boosting.fit`; `n_estimators` is passed over.
        seed: of what is random in the new trees.
        rounds: trees to add, 1 or more.
        replay: rows of the past to learn from along with the new ones; a copy that sees none
            forgets the past.
        trends: as for `boosting.fit`; what held the old trees must be said again for the new.

    Raises:
        DataError: rows of other features, or less than one round.
        SettingsError: when a parameter is unknown or out of range.
    """
    if rounds < 1:
        raise DataError(f"{rounds} rounds more; expected 1 or more")
    learned = rows if replay is None else rows + replay
    learned.expect(names_of(booster))
    settings: dict[str, Any] = {**read_parameters(parameters)}
    settings.pop("n_estimators", None)
    if trends:
        settings["monotone_constraints"] = tuple(trends)
    data = training_data(learned.features, learned.labels, learned.names, settings)
    continued = cut_copy(booster)
    # `xgboost.train` would copy the booster twice more, which takes longer than the new trees
    continued.set_param({"objective": "reg:squarederror", "random_state": seed, **settings})
    start = continued.num_boosted_rounds()
    for number in range(start, start + rounds):
        continued.update(data, iteration=number)
    return continued


def cut_copy(booster: xgb.Booster) -> xgb.Booster:
    """A copy, through its bytes, that ends at the best iteration of an early stopping.

    The trees beyond it are cut, and so is the note of it: scikit-learn's interface and the ONNX
    converter heed that note, and would never use trees that are added to the copy.
    """
    best = booster.attr("best_iteration")
    rounds = booster.num_boosted_rounds()
    kept = booster if best is None else booster[: min(int(best) + 1, rounds)]
    copy = booster_from_bytes(bytes(kept.save_raw("ubj")), names_of(booster), what="the copy")
    copy.set_attr(best_iteration=None, best_score=None)
    return copy


def names_of(booster: xgb.Booster) -> tuple[str, ...]:
    """Names of its features.

    Raises:
        DataError: when it does not know them.
    """
    if booster.feature_names is None:
        raise DataError("the booster has no feature names; fit it by batteryops.models.boosting")
    return tuple(booster.feature_names)
