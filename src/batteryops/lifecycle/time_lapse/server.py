"""The HTTP server in simulated time: the real one, whose processes live by the clock of a file.

`python -m batteryops.lifecycle.time_lapse.server serve CLOCK SETTINGS` is `batteryops serve`, and
`... work CLOCK` is the worker that it starts.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from batteryops.errors import BatteryOpsError
from batteryops.lifecycle.answering import serve_model
from batteryops.lifecycle.serving_process import server_process
from batteryops.lifecycle.time_lapse.clock import Clock
from batteryops.serving import worker
from batteryops.serving.supervisor import Supervisor
from batteryops.settings import Settings

SETTINGS_FILE: Final = "settings.json"

_SERVE: Final = "serve"
_WORK: Final = "work"
_MODULE: Final = "batteryops.lifecycle.time_lapse.server"


@contextmanager
def server_in_time(settings: Settings, clock: Clock) -> Iterator[str]:
    """Serve the champion on a free port, in simulated time, and end it; yields the URL.

    Args:
        settings: of the time lapse; its server reads them from a file in their home.
        clock: that it lives by.

    Raises:
        BatteryOpsError: when it does not come up.
    """
    file = settings.home / SETTINGS_FILE
    file.write_text(settings.model_dump_json(), "utf-8")
    command = [sys.executable, "-m", _MODULE, _SERVE, str(clock.path), str(file)]
    with server_process(command, settings.home / "server.log") as url:
        yield url


def main(arguments: list[str]) -> int:
    """The process: a server, or one of its workers."""
    role, place, *rest = arguments
    clock = Clock(Path(place))
    with clock.lived_by():
        if role == _WORK:
            return worker.main()
        settings = Settings.model_validate_json(Path(rest[0]).read_text("utf-8"))
        Supervisor.worker_command = (sys.executable, "-m", _MODULE, _WORK, place)
        try:
            serve_model("champion", settings, host="127.0.0.1", port=0)
        except BatteryOpsError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
