"""What a person sees: tables and progress with colour, errors in one line, JSON for machines."""

import json
import math
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    from batteryops.lifecycle.progress import Progress

NEVER_WRAPPED: Final = 24
"""Columns whose widest cell has so many characters stay on one line where there is room."""

_NUMBER: Final = re.compile(r"[-+<]?[0-9][0-9.,]*(e[-+]?[0-9]+)?%?|-|")
"""What stands right in a table when a whole column is of it, and is never broken in two."""


def console(*, stderr: bool = False) -> "Console":
    """A Rich console; where the output is no terminal, as wide as COLUMNS says, or 160."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    wide = None if stream.isatty() or "COLUMNS" in os.environ else 160
    return Console(file=stream, width=wide, highlight=False)


def print_json(document: object) -> None:
    """One JSON document on standard output, keys in the order given; NaN becomes null."""
    sys.stdout.write(json.dumps(_plain(document), indent=2, allow_nan=False) + "\n")


def _plain(value: Any) -> Any:  # noqa: ANN401 - any JSON document
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)


def say(message: str, *, label: str = "", style: str = "") -> None:
    """A line for a person, on standard error, so that standard output stays the result.

    Args:
        message: printed as it is.
        label: stands before it, in `style`.
        style: a Rich style such as `green`.
    """
    from rich.text import Text

    text = Text.assemble((f"{label}: ", style) if label else "", message)
    console(stderr=True).print(text, soft_wrap=True)


def note(message: str) -> None:
    """A line on standard error that qualifies the result."""
    say(message, label="note", style="yellow")


def styled(text: str, style: str) -> "Text":
    """A cell or a title in colour."""
    from rich.text import Text

    return Text(text, style=style)


def table(
    title: "str | Text",
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    spare: Sequence[str] = (),
) -> None:
    """Print a table; numbers stand right, text is printed as it is, `styled` text in colour.

    Where the terminal is too narrow, text is broken between words before any number is cut.

    Args:
        title: stands above it.
        columns: their headings.
        rows: cells in the order of `columns`.
        spare: columns to give up, in this order, where the terminal is too narrow for all; a line
            says which are not shown.
    """
    from rich.table import Table

    out = console()
    cells = [[_cell(value) for value in row] for row in rows]
    texts = [[str(row[at]) for row in cells] for at in range(len(columns))]
    headings = [
        textwrap.wrap(column, max(_widest(own), _longest_word([column]), 1)) or [""]
        for column, own in zip(columns, texts, strict=True)
    ]
    widths = [
        max(min(_widest(own), NEVER_WRAPPED), _widest(heading))
        for own, heading in zip(texts, headings, strict=True)
    ]
    shown = list(range(len(columns)))
    for name in spare:
        if _framed(widths[at] for at in shown) > out.width:
            shown.remove(columns.index(name))
    numeric = [all(map(_NUMBER.fullmatch, own)) and bool(own) for own in texts]
    least = [
        width if right else min(width, _longest_word([*own, *heading]))
        for width, right, own, heading in zip(widths, numeric, texts, headings, strict=True)
    ]
    narrowed = _narrow(widths, least, shown, out.width)
    fits = (
        _framed(narrowed[at] for at in shown) <= out.width
    )  # else even numbers are broken, not cut
    grid = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for at in shown:
        kept = narrowed[at] == widths[at]
        grid.add_column(
            "\n".join(headings[at]) if kept else columns[at],
            justify="right" if numeric[at] else "left",
            overflow="fold",
            no_wrap=fits and kept and _widest(texts[at]) <= NEVER_WRAPPED,
            width=None if kept else narrowed[at],
        )
    for row in cells:
        grid.add_row(*(row[at] for at in shown))
    out.print(grid)
    hidden = [name for at, name in enumerate(columns) if at not in shown]
    if hidden:
        say(f"a wider terminal also shows {', '.join(hidden)}; --json has everything")


def _narrow(widths: list[int], least: list[int], shown: list[int], width: int) -> list[int]:
    """Column widths at which a table fits, the widest narrowed first, none below its least."""
    narrowed = list(widths)
    while _framed(narrowed[at] for at in shown) > width:
        can = [at for at in shown if narrowed[at] > least[at]]
        if not can:
            break
        narrowed[max(can, key=narrowed.__getitem__)] -= 1
    return narrowed


def _framed(widths: Iterable[int]) -> int:
    """Width of a table whose columns are so wide: each has a line and two spaces, one line ends."""
    return sum(width + 3 for width in widths) + 1


def _widest(texts: Iterable[str]) -> int:
    return max(map(len, texts), default=0)


def _longest_word(texts: Iterable[str]) -> int:
    return _widest(word for text in texts for word in text.split())


def counted(number: int, noun: str) -> str:
    """A number and its noun.

    Examples:
        >>> counted(1, "answer"), counted(2, "answer")
        ('1 answer', '2 answers')
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _cell(value: object) -> "Text":
    from rich.text import Text

    if isinstance(value, Text):
        return value
    if isinstance(value, float):
        return Text("-" if math.isnan(value) else f"{value + 0.0:.4g}")  # + 0.0: no -0
    return Text(str(value))


@contextmanager
def bar(description: str, *, quiet: bool = False) -> Iterator[Callable[[int, int | None], None]]:
    """A bar of bytes on standard error while the block runs.

    Args:
        description: what is being done.
        quiet: show nothing.

    Yields:
        A function that is told how many bytes are done, of how many (None: unknown).
    """
    if quiet:
        yield lambda done, total: None  # noqa: ARG005 - nobody is watching
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=32),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        console=console(stderr=True),
    ) as shown:
        task = shown.add_task(description, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)


class Steps:
    """Shows a list of steps: the one at work with a spinner, those done with a tick and a time.

    Args:
        out: where to.
        status: Rich's spinner.
    """

    def __init__(self, out: "Console", status: "Status") -> None:
        self._out, self._status = out, status
        self._name, self._started = "", 0.0

    def step(self, name: str) -> None:
        """The next step begins; the one before it is done."""
        self.finish()
        self._name, self._started = name, time.perf_counter()
        self._status.update(styled(name, ""))

    def within(self, done: int, total: int) -> None:
        """The step at work has done so many of its parts."""
        self._status.update(styled(f"{self._name}, {done} of {total}", ""))

    def finish(self) -> None:
        """Tick the step at work."""
        if self._name:
            seconds = time.perf_counter() - self._started
            self._out.print(
                styled("✓ ", "green") + styled(self._name, "") + styled(f" {seconds:.1f} s", "dim")
            )


@contextmanager
def steps(*, quiet: bool = False) -> "Iterator[Progress]":
    """Steps on standard error while the block runs; those done are ticked.

    Args:
        quiet: show nothing.
    """
    if quiet:
        from batteryops.lifecycle.progress import Silent

        yield Silent()
        return
    out = console(stderr=True)
    with out.status("") as status:
        shown = Steps(out, status)
        yield shown
        shown.finish()
