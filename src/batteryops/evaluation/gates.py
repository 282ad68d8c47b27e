"""Gates: thresholds under named protocols that a model must pass, and the verdict with reasons."""

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Self

from batteryops.errors import DataError, SettingsError

if TYPE_CHECKING:
    from batteryops.settings import GateSettings

Facts = Mapping[str, Mapping[str, float]]
"""For each protocol, its metrics by name."""

BaselineFacts = Mapping[str, Mapping[str, Mapping[str, float]]]
"""For each protocol and each baseline, its metrics by name."""

_OPERATORS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<=": operator.le,  # before "<", of which it is an extension
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True, slots=True)
class Gate:
    """A threshold under a named protocol.

    Args:
        name: unique among the gates.
        protocol: where the metric was measured; `training` for facts of the fit itself.
        metric: which fact is compared.
        comparison: `<`, `<=`, `>` or `>=`.
        limit: a number, or the name of a baseline: the same metric of that baseline under the
            same protocol.
    """

    name: str
    protocol: str
    metric: str
    comparison: str
    limit: float | str

    @classmethod
    def parse(cls, settings: "GateSettings") -> Self:
        """Read the limit of a configured gate.

        Raises:
            SettingsError: when it is not an operator and a number or a baseline.

        Examples:
            >>> from batteryops.settings import GateSettings
            >>> gate = Gate.parse(GateSettings(
            ...     name="g", protocol="unseen_assets", metric="mae_ah", limit="< ridge"))
            >>> gate.comparison, gate.limit
            ('<', 'ridge')
        """
        text = settings.limit.strip()
        for comparison in _OPERATORS:
            if text.startswith(comparison):
                break
        else:
            raise SettingsError(_unreadable(settings))
        given = text.removeprefix(comparison).strip()
        limit: float | str = given
        if not given.replace("_", "").isalpha():
            try:
                limit = float(given)
            except ValueError as error:
                raise SettingsError(_unreadable(settings)) from error
        return cls(settings.name, settings.protocol, settings.metric, comparison, limit)

    @property
    def limit_text(self) -> str:
        """The limit as it is configured, such as `< 0.02` or `< ridge`."""
        limit = self.limit if isinstance(self.limit, str) else f"{self.limit:.10g}"
        return f"{self.comparison} {limit}"

    def holds(self, value: float, threshold: float) -> bool:
        """Whether the value is on the right side of the threshold."""
        return _OPERATORS[self.comparison](value, threshold)


@dataclass(frozen=True, slots=True)
class GateResult:
    """What one gate said.

    Args:
        name: of the gate.
        protocol: where the metric was measured.
        metric: which fact was compared.
        value: the fact; None where it is missing or not a finite number.
        limit_text: the limit as configured.
        threshold: the number compared with; None where it is missing.
        passed: False also when there was nothing to compare.
        reason: one sentence.
    """

    name: str
    protocol: str
    metric: str
    value: float | None
    limit_text: str
    threshold: float | None
    passed: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all gates said together."""

    results: tuple[GateResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate passed; without a gate nothing vouches for the model."""
        return bool(self.results) and all(result.passed for result in self.results)

    @property
    def failures(self) -> tuple[GateResult, ...]:
        """The gates that said no."""
        return tuple(result for result in self.results if not result.passed)

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why the verdict is no; empty when it is yes."""
        if not self.results:
            return ("no gate is configured, so nothing vouches for the model",)
        return tuple(result.reason for result in self.failures)

    def to_json(self) -> dict[str, Any]:
        """`passed` and `gates`, ready for `json.dumps`."""
        return {"passed": self.passed, "gates": [asdict(result) for result in self.results]}

    @classmethod
    def from_json(cls, given: object) -> Self:
        """Read what `to_json` wrote; `passed` follows from the gates and is checked.

        Raises:
            DataError: when it is not a verdict, or contradicts itself.
        """
        if not isinstance(given, Mapping) or not isinstance(given.get("gates"), list):
            raise DataError(f"not a verdict: given {given!r:.80}, expected `passed` and `gates`")
        try:
            verdict = cls(tuple(GateResult(**gate) for gate in given["gates"]))
        except TypeError as error:
            expected = ", ".join(GateResult.__dataclass_fields__)
            raise DataError(f"not a gate's result: {error}; expected {expected}") from error
        if verdict.passed is not given.get("passed"):
            raise DataError(
                f"the verdict says passed = {given.get('passed')!r} but its gates say "
                f"{verdict.passed}: it was changed since it was written"
            )
        return verdict


def judge(gates: Iterable[Gate], facts: Facts, baselines: BaselineFacts) -> Verdict:
    """Apply gates to what was measured.

    A gate fails, with the reason, when its fact or its baseline is missing or not a finite number.

    Args:
        gates: in the order of the report.
        facts: metrics by protocol.
        baselines: metrics of baselines by protocol.

    Raises:
        SettingsError: when two gates share a name.

    Examples:
        >>> gates = [
        ...     Gate("mae", "random", "mae_ah", "<", 0.020),
        ...     Gate("honest", "unseen_assets", "mae_ah", "<", "ridge"),
        ... ]
        >>> facts = {"random": {"mae_ah": 0.018}, "unseen_assets": {"mae_ah": 0.31}}
        >>> baselines = {"unseen_assets": {"ridge": {"mae_ah": 0.27}}}
        >>> judge(gates, facts, baselines).reasons
        ('honest: unseen_assets mae_ah is 0.31, expected < ridge (0.27)',)
    """
    gates = tuple(gates)
    names = [gate.name for gate in gates]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"gates share a name: {', '.join(twice)}; each needs its own")
    return Verdict(tuple(_judge_one(gate, facts, baselines) for gate in gates))


def _judge_one(gate: Gate, facts: Facts, baselines: BaselineFacts) -> GateResult:
    value, trouble = _look_up(gate.metric, facts, gate.protocol)
    threshold: float | None
    if isinstance(gate.limit, str):
        threshold, no_limit = _look_up(
            gate.metric, baselines.get(gate.protocol, {}), gate.limit, what="baseline "
        )
        trouble = trouble or (f"{gate.protocol} {no_limit}" if no_limit else "")
    else:
        threshold = gate.limit
    passed = False
    if value is None or threshold is None:
        reason = f"{gate.name}: {trouble}; cannot judge {gate.metric} {gate.limit_text}"
    else:
        passed = gate.holds(value, threshold)
        beside = f" ({threshold:.6g})" if isinstance(gate.limit, str) else ""
        expected = f"{'as ' if passed else ''}expected {gate.limit_text}{beside}"
        reason = f"{gate.name}: {gate.protocol} {gate.metric} is {value:.6g}, {expected}"
    return GateResult(
        name=gate.name,
        protocol=gate.protocol,
        metric=gate.metric,
        value=value,
        limit_text=gate.limit_text,
        threshold=threshold,
        passed=passed,
        reason=reason,
    )


def _look_up(
    metric: str, facts: Mapping[str, Mapping[str, float]], key: str, what: str = ""
) -> tuple[float | None, str]:
    """The finite number under facts[key][metric], or None and what is wrong."""
    if key not in facts:
        return None, f"{what}{key} was not evaluated (there is {', '.join(facts) or 'nothing'})"
    if metric not in facts[key]:
        return None, f"{what}{key} has no {metric} (there is {', '.join(facts[key]) or 'nothing'})"
    value = facts[key][metric]
    if not math.isfinite(value):
        return None, f"{what}{key} {metric} is {value}, not a finite number"
    return float(value), ""


def _unreadable(settings: "GateSettings") -> str:
    return (
        f"gate {settings.name}: limit {settings.limit!r}; expected an operator "
        f"({', '.join(_OPERATORS)}) and a number or the name of a baseline, such as '< 0.02'"
    )
