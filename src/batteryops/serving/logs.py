"""The server's own log: one JSON object a line on standard error, with the request it is about."""

import json
import logging
import traceback
from datetime import UTC, datetime
from typing import Final

REQUEST_ID: Final = "request_id"
"""Of `extra`, where a line is about a request."""


class JsonLines(logging.Formatter):
    """One line of JSON per record.

    Examples:
        >>> record = logging.LogRecord("batteryops", logging.INFO, "", 0, "ready", (), None)
        >>> record.created = 1767225600.25
        >>> JsonLines().format(record)
        '{"at": "2026-01-01T00:00:00.250+00:00", "level": "info", "logger": "batteryops", \
"message": "ready"}'
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        at = datetime.fromtimestamp(record.created, UTC)
        line = {
            "at": at.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request_id = getattr(record, REQUEST_ID, None)
        if request_id is not None:
            line[REQUEST_ID] = request_id
        if record.exc_info and record.exc_info[0] is not None:
            line["trace"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def log_as_json() -> None:
    """Have everything that this process logs written so; libraries from warnings on."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("batteryops").setLevel(logging.INFO)
