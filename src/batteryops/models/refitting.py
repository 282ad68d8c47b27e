"""Fine tuning: the last trees keep their splits and get new leaves."""

from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from batteryops.errors import DataError
from batteryops.models.boosting import Parameters, read_parameters
from batteryops.models.combining import base_score_of, booster_from_trees
from batteryops.models.compression import leaves_of, tree_document, trees_of
from batteryops.models.continuing import cut_copy, names_of
from batteryops.models.held_out import Floats
from batteryops.models.labelled import LabelledRows

LAST: Final = 30
"""Trees that are refitted."""

PRIOR_ROWS: Final = 5.0
"""So many rows weigh as much in a leaf as its old value."""

_LEARNING_RATE: Final = 0.3  # XGBoost's
_LAMBDA: Final = 1.0  # XGBoost's


def fine_tune(  # noqa: PLR0913 - the data of a fit, and how to tune
    booster: xgb.Booster,
    rows: LabelledRows,
    *,
    parameters: Parameters,
    replay: LabelledRows | None = None,
    last: int = LAST,
    prior_rows: float = PRIOR_ROWS,
) -> xgb.Booster:
    """A copy whose last trees have leaves for the rows given.

    Tree after tree, each leaf that n rows reach moves from its old value v to

        m / (n + m) v + n / (n + m) eta sum(r) / (n + lambda)

    with the rows' residuals r before that tree, the learning rate eta and the penalty lambda:
    XGBoost's own leaf (Chen and Guestrin, KDD 2016, equation 5, for squared error), shrunk to the
    old one by m rows that speak for it. A leaf that no row reaches stays. XGBoost's updater
    `refresh` has m = 0 and makes such a leaf zero, which takes away what it knew.

    Args:
        booster: as `boosting.fit` gives it; stays as it is.
        rows: what is new.
        parameters: as for `boosting.fit`: `learning_rate` and `reg_lambda` are heeded.
        replay: rows of the past.
        last: trees to refit, 1 or more; all of them when there are no more.
        prior_rows: m, 0 or more.

    Raises:
        DataError: rows of other features, no tree to refit, or a negative m.
        SettingsError: when a parameter is unknown or out of range.
        PackageError: when the booster is of another kind.
    """
    if last < 1 or not prior_rows >= 0.0:
        raise DataError(
            f"{last} trees to refit with {prior_rows:g} rows for the old leaves; expected 1 or "
            "more, and 0 or more"
        )
    learned = rows if replay is None else rows + replay
    names = names_of(booster)
    learned.expect(names)
    settings = read_parameters(parameters)
    eta = float(settings.get("learning_rate", _LEARNING_RATE))
    penalty = float(settings.get("reg_lambda", _LAMBDA))
    kept = cut_copy(booster)
    document = tree_document(kept)
    trees = list(trees_of(document))
    first = max(0, len(trees) - last)
    data = xgb.DMatrix(learned.features, feature_names=list(names))
    reached = kept.predict(data, pred_leaf=True).reshape(len(learned), -1).astype(np.intp)
    answers = np.full(len(learned), base_score_of(document))
    for number, tree in enumerate(trees):
        values = np.array(tree["split_conditions"], dtype=np.float64)
        leaf = reached[:, number]
        if number >= first:
            count = np.bincount(leaf, minlength=values.size)
            pull = np.bincount(leaf, weights=learned.labels - answers, minlength=values.size)
            values = _tuned(values, count, eta * pull / (count + penalty), prior_rows)
            trees[number] = _with_leaves(tree, values)
        answers += values[leaf]
    return booster_from_trees(document, trees, names, base_score_of(document))


def _tuned(old: Floats, count: NDArray[np.integer], new: Floats, prior_rows: float) -> Floats:
    """Leaves between the old and the new, by how many rows speak for which."""
    weight = np.divide(count, count + prior_rows, out=np.zeros(old.size), where=count > 0)
    moved: Floats = (1.0 - weight) * old + weight * new
    read: Floats = moved.astype(np.float32).astype(np.float64)  # as XGBoost will read them
    return read


def _with_leaves(tree: dict[str, Any], values: Floats) -> dict[str, Any]:
    leaf = leaves_of(tree)
    weights = np.array(tree["base_weights"], dtype=np.float64)
    return {
        **tree,
        "split_conditions": values.tolist(),
        "base_weights": np.where(leaf, values, weights).tolist(),
    }
