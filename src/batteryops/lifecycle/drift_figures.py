"""Two distributions in one picture, as SVG that follows the page's light or dark colours."""

from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from batteryops.lifecycle.drift import quantile_of
from batteryops.monitoring.cells import Grid, Integers

BARS: Final = 40
MIDDLE: Final = (0.005, 0.995)
"""Quantiles of the reference between which values are drawn to scale; the rest is told in shares at
the ends, so that one outlier does not squeeze all others into one bar."""

QUANTILES: Final = (0.1, 0.5, 0.9)

_WIDTH, _HEIGHT = 520.0, 190.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 58.0, 462.0, 22.0, 158.0
_TICKS: Final = 5
_LEAST_SHARE: Final = 0.0005  # below it an end or a gap is not mentioned


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """Where the rows of one side lie.

    Args:
        bars: (BARS,) shares of all rows.
        below: share below the first bar.
        above: share above the last.
        missing: share without a value.
        quantiles: at `QUANTILES`; infinite beyond the reference, NaN without values.
    """

    bars: NDArray[np.float64]
    below: float
    above: float
    missing: float
    quantiles: tuple[float, ...]


def span_of(grid: Grid, reference: Integers) -> tuple[float, float]:
    """From where to where values are drawn to scale."""
    low, high = (quantile_of(grid, reference, share) for share in MIDDLE)
    if not (np.isfinite(low) and np.isfinite(high)):
        return 0.0, 1.0
    around = 0.02 * (high - low) or max(abs(low) * 0.05, 0.5)
    return low - around, high + around


def shares_of(grid: Grid, cells: Integers, low: float, high: float) -> Shares:
    """Rows in bars of one width; those of a cell are spread evenly over it."""
    rows = max(int(cells.sum()), 1)
    known = int(cells[:-1].sum())
    edges = np.linspace(low, high, BARS + 1)
    if grid.cuts.size:
        up_to = np.interp(edges, grid.cuts, np.cumsum(cells[:-2]).astype(np.float64))
    else:
        up_to = np.zeros(BARS + 1)
    return Shares(
        bars=np.diff(up_to) / rows,
        below=float(up_to[0]) / rows,
        above=(known - float(up_to[-1])) / rows,
        missing=int(cells[-1]) / rows,
        quantiles=tuple(quantile_of(grid, cells, share) for share in QUANTILES),
    )


def draw(grid: Grid, reference: Integers, current: Integers, title: str) -> str:
    """Both distributions over the same bars, with lines at their quantiles.

    Args:
        grid: of the column.
        reference: (n_cells,) rows.
        current: (n_cells,) rows.
        title: for who hears the page instead of seeing it.

    Returns:
        An `svg` element; its classes are `reference` and `current`, `axis` and `end`.
    """
    low, high = span_of(grid, reference)
    sides = {
        "reference": shares_of(grid, reference, low, high),
        "current": shares_of(grid, current, low, high),
    }
    tallest = max(float(side.bars.max()) for side in sides.values()) or 1.0
    parts = [
        f'<svg viewBox="0 0 {_WIDTH:g} {_HEIGHT:g}" role="img" aria-label="{escape(title)}">',
        f"<title>{escape(title)}</title>",
    ]
    parts += [_outline(name, side, tallest) for name, side in sides.items()]
    for name, side in sides.items():
        parts += _quantile_lines(name, side, low, high)
    parts += _axis(low, high)
    parts += _ends(sides)
    return "".join([*parts, "</svg>"])


def _across(value: float, low: float, high: float) -> float:
    return _LEFT + (_RIGHT - _LEFT) * (value - low) / (high - low)


def _up(share: float, tallest: float) -> float:
    return _BOTTOM - (_BOTTOM - _TOP) * share / tallest


def _outline(name: str, side: Shares, tallest: float) -> str:
    step = (_RIGHT - _LEFT) / BARS
    path = [f"M{_LEFT:g} {_BOTTOM:g}"]
    for place, share in enumerate(side.bars.tolist()):
        path.append(f"V{_up(share, tallest):.1f}H{_LEFT + (place + 1) * step:.1f}")
    return f'<path class="{name}" d="{"".join(path)}V{_BOTTOM:g}Z"/>'


def _quantile_lines(name: str, side: Shares, low: float, high: float) -> list[str]:
    lines = []
    for share, value in zip(QUANTILES, side.quantiles, strict=True):
        if low <= value <= high:
            at = _across(value, low, high)
            middle = " middle" if share == 0.5 else ""  # noqa: PLR2004 - the median
            lines.append(
                f'<line class="{name}{middle}" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP:g}" '
                f'y2="{_BOTTOM:g}"><title>{name}: {share:.0%} of the values up to '
                f"{value:.4g}</title></line>"
            )
    return lines


def _axis(low: float, high: float) -> list[str]:
    ticks = [float(tick) for tick in MaxNLocator(_TICKS).tick_values(low, high)]
    drawn = [
        f'<line class="axis" x1="{_LEFT:g}" x2="{_RIGHT:g}" y1="{_BOTTOM:g}" y2="{_BOTTOM:g}"/>'
    ]
    for tick in ticks:
        if low <= tick <= high:
            at = _across(tick, low, high)
            drawn.append(
                f'<text class="axis" x="{at:.1f}" y="{_BOTTOM + 15:g}" text-anchor="middle">'
                f"{tick:.6g}</text>"
            )
    return drawn


def _ends(sides: dict[str, Shares]) -> list[str]:
    """What is not drawn to scale: shares below, above and without a value."""
    drawn = []
    for what, x, anchor in (("below", _LEFT - 6, "end"), ("above", _RIGHT + 6, "start")):
        shares = {name: getattr(side, what) for name, side in sides.items()}
        if max(shares.values()) < _LEAST_SHARE:
            continue
        drawn.append(
            f'<text class="axis" x="{x:g}" y="{_BOTTOM - 40:g}" text-anchor="{anchor}">'
            f"{what}</text>"
        )
        for row, (name, share) in enumerate(shares.items()):
            drawn.append(
                f'<text class="{name} end" x="{x:g}" y="{_BOTTOM - 24 + 15 * row:g}" '
                f'text-anchor="{anchor}">{share:.1%}</text>'
            )
    missing = {name: side.missing for name, side in sides.items()}
    if max(missing.values()) >= _LEAST_SHARE:
        was, now = missing["reference"], missing["current"]
        drawn.append(
            f'<text class="axis" x="{_RIGHT:g}" y="{_HEIGHT - 4:g}" text-anchor="end">missing: '
            f'<tspan class="reference end">{was:.1%}</tspan>, '
            f'<tspan class="current end">{now:.1%}</tspan></text>'
        )
    return drawn
