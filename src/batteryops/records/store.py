"""What the prediction log and the ledger have in common: opened at a URL, pinged, closed."""

from types import TracebackType
from typing import ClassVar, Self

from batteryops.errors import RecordsError
from batteryops.records.database import StoreName, open_database


class Store:
    """A store at a URL, closed at the end of a `with` block; safe between threads.

    Args:
        url: as `batteryops.records.database.open_database` takes it.

    Raises:
        RecordsError: from here and every method, when the database is out of reach or refuses.
    """

    name: ClassVar[StoreName]

    def __init__(self, url: str) -> None:
        self._database = open_database(url, self.name)

    @classmethod
    def beside(cls, other: "Store") -> Self:
        """The store in the database of another one, by its connections: closed with that one."""
        if other.name != cls.name:
            raise RecordsError(f"{cls.__name__} stand with the {cls.name}, not the {other.name}")
        store = cls.__new__(cls)
        store._database = other._database  # noqa: SLF001 - of the same class
        return store

    def ping(self) -> None:
        """Return when the store answers."""
        self._database.ping()

    def close(self) -> None:
        """Give all connections back. Calling it twice does no harm."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
