"""What a model must beat: the mean, a ridge regression, the asset's last measured capacity."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from batteryops.evaluation.protocols import Split

Floats = NDArray[np.float64]

RIDGE_PENALTY: Final = 1.0
"""On standardised features; scikit-learn's default."""

MEAN: Final = "mean"
RIDGE: Final = "ridge"
LAST_MEASURED: Final = "last_measured_capacity"


def mean_baseline(labels: Floats, split: Split) -> Floats:
    """Predict the mean training label (Ah) for every test row; shape (n_test,)."""
    return np.full(split.test.size, labels[split.train].mean())


def ridge_baseline(features: Floats, labels: Floats, split: Split) -> Floats:
    """Predict by ridge regression on standardised features.

    Missing features take the median of the training rows; a feature that training never saw
    counts as zero.

    Args:
        features: shape (n, k), NaN where missing.
        labels: measured capacity, Ah, shape (n,).
        split: rows that train and rows that are tested.

    Returns:
        Predicted capacity of the test rows, Ah, shape (n_test,).
    """
    model = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        StandardScaler(),
        Ridge(alpha=RIDGE_PENALTY),
    )
    model.fit(features[split.train], labels[split.train])
    return np.asarray(model.predict(features[split.test]), dtype=np.float64)


def last_measured_baseline(
    asset_id: NDArray[np.object_], op_index: NDArray[np.int64], labels: Floats, split: Split
) -> Floats:
    """Predict the asset's latest capacity that was measured before, among the training rows.

    Args:
        asset_id: whose cycle it is, shape (n,).
        op_index: position of the cycle in the asset's life, shape (n,).
        labels: measured capacity, Ah, shape (n,).
        split: rows that train, that are known, and that are tested.

    Returns:
        Capacity for each test row, Ah, shape (n_test,); NaN where no earlier measurement of that
        asset trains or is known, which under the `unseen_*` protocols is everywhere.

    Examples:
        >>> split = Split("x", train=np.array([0, 2]), test=np.array([1, 3, 4]))
        >>> last_measured_baseline(
        ...     np.array(["a", "a", "a", "a", "b"], dtype=object), np.array([1, 2, 3, 4, 5]),
        ...     np.array([1.9, 1.8, 1.7, 1.6, 1.5]), split)
        array([1.9, 1.7, nan])
    """
    _, asset = np.unique(asset_id.astype(str), return_inverse=True)
    cycle = op_index - op_index.min()
    key = asset * (cycle.max() + 1) + cycle  # orders by asset, then by cycle
    measured = np.concatenate([split.train, split.known])
    train = measured[np.argsort(key[measured], kind="stable")]
    position = np.searchsorted(key[train], key[split.test], side="left") - 1  # strictly earlier
    previous = train[np.maximum(position, 0)]
    known = (position >= 0) & (asset[previous] == asset[split.test])
    return np.where(known, labels[previous], np.nan)
