"""Puts rows on record for a request that waits for it, and says what to tell when it cannot."""

import asyncio
import math
from collections.abc import Sequence
from typing import Final

from batteryops.errors import RecordsError
from batteryops.records.group_commit import GroupCommit, QueueFullError, Row
from batteryops.serving.problems import (
    LOG_UNAVAILABLE,
    OVERLOADED,
    RECORDS_UNAVAILABLE,
    ProblemError,
)

_RETRY_AFTER: Final = {"Retry-After": "5"}  # seconds, when the database does not answer


async def on_record(writer: GroupCommit, rows: Sequence[Row]) -> None:
    """Wait until rows are on disk.

    Raises:
        ProblemError: they cannot be put there, or too many wait.
    """
    loop = asyncio.get_running_loop()
    written: asyncio.Future[BaseException | None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if not written.done():  # the client may have left
            written.set_result(error)

    def done(error: BaseException | None) -> None:  # in the writer's thread
        loop.call_soon_threadsafe(settle, error)

    try:
        writer.submit(rows, done)
    except QueueFullError as error:
        raise overloaded(error) from error
    except RecordsError as error:
        raise log_unavailable(error) from error
    failure = await written
    if failure is not None:
        raise log_unavailable(failure)


def overloaded(error: QueueFullError) -> ProblemError:
    """What is told when more answers wait for the log than may."""
    wait_s = max(1, math.ceil(error.retry_after_s))
    return ProblemError(OVERLOADED, str(error), headers={"Retry-After": str(wait_s)})


def log_unavailable(error: BaseException) -> ProblemError:
    """What is told when an answer cannot be put on record."""
    return ProblemError(LOG_UNAVAILABLE, str(error), headers=_RETRY_AFTER)


def records_unavailable(error: RecordsError) -> ProblemError:
    """What is told when something cannot be looked up, or kept, because the database is down."""
    return ProblemError(RECORDS_UNAVAILABLE, str(error), headers=_RETRY_AFTER)
