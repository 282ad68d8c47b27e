"""Measures everybody side by side: all servers are up, and take turns under load."""

import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.serving import closed_loop, open_loop
from benchmarks.serving.batch import ROWS, Batch, measure_batch
from benchmarks.serving.closed_loop import Load
from benchmarks.serving.model import Row, Served, prepared, rows
from benchmarks.serving.open_loop import Latencies
from benchmarks.serving.peers import BARE, EMPTY, OURS, PEERS, Peer
from benchmarks.serving.process import NotServingError, Running, running

CONNECTIONS: Final = 8
MORE_CONNECTIONS: Final = (32, 64)
"""In the first round only."""
WARM_UP_S: Final = 2.0
SETTLE_S: Final = 1.0
"""Load before each measurement that is not counted."""
AT_HALF_LOAD: Final = (OURS, BARE, EMPTY)
"""Whose latency is measured at half of the most they answer; the empty app's is the generator's."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured.

    Args:
        names: peers that take part if they are installed.
        rounds: turns of each peer, of which the median counts.
        seconds: how long a turn is.
    """

    names: tuple[str, ...] = tuple(PEERS)
    rounds: int = 3
    seconds: float = 5.0


@dataclass(slots=True)
class Found:
    """What was measured.

    Args:
        loads: by peer and connections, one per round; rounds of different peers stood side by side.
        steady: at half of the most that a peer answers, one per round.
        batch: large batches, or None when our server has none.
        missing: peers that are not installed.
        broken: peers that did not start, or answered wrongly, and why.
    """

    loads: dict[tuple[str, int], list[Load]] = field(default_factory=dict)
    steady: dict[str, list[Latencies]] = field(default_factory=dict)
    batch: Batch | None = None
    missing: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)

    def per_s(self, name: str, connections: int = CONNECTIONS) -> float | None:
        """Answers a second, the median of all rounds; None where nothing was measured."""
        return self._median(name, connections, lambda load: load.per_s)

    def p50_ms(self, name: str, connections: int = CONNECTIONS) -> float | None:
        """Median latency, the median of all rounds."""
        return self._median(name, connections, lambda load: load.p50_ms)

    def p99_ms(self, name: str, connections: int = CONNECTIONS) -> float | None:
        """99th percentile of the latency, the median of all rounds."""
        return self._median(name, connections, lambda load: load.p99_ms)

    def cpu_us(self, name: str, connections: int = CONNECTIONS) -> float | None:
        """Processor time of an answer, the median of all rounds."""
        known = [load for load in self.loads.get((name, connections), ()) if load.cpu_us]
        return median(load.cpu_us or 0.0 for load in known) if known else None

    def failed(self, name: str) -> int:
        """Failed requests under any load."""
        closed = sum(
            load.failed for key, found in self.loads.items() for load in found if key[0] == name
        )
        return closed + sum(found.failed for found in self.steady.get(name, ()))

    def spread(self, name: str, connections: int = CONNECTIONS) -> float | None:
        """Most less least answers a second between rounds, as a share of the median."""
        found = [load.per_s for load in self.loads.get((name, connections), ())]
        return (max(found) - min(found)) / median(found) if found else None

    def ratio(self, name: str, other: str, connections: int = CONNECTIONS) -> float | None:
        """One's answers a second by the other's in the same round; the median of all rounds."""
        ones = self.loads.get((name, connections), ())
        others = self.loads.get((other, connections), ())
        shares = [a.per_s / b.per_s for a, b in zip(ones, others, strict=False) if b.per_s]
        return median(shares) if shares else None

    def cpu_ratio(self, name: str, other: str) -> float | None:
        """How often one answers in the processor time of an answer of the other's."""
        one, other_us = self.cpu_us(name), self.cpu_us(other)
        return other_us / one if one and other_us else None

    def steady_p99_ms(self, name: str) -> float | None:
        """99th percentile at half load, the median of all rounds."""
        found = [one.p99_ms for one in self.steady.get(name, ())]
        return median(found) if found else None

    def _median(self, name: str, connections: int, of: Callable[[Load], float]) -> float | None:
        found = [of(load) for load in self.loads.get((name, connections), ())]
        return median(found) if found else None


def measure(plan: Plan, tell: Callable[[str], None]) -> Found:
    """Measure all peers that are installed.

    Args:
        plan: who and how long.
        tell: told what is being done.
    """
    found = Found()
    tell("the model")
    served = prepared()
    asked = rows(served)
    chosen = []
    for name in plan.names:
        if PEERS[name].is_installed:
            chosen.append(PEERS[name])
        else:
            found.missing.append(name)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        _under_load(plan, chosen, served, asked, folder, found, tell)
        if OURS in plan.names and OURS not in found.broken:
            tell(f"{OURS}: {ROWS:,} rows over Arrow")
            try:
                # on all cores, as what it is held against
                with running(PEERS[OURS], served, folder / "batch", asked, core=None) as ours:
                    found.batch = measure_batch(ours, served, asked, plan.rounds)
            except NotServingError as error:
                found.broken["batch"] = str(error)
    return found


def _under_load(  # noqa: PLR0913, PLR0917 - what `measure` has gathered
    plan: Plan,
    chosen: Iterable[Peer],
    served: Served,
    asked: list[Row],
    folder: Path,
    found: Found,
    tell: Callable[[str], None],
) -> None:
    with ExitStack() as stack:
        up: list[tuple[Running, Path]] = []
        for peer in chosen:
            tell(f"start {peer.name}")
            bodies = closed_loop.write_bodies(peer, asked, served.names, folder)
            try:
                one = stack.enter_context(running(peer, served, folder / peer.name, asked))
            except NotServingError as error:
                found.broken[peer.name] = str(error)
                continue
            closed_loop.load(one, bodies, connections=CONNECTIONS, seconds=WARM_UP_S)
            up.append((one, bodies))
        for turn in range(plan.rounds):
            for one, bodies in _rotated(up, turn):
                for connections in (CONNECTIONS, *(MORE_CONNECTIONS if turn == 0 else ())):
                    name = one.peer.name
                    tell(f"round {turn + 1} of {plan.rounds}: {name}, {connections} connections")
                    closed_loop.load(one, bodies, connections=connections, seconds=SETTLE_S)
                    load = closed_loop.load(
                        one, bodies, connections=connections, seconds=plan.seconds
                    )
                    found.loads.setdefault((name, connections), []).append(load)
        for turn in range(plan.rounds):
            for one, bodies in _rotated(up, turn):
                name = one.peer.name
                most = found.per_s(name)
                if name in AT_HALF_LOAD and most:
                    tell(f"round {turn + 1} of {plan.rounds}: {name} at half load")
                    latencies = open_loop.load_at(one, bodies, rate=most / 2, seconds=plan.seconds)
                    found.steady.setdefault(name, []).append(latencies)


def _rotated(up: list[tuple[Running, Path]], turn: int) -> list[tuple[Running, Path]]:
    """Another one first in each round."""
    first = turn % len(up) if up else 0
    return up[first:] + up[:first]
