"""Gaussian process with effects of each asset: learns what holds between batteries, not in one.

Many cycles of few batteries are few independent observations. Each battery has an offset of its
own, which all its cycles share: its sensors, its place in the chamber, its electrodes. A model that
takes 168 cycles for 168 observations explains that offset by whatever feature happens to tell the
batteries apart. Here it is a random effect (Laird and Ware, Random-effects models for longitudinal
data, Biometrics 38, 1982), the rest a Gaussian process (Rasmussen and Williams, Gaussian Processes
for Machine Learning, 2006). With z the encoded features, in blocks b of n_b, the covariance of two
rows is

    c^2 + sum_b a_b^2 <z_b, z'_b> / n_b + r^2 exp(-1/2 sum_b |z_b - z'_b|^2 / (n_b l_b^2))
        + [same asset] (g^2 + sum_b h_b^2 <z_b, z'_b> / n_b) + [same row] s^2 m

* The sums over all assets answer for a battery never seen; g and h only keep training honest.
* c, a, r, l, g, h, s maximise the marginal likelihood (Rasmussen and Williams, section 5.4.1) under
  a wide log-normal prior, on evenly spaced cycles of each asset. Nothing is set by hand per asset.
* m is 1 at first, then grows for rows that their neighbours contradict: the weights of a Student t
  with 4 degrees of freedom (Lange, Little and Taylor, Robust statistical modeling using the t
  distribution, JASA 84, 1989), so that a crashed experiment does not set the noise of all others.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, optimize

from batteryops.errors import DataError
from batteryops.models.held_out import Floats, group_codes, group_weights

_PRIOR_SD: Final = 1.5  # of the logarithm of each parameter
_JITTER: Final = 1e-6
_STUDENT_T: Final = 4.0
_MULTIPLES: Final = (0.5, 1e4)

_START: Final = {"c": 0.0, "a": 0.0, "r": -0.5, "l": 0.4, "g": -1.0, "h": -1.5, "s": -2.5}


@dataclass(frozen=True, slots=True)
class Design:
    """What the covariance is made of.

    Args:
        blocks: columns of the encoded features that share a scale, each column at most once.
        slopes: whether assets also have slopes of their own, not only an offset.
        cycles_per_asset: rows of each asset, evenly spaced, on which parameters are learned.
        rows_per_asset: rows of each asset, evenly spaced, that answers are made from: a bound for
            assets of long life. With 40 instead of all (up to 168) NASA's cells were told worse.
        rounds: how often outlying rows are weighed anew and parameters learned again.
        max_steps: of the search for parameters, each round.
    """

    blocks: tuple[tuple[int, ...], ...]
    slopes: bool = False
    cycles_per_asset: int = 10
    rows_per_asset: int = 200
    rounds: int = 1
    max_steps: int = 25

    def starts(self) -> Floats:
        """Logarithms of the parameters where the search begins, in the order of the formula."""
        n = len(self.blocks)
        names = ["c", *"a" * n, "r", *"l" * n, "g", *("h" * n if self.slopes else ""), "s"]
        return np.array([_START[name] for name in names])


@dataclass(frozen=True, slots=True, eq=False)
class MixedEffects:
    """A fitted process; `fit_mixed_effects` yields it.

    Args:
        design: what it is made of.
        parameters: logarithms of the formula's parameters, in its order.
        mean: mean of the assets' mean labels.
        scale: standard deviation of labels, all assets weighing the same.
        rows: (n, k) encoded features that trained.
        weights: (n,) what each training row adds to an answer, per covariance with it.
        factor: (n, n) lower Cholesky factor of the training rows' covariance.
        log_evidence: logarithm of marginal likelihood times prior, on the rows that parameters
            were learned on, up to a constant: comparable between designs for the same labels.
    """

    design: Design
    parameters: Floats
    mean: float
    scale: float
    rows: Floats
    weights: Floats
    factor: Floats
    log_evidence: float

    def predict(self, rows: Floats) -> tuple[Floats, Floats]:
        """Label and its variance, each (n,), of an asset that did not train.

        The variance is that of the next measurement: offset of the asset and noise included.

        Args:
            rows: (n, k) encoded features.
        """
        shared = _Kernel(self.design, rows, self.rows).shared(self.parameters)
        explained = linalg.solve_triangular(self.factor, shared.T, lower=True)
        return self._answer(rows, shared @ self.weights, (explained**2).sum(axis=0))

    def without_groups(
        self, rows: Floats, assets: NDArray[np.object_], groups: NDArray[np.object_]
    ) -> tuple[Floats, Floats]:
        """Label and its variance, each (n,), of each training row as if its group had not trained.

        Nothing is fitted again. With K^-1 the inverse covariance of all rows and w = K^-1 y, the
        inverse without the rows B is K^-1_RR - K^-1_RB (K^-1_BB)^-1 K^-1_BR on the others R, and
        their weights are w_R - K^-1_RB (K^-1_BB)^-1 w_B (the inverse of a partitioned matrix:
        Rasmussen and Williams, appendix A.3 and section 5.4.2, for one row at a time).

        That is exact for given parameters. What it leaves as it is: parameters, multiples of the
        noise, mean and scale were learned with the labels of the group in question, so that it
        thinks a little too well of the process.

        Args:
            rows: (n, k) encoded features, all that `fit_mixed_effects` was given, in their order.
            assets: (n,), likewise.
            groups: (n,), which rows are left out together; an asset is in one group.

        Raises:
            DataError: when they are other rows than those that trained.
        """
        kept = _spaced(group_codes(assets, len(rows)), self.design.rows_per_asset)
        if not np.array_equal(rows[kept], self.rows):
            raise DataError(
                f"{len(rows)} rows of {len(set(assets))} assets are not those that the process was "
                "fitted to; give all of these in their order"
            )
        codes = group_codes(groups, len(rows))
        shared = _Kernel(self.design, rows, self.rows).shared(self.parameters)
        shared[codes[:, None] == codes[kept][None, :]] = 0.0
        inverse = _inverse(self.factor)
        known = shared @ inverse
        target, explained = shared @ self.weights, (known * shared).sum(axis=1)
        for code in range(int(codes.max()) + 1):
            asked, out = codes == code, codes[kept] == code
            block = linalg.cholesky(inverse[np.ix_(out, out)], lower=True)
            gone = linalg.solve_triangular(block, known[np.ix_(asked, out)].T, lower=True)
            own = linalg.solve_triangular(block, self.weights[out], lower=True)
            target[asked] -= own @ gone
            explained[asked] -= (gone**2).sum(axis=0)
        return self._answer(rows, target, explained)

    def _answer(self, rows: Floats, target: Floats, explained: Floats) -> tuple[Floats, Floats]:
        """Label and variance, from scaled labels and the variance that training explains."""
        noise = float(np.exp(2 * self.parameters[-1]))
        prior = _own_variance(self.design, rows, self.parameters)
        variance = np.maximum(prior - explained, 0.0) + noise
        return target * self.scale + self.mean, variance * self.scale**2


class _Kernel:
    """Inner products and squared distances, block by block, between two sets of rows."""

    def __init__(self, design: Design, rows: Floats, others: Floats) -> None:
        self.design = design
        blocks = [list(block) for block in design.blocks]
        self.products = [rows[:, b] @ others[:, b].T / len(b) for b in blocks]
        self.distances = []
        for block, product in zip(blocks, self.products, strict=True):
            squares = (rows[:, block] ** 2).mean(axis=1), (others[:, block] ** 2).mean(axis=1)
            distance = squares[0][:, None] + squares[1][None, :] - 2 * product
            self.distances.append(np.maximum(distance, 0.0))

    def shared(self, parameters: Floats) -> Floats:
        """Covariance between assets."""
        return _summed(self._shared_terms(parameters))

    def _shared_terms(self, parameters: Floats) -> list[Floats]:
        n = len(self.products)
        squares = np.exp(2 * parameters)
        lengths = np.exp(-2 * parameters[n + 2 : 2 * n + 2])
        exponent = _summed([d * by for d, by in zip(self.distances, lengths, strict=True)])
        return [
            np.full_like(self.products[0], squares[0]),
            *(p * by for p, by in zip(self.products, squares[1 : n + 1], strict=True)),
            squares[n + 1] * np.exp(-0.5 * exponent),
        ]

    def full(self, parameters: Floats, same_asset: Floats) -> Floats:
        """Covariance within and between assets, without noise."""
        own = self._own_terms(parameters, same_asset)
        return _summed([*self._shared_terms(parameters), *own])

    def _own_terms(self, parameters: Floats, same_asset: Floats) -> list[Floats]:
        """What cycles of one asset share besides."""
        place = 2 * len(self.products) + 2
        squares = np.exp(2 * parameters)
        own = [squares[place] * same_asset]
        if self.design.slopes:
            each = zip(self.products, squares[place + 1 : -1], strict=True)
            own += [product * same_asset * by for product, by in each]
        return own

    def with_gradient(self, parameters: Floats, same_asset: Floats) -> tuple[Floats, list[Floats]]:
        """As `full`, and its derivative by each parameter but that of the noise."""
        terms = self._shared_terms(parameters)
        own = self._own_terms(parameters, same_asset)
        n = len(self.products)
        lengths = np.exp(-2 * parameters[n + 2 : 2 * n + 2])
        by_length = [terms[-1] * d * by for d, by in zip(self.distances, lengths, strict=True)]
        gradient = [*(2 * term for term in terms), *by_length, *(2 * term for term in own)]
        return _summed([*terms, *own]), gradient


def _summed(terms: Sequence[Floats]) -> Floats:
    total = terms[0].copy()
    for term in terms[1:]:
        total += term
    return total


def _own_variance(design: Design, rows: Floats, parameters: Floats) -> Floats:
    """Variance of each row before anything is known of it, without noise."""
    n = len(design.blocks)
    squares = np.exp(2 * parameters)
    lengths = [(rows[:, list(block)] ** 2).mean(axis=1) for block in design.blocks]
    variance = np.full(len(rows), squares[0] + squares[n + 1] + squares[2 * n + 2])
    for place, length in enumerate(lengths):
        by = squares[1 + place] + (squares[2 * n + 3 + place] if design.slopes else 0.0)
        variance += by * length
    return variance


def fit_mixed_effects(
    rows: Floats, labels: Floats, assets: NDArray[np.object_], design: Design
) -> MixedEffects:
    """Learn the parameters, and what each training row tells of others.

    Args:
        rows: (n, k) encoded features, finite.
        labels: (n,), capacity in Ah or a function of it.
        assets: (n,) whose cycle it is, in the order of each asset's cycles.
        design: what the covariance is made of.

    Raises:
        DataError: when shapes disagree, a value is not finite, or a block names no column.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> assets = np.repeat(np.array(list("abcdefgh"), dtype=object), 20)
        >>> offset = np.repeat(rng.normal(0, 0.05, 8), 20)
        >>> wear = np.tile(np.linspace(-1.5, 1.5, 20), 8)[:, None]
        >>> labels = 1.6 - 0.2 * wear[:, 0] + offset
        >>> model = fit_mixed_effects(wear, labels, assets, Design(blocks=((0,),)))
        >>> capacity, variance = model.predict(np.array([[1.0]]))
        >>> round(capacity[0], 1), bool(0.03 < np.sqrt(variance[0]) < 0.1)
        (np.float64(1.4), True)
    """
    _check(rows, labels, assets, design)
    codes = group_codes(assets, len(rows))
    kept = _spaced(codes, design.rows_per_asset)
    rows, labels, codes = rows[kept], labels[kept], codes[kept]
    by_asset = group_weights(codes)
    mean = float(by_asset @ labels)
    scale = math.sqrt(float(by_asset @ (labels - mean) ** 2)) or 1.0  # all alike: any will do
    target = (labels - mean) / scale
    chosen = _spaced(codes, design.cycles_per_asset)
    few = _Kernel(design, rows[chosen], rows[chosen])
    every = _Kernel(design, rows, rows)
    same_few = (codes[chosen][:, None] == codes[chosen][None, :]).astype(np.float64)
    same = (codes[:, None] == codes[None, :]).astype(np.float64)

    start = design.starts()
    multiples = np.ones(len(rows))
    parameters, evidence = _learn(
        few, same_few, target[chosen], multiples[chosen], start=start, prior_mean=start
    )
    factor, weights = _condition(every, same, target, multiples, parameters)
    for _ in range(design.rounds):
        multiples = _contradicted(factor, weights)
        parameters, evidence = _learn(
            few, same_few, target[chosen], multiples[chosen], start=parameters, prior_mean=start
        )
        factor, weights = _condition(every, same, target, multiples, parameters)
    return MixedEffects(design, parameters, mean, scale, rows, weights, factor, evidence)


def _check(rows: Floats, labels: Floats, assets: NDArray[np.object_], design: Design) -> None:
    if rows.ndim != 2 or labels.shape != (len(rows),) or assets.shape != (len(rows),):  # noqa: PLR2004 - a matrix
        raise DataError(
            f"features have shape {rows.shape}, labels {labels.shape} and assets {assets.shape}; "
            "expected one label and one asset for each row of features"
        )
    if not (np.isfinite(rows).all() and np.isfinite(labels).all()):
        raise DataError("a feature or a label is not a finite number; expected encoded features")
    columns = [column for block in design.blocks for column in block]
    if not all(design.blocks) or not columns or not set(columns) <= set(range(rows.shape[1])):
        raise DataError(
            f"blocks {design.blocks} do not name columns of features of shape {rows.shape}"
        )


def _spaced(codes: NDArray[np.intp], at_most: int) -> NDArray[np.intp]:
    """Rows of at most so many cycles of each asset, evenly spaced, in the order of the rows."""
    chosen = []
    for code in np.unique(codes):
        places = np.flatnonzero(codes == code)
        chosen.append(places[np.unique(np.linspace(0, places.size - 1, at_most).astype(np.intp))])
    return np.sort(np.concatenate(chosen))


def _learn(  # noqa: PLR0913 - what is to be explained, and from where
    kernel: _Kernel,
    same_asset: Floats,
    target: Floats,
    multiples: Floats,
    *,
    start: Floats,
    prior_mean: Floats,
) -> tuple[Floats, float]:
    """Parameters of the largest evidence near `start`, and that evidence."""

    def loss(parameters: Floats) -> tuple[float, Floats]:
        covariance, gradient = kernel.with_gradient(parameters, same_asset)
        noise = np.exp(2 * parameters[-1]) * multiples
        covariance[np.diag_indices_from(covariance)] += noise + _JITTER
        away = (parameters - prior_mean) / _PRIOR_SD
        try:
            factor = linalg.cholesky(covariance, lower=True, check_finite=False)
        except linalg.LinAlgError:
            return 1e12, np.zeros_like(parameters)
        inverse = linalg.cho_solve((factor, True), np.eye(target.size), check_finite=False)
        weights = inverse @ target
        value = 0.5 * target @ weights + np.log(np.diag(factor)).sum() + 0.5 * away @ away
        slack = inverse - np.outer(weights, weights)
        slope = [float(0.5 * np.vdot(slack, each)) for each in gradient]
        slope.append(float(np.diag(slack) @ noise))
        return float(value), np.array(slope) + away / _PRIOR_SD

    found = optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": kernel.design.max_steps}
    )
    return np.asarray(found.x, dtype=np.float64), -float(found.fun)


def _condition(
    kernel: _Kernel, same_asset: Floats, target: Floats, multiples: Floats, parameters: Floats
) -> tuple[Floats, Floats]:
    covariance = kernel.full(parameters, same_asset)
    noise = np.exp(2 * parameters[-1]) * multiples
    covariance[np.diag_indices_from(covariance)] += noise + _JITTER
    factor = linalg.cholesky(covariance, lower=True, check_finite=False)
    return factor, linalg.cho_solve((factor, True), target)


def _inverse(factor: Floats) -> Floats:
    """Inverse of a matrix by its lower Cholesky factor, in less than half the time of a solve."""
    half = np.tril(linalg.lapack.dpotri(factor, lower=1)[0])
    return np.asarray(half + np.tril(half, -1).T)


def _contradicted(factor: Floats, weights: Floats) -> Floats:
    """How many times the noise of a row is that of others, by its leave-one-out residual.

    Residual w_i / K^-1_ii with variance 1 / K^-1_ii: Rasmussen and Williams, eq. 5.12.
    """
    precision = np.diag(linalg.cho_solve((factor, True), np.eye(len(factor))))
    ratio = weights**2 / precision
    return np.clip((_STUDENT_T + ratio) / (_STUDENT_T + 1.0), *_MULTIPLES)
