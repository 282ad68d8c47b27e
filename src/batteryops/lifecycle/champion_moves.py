"""What promotion and rollback share: one at a time, and decided on the ledger before it is done."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from batteryops.errors import RecordsError, RegistryError
from batteryops.records.ledger import MODEL_PROMOTED, MODEL_ROLLED_BACK, Entry, Ledger
from batteryops.registry.versions import CHAMPION


@dataclass(frozen=True, slots=True)
class Move:
    """A decision of the ledger to make another version the champion, carried out or not.

    Args:
        before: the champion when it was decided; None where there was none, or it was this one.
        to: the version that was to be.
        entry: the ledger's line.
    """

    before: int | None
    to: int
    entry: Entry

    @property
    def is_rollback(self) -> bool:
        """Whether it went back."""
        return self.entry.event == MODEL_ROLLED_BACK


def moves(ledger: Ledger, model_name: str) -> list[Move]:
    """Every decision about the champion, oldest first.

    Raises:
        RecordsError: the ledger is out of reach.
    """
    found = []
    for event, key in ((MODEL_PROMOTED, "replaced"), (MODEL_ROLLED_BACK, "from")):
        for entry in ledger.entries(event):
            name, _, number = entry.subject.rpartition("/")
            to_champion = event == MODEL_ROLLED_BACK or entry.details.get("alias") == CHAMPION
            if name == model_name and number.isdecimal() and to_champion:
                found.append(Move(entry.details.get(key), int(number), entry))
    return sorted(found, key=lambda move: move.entry.sequence)


@contextmanager
def carry_out(decision: Entry, ledger: Ledger, *, failed: str, as_: str) -> Iterator[None]:
    """Do what was decided; where the registry does not, that is on the ledger too.

    Args:
        decision: the line that says what is done.
        ledger: that it stands in.
        failed: the event of a failure.
        as_: what its line calls the decision.
    """
    try:
        yield
    except RegistryError as error:
        with suppress(RecordsError):  # what failed first is what is told
            ledger.append(failed, decision.subject, {as_: decision.sequence, "error": str(error)})
        raise


@contextmanager
def one_at_a_time(home: Path) -> Iterator[None]:
    """Hold the lock under which this home's champion changes; who comes second waits."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / ".promotion.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
