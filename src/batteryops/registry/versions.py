"""A registered version of the model, and where it stands."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Literal

Status = Literal["candidate", "challenger", "champion", "archived"]

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
ALIASES: Final = (CHAMPION, CHALLENGER)

FINGERPRINT_TAG: Final = "package_fingerprint"
GATES_TAG: Final = "gates_passed"
ARCHIVED_TAG: Final = "archived"
ROLLED_BACK_TAG: Final = "rolled_back"


class MetricsOfRun(Mapping[str, float]):
    """Metrics of a run that are fetched when they are first looked at.

    Most of those who look a version up want nothing but its number, and fetching some hundred
    metrics takes as long as all else together.

    Args:
        fetch: from the store.
    """

    def __init__(self, fetch: Callable[[], Mapping[str, float]]) -> None:
        self._fetch = fetch

    @cached_property
    def _found(self) -> Mapping[str, float]:
        return self._fetch()

    def __getitem__(self, name: str) -> float:
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A registered version, and where it stands.

    Args:
        version: 1 for the first.
        run_id: of the run that made it.
        created_at: UTC.
        aliases: it holds, sorted, without `@`.
        status: `champion` or `challenger` by alias, else `archived` or `candidate`.
        tags: of the version.
        metrics: of its run, by the names they were logged under; fetched when they are looked at,
            which raises a RegistryError where the store does not answer.
    """

    version: int
    run_id: str
    created_at: datetime
    aliases: tuple[str, ...]
    status: Status
    tags: Mapping[str, str]
    metrics: Mapping[str, float]

    @property
    def gates_passed(self) -> bool | None:
        """What the gates said when it was registered; None when nobody noted it."""
        noted = self.tags.get(GATES_TAG)
        return None if noted is None else noted.lower() == "true"

    @property
    def package_fingerprint(self) -> str | None:
        """Fingerprint of its package's manifest."""
        return self.tags.get(FINGERPRINT_TAG)

    def to_json(self) -> dict[str, Any]:
        """As a JSON document; a metric that is not a finite number is null."""
        return {
            "version": self.version,
            "run_id": self.run_id,
            "created_at": self.created_at.isoformat(),
            "aliases": list(self.aliases),
            "status": self.status,
            "gates_passed": self.gates_passed,
            "tags": dict(self.tags),
            "metrics": {
                name: value if math.isfinite(value) else None
                for name, value in self.metrics.items()
            },
        }
