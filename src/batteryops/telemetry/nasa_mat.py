"""NASA's cells as published: MATLAB files with one struct array of operations each."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.io import loadmat

from batteryops.errors import DataError
from batteryops.files import first_line, refuse_empty
from batteryops.schema import KINDS, Kind, Recording
from batteryops.telemetry.assembly import assemble, wanted_kinds
from batteryops.telemetry.nasa_csv import MEASURED_FIELDS, date_vector

_OPERATION_FIELDS: Final = ("type", "ambient_temperature", "time", "data")
_REMEDY: Final = "expected a MATLAB 5 file as NASA publishes it; fetch it again"


def read_nasa_mat(
    paths: Sequence[Path], *, kinds: Collection[Kind] | None = None, source: str
) -> Recording:
    """Read genuine NASA `.mat` files, one cell each.

    The cell's name is that of the file's variable; `cycle_index` is the 1-based position in its
    struct array `cycle`. Charge and discharge operations have samples, impedance has Re and Rct.

    Args:
        paths: the files.
        kinds: kinds of cycle to read, all when None.
        source: what to call them in the recording.

    Raises:
        DataError: a file that is truncated, no MATLAB file, or of another structure.
    """
    wanted = wanted_kinds(kinds)
    rows: list[dict[str, object]] = []
    blocks: list[NDArray[np.float64]] = []
    for path in paths:
        for row, block in _operations(path, wanted):
            rows.append(row)
            blocks.append(block)
    lengths = np.array([block.shape[1] for block in blocks], dtype=np.int64)
    values = np.concatenate(blocks, axis=1) if blocks else np.empty((len(MEASURED_FIELDS), 0))
    measured = pl.DataFrame(
        {name: values[row] for row, name in enumerate(MEASURED_FIELDS.values())}
    )
    return assemble(pl.DataFrame(rows, infer_schema_length=None), lengths, measured, source=source)


def _operations(
    path: Path, wanted: frozenset[str]
) -> Iterator[tuple[dict[str, object], NDArray[np.float64]]]:
    """Each operation's row of the cycle table, and its measured values (4, samples)."""
    cell, cycle = _cycle(path)
    for position, operation in enumerate(cycle, start=1):
        what = f"{path}: operation {position} of {cell}"
        kind = str(np.squeeze(operation["type"]))
        if kind not in KINDS:
            raise DataError(f"{what}: its type {kind!r} is not among {', '.join(KINDS)}")
        if kind not in wanted:
            continue
        try:
            started_at = date_vector(np.ravel(operation["time"]).tolist())
        except (ValueError, TypeError) as error:
            raise DataError(f"{what}: its time is no MATLAB date vector; {_REMEDY}") from error
        data = operation["data"].flat[0] if operation["data"].size else None
        names = data.dtype.names if isinstance(data, np.void) else None
        if data is None or names is None:
            raise DataError(f"{what}: its data is no struct; {_REMEDY}")
        row: dict[str, object] = {
            "asset_id": cell,
            "cycle_index": position,
            "kind": kind,
            "started_at": started_at,
            "ambient_temperature_c": _real(operation["ambient_temperature"]),
            "capacity_ah": _real(data["Capacity"]) if "Capacity" in names else None,
            "re_ohm": _real(data["Re"]) if "Re" in names else None,
            "rct_ohm": _real(data["Rct"]) if "Rct" in names else None,
        }
        if kind == "impedance":
            yield row, np.empty((len(MEASURED_FIELDS), 0))
            continue
        missing = [name for name in MEASURED_FIELDS if name not in names]
        if missing:
            raise DataError(f"{what}: no {', '.join(missing)}; given {', '.join(names)}")
        vectors = [np.ravel(data[name]) for name in MEASURED_FIELDS]
        lengths = {len(vector) for vector in vectors}
        if len(lengths) > 1 or any(vector.dtype.kind not in "uif" for vector in vectors):
            raise DataError(
                f"{what}: {', '.join(MEASURED_FIELDS)} must be real vectors of one length; "
                f"given {', '.join(f'{v.dtype}[{len(v)}]' for v in vectors)}"
            )
        yield row, np.array(vectors, dtype=np.float64)


def _cycle(path: Path) -> tuple[str, NDArray[Any]]:
    """The cell's name and its struct array of operations, one-dimensional."""
    refuse_empty(path)
    try:
        variables = loadmat(path)
    except Exception as error:  # SciPy raises whatever its parser trips over
        raise DataError(f"{path}: cannot be read ({first_line(error)}); {_REMEDY}") from error
    cells = {
        name: value
        for name, value in variables.items()
        if isinstance(value, np.ndarray) and "cycle" in (value.dtype.names or ())
    }
    if len(cells) != 1:
        given = ", ".join(name for name in variables if not name.startswith("__")) or "none"
        raise DataError(
            f"{path}: {len(cells)} variables with a field cycle (variables: {given}); "
            "expected one, named after the cell"
        )
    cell, value = next(iter(cells.items()))
    cycle = np.ravel(value["cycle"].flat[0]) if value.size else np.empty(0)
    missing = [name for name in _OPERATION_FIELDS if name not in (cycle.dtype.names or ())]
    if missing:
        raise DataError(f"{path}: {cell}.cycle lacks {', '.join(missing)}; {_REMEDY}")
    return cell, cycle


def _real(value: NDArray[Any]) -> float | None:
    """The number in a MATLAB array; None where it is empty or no finite real number."""
    numbers = np.ravel(value)
    if numbers.size != 1 or numbers.dtype.kind not in "uifc" or numbers[0].imag != 0:
        return None
    number = float(numbers[0].real)
    return number if np.isfinite(number) else None
