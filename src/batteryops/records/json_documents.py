"""Documents of runs: what JSON cannot hold is refused before it is put on record."""

import math
from collections.abc import Mapping
from typing import Any

import orjson

from batteryops.errors import RecordsError


def as_kept(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document as it will be read back.

    Raises:
        RecordsError: when it holds what JSON cannot. NaN and infinity are refused too: who reads
            them back would find null.

    Examples:
        >>> as_kept({"mae_ah": 0.02, "labels": (3, 4)})
        {'mae_ah': 0.02, 'labels': [3, 4]}
    """
    _refuse_what_json_lacks(document, "document")
    try:
        kept: dict[str, Any] = orjson.loads(orjson.dumps(dict(document)))
    except TypeError as error:  # orjson's own error is one
        raise RecordsError(f"the run's document cannot be kept as JSON: {error}") from error
    return kept


def _refuse_what_json_lacks(value: object, place: str) -> None:
    """Refuse NaN and infinity, which orjson would write as null."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RecordsError(f"{place} of the run is {value}; leave out what is not known")
    if isinstance(value, Mapping):
        for name, item in value.items():
            _refuse_what_json_lacks(item, f"{place}.{name}")
    elif isinstance(value, list | tuple):
        for at, item in enumerate(value):
            _refuse_what_json_lacks(item, f"{place}[{at}]")
