"""An asset's own measured capacities beside the model: they correct it for that asset.

A model that has not seen a battery is off by about the same amount at all its cycles. Once some of
its capacities were measured, their residuals (measured minus predicted) tell that offset. How far
they are to be believed at other cycles is learned from the residuals of assets held out of
training: e(t) = offset + wander(t) + noise, with wander an Ornstein-Uhlenbeck process, which
forgets exponentially with distance in cycles. The correction is the conditional mean of
offset + wander given the residuals (kriging; Rasmussen and Williams, Gaussian Processes for Machine
Learning, 2006, eq. 2.23): with ten measurements in a row it is their shrunken mean, with a
measurement just before it is nearly the last residual. Only measurements before a cycle are used.

It works beside any model, and needs no training for a new asset.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, optimize

from batteryops.errors import DataError, PackageError
from batteryops.models.held_out import Floats, group_codes

FORMAT_VERSION: Final = 1

_CYCLES_PER_ASSET: Final = 120  # evenly spaced: enough to learn four numbers from
_START_AH: Final = 0.05
_START_CYCLES: Final = 50.0
_PRIOR_SD: Final = 1.5  # of the logarithm of each parameter
_JITTER: Final = 1e-12
_LEAST: Final = 1e-12  # residuals of a model that is never off


@dataclass(frozen=True, slots=True)
class ResidualProcess:
    """How residuals of an unseen asset behave along its life; `fit_residual_process` yields it.

    Args:
        offset_ah: standard deviation of an asset's constant offset, Ah.
        wander_ah: standard deviation of what changes slowly, Ah.
        wander_cycles: in how many operations (`op_index`) it is forgotten to 1/e.
        noise_ah: standard deviation of what no other cycle tells, Ah.
    """

    offset_ah: float
    wander_ah: float
    wander_cycles: float
    noise_ah: float

    def covariance(self, op_index: Floats, other: Floats) -> Floats:
        """Covariance in Ah^2, without noise, of residuals at operations (n,) and (m,): (n, m)."""
        apart = np.abs(op_index[:, None] - other[None, :])
        wander = self.wander_ah**2 * np.exp(-apart / self.wander_cycles)
        return np.asarray(self.offset_ah**2 + wander)

    def times(self, factor: float) -> "ResidualProcess":
        """The same process with residuals so many times larger."""
        return ResidualProcess(
            self.offset_ah * factor,
            self.wander_ah * factor,
            self.wander_cycles,
            self.noise_ah * factor,
        )

    def to_json(self) -> dict[str, float]:
        """As a package holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Self:
        """What `to_json` gave.

        Raises:
            PackageError: when it is something else.
        """
        try:
            read = cls(**{name: float(document[name]) for name in cls.__slots__})
        except (KeyError, TypeError, ValueError) as error:
            raise PackageError(
                f"the process of residuals cannot be read ({error!r}); train again"
            ) from error
        spreads = (read.offset_ah, read.wander_ah, read.noise_ah)
        if not (min(spreads) >= 0 and read.noise_ah > 0 < read.wander_cycles < math.inf):
            raise PackageError(f"the process of residuals makes no sense: {read}; train again")
        return read


@dataclass(frozen=True, slots=True)
class AssetBaseline:
    """Measured capacities of one asset, each beside what a model said: a versioned artifact.

    Args:
        asset_id: whose they are.
        model: fingerprint of the package that predicted; a baseline belongs to one model.
        op_index: positions of the measured cycles in the asset's life, rising.
        measured_ah: capacities measured, Ah.
        predicted_ah: what the model says of these cycles, Ah, without any label of the asset.
    """

    asset_id: str
    model: str
    op_index: tuple[int, ...]
    measured_ah: tuple[float, ...]
    predicted_ah: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse what is no baseline."""
        sizes = {len(self.op_index), len(self.measured_ah), len(self.predicted_ah)}
        if sizes != {len(self.op_index)} or not self.op_index:
            raise DataError(
                f"baseline of {self.asset_id}: {len(self.op_index)} cycles, "
                f"{len(self.measured_ah)} measurements and {len(self.predicted_ah)} predictions; "
                "expected one of each per cycle, and at least one cycle"
            )
        if any(
            late <= early for early, late in zip(self.op_index, self.op_index[1:], strict=False)
        ):
            raise DataError(f"baseline of {self.asset_id}: op_index does not rise: {self.op_index}")
        if not np.isfinite([*self.measured_ah, *self.predicted_ah]).all():
            raise DataError(
                f"baseline of {self.asset_id}: a capacity is not a finite number; expected Ah"
            )

    def cycles(self) -> list[tuple[int, float, float]]:
        """Position, measured and predicted capacity in Ah of each measurement."""
        return list(zip(self.op_index, self.measured_ah, self.predicted_ah, strict=True))

    def corrected(
        self, process: ResidualProcess, op_index: ArrayLike, predicted_ah: ArrayLike
    ) -> tuple[Floats, Floats]:
        """Predictions corrected by the measurements before them, and their standard deviation.

        Args:
            process: learned beside the model.
            op_index: (n,) positions of the cycles asked for, in any order.
            predicted_ah: (n,) what the model says of them, Ah.

        Returns:
            Capacities (n,) in Ah, and standard deviations (n,) in Ah of what would be measured.
            A cycle before the first measurement keeps its prediction.

        Raises:
            DataError: when there is not one prediction per cycle.

        Examples:
            >>> process = ResidualProcess(0.05, 0.02, 50.0, 0.01)
            >>> baseline = AssetBaseline("B0018", "0" * 64, (3, 5), (1.85, 1.84), (1.80, 1.79))
            >>> baseline.corrected(process, [1, 7, 400], [1.80, 1.78, 1.50])[0].round(3).tolist()
            [1.8, 1.829, 1.542]
        """
        asked = np.asarray(op_index, dtype=np.float64)
        predicted = np.asarray(predicted_ah, dtype=np.float64)
        if asked.shape != predicted.shape or asked.ndim != 1:
            raise DataError(
                f"baseline of {self.asset_id}: cycles have shape {asked.shape} and predictions "
                f"{predicted.shape}; expected one prediction per cycle"
            )
        known_at = np.array(self.op_index, dtype=np.float64)
        residual = np.array(self.measured_ah) - np.array(self.predicted_ah)
        spread = process.covariance(known_at, known_at)
        spread[np.diag_indices_from(spread)] += process.noise_ah**2
        across = process.covariance(asked, known_at)
        own = process.offset_ah**2 + process.wander_ah**2 + process.noise_ah**2
        correction = np.zeros_like(predicted)
        variance = np.full_like(predicted, own)
        known_before = np.searchsorted(known_at, asked, side="left")
        for count in np.unique(known_before[known_before > 0]):
            rows = known_before == count
            believed = linalg.solve(spread[:count, :count], across[rows, :count].T, assume_a="pos")
            correction[rows] = residual[:count] @ believed
            variance[rows] -= (across[rows, :count].T * believed).sum(axis=0)
        return predicted + correction, np.sqrt(np.maximum(variance, process.noise_ah**2))

    @property
    def mean_offset_ah(self) -> float:
        """By how much the measurements lie above the model's predictions, on average, Ah."""
        return float(np.mean(np.array(self.measured_ah) - np.array(self.predicted_ah)))

    def to_text(self) -> str:
        """The artifact: one JSON document, the same text for the same content."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a file that holds what `to_text` gave.

        Raises:
            PackageError: when it cannot be read or is no baseline of this format.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise PackageError(
                f"baseline {path} cannot be read ({error.strerror}); make it first"
            ) from error
        except (ValueError, RecursionError) as error:
            raise PackageError(f"baseline {path} is no JSON ({error}); make it again") from error
        if not isinstance(document, dict) or document.get("format_version") != FORMAT_VERSION:
            raise PackageError(f"baseline {path} is not of format {FORMAT_VERSION}; make it again")
        try:
            return cls(
                asset_id=str(document["asset_id"]),
                model=str(document["model"]),
                op_index=tuple(int(each) for each in document["op_index"]),
                measured_ah=tuple(float(each) for each in document["measured_ah"]),
                predicted_ah=tuple(float(each) for each in document["predicted_ah"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError, DataError) as error:
            raise PackageError(
                f"baseline {path} makes no sense ({error}); make it again"
            ) from error


def fit_baseline(  # noqa: PLR0913 - what an artifact states
    asset_id: str,
    *,
    model: str,
    op_index: Iterable[int],
    measured_ah: Iterable[float],
    predicted_ah: Iterable[float],
    first: int | None = None,
) -> AssetBaseline:
    """The baseline of one asset from its measured cycles, in any order.

    Args:
        asset_id: whose cycles these are.
        model: fingerprint of the package that predicted.
        op_index: positions of the cycles.
        measured_ah: capacities measured, Ah; NaN where a cycle was not measured, which is left out.
        predicted_ah: what the model says of them, Ah.
        first: so many measurements at the start of the life; all when None.

    Raises:
        DataError: when there is no measurement, or shapes disagree.
    """
    try:
        every = sorted(zip(op_index, measured_ah, predicted_ah, strict=True))
    except ValueError:
        raise DataError(
            f"baseline of {asset_id}: expected one measurement and one prediction per cycle"
        ) from None
    rows = [row for row in every if math.isfinite(row[1])][:first]
    return AssetBaseline(
        asset_id,
        model,
        tuple(int(row[0]) for row in rows),
        tuple(float(row[1]) for row in rows),
        tuple(float(row[2]) for row in rows),
    )


def fit_residual_process(
    residuals_ah: ArrayLike, op_index: ArrayLike, assets: ArrayLike
) -> ResidualProcess:
    """Learn how residuals of unseen assets behave, by maximum a posteriori.

    Each asset has a level of its own, which is profiled out: a crashed experiment with residuals of
    half an Ah must not decide how steady others are. The process has the median level.

    The prior is wide: standard deviations within a factor of 4.5 of 0.05 Ah, one standard
    deviation, and forgetting likewise about 50 operations.

    Args:
        residuals_ah: (n,) measured minus predicted by a model that did not see the asset, Ah:
            from `intervals.out_of_group_predictions`.
        op_index: (n,) positions of the cycles.
        assets: (n,) whose cycles they are.

    Raises:
        DataError: when shapes disagree or a residual is missing.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> assets = np.repeat(np.arange(40), 30)
        >>> residuals = np.repeat(rng.normal(0, 0.06, 40), 30) + rng.normal(0, 0.01, 1200)
        >>> found = fit_residual_process(residuals, np.tile(np.arange(30), 40), assets)
        >>> bool(0.04 < found.offset_ah < 0.08), round(found.noise_ah, 2)
        (True, 0.01)
    """
    residuals = np.asarray(residuals_ah, dtype=np.float64)
    positions = np.asarray(op_index, dtype=np.float64)
    codes = group_codes(assets, residuals.size)
    if residuals.shape != positions.shape or not np.isfinite([residuals, positions]).all():
        raise DataError(
            f"residuals have shape {residuals.shape} and cycles {positions.shape}; expected a "
            "finite number of each per row"
        )
    series = _alike(positions, residuals, codes)
    start = np.log([_START_AH, _START_AH, _START_CYCLES, _START_AH])

    def loss(logarithms: NDArray[np.float64]) -> float:
        process = ResidualProcess(*np.exp(logarithms).tolist())
        away = (logarithms - start) / _PRIOR_SD
        total = 0.5 * float(away @ away)
        for at, off in series:
            factor = linalg.cholesky(_spread(process, at), lower=True)
            scaled = linalg.solve_triangular(factor, off, lower=True)
            explained = (scaled * scaled).sum(axis=0) / at.size
            total += off.shape[1] * float(np.log(np.diag(factor)).sum())
            total += 0.5 * at.size * float(np.log(explained + _LEAST).sum())
        return total

    bounds = [(each - 6.0, each + 6.0) for each in start]
    found = optimize.minimize(loss, start, method="L-BFGS-B", bounds=bounds)
    process = ResidualProcess(*np.exp(found.x).tolist())
    return process.times(
        float(np.median(np.concatenate([_levels(process, *each) for each in series])))
    )


def _alike(
    positions: Floats, residuals: Floats, codes: NDArray[np.intp]
) -> list[tuple[Floats, Floats]]:
    """Assets measured at the same distances, which share one covariance.

    Returns:
        Positions (m,), from 0, and the residuals (m, k) of the k assets that have them.
    """
    found: dict[bytes, tuple[Floats, list[Floats]]] = {}
    for code in np.unique(codes):
        rows = _spaced(np.flatnonzero(codes == code))
        at = positions[rows] - positions[rows[0]]
        found.setdefault(at.tobytes(), (at, []))[1].append(residuals[rows])
    return [(at, np.column_stack(off)) for at, off in found.values()]


def _spread(process: ResidualProcess, at: Floats) -> Floats:
    """Covariance of measurements (m,), noise included, (m, m)."""
    spread = process.covariance(at, at)
    spread[np.diag_indices_from(spread)] += process.noise_ah**2 + _JITTER
    return spread


def _levels(process: ResidualProcess, at: Floats, off: Floats) -> Floats:
    """How many times larger residuals (m, k) of k assets are than the process says, (k,)."""
    weighed = linalg.solve(_spread(process, at), off, assume_a="pos")
    explained: Floats = (off * weighed).sum(axis=0)
    return np.maximum(np.sqrt(explained / at.size), _LEAST)


def _spaced(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    chosen = np.unique(np.linspace(0, rows.size - 1, _CYCLES_PER_ASSET).astype(np.intp))
    return rows[chosen]
