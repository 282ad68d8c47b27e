"""The ledger: every decision in an append-only chain, each entry sealed with the one before."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import sqlalchemy as sa

from batteryops.errors import RecordsError
from batteryops.records.database import StoreName
from batteryops.records.store import Store

DATA_INGESTED: Final = "data_ingested"
GATE_VERDICT: Final = "gate_verdict"
MODEL_REGISTERED: Final = "model_registered"
MODEL_PROMOTED: Final = "model_promoted"
MODEL_ROLLED_BACK: Final = "model_rolled_back"
BASELINE_FITTED: Final = "baseline_fitted"
KEY_CREATED: Final = "key_created"
KEY_REVOKED: Final = "key_revoked"
INCIDENT_OPENED: Final = "incident_opened"
INCIDENT_REOPENED: Final = "incident_reopened"
INCIDENT_CLOSED: Final = "incident_closed"
RETRAINING_STARTED: Final = "retraining_started"
RETRAINING_ENDED: Final = "retraining_ended"
LABELS_REQUESTED: Final = "labels_requested"

GENESIS: Final = "0" * 64
"""What the first entry names as the hash before it."""

METADATA: Final = sa.MetaData()
LEDGER: Final = sa.Table(
    "ledger",
    METADATA,
    sa.Column(
        "sequence",
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("at", sa.String(27), nullable=False),
    sa.Column("event", sa.String(64), nullable=False),
    sa.Column("subject", sa.Text(), nullable=False),
    sa.Column("details", sa.Text(), nullable=False),
    sa.Column("actor", sa.Text(), nullable=True),
    sa.Column("previous_hash", sa.String(64), nullable=False, unique=True),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
)
"""One row per entry; `at` and `details` hold the very text that was hashed."""

_EVENT: Final = re.compile(r"[a-z][a-z0-9_]{0,63}")
_BATCH: Final = 1000  # entries in memory while verifying
_AT: Final = "%Y-%m-%dT%H:%M:%S.%fZ"


@dataclass(frozen=True, slots=True)
class Entry:
    """One decision.

    Args:
        sequence: 1 for the first, without gaps.
        at: when it was written, UTC.
        event: what kind, such as `model_promoted`.
        subject: what it is about: a data set, a model version.
        details: anything that JSON can hold.
        actor: who or what decided; None where the machine did by itself.
        previous_hash: the hash of the entry before, `GENESIS` for the first.
        hash: SHA-256 over all the others, 64 hexadecimal digits.
    """

    sequence: int
    at: datetime
    event: str
    subject: str
    details: Mapping[str, Any]
    actor: str | None
    previous_hash: str
    hash: str

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON holds them: `at` as the text that was hashed."""
        return {**asdict(self), "at": self.at.strftime(_AT)}


@dataclass(frozen=True, slots=True)
class LedgerCheck:
    """What `Ledger.verify` found.

    Args:
        intact: every entry is as it was written, and none is missing between first and last.
        length: entries in the unbroken part.
        head: hash of the last entry of the unbroken part; None when that is empty.
        first_broken: sequence number at which the chain breaks; None when intact.
        problem: what is wrong there; None when intact.
    """

    intact: bool
    length: int
    head: str | None
    first_broken: int | None
    problem: str | None

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON holds them."""
        return asdict(self)


def canonical(value: object) -> str:
    r"""The one text that stands for a JSON value: keys sorted, no spaces, ASCII only.

    Raises:
        RecordsError: for what JSON cannot hold: NaN, infinity, keys that are not text, objects.

    Examples:
        >>> canonical({"b": 1.5, "a": ["é", None]})
        '{"a":["\\u00e9",null],"b":1.5}'
    """
    try:
        document = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordsError(f"the ledger cannot keep this as JSON: {error}") from error
    _only_text_keys(value)
    return document


def seal(row: Mapping[str, Any]) -> str:
    """The hash of an entry: SHA-256 of the canonical JSON of all its other fields.

    Args:
        row: the fields of `LEDGER` but `hash`: `at` as text, `details` as the JSON value.
    """
    return hashlib.sha256(canonical(dict(row)).encode()).hexdigest()


class Ledger(Store):
    """The ledger at a URL; safe between threads and between processes.

    The chain shows any change within it. That entries were cut off at its end, or that all of it
    was written anew, shows only against a `head` that was noted down elsewhere.

    Args:
        url: as `batteryops.records.database.open_database` takes it.

    Raises:
        RecordsError: from here and every method, when the database is out of reach or refuses.
    """

    name: ClassVar[StoreName] = "ledger"

    def append(
        self, event: str, subject: str, details: Mapping[str, Any], actor: str | None = None
    ) -> Entry:
        """Write one entry at the end; it is on disk when this returns.

        Args:
            event: lower-case letters, digits and underscores, at most 64.
            subject: what it is about, printable.
            details: a JSON object; lists for sequences, text for keys.
            actor: who decided, printable.

        Returns:
            The entry as it stands in the ledger.

        Raises:
            RecordsError: also for what the ledger could not give back as it was given.
        """
        if not _EVENT.fullmatch(event):
            raise RecordsError(f"event {event!r}: expected lower-case words joined by underscores")
        for name, value in (("subject", subject), ("actor", actor)):
            if value is not None and not (value and value.isprintable()):
                raise RecordsError(f"{name} {value!r}: expected printable text")
        if not isinstance(details, Mapping):
            raise RecordsError(f"details are a {type(details).__name__}, expected a mapping")
        document = canonical(dict(details))
        with self._database.write(exclusive=True) as connection:
            last = connection.execute(_newest(1)).one_or_none()
            row: dict[str, Any] = {
                "sequence": 1 if last is None else last.sequence + 1,
                "at": datetime.now(UTC).strftime(_AT),
                "event": event,
                "subject": subject,
                "actor": actor,
                "previous_hash": GENESIS if last is None else last.hash,
            }
            row["hash"] = seal({**row, "details": json.loads(document)})
            row["details"] = document
            connection.execute(sa.insert(LEDGER), row)
        return _entry(row)

    def entries(self, event: str | None = None, limit: int | None = None) -> list[Entry]:
        """Entries in the order they were written.

        Args:
            event: only those of this kind.
            limit: only the last so many.
        """
        if limit is not None and limit < 1:
            raise RecordsError(f"limit is {limit}, expected at least 1")
        query = _newest(limit)
        if event is not None:
            query = query.where(LEDGER.c.event == event)
        with self._database.read() as connection:
            rows: Sequence[sa.Row[Any]] = connection.execute(query).all()
        return [_entry(row._mapping) for row in reversed(rows)]  # noqa: SLF001  # public

    def head(self) -> Entry | None:
        """The last entry, or None."""
        found = self.entries(limit=1)
        return found[0] if found else None

    def verify(self) -> LedgerCheck:
        """Recompute the chain from its first entry to its last."""
        length, head = 0, GENESIS
        query = sa.select(LEDGER).order_by(LEDGER.c.sequence).execution_options(yield_per=_BATCH)
        with self._database.read() as connection, connection.execute(query) as rows:
            for row in rows:
                problem = _problem(dict(row._mapping), length + 1, head)  # noqa: SLF001  # public
                if problem is not None:
                    return LedgerCheck(
                        intact=False,
                        length=length,
                        head=head if length else None,
                        first_broken=length + 1,
                        problem=problem,
                    )
                length, head = row.sequence, row.hash
        return LedgerCheck(
            intact=True,
            length=length,
            head=head if length else None,
            first_broken=None,
            problem=None,
        )


def _newest(limit: int | None) -> sa.Select[Any]:
    return sa.select(LEDGER).order_by(LEDGER.c.sequence.desc()).limit(limit)


def _entry(row: Mapping[Any, Any]) -> Entry:
    try:
        at = datetime.strptime(row["at"], _AT).replace(tzinfo=UTC)
        details = json.loads(row["details"])
    except (TypeError, ValueError) as error:
        raise RecordsError(
            f"entry {row['sequence']} of the ledger was changed and cannot be read: {error}; "
            "verify the ledger"
        ) from error
    return Entry(**{**row, "at": at, "details": details})


def _problem(row: dict[str, Any], sequence: int, previous_hash: str) -> str | None:
    """Why a row cannot be entry number `sequence` after an entry of that hash; None when it can."""
    if row["sequence"] != sequence:
        return f"entry {sequence} is missing; the next one present is {row['sequence']}"
    if row["previous_hash"] != previous_hash:
        return f"entry {sequence} does not follow the entry before it: it names another hash"
    claimed, document = row.pop("hash"), row["details"]
    try:
        row["details"] = json.loads(document)
        unchanged = canonical(row["details"]) == document and seal(row) == claimed
    except (TypeError, ValueError, RecursionError, RecordsError):
        unchanged = False
    return None if unchanged else f"entry {sequence} was changed: its hash does not match"


def _only_text_keys(value: object) -> None:
    """Refuse other keys: `json` would turn them into text, and two of them into one."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            for key in item:
                if not isinstance(key, str):
                    raise RecordsError(f"the ledger keeps only text as keys, given {key!r}")
            pending.extend(item.values())
        elif isinstance(item, list | tuple):
            pending.extend(item)
