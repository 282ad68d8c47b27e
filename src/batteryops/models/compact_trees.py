"""A booster in the fewest plain bytes: what prediction needs, and nothing of how it was grown.

XGBoost's file keeps, for every node, the loss it removed, the weight of its rows, its parent and
more, some 50 bytes. To predict one needs the tree's form, the features, the thresholds and the
leaves. A file of this form is little-endian:

| bytes | what |
|---|---|
| 4 | `BOT1` |
| 1 | bytes of a leaf: 4 (float32) or 2 (float16) |
| 4, 4, 4 | base score (float32, Ah), number of nodes, number of leaves (uint32) |
| 4, n | length of the names (uint32), the names of the features in UTF-8, separated by newlines |
| nodes | one byte per node, tree after tree, each level by level from its root: feature number, plus 128 where missing values go left; 255 is a leaf |
| 4 per split | thresholds, float32, in the same order; a row goes left when its value is less |
| 2 or 4 per leaf | leaves, Ah, in the same order |

Nothing says where children stand: level by level, those of a tree's k-th split (from 0) are its
nodes 2k + 1 and 2k + 2, and a tree ends where its leaves are one more than its splits.

Predictions are those of the booster to the bit. What was left out is lost: a
booster read back predicts, and its SHAP values cannot be computed (they need the rows' weights),
nor should it be trained further.
"""  # noqa: E501 - a table's rows stand on one line

import struct
from itertools import pairwise
from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from batteryops.errors import PackageError
from batteryops.models.compression import (
    booster_from_tree_document,
    leaves_of,
    tree_document,
    trees_of,
)

MAGIC: Final = b"BOT1"
MAX_FEATURES: Final = 127

_HEADER: Final = struct.Struct("<4sBfIII")
_LEAF: Final = 255
_MISSING_LEFT: Final = 128
_ROOTS_PARENT: Final = 2**31 - 1  # XGBoost's


def pack(booster: xgb.Booster) -> bytes:
    """Write a booster; leaves take two bytes where all of them are float16 numbers, else four.

    Args:
        booster: trees for one number, with names; `boosting.fit` gives them.

    Raises:
        PackageError: when it is of another kind, has no names, or more than 127 features.
    """
    document = tree_document(booster)
    names = booster.feature_names
    if not names or len(names) > MAX_FEATURES:
        raise PackageError(
            f"a booster of {booster.num_features()} features"
            f"{'' if names else ' without names'} has no compact form; expected at most "
            f"{MAX_FEATURES} with names"
        )
    tags: list[NDArray[np.uint8]] = []
    thresholds: list[NDArray[np.float32]] = []
    leaves: list[NDArray[np.float32]] = []
    for tree in trees_of(document):
        order = _by_level(tree)
        leaf = leaves_of(tree)[order]
        values = np.array(tree["split_conditions"], dtype=np.float32)[order]
        split = np.array(tree["split_indices"])[order]
        split = split + _MISSING_LEFT * np.array(tree["default_left"])[order]
        tags.append(np.where(leaf, _LEAF, split).astype(np.uint8))
        thresholds.append(values[~leaf])
        leaves.append(values[leaf])
    nodes, ends = np.concatenate(tags), np.concatenate(leaves)
    with np.errstate(over="ignore"):  # beyond float16 becomes infinite, which is not equal
        half = bool(np.array_equal(ends, ends.astype(np.float16)))
    told = "\n".join(names).encode()
    header = _HEADER.pack(
        MAGIC, 2 if half else 4, _base_score(document), nodes.size, ends.size, len(told)
    )
    return b"".join(
        [
            header,
            told,
            nodes.tobytes(),
            np.concatenate(thresholds).astype("<f4").tobytes(),
            ends.astype("<f2" if half else "<f4").tobytes(),
        ]
    )


def unpack(raw: bytes) -> xgb.Booster:
    """The booster of `pack`'s bytes, which predicts what that one did.

    Raises:
        PackageError: when the bytes are not such a file, or a part of one.
    """
    try:
        magic, width, base_score, n_nodes, n_leaves, told = _HEADER.unpack_from(raw)
        at = _HEADER.size + told
        names = raw[_HEADER.size : at].decode().split("\n")
        expected = at + n_nodes + 4 * (n_nodes - n_leaves) + width * n_leaves
    except (struct.error, UnicodeDecodeError) as error:
        raise PackageError(f"not a compact booster: {error}; write it again") from error
    if magic != MAGIC or width not in {2, 4} or len(raw) != expected or n_leaves > n_nodes:
        raise PackageError(
            f"not a compact booster: {len(raw)} bytes that begin with {raw[:4]!r}; expected "
            f"{MAGIC!r} and {expected} bytes: write it again"
        )
    tags = np.frombuffer(raw, np.uint8, n_nodes, at)
    leaf = tags == _LEAF
    largest = int((tags[~leaf] % _MISSING_LEFT).max(initial=0))
    if int(leaf.sum()) != n_leaves or largest >= len(names):
        raise PackageError("not a compact booster: its nodes do not fit; write it again")
    values = np.empty(n_nodes, dtype=np.float64)
    values[~leaf] = np.frombuffer(raw, "<f4", n_nodes - n_leaves, at + n_nodes)
    values[leaf] = np.frombuffer(raw, f"<f{width}", n_leaves, len(raw) - width * n_leaves)
    if not (np.isfinite(values).all() and np.isfinite(base_score)):
        raise PackageError("not a compact booster: a number in it is not finite; write it again")
    ends = _tree_ends(leaf)
    trees = [
        _tree(number, tags[start:end], values[start:end], len(names))
        for number, (start, end) in enumerate(pairwise([0, *ends.tolist()]))
    ]
    document = _document(trees, names, base_score)
    return booster_from_tree_document(document, names, what="the compact booster")


def _base_score(document: dict[str, Any]) -> float:
    text: str = document["learner"]["learner_model_param"]["base_score"]
    return float(text.strip("[]"))


def _by_level(tree: dict[str, Any]) -> NDArray[np.intp]:
    """Node numbers from the root on, level by level, left before right."""
    left, right = tree["left_children"], tree["right_children"]
    order = [0]
    for node in order:  # grows as it is read
        if left[node] >= 0:
            order += [left[node], right[node]]
    return np.array(order, dtype=np.intp)


def _tree_ends(leaf: NDArray[np.bool_]) -> NDArray[np.intp]:
    """One past the last node of each tree."""
    excess = np.cumsum(np.where(leaf, 1, -1))  # leaves less splits, so far
    record = np.maximum.accumulate(np.concatenate([[0], excess]))
    ends = np.flatnonzero(excess > record[:-1]) + 1
    if not ends.size or ends[-1] != leaf.size:
        raise PackageError("not a compact booster: its last tree has no end; write it again")
    return ends


def _tree(
    number: int, tags: NDArray[np.uint8], values: NDArray[np.float64], n_features: int
) -> dict[str, Any]:
    """One tree as XGBoost's JSON has it, of its nodes level by level."""
    leaf = tags == _LEAF
    size = int(tags.size)
    first_child = np.where(leaf, -1, 2 * np.cumsum(~leaf) - 1)
    parents = np.concatenate([[_ROOTS_PARENT], np.repeat(np.flatnonzero(~leaf), 2)])
    return {
        "base_weights": np.where(leaf, values, 0.0).tolist(),
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": ((tags >= _MISSING_LEFT) & ~leaf).astype(int).tolist(),
        "id": number,
        "left_children": first_child.tolist(),
        "loss_changes": [0.0] * size,
        "parents": parents.tolist(),
        "right_children": np.where(leaf, -1, first_child + 1).tolist(),
        "split_conditions": values.tolist(),
        "split_indices": np.where(leaf, 0, tags % _MISSING_LEFT).tolist(),
        "split_type": [0] * size,
        "sum_hessian": [0.0] * size,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(n_features),
            "num_nodes": str(size),
            "size_leaf_vector": "1",
        },
    }


def _document(trees: list[dict[str, Any]], names: list[str], base_score: float) -> dict[str, Any]:
    return {
        "version": [int(part) for part in xgb.__version__.split(".")[:3]],
        "learner": {
            "attributes": {},
            "feature_names": names,
            "feature_types": [],
            "gradient_booster": {
                "name": "gbtree",
                "model": {
                    "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
                    "gbtree_model_param": {
                        "num_parallel_tree": "1",
                        "num_trees": str(len(trees)),
                    },
                    "iteration_indptr": list(range(len(trees) + 1)),
                    "tree_info": [0] * len(trees),
                    "trees": trees,
                },
            },
            "learner_model_param": {
                "base_score": f"[{base_score!r}]",
                "boost_from_average": "1",
                "num_class": "0",
                "num_feature": str(len(names)),
                "num_target": "1",
            },
            "objective": {"name": "reg:squarederror", "reg_loss_param": {"scale_pos_weight": "1"}},
        },
    }
