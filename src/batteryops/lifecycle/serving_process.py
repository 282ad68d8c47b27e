"""A server as a process of its own, for as long as somebody needs it: started, found, ended."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from batteryops.errors import BatteryOpsError

READY_WITHIN_S: Final = 30.0
STOPPED_WITHIN_S: Final = 10.0


@contextmanager
def server_process(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Start a command that prints where it serves as one line of JSON, yield its URL, and end it.

    Args:
        command: what to start; the caller's own.
        log: file that takes what it says.
        environment: of the process; this one's when None.

    Raises:
        BatteryOpsError: when it does not come up.
    """
    with (
        log.open("wb") as errors,
        subprocess.Popen(  # noqa: S603 - our own interpreter and module
            list(command),
            stdout=subprocess.PIPE,
            stderr=errors,
            env=dict(os.environ if environment is None else environment),
        ) as server,
    ):
        try:
            yield _url(server, log)
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                server.kill()


def _url(server: subprocess.Popen[bytes], log: Path) -> str:
    """The address that the server prints once it accepts requests."""
    assert server.stdout is not None  # noqa: S101 - it was opened as a pipe
    ready, _, _ = select.select([server.stdout], [], [], READY_WITHIN_S)
    line = server.stdout.readline() if ready else b""
    try:
        return str(json.loads(line)["url"])
    except (ValueError, KeyError, TypeError) as error:
        said = log.read_text("utf-8", "replace").strip().splitlines()[-3:]
        raise BatteryOpsError(
            f"the server did not start within {READY_WITHIN_S:g} s: {' '.join(said) or line!r}"
        ) from error
