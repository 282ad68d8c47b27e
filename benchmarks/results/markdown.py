"""Markdown as the results page writes it."""

import math
from collections.abc import Iterable, Sequence


def number(value: float | None) -> str:
    """Three figures that mean something; a dash where nothing is known."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.3g}"


def signed(value: float | None, digits: int = 2) -> str:
    """With its sign."""
    return "-" if value is None or not math.isfinite(value) else f"{value:+.{digits}f}"


def between(low: float, high: float) -> str:
    """Both ends of an interval."""
    return f"{number(low)} to {number(high)}"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, text: int = 1) -> list[str]:
    """A table with an empty line before it.

    Args:
        headings: of the columns.
        rows: cells; numbers are written as `number` does.
        text: so many columns, from the left, hold words and stand left.
    """
    columns = len(headings)
    return [
        "",
        _line(headings),
        _line(["---"] * text + ["---:"] * (columns - text)).replace(" ", ""),
        *(_line([_cell(value) for value in row]) for row in rows),
    ]


def section(title: str, *paragraphs: str, command: str | None = None) -> list[str]:
    """A heading, paragraphs, and the command that repeats what follows."""
    lines = ["", f"## {title}"]
    for paragraph in paragraphs:
        lines += ["", paragraph]
    return [*lines, "", f"Command: {command}"] if command else lines


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    return number(value) if isinstance(value, float) else str(value)
