"""Make a booster smaller: shallower trees, fewer features, leaves that are float16 numbers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import ArrayLike, NDArray

from batteryops.errors import DataError, PackageError
from batteryops.models.boosting import Parameters, booster_from_bytes, fit, predict

DEPTH: Final = 7
N_FEATURES: Final = 5

_DEFAULT_DEPTH: Final = 6  # XGBRegressor's
_HALF: Final = np.finfo(np.float16)
_NO_CHILD: Final = -1


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the trees of a booster are.

    Args:
        trees: how many.
        leaves: of all trees together.
        depth: splits on the longest way from a root to a leaf.
        features: names of the features that some split looks at, in the booster's order.
    """

    trees: int
    leaves: int
    depth: int
    features: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Slim:
    """A booster that may take just some of the columns it is given.

    Args:
        booster: fitted on the features `names`.
        names: features that it takes.
        columns: where these stand among all features, int64.
    """

    booster: xgb.Booster
    names: tuple[str, ...]
    columns: NDArray[np.int64]

    def narrow(self, features: ArrayLike) -> NDArray[np.float32]:
        """The columns (n, len(names)) that the booster takes, of all features (n, k)."""
        chosen = np.asarray(features, dtype=np.float32)[:, self.columns]
        return np.ascontiguousarray(chosen)

    def predict(self, features: ArrayLike) -> NDArray[np.float64]:
        """Predicted capacities in Ah, (n,), for all features (n, k)."""
        return predict(self.booster, self.narrow(features))


def shallower(parameters: Parameters, depth: int = DEPTH) -> dict[str, float | int | str]:
    """The parameters with `max_depth` of at most `depth`.

    Examples:
        >>> shallower({"max_depth": 9, "n_jobs": 1})
        {'max_depth': 7, 'n_jobs': 1}
        >>> shallower({"max_depth": 0})  # XGBoost's word for no limit
        {'max_depth': 7}
        >>> shallower({"max_depth": 3})
        {'max_depth': 3}
    """
    given = int(parameters.get("max_depth", _DEFAULT_DEPTH))
    return {**parameters, "max_depth": min(given, depth) if given else depth}


def best_features(booster: xgb.Booster, count: int = N_FEATURES) -> tuple[str, ...]:
    """The features that took most of the squared error away, in the booster's own order.

    Ranked by XGBoost's `total_gain`: the loss that all splits on a feature removed together. Its
    `gain` is the mean per split, which ranks a feature first that was split on once and well.

    Args:
        booster: fitted on the rows that may decide, never on rows that test the choice.
        count: how many; all features when there are no more than that.

    Raises:
        DataError: when the booster does not know the names of its features.
    """
    if booster.feature_names is None:
        raise DataError("the booster has no feature names; fit it by batteryops.models.boosting")
    gains = booster.get_score(importance_type="total_gain")
    names = list(booster.feature_names)
    ranked = sorted(names, key=lambda name: (-float(gains.get(name, 0.0)), names.index(name)))
    chosen = set(ranked[:count])
    return tuple(name for name in names if name in chosen)


def fit_on(  # noqa: PLR0913 - as `boosting.fit`, and the columns
    features: ArrayLike,
    labels: ArrayLike,
    chosen: Sequence[str],
    *,
    feature_names: Sequence[str],
    parameters: Parameters,
    seed: int,
) -> Slim:
    """Fit on some of the columns.

    Args:
        features: (n, k), all columns.
        labels: (n,), capacity in Ah.
        chosen: names of the columns to fit on, in their order.
        feature_names: names of all columns.
        parameters: for `boosting.fit`.
        seed: for `boosting.fit`.

    Raises:
        DataError: a chosen name is not among the columns, or as `boosting.fit`.
    """
    names = list(feature_names)
    if strange := [name for name in chosen if name not in names]:
        raise DataError(f"no feature {', '.join(strange)}; expected some of {', '.join(names)}")
    columns = np.array([names.index(name) for name in chosen], dtype=np.int64)
    matrix = np.asarray(features, dtype=np.float32)[:, columns]
    booster = fit(matrix, labels, feature_names=chosen, parameters=parameters, seed=seed)
    return Slim(booster, tuple(chosen), columns)


def half_leaves(booster: xgb.Booster) -> xgb.Booster:
    """A copy whose leaves are the nearest float16 numbers (IEEE 754 binary16, ties to even).

    XGBoost keeps and writes leaves as float32 whatever their value, and so does an ONNX tree
    ensemble: neither file gets shorter. What it buys is files that compress better, and two bytes
    per leaf in a format that stores float16, such as `batteryops.models.compact_trees`.

    Args:
        booster: trees for one number; `boosting.fit` gives them.

    Raises:
        PackageError: when the booster is of another kind, a leaf is beyond float16 (65504), or
            XGBoost does not give the rounded trees back as it was given them.
    """
    document = tree_document(booster)
    for tree in trees_of(document):
        values = np.array(tree["split_conditions"], dtype=np.float32)
        leaf = leaves_of(tree)
        largest = float(np.abs(values[leaf]).max())
        if not largest <= float(_HALF.max):
            raise PackageError(
                f"a leaf is {largest:g} Ah; expected at most {float(_HALF.max):g}, float16's "
                "largest number: state the label in a larger unit"
            )
        values[leaf] = values[leaf].astype(np.float16)
        weights = np.array(tree["base_weights"], dtype=np.float32)
        weights[leaf] = values[leaf]
        # float64 prints what float32 it came from, digit for digit
        tree["split_conditions"] = values.astype(np.float64).tolist()
        tree["base_weights"] = weights.astype(np.float64).tolist()
    names = booster.feature_names or [f"f{column}" for column in range(booster.num_features())]
    rounded = booster_from_tree_document(document, names, what="the rounded booster")
    if not same_trees(trees_of(tree_document(rounded)), trees_of(document)):
        raise PackageError(
            f"XGBoost {xgb.__version__} changed the rounded trees as it read them; "
            "keep the booster with float32 leaves"
        )
    return rounded


def half_leaf_bound_ah(booster: xgb.Booster) -> float:
    """How far rounding leaves to float16 can move a prediction, Ah, whatever the row.

    A number x between 2^e and 2^(e+1) is rounded by at most half a unit in its last place, 2^(e -
    11); below 2^-14 float16's spacing stays 2^-24 (IEEE 754-2008, table 3.5). A row reaches one
    leaf of each tree, so the bound is the sum over trees of the largest such half unit. The
    rounding of float32 sums, some 1e-6 of the prediction, comes on top.

    Args:
        booster: with its leaves as they were fitted.

    Raises:
        PackageError: when the booster is of another kind.
    """
    total = 0.0
    for tree in trees_of(tree_document(booster)):
        values = np.abs(np.array(tree["split_conditions"])[leaves_of(tree)])
        exponent = int(np.frexp(values.max())[1]) - 1
        total += 2.0 ** (max(exponent, _HALF.minexp) - _HALF.nmant - 1)
    return total


def shape_of(booster: xgb.Booster) -> Shape:
    """Count the trees' leaves, levels and features.

    Raises:
        PackageError: when the booster is of another kind.
    """
    names = booster.feature_names or [f"f{column}" for column in range(booster.num_features())]
    trees = trees_of(tree_document(booster))
    used: set[int] = set()
    leaves = depth = 0
    for tree in trees:
        leaf = leaves_of(tree)
        leaves += int(leaf.sum())
        used.update(np.array(tree["split_indices"])[~leaf].tolist())
        depth = max(depth, _depth(tree))
    return Shape(len(trees), leaves, depth, tuple(names[column] for column in sorted(used)))


def _depth(tree: dict[str, Any]) -> int:
    depth, level = -1, [0]
    while level:
        depth += 1
        level = [
            child
            for node in level
            for child in (tree["left_children"][node], tree["right_children"][node])
            if child != _NO_CHILD
        ]
    return depth


def tree_document(booster: xgb.Booster) -> dict[str, Any]:
    """The booster's own JSON, of a booster whose trees add up to one number.

    Raises:
        PackageError: when it is of another kind (linear, dropout, several outputs, categories).
    """
    document: dict[str, Any] = json.loads(booster.save_raw("json"))
    learner = document["learner"]
    kind = learner["gradient_booster"]["name"], learner["objective"]["name"]
    plain = kind == ("gbtree", "reg:squarederror") and all(
        tree["tree_param"]["size_leaf_vector"] == "1" and not any(tree["split_type"])
        for tree in trees_of(document)
    )
    if not plain:
        raise PackageError(
            f"a {' booster for '.join(kind)} cannot be compressed; expected gbtree for "
            "reg:squarederror on numbers, as batteryops.models.boosting.fit yields it"
        )
    return document


def booster_from_tree_document(
    document: dict[str, Any], feature_names: Sequence[str], *, what: str
) -> xgb.Booster:
    r"""The booster of a document that `tree_document` gave, or of one like it.

    XGBoost does not read the escapes `\u00e4` that JSON may write letters as, so letters stand
    as they are.

    Args:
        document: whose trees may have been changed.
        feature_names: as in the document.
        what: names the booster in messages.

    Raises:
        PackageError: when XGBoost cannot read it.
    """
    raw = json.dumps(document, ensure_ascii=False).encode()
    return booster_from_bytes(raw, feature_names, what=what)


def trees_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The trees in a booster's JSON, to read or to change."""
    trees: list[dict[str, Any]] = document["learner"]["gradient_booster"]["model"]["trees"]
    return trees


def leaves_of(tree: dict[str, Any]) -> NDArray[np.bool_]:
    """Which nodes of a tree are leaves; a leaf's value stands in `split_conditions`."""
    left: NDArray[np.int64] = np.array(tree["left_children"])
    is_leaf: NDArray[np.bool_] = left == _NO_CHILD
    return is_leaf


def same_trees(given: list[dict[str, Any]], expected: list[dict[str, Any]]) -> bool:
    """Whether trees have the same nodes, with the same float32 thresholds and leaves."""
    return len(given) == len(expected) and all(
        one["left_children"] == other["left_children"]
        and one["right_children"] == other["right_children"]
        and one["split_indices"] == other["split_indices"]
        and one["default_left"] == other["default_left"]
        and np.array_equal(
            np.array(one["split_conditions"], dtype=np.float32),
            np.array(other["split_conditions"], dtype=np.float32),
        )
        for one, other in zip(given, expected, strict=True)
    )
