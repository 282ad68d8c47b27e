"""Hold a feature view to what it claims: the checks for leakage, and the gate that they make."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import polars as pl

from batteryops.evaluation.gates import GateResult
from batteryops.evaluation.leakage import LeakageReport, changed_by_later_cycles, check_leakage
from batteryops.features.views import FeatureView, feature_table
from batteryops.schema import Recording

GATE: Final = "leak_free"
PROTOCOL: Final = "leakage"
"""Where facts on leakage stand for gates: `findings` and `unchecked`, how many of each."""

NAMED: Final = 3
"""How many findings the gate's reason names before it says that there are more."""


@dataclass(frozen=True, slots=True)
class ViewLeakage:
    """What was found on a view, beside what it claims.

    Args:
        view: its name.
        version: its version.
        leak_free: whether it claims to be free of leakage.
        report: what the checks found.
    """

    view: str
    version: int
    leak_free: bool
    report: LeakageReport

    @property
    def broken(self) -> bool:
        """Whether the view claims to be free of leakage, and something was found."""
        return self.leak_free and bool(self.report.findings)

    @property
    def facts(self) -> dict[str, float]:
        """Numbers for gates and for the run's metrics."""
        return {
            "findings": float(len(self.report.findings)),
            "unchecked": float(len(self.report.unchecked)),
        }

    @property
    def gates(self) -> tuple[GateResult, ...]:
        """The gate of a view that claims to be free of leakage; others have none.

        It says no too where something could not be checked: nothing then vouches for the claim.
        """
        if not self.leak_free:
            return ()
        return (
            GateResult(
                name=GATE,
                protocol=PROTOCOL,
                metric="findings",
                value=self.facts["findings"],
                limit_text="<= 0",
                threshold=0.0,
                passed=self.report.clean,
                reason=f"{GATE}: view {self.view} claims to be free of leakage; {self._reason()}",
            ),
        )

    def _reason(self) -> str:
        if self.report.clean:
            return (
                f"nothing was found among {self.report.n_lines} features, products and ratios, "
                f"nor on {self.report.n_recomputed} rows recomputed without later cycles"
            )
        said = [finding.message for finding in self.report.findings]
        more = len(said) - NAMED
        said = said[:NAMED] + ([f"and {more} more findings"] if more > 0 else [])
        return "; ".join([*said, *self.report.unchecked])

    def to_json(self) -> dict[str, Any]:
        """As a JSON document."""
        return {
            "view": self.view,
            "version": self.version,
            "leak_free": self.leak_free,
            **self.report.to_json(),
        }


def check_view(
    table: pl.DataFrame,
    view: FeatureView,
    *,
    recording: Recording | None,
    nominal_ah: Mapping[str, float],
) -> ViewLeakage:
    """Run the checks on a view's feature table.

    Args:
        table: `asset_id`, the view's features, `capacity_ah`.
        view: what computed the features.
        recording: the cycles, for computing features again without later ones; None when the
            features were given as a table.
        nominal_ah: nominal capacity of every asset.

    Raises:
        DataError: the table lacks a feature.
        UnknownAssetError: an asset without nominal capacity.
    """
    later = None
    if recording is not None:
        later = changed_by_later_cycles(
            recording, lambda history: feature_table(view, history), view.names
        )
    report = check_leakage(
        table,
        view.names,
        units={feature.name: feature.unit for feature in view.features},
        nominal_ah=nominal_ah,
        later=later,
    )
    return ViewLeakage(view.name, view.version, view.leak_free, report)
