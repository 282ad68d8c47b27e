"""The table of drift."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.drift.run import Line

from batteryops.cli.terminal import table


def show(lines: Sequence[Line]) -> None:
    """For people."""
    table(
        "drift",
        ["what", "", "", "ours is", "floor", "goal", ""],
        [
            [
                line.what,
                "not measured" if line.value is None else f"{line.value:.3g}",
                line.unit,
                "" if line.ours_is is None else f"{line.ours_is:.3g}x",
                "" if line.floor is None else f"{line.floor:g}",
                "" if line.goal is None else f"{line.goal:g}",
                line.verdict,
            ]
            for line in lines
        ],
    )


def to_json(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """For programs."""
    return [asdict(line) | {"verdict": line.verdict} for line in lines]
