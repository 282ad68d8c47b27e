"""What stands beside accuracy: intervals, leakage, the tournament, packs, trips, compression."""

from collections.abc import Mapping
from typing import Final
from warnings import catch_warnings, simplefilter

from benchmarks.results.accuracy import WITH_INTERVALS, Accuracy
from benchmarks.results.markdown import between, number, section, signed, table
from sklearn.exceptions import ConvergenceWarning

from batteryops.features.views import get_view
from batteryops.lifecycle.compression import Compression, compress
from batteryops.lifecycle.evaluation import algorithm_for, nominal_capacities
from batteryops.lifecycle.fleet_diagnosis import diagnose
from batteryops.lifecycle.fleet_findings import PUBLISHED as PUBLISHED_CORRELATION
from batteryops.lifecycle.fleet_findings import Diagnosis
from batteryops.lifecycle.leakage import ViewLeakage, check_view
from batteryops.lifecycle.packs import PUBLISHED as PUBLISHED_PACKS
from batteryops.lifecycle.packs import PackEvaluation
from batteryops.lifecycle.preparation import Prepared
from batteryops.lifecycle.progress import Progress
from batteryops.lifecycle.tournament import Tournament, run_tournament
from batteryops.settings import Settings

COVERED: Final = (0.88, 0.94)
"""What intervals of 90 percent must cover on batteries never seen."""

COMPRESSED_ON: Final = "discharge_summary"
COMPRESSED_UNDER: Final = "random"
TOURNAMENT_ON: Final = "discharge_physics"


def intervals_section(found: Accuracy, settings: Settings) -> list[str]:
    """Coverage and width of each view's configured algorithm."""
    low, high = COVERED
    rows = []
    for view, models in found.results.items():
        algorithm = algorithm_for(get_view(view), settings)
        for protocol in WITH_INTERVALS:
            one = models[algorithm][protocol].coverage
            if one is None:
                continue
            shares = (one.asset_coverage, one.interval_coverage)
            inside = (one.in_domain_asset_coverage, one.in_domain_coverage)
            rows.append(
                [
                    f"`{view}`",
                    f"`{protocol}`",
                    algorithm,
                    *(
                        f"{share:.1%}{'' if low <= share <= high else ' (missed)'}"
                        for share in (*shares, *inside)
                    ),
                    f"{one.in_domain_share:.1%}",
                    one.interval_width_ah,
                    one.in_domain_width_ah,
                ]
            )
    return [
        *section(
            "Intervals",
            "Prediction intervals of 90 percent around the algorithm that the configuration has "
            "for the view, calibrated on whole groups: in every fold anew, on groups held out of "
            "that fold's training rows one by one, as `evaluate` does and as a package has it. "
            f"Aim: {low:.0%} to {high:.0%} on batteries never seen. Coverage of cycles lets "
            "batteries of long life decide: three of 27 have 30 percent of the cycles. Coverage of "
            "batteries is the mean over them of the share of each one's cycles; in calibration, "
            "too, each group weighs the same. Where a row is unlike training, the answer says out "
            "of domain and its interval is the whole range that the profile allows, which nearly "
            "always holds the measurement: the columns in domain leave such rows out.",
            command="`batteryops evaluate --source nasa --view VIEW --json`.",
        ),
        *table(
            (
                "view",
                "protocol",
                "by",
                "all rows: batteries",
                "all rows: cycles",
                "in domain: batteries",
                "in domain: cycles",
                "share in domain",
                "mean width (Ah)",
                "width in domain (Ah)",
            ),
            rows,
            text=3,
        ),
    ]


def measure_leakage(
    prepared: Mapping[str, Prepared], settings: Settings, progress: Progress
) -> list[ViewLeakage]:
    """The checks on every view."""
    found = []
    for view, one in prepared.items():
        progress.step(f"{view}: look for leakage")
        nominal_ah = nominal_capacities(one.table, settings)
        found.append(
            check_view(one.table, one.view, recording=one.recording, nominal_ah=nominal_ah)
        )
    return found


def leakage_section(found: list[ViewLeakage]) -> list[str]:
    """What was found on each view, and how near the rest comes."""
    lines = section(
        "Leakage",
        "Features, products and ratios of two from which the label can be rebuilt per cell by a "
        "line (R² above 0.999), and features that change when later cycles are taken away.",
        command="`batteryops evaluate --source nasa --view VIEW --leakage`.",
    )
    rows = []
    for one in found:
        closest = one.report.closest[0] if one.report.closest else None
        near = f"{closest.kind} of {', '.join(closest.features)}" if closest else "-"
        rows.append(
            [
                f"`{one.view}`",
                "yes" if one.leak_free else "no",
                str(len(one.report.findings)),
                str(one.report.n_lines),
                str(one.report.n_recomputed),
                near,
                f"{closest.r2:.5f}" if closest else "-",
            ]
        )
    lines += table(
        (
            "view",
            "claims to be leak-free",
            "findings",
            "lines compared",
            "rows recomputed",
            "closest that is no finding",
            "R² of that",
        ),
        rows,
        text=2,
    )
    for one in found:
        if one.report.findings:
            lines += ["", f"`{one.view}`:", ""]
            lines += [f"- {finding.message}" for finding in one.report.findings]
    return lines


def measure_tournament(
    prepared: Mapping[str, Prepared], settings: Settings, progress: Progress
) -> Tournament:
    """Every algorithm on one view."""
    one = prepared[TOURNAMENT_ON]
    with catch_warnings():
        simplefilter("ignore", ConvergenceWarning)  # how far a fit got, its error tells
        return run_tournament(one.table, one.view, settings, progress)


def tournament_section(found: Tournament, settings: Settings) -> list[str]:
    """Every entrant, the best first."""
    shares = ", ".join(
        f"{name} {share:.0%}"
        for name, share in zip(found.stack.members, found.stack.weights, strict=True)
    )
    rules = settings.tournament
    return [
        *section(
            f"Tournament, {TOURNAMENT_ON}",
            f"Every algorithm with its defaults under `{found.protocol}` in {rules.folds} folds "
            "of groups, no search. `stack` combines the best "
            f"{rules.combined}, chosen and weighed anew in every fold on groups held out of its "
            f"training rows. On all rows it would be {shares}.",
            command=f"`batteryops train --source nasa --view {TOURNAMENT_ON} --tournament`.",
        ),
        *table(
            (
                "algorithm",
                "family",
                "MAE (Ah)",
                "interval",
                "RMSE (Ah)",
                "R²",
                "worst cell (MAE, Ah)",
            ),
            (
                [
                    name,
                    found.family(name),
                    result.metrics.mae_ah,
                    between(result.intervals["mae_ah"].low, result.intervals["mae_ah"].high),
                    result.metrics.rmse_ah,
                    result.metrics.r2,
                    f"{result.metrics.worst_asset} ({number(result.metrics.worst_asset_mae_ah)})",
                ]
                for name, result in found.results.items()
            ),
            text=2,
        ),
    ]


def packs_section(found: PackEvaluation) -> list[str]:
    """Every pack, and what the errors are beside."""
    by = (
        ("one segment of 0.1 V", found.errors),
        ("charge of the segment over its mean share", found.ratio),
        ("mean of the other packs", found.baseline),
    )
    return [
        *section(
            "Packs in service",
            "SoH in points of rated capacity from one charging segment of 0.1 V of mean cell "
            "voltage, each pack estimated by what the others tell, the choice of the segment "
            "included.",
            command="`batteryops packs evaluate FOLDER`, the folder of in-service packs.",
        ),
        *table(
            ("pack", "from (V)", "measured", "estimated", "interval", "error", "mean of others"),
            (
                [
                    one.asset_id,
                    "-" if one.start_v is None else f"{one.start_v:.2f}",
                    f"{one.measured_points:.1f}",
                    "-" if one.soh_points is None else f"{one.soh_points:.1f}",
                    "-"
                    if one.low_points is None or one.high_points is None
                    else f"{one.low_points:.1f} to {one.high_points:.1f}",
                    signed(one.error_points, 1),
                    f"{one.baseline_points:.1f}",
                ]
                for one in found.answers
            ),
        ),
        *table(
            ("by", "MAE", "RMSE", "bias", "largest", "packs"),
            [
                *(
                    [
                        name,
                        f"{one.mae_points:.2f}",
                        f"{one.rmse_points:.2f}",
                        signed(one.bias_points),
                        f"{one.largest_points:.2f}",
                        str(one.n_packs),
                    ]
                    for name, one in by
                ),
                [
                    f"published: {PUBLISHED_PACKS['source']}",
                    PUBLISHED_PACKS["mae_points"],
                    PUBLISHED_PACKS["rmse_points"],
                    "-",
                    "-",
                    "10",
                ],
            ],
        ),
        "",
        f"Intervals hold {found.coverage:.0%} of the packs; made for {found.nominal_coverage:.0%}.",
        *(f"- {note}" for note in found.notes),
    ]


def fleet_section(found: Diagnosis) -> list[str]:
    """Correlations and the verdict of the domain check."""
    named = [(f"{one.lab}, as published", one) for one in found.repeated]
    named.append(
        (f"closest to published: {found.closest.lab}, {found.closest.mapping}", found.closest)
    )
    rows: list[list[object]] = [
        [
            "published",
            signed(PUBLISHED_CORRELATION.pearson),
            signed(PUBLISHED_CORRELATION.spearman),
            str(PUBLISHED_CORRELATION.n),
        ]
    ]
    rows += [
        [name, signed(one.found.pearson, 3), signed(one.found.spearman, 3), str(one.found.n)]
        for name, one in named
    ]
    lines = [
        *section(
            "Lab to fleet",
            "The source system applied its model of NASA cells to trips of five vehicles. Repeated "
            "here with `discharge_summary`: predicted health against temperature rise. An aged "
            "battery warms more, so that the correlation should be negative.",
            command="`batteryops fleet diagnose`.",
        ),
        *table(("lab model", "Pearson", "Spearman", "trips"), rows),
        "",
        (
            f"{found.wrong_signs} of {len(found.mappings)} ways to give trips the names of the "
            "lab's features have the wrong sign by both correlations. The training domain:"
        ),
    ]
    lines += table(
        (
            "trips given as",
            "trips",
            "inside",
            "unlike in all features together",
            "median distance (limit)",
        ),
        (
            [
                str(one.mapping),
                str(one.n),
                str(one.inside),
                str(one.joint),
                f"{number(one.median_distance)} ({number(one.limit)})",
            ]
            for one in found.domain
        ),
    )
    return [*lines, "", *(f"- {reason}" for reason in found.reasons)]


def measure_fleet(settings: Settings, progress: Progress) -> Diagnosis:
    """The lab model on the published trips."""
    progress.step("the lab model on trips")
    return diagnose(settings, progress)


def measure_compression(found: Accuracy, settings: Settings, progress: Progress) -> Compression:
    """Every way to compress, on one view under one protocol."""
    return compress(found.prepared[COMPRESSED_ON], settings, [COMPRESSED_UNDER], progress)


def compression_section(found: Compression) -> list[str]:
    """What each variant costs and buys."""
    rows = []
    for one in found.variants:
        scored = one.evaluated[COMPRESSED_UNDER]
        change = scored.change
        ends = change and (1000 * change.interval.low, 1000 * change.interval.high)
        rows.append(
            [
                one.variant.name,
                str(one.shape.depth),
                str(len(one.features)),
                scored.result.metrics.mae_ah,
                signed(1000 * change.mae_ah) if change else "",
                f"{signed(ends[0])} to {signed(ends[1])}" if ends else "",
                *(
                    f"{size / 1000:.0f}"
                    for size in (one.sizes.booster, one.sizes.onnx, one.sizes.compact)
                ),
                f"{one.speed.row_median_us:.1f}",
                f"{one.speed.row_p99_us:.1f}",
                f"{one.speed.rows_per_s / 1000:.0f}",
            ]
        )
    return [
        *section(
            f"Compression, {COMPRESSED_ON}",
            f"Depth 9 to 7, the five best features, float16 leaves, and all of their combinations; "
            f"accuracy under `{COMPRESSED_UNDER}`, where a deep model is worth most; sizes and "
            "speeds of models fitted on all rows, one thread, in turns. Change: mean absolute "
            "error less the full model's on the same rows, interval over cells.",
            command=f"`batteryops compress --source nasa --view {COMPRESSED_ON} "
            f"--protocol {COMPRESSED_UNDER}`.",
        ),
        *table(
            (
                "variant",
                "depth",
                "features",
                "MAE (Ah)",
                "change (mAh)",
                "interval (mAh)",
                "UBJ (kB)",
                "ONNX (kB)",
                "compact (kB)",
                "row, median (µs)",
                "row, p99 (µs)",
                "thousand rows/s in batches",
            ),
            rows,
        ),
    ]
