"""How a long task says what it is doing."""

from typing import Protocol


class Progress(Protocol):
    """Told by a task what it does; the command line shows it, a test or a job may ignore it."""

    def step(self, name: str) -> None:
        """The next step begins; the one before it is done."""

    def within(self, done: int, total: int) -> None:
        """The step at work has done so many of its parts."""


class Silent:
    """Nobody is watching."""

    def step(self, name: str) -> None:
        """Say nothing."""

    def within(self, done: int, total: int) -> None:
        """Say nothing."""
