"""The model package: whole or absent, and refused when it is not what was written."""

import io
import json
import pickletools
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from numpy.typing import NDArray

from batteryops.errors import DataError, PackageError
from batteryops.evaluation.owners import Owners
from batteryops.features.views import get_view
from batteryops.models import package_writing as module
from batteryops.models.algorithm_onnx import to_onnx_any
from batteryops.models.algorithms import ALGORITHMS, Boosted, Combined, Predict, Task
from batteryops.models.boosting import fit, predict
from batteryops.models.domain_fit import fit_domain
from batteryops.models.intervals import Intervals
from batteryops.models.manifest import MANIFEST, ChosenAlgorithm
from batteryops.models.onnx_twin import to_onnx
from batteryops.models.package import ModelPackage, load_package
from batteryops.models.package_writing import write_package
from batteryops.settings import load_settings

VIEW = get_view("discharge_summary")
CELL = load_settings().profile("nasa_18650")
GROUPS = [f"cell {row // 5}" for row in range(100)]
INTERVALS = Intervals(0.9, 0.02, 0.5, 0.92, 20, 100)
PARAMETERS = {"n_jobs": 1, "n_estimators": 30, "max_depth": 5, "learning_rate": 0.2}


@cache
def training() -> tuple[NDArray[np.float32], xgb.Booster, bytes]:
    rng = np.random.default_rng(5)
    features = rng.normal(size=(100, len(VIEW.names))).astype(np.float32)
    labels = 1.6 + 0.2 * np.tanh(features[:, 0] - features[:, 1])
    features[::9, 2] = np.nan
    booster = fit(features, labels, feature_names=VIEW.names, parameters=PARAMETERS, seed=42)
    return features, booster, to_onnx(booster, len(VIEW.names))


def write(folder: Path, **changes: Any) -> ModelPackage:  # noqa: ANN401 - any argument
    features, booster, onnx = training()
    arguments: dict[str, Any] = {
        "model": booster,
        "onnx": onnx,
        "algorithm": ChosenAlgorithm(name="xgboost"),
        "model_name": "ev-soh-predictor",
        "view": VIEW,
        "profiles": [CELL],
        "parameters": PARAMETERS,
        "seed": 42,
        "features": features,
        "training_assets": ["B0006", "B0005", "B0006"],
        "data_fingerprint": "a" * 64,
        "domain": fit_domain(features, GROUPS, VIEW.names),
        "intervals": INTERVALS,
        "documents": {"gates": {"passed": True}, "metrics.json": {"mae_ah": 0.01}},
        "attachments": {"diagnostics.png": b"\x89PNG", "report.html": b"<p>"},
    }
    return write_package(folder, **(arguments | changes))


def change_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    change(content)
    (folder / MANIFEST).write_text(json.dumps(content))


def test_a_package_holds_the_model_its_documents_and_its_facts(tmp_path: Path) -> None:
    package = write(tmp_path / "deep" / "model", created_at=datetime(2026, 1, 2, tzinfo=UTC))

    assert sorted(path.name for path in package.folder.iterdir()) == [
        "diagnostics.png",
        "domain.json",
        "gates.json",
        "intervals.json",
        "manifest.json",
        "metrics.json",
        "model.onnx",
        "model.ubj",
        "report.html",
    ]
    manifest = package.manifest
    assert manifest.files.keys() == {p.name for p in package.folder.iterdir()} - {MANIFEST}
    assert (manifest.view, manifest.view_version) == (VIEW.name, VIEW.version)
    assert (manifest.schema_hash, manifest.feature_names) == (VIEW.schema_hash, VIEW.names)
    assert manifest.level == "cell"
    assert manifest.nominal_capacities_ah == {"nasa_18650": 2.0}
    assert manifest.parameters == PARAMETERS
    assert (manifest.training_rows, manifest.training_assets) == (100, ("B0005", "B0006"))
    assert manifest.created_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert manifest.code.libraries["xgboost"] == xgb.__version__
    assert list((tmp_path / "deep").iterdir()) == [package.folder]


def test_a_loaded_package_answers_as_the_model_did(tmp_path: Path) -> None:
    features, booster, _ = training()
    write(tmp_path / "model")

    package = load_package(tmp_path / "model")

    np.testing.assert_array_equal(package.predict_batch(features), predict(booster, features))
    ones = [package.predict_one(row) for row in features]
    np.testing.assert_allclose(ones, predict(booster, features), rtol=0, atol=1e-5)
    assert package.view is VIEW
    assert package.document("gates") == {"passed": True}
    assert package.document("metrics.json") == {"mae_ah": 0.01}
    assert package.read("report.html") == b"<p>"


def test_the_recorded_sample_spans_the_training_rows_and_their_missing_values(
    tmp_path: Path,
) -> None:
    features, booster, _ = training()
    recorded = write(tmp_path / "model").manifest.recorded

    rows = np.array(recorded.rows, dtype=np.float32)
    np.testing.assert_array_equal(rows[[0, -1]], features[[0, -1]])
    assert np.isnan(rows).any()
    np.testing.assert_array_equal(recorded.outputs_ah, predict(booster, rows))


def test_two_packages_differ_in_fingerprint_by_what_they_hold(tmp_path: Path) -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    first = write(tmp_path / "a", created_at=when)
    same = write(tmp_path / "b", created_at=when)
    other = write(tmp_path / "c", created_at=when, documents={"gates": {"passed": False}})

    assert first.fingerprint == same.fingerprint == load_package(tmp_path / "a").fingerprint
    assert first.fingerprint != other.fingerprint


def test_a_copy_of_a_package_is_a_package(tmp_path: Path) -> None:
    package = write(tmp_path / "model")
    package.folder.rename(tmp_path / "moved")

    assert load_package(tmp_path / "moved").fingerprint == package.fingerprint


def test_an_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()

    with pytest.raises(PackageError, match="exists already; name a folder that does not"):
        write(folder)

    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


def test_a_writer_that_loses_the_race_is_refused_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    load = load_package

    def overtaken(partial: Path, *, verify: bool = True) -> ModelPackage:
        folder.mkdir()
        (folder / "winner").touch()
        return load(partial, verify=verify)

    monkeypatch.setattr(module, "load_package", overtaken)
    with pytest.raises(PackageError, match="cannot be written: Directory not empty"):
        write(folder)

    assert [path.name for path in tmp_path.rglob("*")] == ["model", "winner"]


@pytest.mark.integration
def test_a_killed_writer_leaves_no_folder_of_that_name(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import test_package\n"
        "Path.rename = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "test_package.write(Path(sys.argv[1]))\n"
    )

    killed = subprocess.run(  # noqa: S603 - this file's own code
        [sys.executable, "-c", script, str(tmp_path / "model")], check=False
    )

    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "model").exists()
    assert write(tmp_path / "model").document("gates") == {"passed": True}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"documents": {"gates": {"r2": float("nan")}}}, "document gates is not JSON"),
        ({"documents": {"gates": {1, 2}}}, "document gates is not JSON"),
        ({"documents": {"a": 1, "a.json": 2}}, "a package has one a.json"),
        ({"documents": {"manifest": 1}}, "a package has one manifest.json"),
        ({"attachments": {"model.ubj": b""}}, "a package has one model.ubj"),
        ({"attachments": {"plot.png": Path("absent")}}, "cannot be read from absent: No such"),
        ({"attachments": {"../plot.png": b""}}, "files.../plot.png"),
        ({"data_fingerprint": "none"}, "data_fingerprint: String should match"),
        ({"training_assets": []}, "training_assets: Tuple should have at least 1 item"),
        ({"profiles": []}, "nominal_capacities_ah: Dictionary should have at least 1 item"),
        ({"profiles": [CELL, replace(CELL, name="p", level="pack")]}, "level: Input should be"),
        ({"features": np.empty((0, 7), np.float32)}, "training_rows: Input should be greater"),
        ({"onnx": b"broken"}, "not a model that ONNX Runtime"),
    ],
)
def test_what_cannot_be_packaged_is_refused_and_nothing_is_written(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(PackageError, match=message):
        write(tmp_path / "model", **changes)

    assert list(tmp_path.iterdir()) == []


def test_features_of_another_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected \(n, 7\)"):
        write(tmp_path / "model", features=np.zeros((5, 3)))


def test_a_twin_of_another_booster_is_refused(tmp_path: Path) -> None:
    features, _, _ = training()
    other = fit(
        features, features[:, 0] * 0 + 1, feature_names=VIEW.names, parameters=PARAMETERS, seed=1
    )

    with pytest.raises(PackageError, match=r"model: model.onnx answers 1\.0.* Ah to recorded row"):
        write(tmp_path / "model", onnx=to_onnx(other, len(VIEW.names)))

    assert list(tmp_path.iterdir()) == []


def test_a_booster_of_another_view_is_refused(tmp_path: Path) -> None:
    features, _, onnx = training()
    names = [f"f{i}" for i in range(7)]
    other = fit(features, np.ones(100), feature_names=names, parameters=PARAMETERS, seed=1)

    with pytest.raises(PackageError, match=r"model/model.ubj was fitted on 7 features \(f0, f1"):
        write(tmp_path / "model", model=other, onnx=onnx)


def test_a_parent_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(PackageError, match="cannot be written"):
        write(tmp_path / "file" / "model")


@pytest.mark.parametrize("name", ["model.ubj", "model.onnx", "gates.json", "diagnostics.png"])
def test_a_changed_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "model").folder
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)

    with pytest.raises(PackageError, match=rf"{name} has SHA-256 .*its manifest says"):
        load_package(folder)
    unverified = load_package(folder, verify=False)
    with pytest.raises(PackageError, match=rf"{name} has SHA-256 .*its manifest says"):
        unverified.read(name)


@pytest.mark.parametrize("name", ["model.ubj", "model.onnx", "report.html"])
def test_a_missing_file_is_refused(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "model").folder
    (folder / name).unlink()

    with pytest.raises(PackageError, match=rf"lacks {name} \(No such file"):
        load_package(folder)


def test_a_document_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    package = write(tmp_path / "model")

    with pytest.raises(PackageError, match=r"holds no card\.json; it holds diagnostics\.png, dom"):
        package.document("card")


def test_a_view_that_computes_something_else_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "model").folder
    change_manifest(folder, lambda manifest: manifest.update(schema_hash="b" * 64))

    with pytest.raises(PackageError, match=f"schema hash {'b' * 64}; here it is version 1 with"):
        load_package(folder, verify=False)


def test_a_view_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "model").folder
    change_manifest(folder, lambda manifest: manifest.update(view="charge_summary"))

    with pytest.raises(PackageError, match="needs feature view 'charge_summary' version 1"):
        load_package(folder)


def test_features_in_another_order_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "model").folder
    change_manifest(folder, lambda manifest: manifest["feature_names"].reverse())

    with pytest.raises(PackageError, match="names features voltage_drop_time_s, delta_T_C"):
        load_package(folder)


@pytest.mark.parametrize("off_ah", [2e-5, -0.5])
def test_a_package_that_answers_otherwise_than_recorded_is_refused(
    tmp_path: Path, off_ah: float
) -> None:
    folder = write(tmp_path / "model").folder

    def change(manifest: dict[str, Any]) -> None:
        manifest["recorded"]["outputs_ah"][3] += off_ah

    change_manifest(folder, change)

    with pytest.raises(PackageError, match=r"model\.ubj answers .* Ah to recorded row 3, expected"):
        load_package(folder)
    load_package(folder, verify=False)


@cache
def forest() -> tuple[Predict, bytes]:
    """What no booster answers: half a forest, half a booster."""
    features, booster, _ = training()
    labels = predict(booster, features)[::-1].copy()  # what the booster does not answer
    names = np.array(GROUPS, dtype=object)
    task = Task(VIEW.name, VIEW.names, VIEW.trends, PARAMETERS, seed=1)
    trees = ALGORITHMS["extra_trees"].make(task, {"n_estimators": 5})
    model = Combined((trees(features, labels, Owners(names, names)), Boosted(booster)), (0.5, 0.5))
    return model, to_onnx_any(model, len(VIEW.names))


STACK = ChosenAlgorithm(name="stack", shares={"extra_trees": 0.5, "xgboost": 0.5})


def write_stack(folder: Path, **changes: Any) -> ModelPackage:  # noqa: ANN401 - any argument
    model, onnx = forest()
    return write(folder, **({"model": model, "onnx": onnx, "algorithm": STACK} | changes))


def test_a_package_of_a_stack_has_no_booster_and_answers_by_its_graph(tmp_path: Path) -> None:
    features, _, _ = training()
    model, _ = forest()
    write_stack(tmp_path / "model")

    package = load_package(tmp_path / "model")

    assert not (package.folder / "model.ubj").exists()
    assert not package.manifest.booster
    assert package.manifest.algorithm == STACK
    np.testing.assert_allclose(package.predict_batch(features), model(features), rtol=0, atol=1e-5)
    ones = [package.predict_one(row) for row in features]
    np.testing.assert_allclose(ones, model(features), rtol=0, atol=1e-5)
    assert [one.capacity_ah for one in package.estimate_batch(features[:3], [(0.0, 2.5)] * 3)] == (
        pytest.approx(ones[:3], abs=1e-6)
    )


def test_no_file_of_a_package_can_run_anything_when_it_is_read(tmp_path: Path) -> None:
    folder = write_stack(tmp_path / "model").folder

    for path in folder.iterdir():
        with pytest.raises(Exception):  # noqa: B017, PT011 - any: it is no pickle
            pickletools.dis(path.read_bytes(), out=io.StringIO())


def test_whoever_needs_a_booster_is_told_what_answers_instead(tmp_path: Path) -> None:
    package = write_stack(tmp_path / "model")

    with pytest.raises(
        PackageError, match=r"by stack of 0\.50 extra_trees \+ 0\.50 xgboost, which is not one"
    ):
        _ = package.booster


def test_a_graph_that_answers_otherwise_than_the_fitted_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"model\.onnx answers .* Ah to recorded row"):
        write_stack(tmp_path / "model", onnx=training()[2])

    assert list(tmp_path.iterdir()) == []


def test_a_package_of_a_stack_that_was_changed_is_refused(tmp_path: Path) -> None:
    folder = write_stack(tmp_path / "model").folder

    def change(manifest: dict[str, Any]) -> None:
        manifest["recorded"]["outputs_ah"][0] += 2e-5

    change_manifest(folder, change)

    with pytest.raises(
        PackageError, match=r"model\.onnx answers .* Ah to recorded row 0, expected"
    ):
        load_package(folder)
