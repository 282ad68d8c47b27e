"""Ensemble: most of the old model and some of a new one, as a single booster.

A weighted sum of two boosters is a booster: all trees of both, their leaves times the weights, on
the weighted sum of the base scores. It answers in place, converts to one ONNX graph and explains
itself by TreeSHAP like any other, and its Shapley values are the weighted sums of the members'
(they are linear in the model: Lundberg and others, Nature Machine Intelligence 2, 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xgboost as xgb

from batteryops.errors import DataError, PackageError
from batteryops.models.boosting import Parameters, fit, predict
from batteryops.models.compression import (
    booster_from_tree_document,
    leaves_of,
    tree_document,
    trees_of,
)
from batteryops.models.continuing import cut_copy, names_of
from batteryops.models.held_out import Floats, group_codes, group_weights, weighted_quantile
from batteryops.models.labelled import LabelledRows
from batteryops.models.setting_aside import hold_out

NEW_SHARE: Final = 0.3
"""Share of the new model, as the source system has it."""

HELD_OUT: Final = 0.3
"""Share of the groups on which a share is fitted."""


@dataclass(frozen=True, slots=True, eq=False)
class Ensemble:
    """Two models as one.

    Args:
        booster: both.
        share: of the new one, 0 to 1.
    """

    booster: xgb.Booster
    share: float


def ensemble(  # noqa: PLR0913 - the data of a fit, and how to combine
    booster: xgb.Booster,
    rows: LabelledRows,
    *,
    parameters: Parameters,
    seed: int,
    replay: LabelledRows | None = None,
    share: float | None = NEW_SHARE,
    trends: Sequence[int] = (),
) -> Ensemble:
    """Fit a new model to the rows and combine it with the old one.

    Args:
        booster: the old one, as `boosting.fit` gives it; stays as it is.
        rows: what is new.
        parameters: as for `boosting.fit`.
        seed: of the new model, and of what is held out.
        replay: rows of the past, which the new model learns from as well.
        share: of the new model, 0 to 1; when None it is fitted on whole groups held out, by a
            model that did not see them. Rows that the old model was fitted on speak for it then.
        trends: as for `boosting.fit`.

    Raises:
        DataError: rows of other features; a share out of range, or to be fitted on one group.
        SettingsError: when a parameter is unknown or out of range.
        PackageError: when the old booster is of another kind.
    """
    learned = rows if replay is None else rows + replay
    learned.expect(names_of(booster))

    def fitted(some: LabelledRows) -> xgb.Booster:
        return fit(
            some.features,
            some.labels,
            feature_names=some.names,
            parameters=parameters,
            seed=seed,
            trends=trends,
        )

    old = cut_copy(booster)
    if share is None:
        seen, held = hold_out(learned, HELD_OUT, seed=seed)
        share = fitted_share(
            predict(old, held.features), predict(fitted(seen), held.features), held
        )
    if not 0.0 <= share <= 1.0:
        raise DataError(f"the new model's share is {share:g}; expected 0 to 1")
    return Ensemble(merged([old, fitted(learned)], [1.0 - share, share]), share)


def fitted_share(old_ah: Floats, new_ah: Floats, held: LabelledRows) -> float:
    """The new model's share of least mean absolute error, each group weighing the same.

    With residuals r = y - old and d = new - old the sum of w |r - b d| is that of w |d| |r/d - b|,
    which the weighted median of r/d makes least; between 0 and 1 the sum is convex.

    Args:
        old_ah: (n,), predicted by the old model, Ah.
        new_ah: (n,), by the new one.
        held: the rows, of groups that the new one did not see.

    Returns:
        0 to 1; 0 where both say the same of every row.
    """
    weights = group_weights(group_codes(held.owners.groups, len(held)))
    apart = new_ah - old_ah
    differ = apart != 0.0
    if not differ.any():
        return 0.0
    ratios = (held.labels - old_ah)[differ] / apart[differ]
    median = weighted_quantile(ratios, (weights * np.abs(apart))[differ], 0.5)
    return float(np.clip(median, 0.0, 1.0))


def merged(boosters: Sequence[xgb.Booster], weights: Sequence[float]) -> xgb.Booster:
    """One booster that answers the weighted sum of several, up to float32's rounding.

    Args:
        boosters: of the same features, one tree a round. One that has weight 0 leaves no tree.
        weights: one for each, finite.

    Raises:
        DataError: no booster, not one weight for each, or of different features.
        PackageError: when one is of another kind.
    """
    if not boosters or len(boosters) != len(weights) or not np.isfinite(weights).all():
        raise DataError(
            f"{len(boosters)} boosters with weights {list(weights)}; expected one finite number "
            "for each of one booster or more"
        )
    names = names_of(boosters[0])
    for other in boosters[1:]:
        if names_of(other) != names:
            raise DataError(
                f"boosters of {', '.join(names)} and of {', '.join(names_of(other))} cannot be "
                "merged; expected the same features in the same order"
            )
    documents = [tree_document(booster) for booster in boosters]
    trees: list[dict[str, Any]] = []
    base_score = 0.0
    for document, weight in zip(documents, weights, strict=True):
        if (
            document["learner"]["gradient_booster"]["model"]["gbtree_model_param"][
                "num_parallel_tree"
            ]
            != "1"
        ):
            raise PackageError("a booster of several trees a round cannot be merged")
        base_score += weight * base_score_of(document)
        trees += [scaled(tree, weight) for tree in trees_of(document) if weight]
    return booster_from_trees(documents[0], trees, names, base_score)


def scaled(tree: dict[str, Any], weight: float) -> dict[str, Any]:
    """A tree of XGBoost's JSON whose answers, and what it says of its nodes, are times a weight."""
    conditions = np.array(tree["split_conditions"], dtype=np.float64)
    return {
        **tree,
        "split_conditions": np.where(leaves_of(tree), weight * conditions, conditions).tolist(),
        "base_weights": (weight * np.array(tree["base_weights"])).tolist(),
        "loss_changes": (weight * np.array(tree["loss_changes"])).tolist(),
    }


def base_score_of(document: dict[str, Any]) -> float:
    """What a booster answers before its first tree, Ah."""
    text: str = document["learner"]["learner_model_param"]["base_score"]
    return float(text.strip("[]"))


def booster_from_trees(
    document: dict[str, Any],
    trees: Sequence[dict[str, Any]],
    names: Sequence[str],
    base_score: float,
) -> xgb.Booster:
    """The booster of a document with other trees, one a round, and another base score."""
    learner = document["learner"]
    boosting = learner["gradient_booster"]
    model = {
        **boosting["model"],
        "gbtree_model_param": {
            **boosting["model"]["gbtree_model_param"],
            "num_trees": str(len(trees)),
        },
        "iteration_indptr": list(range(len(trees) + 1)),
        "tree_info": [0] * len(trees),
        "trees": [{**tree, "id": number} for number, tree in enumerate(trees)],
    }
    parameters = {**learner["learner_model_param"], "base_score": f"[{base_score!r}]"}
    return booster_from_tree_document(
        {
            **document,
            "learner": {
                **learner,
                "attributes": {},
                "gradient_booster": {**boosting, "model": model},
                "learner_model_param": parameters,
            },
        },
        names,
        what="the merged booster",
    )
