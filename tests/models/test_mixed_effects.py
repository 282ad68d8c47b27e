"""Effects of each asset: the process equals a second implementation, and learns between assets."""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import linalg, optimize
from scipy.optimize import approx_fprime
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, DotProduct

from batteryops.errors import DataError
from batteryops.models.mixed_effects import Design, fit_mixed_effects

Floats = NDArray[np.float64]
Names = NDArray[np.object_]
Loss = Callable[[Floats], tuple[float, Floats]]


def aged(n_assets: int, n_cycles: int, offset_ah: float, seed: int = 3) -> tuple[Floats, Floats]:
    """Wear (n, 1) and capacities of assets that lose 0.2 Ah per unit of wear, offsets apart."""
    rng = np.random.default_rng(seed)
    offsets = np.repeat(rng.normal(0.0, offset_ah, n_assets), n_cycles)
    wear = np.tile(np.linspace(-1.5, 1.5, n_cycles), n_assets)
    noise = rng.normal(0.0, 0.005, wear.size)
    return wear[:, None], 1.6 - 0.2 * wear + offsets + noise


def names(n_assets: int, n_cycles: int) -> Names:
    return np.repeat(np.array([f"B{n:04d}" for n in range(n_assets)], dtype=object), n_cycles)


class TestAnswers:
    def test_equal_the_textbook_formula_on_kernels_of_scikit_learn(self) -> None:
        rows, labels = aged(6, 10, offset_ah=0.03)
        assets = names(6, 10)
        model = fit_mixed_effects(rows, labels, assets, Design(((0,),), rounds=0))
        constant, linear, smooth, length, own, noise = np.exp(model.parameters)
        codes = np.eye(6)[np.unique(assets.astype(str), return_inverse=True)[1]]
        shared = ConstantKernel(constant**2) + linear**2 * DotProduct(0.0)
        shared += smooth**2 * RBF(length)
        gram = shared(rows) + own**2 * codes @ codes.T
        gram[np.diag_indices_from(gram)] += noise**2 + 1e-6
        asked = np.array([[-2.0], [0.3], [1.1]])
        target = (labels - model.mean) / model.scale
        expected = shared(asked, rows) @ np.linalg.solve(gram, target)
        left = np.linalg.solve(gram, shared(asked, rows).T)
        variance = np.diag(shared(asked)) + own**2 + noise**2
        variance = variance - np.einsum("ij,ji->i", shared(asked, rows), left)

        given, given_variance = model.predict(asked)

        np.testing.assert_allclose(given, expected * model.scale + model.mean, rtol=1e-6)
        np.testing.assert_allclose(given_variance, variance * model.scale**2, rtol=1e-5)

    def test_find_the_trend_that_all_assets_share(self) -> None:
        rows, labels = aged(8, 20, offset_ah=0.05)
        model = fit_mixed_effects(rows, labels, names(8, 20), Design(((0,),)))
        low, high = model.predict(np.array([[-1.0], [1.0]]))[0]
        assert high - low == pytest.approx(-0.4, abs=0.01)

    def test_are_as_uncertain_as_assets_differ_though_cycles_are_many(self) -> None:
        rows, labels = aged(12, 40, offset_ah=0.05)
        model = fit_mixed_effects(rows, labels, names(12, 40), Design(((0,),)))
        deviation = float(np.sqrt(model.predict(np.array([[0.0]]))[1][0]))
        assert 0.03 < deviation < 0.1  # not 0.005, the noise within an asset

    def test_do_not_take_a_sensor_offset_for_wear(self) -> None:
        """A second feature tells assets apart by chance; a plain ridge believes it."""
        rows, labels = aged(4, 60, offset_ah=0.08, seed=5)
        sensor = np.repeat(np.array([0.3, -1.0, 1.2, -0.5]), 60)[:, None]
        both = np.hstack([rows, sensor])
        model = fit_mixed_effects(both, labels, names(4, 60), Design(((0,), (1,))))
        rich = np.linalg.lstsq(np.column_stack([np.ones(240), both]), labels, rcond=None)[0]
        low, high = model.predict(np.array([[0.0, -1.0], [0.0, 1.0]]))[0]
        assert abs(high - low) < abs(2 * rich[2])

    def test_survive_a_crashed_experiment(self) -> None:
        rows, labels = aged(8, 20, offset_ah=0.02)
        crashed = labels.copy()
        crashed[::17] = 0.3
        model = fit_mixed_effects(rows, crashed, names(8, 20), Design(((0,),), rounds=2))
        plain = fit_mixed_effects(rows, crashed, names(8, 20), Design(((0,),), rounds=0))
        asked = np.array([[0.5]])
        error, plain_error = (abs(m.predict(asked)[0][0] - 1.5) for m in (model, plain))
        assert error < 0.06 < plain_error

    def test_do_not_depend_on_the_order_of_assets(self) -> None:
        rows, labels = aged(5, 12, offset_ah=0.03)
        assets = names(5, 12)
        order = np.argsort(-np.arange(60) // 12, kind="stable")
        one = fit_mixed_effects(rows, labels, assets, Design(((0,),)))
        two = fit_mixed_effects(rows[order], labels[order], assets[order], Design(((0,),)))
        asked = np.array([[0.4]])
        assert one.predict(asked)[0] == pytest.approx(two.predict(asked)[0], abs=2e-3)


class TestWithoutGroups:
    @pytest.mark.parametrize("slopes", [False, True])
    @pytest.mark.parametrize("rows_per_asset", [200, 6])
    def test_equal_the_same_process_conditioned_on_the_other_groups(
        self, rows_per_asset: int, *, slopes: bool
    ) -> None:
        """Parameters, multiples, mean and scale kept; the covariance of the others solved anew."""
        rng = np.random.default_rng(7)
        labels = aged(7, 12, offset_ah=0.05)[1]
        rows, assets = rng.normal(size=(84, 2)), names(7, 12)
        labels[5] = 0.4  # a multiple of its own
        groups = np.array(["pair" if asset < "B0002" else asset for asset in assets], dtype=object)
        design = Design(((0,), (1,)), slopes, rows_per_asset=rows_per_asset)
        model = fit_mixed_effects(rows, labels, assets, design)

        found, variance = model.without_groups(rows, assets, groups)

        covariance = model.factor @ model.factor.T
        kept = np.concatenate(
            [
                start + np.unique(np.linspace(0, 11, rows_per_asset).astype(int))
                for start in range(0, 84, 12)
            ]
        )
        target = (labels[kept] - model.mean) / model.scale
        for group in set(groups):
            out, train = groups == group, groups[kept] != group
            fewer = replace(
                model,
                rows=model.rows[train],
                factor=linalg.cholesky(covariance[np.ix_(train, train)], lower=True),
                weights=np.linalg.solve(covariance[np.ix_(train, train)], target[train]),
            )
            expected, expected_variance = fewer.predict(rows[out])
            np.testing.assert_allclose(found[out], expected, atol=1e-8)
            np.testing.assert_allclose(variance[out], expected_variance, atol=1e-8)

    def test_refuse_other_rows_than_those_that_trained(self) -> None:
        rows, labels = aged(4, 6, offset_ah=0.02)
        model = fit_mixed_effects(rows, labels, names(4, 6), Design(((0,),)))
        with pytest.raises(DataError, match="not those that the process was fitted to"):
            model.without_groups(rows + 1.0, names(4, 6), names(4, 6))


class TestParameters:
    @pytest.mark.parametrize("slopes", [(False,), (True,)])
    def test_are_found_along_the_right_gradient(
        self, slopes: tuple[bool], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = np.random.default_rng(2)
        rows, assets = rng.normal(size=(12, 3)), names(4, 3)
        seen: dict[str, float] = {}

        def remember(loss: Loss, start: Floats, **_: object) -> SimpleNamespace:
            at = start + 0.1

            def value(where: Floats) -> float:
                return loss(where)[0]

            seen["off"] = float(np.abs(approx_fprime(at, value, 1e-6) - loss(at)[1]).max())
            seen["size"] = float(np.abs(loss(at)[1]).max())
            return SimpleNamespace(x=start, fun=loss(start)[0])

        monkeypatch.setattr(optimize, "minimize", remember)
        design = Design(((0, 1), (2,)), *slopes, rounds=1)
        fit_mixed_effects(rows, rng.normal(1.6, 0.2, 12), assets, design)
        assert seen["off"] < 1e-4 * max(seen["size"], 1.0)

    def test_prefer_slopes_of_assets_where_assets_have_them(self) -> None:
        rng = np.random.default_rng(4)
        rows, assets = np.tile(np.linspace(-2, 2, 16), 10)[:, None], names(10, 16)
        own = np.repeat(rng.normal(-0.2, 0.1, 10), 16)
        labels = 1.6 + own * rows[:, 0] + rng.normal(0, 0.005, 160)
        without, with_them = (
            fit_mixed_effects(rows, labels, assets, Design(((0,),), slopes)).log_evidence
            for slopes in (False, True)
        )
        assert with_them > without + 10


class TestRefuses:
    def test_a_missing_feature(self) -> None:
        rows, labels = aged(2, 3, offset_ah=0.0)
        rows[0, 0] = np.nan
        with pytest.raises(DataError, match="not a finite number"):
            fit_mixed_effects(rows, labels, names(2, 3), Design(((0,),)))

    def test_labels_of_other_rows(self) -> None:
        rows, labels = aged(2, 3, offset_ah=0.0)
        with pytest.raises(DataError, match="one label and one asset"):
            fit_mixed_effects(rows, labels[:5], names(2, 3), Design(((0,),)))

    @pytest.mark.parametrize("blocks", [(), ((),), ((0,), (7,))])
    def test_blocks_that_name_no_column(self, blocks: tuple[tuple[int, ...], ...]) -> None:
        rows, labels = aged(2, 3, offset_ah=0.0)
        with pytest.raises(DataError, match="do not name columns"):
            fit_mixed_effects(rows, labels, names(2, 3), Design(blocks))
