"""Very many rows at once get the numbers that they get one by one."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from batteryops.features.views import get_view
from batteryops.models import boosting
from batteryops.models.domain_fit import fit_domain
from batteryops.models.intervals import Intervals
from batteryops.models.manifest import ChosenAlgorithm
from batteryops.models.many_rows import Neighbours, estimate_columns
from batteryops.models.onnx_twin import to_onnx
from batteryops.models.package import ModelPackage
from batteryops.models.package_writing import write_package
from batteryops.settings import load_settings

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """A model of physics features, some of which a third of the rows lack."""
    view = get_view("discharge_physics")
    random = np.random.default_rng(3)
    life = random.uniform(0.6, 1.0, (300, 1))
    features = (life + random.normal(0, 0.02, (300, len(view.names)))).astype(np.float32)
    optional = [at for at, feature in enumerate(view.features) if feature.optional]
    features[::3, optional] = np.nan
    parameters = {"n_estimators": 20, "max_depth": 3, "learning_rate": 0.3}
    booster = boosting.fit(
        features, 2.0 * life[:, 0], feature_names=view.names, parameters=parameters, seed=1
    )
    return write_package(
        tmp_path_factory.mktemp("packages") / "small",
        model=booster,
        onnx=to_onnx(booster, len(view.names)),
        algorithm=ChosenAlgorithm(name="xgboost"),
        model_name="ev-soh-predictor",
        view=view,
        profiles=[load_settings(REPOSITORY / "config" / "production.yaml").profile("nasa_18650")],
        parameters=parameters,
        seed=1,
        features=features,
        training_assets=["B0005"],
        data_fingerprint="0" * 64,
        domain=fit_domain(features, [f"cell {n % 20}" for n in range(300)], view.names),
        intervals=Intervals(0.9, 0.02, 0.5, 0.92, 20, 300),
    )


def rows(package: ModelPackage, count: int) -> np.ndarray:
    """Rows of all kinds: ordinary, outside of a range, jointly odd, with missing values."""
    random = np.random.default_rng(5)
    width = len(package.view.names)
    given = random.uniform(0.6, 1.0, (count, 1)) + random.normal(0, 0.03, (count, width))
    given[::7, 3] = 9.0
    given[1::11] = random.uniform(0.55, 1.05, (len(given[1::11]), width))
    given[2::5, 4] = np.nan
    given[3::13, :] = np.nan
    return given.astype(np.float32)


def test_in_columns_rows_get_the_numbers_that_they_get_as_objects(package: ModelPackage) -> None:
    given = rows(package, 20_000)
    least, largest = np.zeros(len(given)), np.full(len(given), 2.5)
    with ThreadPoolExecutor(2) as pool:
        found = estimate_columns(package, given, (least, largest), pool, 2)
    expected = package.estimate_batch(given, [(0.0, 2.5)] * len(given))
    assert found.capacity_ah.tolist() == [one.capacity_ah for one in expected]
    assert set(found.outside) == {at for at, one in enumerate(expected) if not one.position.inside}
    assert 1000 < len(found.outside) < 19_000
    for row, position in found.outside.items():
        assert (position.features, position.joint) == (
            expected[row].position.features,
            expected[row].position.joint,
        )
    assert found.low_ah == pytest.approx([one.low_ah for one in expected], abs=1e-6)
    assert found.high_ah == pytest.approx([one.high_ah for one in expected], abs=1e-6)


def test_a_row_that_is_not_suspect_is_inside(package: ModelPackage) -> None:
    given = rows(package, 5000)
    _, _, suspect = Neighbours(package.domain).look(given)
    inside = np.array([position.inside for position in package.domain.look_all(given)])
    assert inside[~suspect].all()
    assert suspect.mean() < 0.9


def test_distances_are_those_of_one_row_at_a_time(package: ModelPackage) -> None:
    given = rows(package, 500)
    distances, _, _ = Neighbours(package.domain).look(given)
    expected = [package.domain.look(row).distance for row in given]
    assert distances == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_features_that_are_not_checked_take_no_part_in_distances(package: ModelPackage) -> None:
    given = rows(package, 3000)
    names = package.view.names
    training = given[~np.isnan(given).any(axis=1)].astype(np.float64)
    groups = [f"cell {n % 20}" for n in range(len(training))]
    partial = fit_domain(training, groups, names, checked=set(names[:2]))
    distances, _, suspect = Neighbours(partial).look(given)
    looked = partial.look_all(given)
    assert distances == pytest.approx([one.distance for one in looked], rel=1e-5, abs=1e-6)
    assert np.array([position.inside for position in looked])[~suspect].all()


def test_no_rows_get_no_numbers(package: ModelPackage) -> None:
    nothing = np.empty((0, len(package.view.names)), dtype=np.float32)
    with ThreadPoolExecutor(1) as pool:
        found = estimate_columns(package, nothing, (np.empty(0), np.empty(0)), pool, 1)
    assert len(found.capacity_ah) == len(found.outside) == 0
