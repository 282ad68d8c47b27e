"""What was measured of serving: tables for a person, a document for programs."""

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from benchmarks.serving.model import DEPTH, TREES
from benchmarks.serving.peers import BARE, EMPTY, OURS, PEERS
from benchmarks.serving.run import AT_HALF_LOAD, CONNECTIONS, MORE_CONNECTIONS, Found, Plan

from batteryops.cli.terminal import say, table

MODEL_SERVERS: Final = ("mlflow", "mlserver")


def goals(found: Found) -> list[dict[str, Any]]:
    """The measures that are promised: what it is, the value, floor and goal, what came of it."""

    def least(what: str, value: float | None, floor: float, goal: float) -> dict[str, Any]:
        return _goal(what, value, floor, goal, lambda given, limit: given >= limit)

    def most(what: str, value: float | None, floor: float, goal: float) -> dict[str, Any]:
        return _goal(what, value, floor, goal, lambda given, limit: given <= limit)

    lines = [least(f"answers a second, times {BARE}", found.ratio(OURS, BARE), 1.2, 2.5)]
    lines += [
        least(f"answers a second, times {name}", found.ratio(OURS, name), 10.0, 20.0)
        for name in MODEL_SERVERS
    ]
    lines += [
        least("share of the empty app's", found.ratio(OURS, EMPTY), 0.2, 0.4),
        most("p99 at half of the maximum, ms", found.steady_p99_ms(OURS), 10.0, 3.0),
        least(
            "Arrow batch, share of in-process rows/s",
            found.batch.share if found.batch else None,
            0.6,
            0.85,
        ),
    ]
    return lines


def _goal(
    what: str,
    value: float | None,
    floor: float,
    goal: float,
    meets: Callable[[float, float], bool],
) -> dict[str, Any]:
    if value is None:
        verdict = "not measured"
    elif meets(value, goal):
        verdict = "goal met"
    else:
        verdict = "floor met" if meets(value, floor) else "MISSED"
    return {"what": what, "value": value, "floor": floor, "goal": goal, "verdict": verdict}


def to_json(found: Found, plan: Plan) -> dict[str, Any]:
    """As a JSON document."""
    return {
        "cores": os.cpu_count(),
        "model": {"trees": TREES, "depth": DEPTH},
        "plan": asdict(plan),
        "goals": goals(found),
        "loads": [
            {"peer": name, "connections": connections, "rounds": [asdict(load) for load in rounds]}
            for (name, connections), rounds in found.loads.items()
        ],
        "at_half_load": {
            name: [asdict(one) for one in rounds] for name, rounds in found.steady.items()
        },
        "batch": asdict(found.batch) if found.batch else None,
        "missing": found.missing,
        "broken": found.broken,
    }


def show(found: Found) -> None:
    """As tables for a person."""
    names = [name for name in PEERS if (name, CONNECTIONS) in found.loads]
    table(
        f"single predictions, {TREES} trees of depth {DEPTH}, one worker on one core, "
        f"{CONNECTIONS} connections",
        [
            "",
            "what",
            "req/s",
            "spread",
            "p50 ms",
            "p99 ms",
            "CPU us",
            "failed",
            "ours is",
            "of empty",
        ]
        + [f"req/s at {more}" for more in MORE_CONNECTIONS],
        [
            [
                name,
                PEERS[name].what,
                _text(found.per_s(name), "{:,.0f}"),
                _text(found.spread(name), "{:.0%}"),
                _text(found.p50_ms(name), "{:.2f}"),
                _text(found.p99_ms(name), "{:.2f}"),
                _text(found.cpu_us(name), "{:.0f}"),
                found.failed(name),
                _text(found.ratio(OURS, name), "{:.2f}x"),
                _text(found.cpu_ratio(OURS, name), "{:.2f}x"),
                _text(found.ratio(name, EMPTY), "{:.1%}"),
                *(_text(found.per_s(name, more), "{:,.0f}") for more in MORE_CONNECTIONS),
            ]
            for name in names
        ],
    )
    if found.steady:
        table(
            "constant rate of arrivals, half of each one's maximum",
            ["", "asked/s", "answered/s", "p50 ms", "p99 ms", "failed"],
            [
                [
                    name,
                    _text(rounds[0].asked_per_s, "{:,.0f}"),
                    *_middle([one.per_s for one in rounds], "{:,.0f}"),
                    *_middle([one.p50_ms for one in rounds], "{:.2f}"),
                    *_middle([one.p99_ms for one in rounds], "{:.2f}"),
                    sum(one.failed for one in rounds),
                ]
                for name in AT_HALF_LOAD
                if (rounds := found.steady.get(name))
            ],
        )
    if found.batch:
        batch = found.batch
        table(
            f"{batch.rows:,} rows over Arrow",
            ["over HTTP s", "in process s", "share"],
            [[f"{batch.ours_s:.2f}", f"{batch.in_process_s:.2f}", f"{batch.share:.0%}"]],
        )
    table(
        "what is promised",
        ["measure", "value", "floor", "goal", ""],
        [
            [
                line["what"],
                _text(line["value"], "{:.2f}"),
                f"{line['floor']:g}",
                f"{line['goal']:g}",
                line["verdict"],
            ]
            for line in goals(found)
        ],
    )
    for name, reason in found.broken.items():
        say(f"{name} was not measured: {reason}", label="note", style="yellow")
    if found.missing:
        say(
            f"not installed: {', '.join(found.missing)}; install with "
            f"`python -m benchmarks.serving.setup {' '.join(found.missing)}`",
            label="note",
            style="yellow",
        )


def _middle(values: Sequence[float], form: str) -> list[str]:
    return [form.format(sorted(values)[len(values) // 2])]


def _text(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)
