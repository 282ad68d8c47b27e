"""What was found out about models, as tables: results, tournament, leakage, gates."""

import math
from typing import TYPE_CHECKING

from batteryops.cli import terminal

if TYPE_CHECKING:
    from collections.abc import Iterable

    from batteryops.evaluation.gates import Verdict
    from batteryops.evaluation.protocol_run import ProtocolResult
    from batteryops.lifecycle.leakage import ViewLeakage
    from batteryops.lifecycle.tournament import Tournament
    from batteryops.models.search import Found


def show_results(results: "Iterable[ProtocolResult]") -> None:
    """Print protocols with their baselines."""
    rows: list[list[object]] = []
    for result in results:
        interval = result.intervals["mae_ah"]
        rows.append(
            [
                terminal.styled(result.protocol, "bold"),
                terminal.styled("model", "bold"),
                result.metrics.mae_ah,
                f"{interval.low:.3g} to {interval.high:.3g}",
                result.metrics.mae_soh_points,
                result.metrics.rmse_ah,
                result.metrics.r2,
                f"{result.metrics.worst_asset} {result.metrics.worst_asset_mae_ah:.3g}",
                covered(result),
                result.n_train,
                result.n_test,
            ]
        )
        rows.extend(
            [
                "",
                terminal.styled(name.replace("_", " "), "dim"),
                metrics.mae_ah,
                "",
                metrics.mae_soh_points,
                metrics.rmse_ah,
                metrics.r2,
                f"{metrics.worst_asset} {metrics.worst_asset_mae_ah:.3g}",
                "",
                "",
                metrics.n,
            ]
            for name, metrics in result.baselines.items()
        )
    terminal.table(
        "evaluation",
        [
            "protocol",
            "by",
            "MAE Ah",
            "interval",
            "MAE SoH points",
            "RMSE Ah",
            "R2",
            "worst asset, MAE Ah",
            "90 % intervals hold, mean battery; width Ah",
            "train rows",
            "test rows",
        ],
        rows,
        spare=["RMSE Ah", "train rows", "MAE SoH points", "test rows", "worst asset, MAE Ah"],
    )


def show_tournament(tournament: "Tournament") -> None:
    """Print who entered, the best first."""
    rows: list[list[object]] = []
    for place, (name, result) in enumerate(tournament.results.items(), 1):
        interval = result.intervals["mae_ah"]
        rows.append(
            [
                place,
                terminal.styled(name, "bold" if name == tournament.winner else ""),
                tournament.family(name),
                result.metrics.mae_ah,
                f"{interval.low:.3g} to {interval.high:.3g}",
                result.metrics.rmse_ah,
                result.metrics.r2,
                f"{result.metrics.worst_asset} {result.metrics.worst_asset_mae_ah:.3g}",
            ]
        )
    terminal.table(
        f"tournament under {tournament.protocol}",
        [
            "place",
            "entrant",
            "family",
            "MAE Ah",
            "interval",
            "RMSE Ah",
            "R2",
            "worst asset, MAE Ah",
        ],
        rows,
        spare=["RMSE Ah", "worst asset, MAE Ah", "interval", "family"],
    )
    terminal.say(f"the stack on all rows: {tournament.stack}")


def show_search(found: "Found") -> None:
    """Print what a search found on all rows."""
    values = ", ".join(f"{name} {value:.4g}" for name, value in found.values.items())
    terminal.say(
        f"search on groups held out of all rows: {terminal.counted(found.trials, 'trial')} and "
        f"{found.pruned} given up early, MAE {found.mae_ah:.4g} Ah, {found.default_mae_ah:.4g} Ah "
        f"with the defaults; {values or 'the defaults stay'}"
    )


def covered(result: "ProtocolResult") -> str:
    """Share of a battery's cycles inside their intervals, mean over batteries, and the width."""
    found = result.coverage
    return f"{found.asset_coverage:.1%} {found.interval_width_ah:.3g}" if found else ""


def show_leakage(leakage: "ViewLeakage") -> None:
    """Print what gives the label away, what came closest, and what could not be checked."""
    report = leakage.report
    if not report.findings:
        terminal.say(leakage_line(leakage))
    else:
        _show_findings(leakage_line(leakage), leakage)
    if report.closest:
        line = report.closest[0]
        terminal.say(f"closest that is no finding: {line.formula}, R2 {line.r2:.5f}")
    if report.sparse:
        sparse = ", ".join(report.sparse)
        terminal.note(f"too few values to compare: {sparse}")
    for sentence in report.unchecked:
        terminal.note(sentence)


def leakage_line(leakage: "ViewLeakage") -> str:
    """How much gives the label away, and whether it may."""
    claim = "claims to be free of leakage" if leakage.leak_free else "makes no claim"
    found = len(leakage.report.findings)
    return f"leakage: {found} found; {leakage.view} v{leakage.version} {claim}"


def _show_findings(title: str, leakage: "ViewLeakage") -> None:
    terminal.table(
        title,
        ["what", "features", "statistic", "limit", "assets", "what it says"],
        [
            [
                terminal.styled(finding.kind, "red" if leakage.leak_free else "yellow"),
                ", ".join(finding.features),
                "-" if math.isnan(finding.statistic) else f"{finding.statistic:.5f}",
                finding.limit,
                len(finding.assets),
                finding.message,
            ]
            for finding in leakage.report.findings
        ],
    )


def show_verdict(verdict: "Verdict") -> None:
    """Print gates, one a row, with the reason."""
    terminal.table(
        terminal.styled("gates passed", "green")
        if verdict.passed
        else terminal.styled("gates failed", "red"),
        ["gate", "protocol", "metric", "value", "limit", "", "reason"],
        [
            [
                gate.name,
                gate.protocol,
                gate.metric,
                "-" if gate.value is None else gate.value,
                gate.limit_text,
                terminal.styled("pass", "green") if gate.passed else terminal.styled("FAIL", "red"),
                gate.reason,
            ]
            for gate in verdict.results
        ],
        spare=["reason", "gate"] if verdict.passed else ["metric", "protocol", "limit", "value"],
    )
