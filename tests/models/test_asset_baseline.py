"""An asset's own measurements correct a model: by formula, by a second solver, never from later."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batteryops.errors import DataError, PackageError
from batteryops.models.asset_baseline import (
    AssetBaseline,
    ResidualProcess,
    fit_baseline,
    fit_residual_process,
)

MODEL = "5" * 64
PROCESS = ResidualProcess(offset_ah=0.06, wander_ah=0.03, wander_cycles=40.0, noise_ah=0.01)


def first_ten() -> AssetBaseline:
    cycles = range(3, 33, 3)
    residuals = [0.04, 0.05, 0.03, 0.04, 0.06, 0.05, 0.04, 0.05, 0.03, 0.04]
    return AssetBaseline(
        "B0018",
        MODEL,
        tuple(cycles),
        tuple(1.80 + off for off in residuals),
        (1.80,) * 10,
    )


class TestCorrection:
    def test_is_the_shrunken_mean_of_residuals_where_nothing_wanders(self) -> None:
        constant = ResidualProcess(0.06, 0.0, 40.0, 0.02)
        known = first_ten()
        mean = float(np.mean(known.measured_ah)) - 1.80
        believed = 10 * 0.06**2 / (10 * 0.06**2 + 0.02**2)  # best linear unbiased prediction
        capacity, deviation = known.corrected(constant, [900], [1.50])
        assert capacity[0] == pytest.approx(1.50 + believed * mean)
        assert deviation[0] == pytest.approx(np.sqrt(0.06**2 * (1 - believed) + 0.02**2))

    def test_is_the_conditional_mean_of_a_joint_normal(self) -> None:
        known, asked = first_ten(), np.array([40.0, 200.0])
        every = np.concatenate([known.op_index, asked])
        joint = PROCESS.covariance(every, every) + PROCESS.noise_ah**2 * np.eye(12)
        precision = np.linalg.inv(joint)  # mean = -P_aa^-1 P_ab b, covariance P_aa^-1
        residual = np.array(known.measured_ah) - 1.80
        expected = -np.linalg.solve(precision[10:, 10:], precision[10:, :10] @ residual)
        spread = np.sqrt(np.diag(np.linalg.inv(precision[10:, 10:])))
        capacity, deviation = known.corrected(PROCESS, asked, [1.7, 1.5])
        np.testing.assert_allclose(capacity, np.array([1.7, 1.5]) + expected)
        np.testing.assert_allclose(deviation, spread)

    def test_nearly_repeats_a_residual_measured_just_before(self) -> None:
        quiet = ResidualProcess(0.06, 0.03, 1000.0, 0.0001)
        known = AssetBaseline("B0018", MODEL, (5,), (1.83,), (1.80,))
        assert known.corrected(quiet, [6], [1.79])[0][0] == pytest.approx(1.82, abs=1e-4)

    @given(st.integers(0, 40), st.floats(-0.5, 0.5))
    def test_never_looks_at_measurements_from_the_cycle_on(self, cycle: int, change: float) -> None:
        known = first_ten()
        later = [at >= cycle for at in known.op_index]
        changed = AssetBaseline(
            known.asset_id,
            MODEL,
            known.op_index,
            tuple(
                value + change * late for value, late in zip(known.measured_ah, later, strict=True)
            ),
            known.predicted_ah,
        )
        given_ah, _ = known.corrected(PROCESS, [cycle], [1.8])
        assert changed.corrected(PROCESS, [cycle], [1.8])[0][0] == given_ah[0]

    def test_leaves_cycles_before_the_first_measurement_alone(self) -> None:
        capacity, deviation = first_ten().corrected(PROCESS, [1, 3], [1.9, 1.8])
        assert capacity.tolist() == [1.9, 1.8]
        assert deviation == pytest.approx(np.sqrt(0.06**2 + 0.03**2 + 0.01**2))

    def test_refuses_predictions_of_other_cycles(self) -> None:
        with pytest.raises(DataError, match="one prediction per cycle"):
            first_ten().corrected(PROCESS, [1, 2], [1.8])


class TestArtifact:
    def test_is_read_as_it_was_written(self, tmp_path: Path) -> None:
        path = tmp_path / "B0018.json"
        path.write_text(first_ten().to_text())
        assert AssetBaseline.load(path) == first_ten()

    def test_takes_the_first_measurements_whatever_the_order(self) -> None:
        made = fit_baseline(
            "B0018",
            model=MODEL,
            op_index=[9, 3, 5, 7],
            measured_ah=[1.6, 1.8, float("nan"), 1.7],
            predicted_ah=[1.5, 1.7, 1.7, 1.6],
            first=2,
        )
        assert (made.op_index, made.measured_ah) == ((3, 7), (1.8, 1.7))

    def test_needs_a_measurement(self) -> None:
        with pytest.raises(DataError, match="at least one cycle"):
            fit_baseline("B0018", model=MODEL, op_index=[], measured_ah=[], predicted_ah=[])

    def test_needs_a_prediction_for_each_measurement(self) -> None:
        with pytest.raises(DataError, match="one prediction per cycle"):
            fit_baseline("B0018", model=MODEL, op_index=[1], measured_ah=[1.8], predicted_ah=[])

    def test_refuses_a_cycle_twice(self) -> None:
        with pytest.raises(DataError, match="does not rise"):
            AssetBaseline("B0018", MODEL, (3, 3), (1.8, 1.8), (1.7, 1.7))

    def test_refuses_a_capacity_that_is_no_number(self) -> None:
        with pytest.raises(DataError, match="not a finite number"):
            AssetBaseline("B0018", MODEL, (3,), (1.8,), (float("inf"),))

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format_version": 99}'])
    def test_refuses_a_file_of_another_kind(self, text: str, tmp_path: Path) -> None:
        path = tmp_path / "B0018.json"
        path.write_text(text)
        with pytest.raises(PackageError, match="make it again"):
            AssetBaseline.load(path)

    def test_refuses_a_file_with_a_field_gone(self, tmp_path: Path) -> None:
        path = tmp_path / "B0018.json"
        path.write_text(first_ten().to_text())
        document = json.loads(path.read_text())
        del document["measured_ah"]
        path.write_text(json.dumps(document))
        with pytest.raises(PackageError, match="measured_ah"):
            AssetBaseline.load(path)

    def test_says_that_a_file_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(PackageError, match="make it first"):
            AssetBaseline.load(tmp_path / "none.json")


class TestResidualProcess:
    def test_is_found_again_from_what_it_made(self) -> None:
        rng = np.random.default_rng(8)
        at = np.arange(0.0, 120.0, 2.0)
        noise = np.eye(at.size) * PROCESS.noise_ah**2
        factor = np.linalg.cholesky(PROCESS.covariance(at, at) + noise)
        residuals = np.concatenate([factor @ rng.normal(size=at.size) for _ in range(40)])
        found = fit_residual_process(residuals, np.tile(at, 40), np.repeat(np.arange(40), at.size))
        assert found.offset_ah == pytest.approx(PROCESS.offset_ah, rel=0.3)
        assert found.wander_ah == pytest.approx(PROCESS.wander_ah, rel=0.3)
        assert found.noise_ah == pytest.approx(PROCESS.noise_ah, rel=0.15)

    def test_is_read_as_it_was_written(self) -> None:
        assert ResidualProcess.from_json(json.loads(json.dumps(PROCESS.to_json()))) == PROCESS

    @pytest.mark.parametrize(
        "change", [{"noise_ah": 0.0}, {"wander_cycles": -1.0}, {"offset_ah": "much"}]
    )
    def test_refuses_what_makes_no_sense(self, change: dict[str, object]) -> None:
        with pytest.raises(PackageError, match="train again"):
            ResidualProcess.from_json({**PROCESS.to_json(), **change})

    def test_refuses_a_missing_residual(self) -> None:
        with pytest.raises(DataError, match="finite"):
            fit_residual_process([0.1, np.nan], [1, 2], ["a", "b"])
