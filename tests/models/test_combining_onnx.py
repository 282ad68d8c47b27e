"""Twins of any algorithm combined into one graph, which packages like the others."""

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest

from batteryops.errors import DataError, PackageError
from batteryops.models.algorithm_onnx import to_onnx_any
from batteryops.models.algorithms import ALGORITHMS, Boosted, Predict, Task
from batteryops.models.combining_onnx import combined_onnx
from batteryops.models.domain_fit import fit_domain
from batteryops.models.intervals import Intervals
from batteryops.models.manifest import ChosenAlgorithm
from batteryops.models.onnx_twin import OnnxRow, to_onnx
from batteryops.models.package_writing import write_package
from batteryops.settings import load_settings
from models.labelled_fleets import PARAMETERS, VIEW, new_fleet, old_fleet, old_model

ROWS = new_fleet().features


@cache
def fitted(name: str) -> Predict:
    rows = old_fleet()
    task = Task(VIEW.name, VIEW.names, VIEW.trends, PARAMETERS, seed=1)
    return ALGORITHMS[name].make(task, {})(rows.features, rows.labels, rows.owners)


@cache
def twin(name: str) -> bytes:
    return to_onnx_any(fitted(name), len(VIEW.names))


@pytest.mark.parametrize("name", ["ridge", "extra_trees", "xgboost_on_trend"])
def test_it_answers_the_weighted_sum(name: str) -> None:
    both = combined_onnx([twin(name), to_onnx(old_model(), len(VIEW.names))], [0.7, 0.3])

    expected = 0.7 * fitted(name)(ROWS) + 0.3 * Boosted(old_model())(ROWS)
    np.testing.assert_allclose(OnnxRow(both).batch(ROWS), expected, atol=1e-6)


def test_a_combination_can_be_combined_again() -> None:
    """As happens when the next ensemble replaces an ensemble."""
    once = combined_onnx([twin("ridge"), twin("extra_trees")], [0.7, 0.3])
    twice = combined_onnx([once, twin("ridge")], [0.7, 0.3])

    expected = 0.79 * fitted("ridge")(ROWS) + 0.21 * fitted("extra_trees")(ROWS)
    np.testing.assert_allclose(OnnxRow(twice).batch(ROWS), expected, atol=1e-6)
    assert combined_onnx([once, twin("ridge")], [0.7, 0.3]) == twice


def test_it_is_packaged_without_a_booster(tmp_path: Path) -> None:
    graph = combined_onnx([twin("ridge"), twin("extra_trees")], [0.7, 0.3])

    package = write_package(
        tmp_path / "package",
        model=lambda rows: 0.7 * fitted("ridge")(rows) + 0.3 * fitted("extra_trees")(rows),
        onnx=graph,
        algorithm=ChosenAlgorithm(name="ensemble", shares={"old": 0.7, "new": 0.3}),
        model_name="ev-soh-predictor",
        view=VIEW,
        profiles=[load_settings().profile("nasa_18650")],
        parameters=PARAMETERS,
        seed=1,
        features=ROWS,
        training_assets=new_fleet().assets,
        data_fingerprint="a" * 64,
        domain=fit_domain(ROWS, new_fleet().owners.groups.tolist(), VIEW.names),
        intervals=Intervals(0.9, 0.02, 0.5, 0.92, 20, 100),
    )

    package.verify()
    assert str(package.manifest.algorithm) == "ensemble of 0.70 old + 0.30 new"


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(DataError, match="2 twins with weights"):
        combined_onnx([twin("ridge"), twin("ridge")], [1.0])
    with pytest.raises(DataError, match="0 twins"):
        combined_onnx([], [])
    with pytest.raises(PackageError, match="not a model that ONNX Runtime"):
        combined_onnx([b"no graph"], [1.0])
    narrow = ALGORITHMS["ridge"].make(Task("", ("a", "b"), (0, 0), {}, seed=1), {})(
        ROWS[:, :2], new_fleet().labels, new_fleet().owners
    )
    with pytest.raises(DataError, match="twins of 2 and 7 features"):
        combined_onnx([to_onnx_any(narrow, 2), twin("ridge")], [0.5, 0.5])
    older = onnx.load_from_string(twin("ridge"))
    next(used for used in older.opset_import if not used.domain).version = 16
    with pytest.raises(PackageError, match=r"version 16 of the operators ai\.onnx"):
        combined_onnx([older.SerializeToString(), twin("ridge")], [0.5, 0.5])
