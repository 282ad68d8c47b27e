"""Maximum load by `wrk`: so many connections, each asking again as soon as it is answered."""

import itertools
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.serving.model import Row
from benchmarks.serving.peers import Peer
from benchmarks.serving.process import LOAD_CORE, Running, cpu_s, on_core

SCRIPT: Final = Path(__file__).with_name("rotate.lua")
INSTALL: Final = "`wrk` is not installed; Debian and Homebrew have a package of that name"
TURNS_PER_RUN: Final = 40
"""Further than one run gets through the pool."""

_runs: Final = itertools.count()


@dataclass(frozen=True, slots=True)
class Load:
    """What a server did under load.

    Args:
        per_s: requests answered a second.
        p50_ms: half of the answers came faster.
        p99_ms: 99 % of the answers came faster.
        failed: answers that were refusals, and connections lost.
        cpu_us: processor time of the server's processes per answer, microseconds; None where the
            system does not tell. Holds still where other programs take turns on the core.
    """

    per_s: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu_us: float | None


def is_installed() -> bool:
    """Whether there is a `wrk`."""
    return shutil.which("wrk") is not None


def write_bodies(peer: Peer, asked: Sequence[Row], names: Sequence[str], folder: Path) -> Path:
    """The pool of bodies as a peer takes them, one a line."""
    file = folder / f"{peer.name}.bodies"
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(peer.body(row, names) + "\n" for row in asked), "utf-8")
    return file


def load(running: Running, bodies: Path, *, connections: int, seconds: float) -> Load:
    """Load a server to its maximum, from a core of our own.

    Args:
        running: which server.
        bodies: from `write_bodies`.
        connections: how many ask at a time.
        seconds: how long.
    """
    first_turn = str(next(_runs) * TURNS_PER_RUN)
    command = ["wrk", "--threads", "1", "--connections", str(connections)]
    command += ["--duration", f"{max(1, round(seconds))}s", "--timeout", "10s"]
    command += ["--script", str(SCRIPT), running.url, "--", str(bodies), running.peer.path]
    before_s = cpu_s(running.number)
    with on_core(LOAD_CORE):
        done = subprocess.run(  # noqa: S603 - our own arguments to a tool of development
            [*command, first_turn], check=True, capture_output=True, text=True
        )
    told = json.loads(done.stdout.strip().splitlines()[-1])
    after_s = cpu_s(running.number)
    used_s = after_s - before_s if after_s is not None and before_s is not None else None
    answered = max(1, told["requests"])
    return Load(
        per_s=told["requests"] / told["seconds"],
        p50_ms=told["p50_ms"],
        p99_ms=told["p99_ms"],
        failed=told["failed"],
        cpu_us=None if used_s is None else 1e6 * used_s / answered,
    )
