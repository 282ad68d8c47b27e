"""Who answers: champion and challenger side by side, and which vehicles each of them has."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal

from batteryops.serving.live_model import LiveModel

Mode = Literal["split", "shadow", "off"]

_KNOWN_VEHICLES: Final = 65_536  # whose side is worked out once


@dataclass(frozen=True, slots=True)
class Routing:
    """How traffic is divided while a challenger stands beside the champion.

    Args:
        mode: `split`: a share of vehicles is answered by the challenger; `shadow`: both answer,
            the champion's answer goes out; `off`: the challenger is not asked.
        share: of the vehicles, for `split`.
        salt: names the comparison: with another one, other vehicles are the challenger's.
    """

    mode: Mode
    share: float
    salt: str

    def is_challengers(self, vehicle_id: str) -> bool:
        """Whether a vehicle is in the challenger's share; the same in every process, always.

        Examples:
            >>> half = Routing("split", 0.5, "1 against 2")
            >>> vehicles = [f"EV-{number}" for number in range(1000)]
            >>> 450 < sum(map(half.is_challengers, vehicles)) < 550
            True
            >>> Routing("split", 0.0, "").is_challengers("EV-1")
            False
        """
        digest = hashlib.blake2b(f"{self.salt}\0{vehicle_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") < self.share * 2**64


@dataclass(frozen=True, eq=False)
class Lineup:
    """The models in service at one time; replaced as a whole.

    Args:
        champion: answers where nothing else is said.
        challenger: None when no version stands at `@challenger`.
        routing: who gets which vehicle.
        generation: of the deployment that it was made from.
    """

    champion: LiveModel
    challenger: LiveModel | None
    routing: Routing
    generation: int
    answering: Callable[[str], LiveModel] = field(init=False)
    """Which model answers a vehicle."""

    def __post_init__(self) -> None:
        """Decide once for each vehicle."""
        challenger = self.challenger
        if challenger is None or self.routing.mode != "split":
            answering: Callable[[str], LiveModel] = self._always_champion
        else:
            answering = lru_cache(_KNOWN_VEHICLES)(self._by_vehicle)
        object.__setattr__(self, "answering", answering)

    @property
    def shadow(self) -> LiveModel | None:
        """Who answers besides, for the log only."""
        return self.challenger if self.routing.mode == "shadow" else None

    def models(self) -> list[LiveModel]:
        """All in service, champion first."""
        return [self.champion, *([self.challenger] if self.challenger else [])]

    def find(self, version: str) -> LiveModel | None:
        """The model of a version, when it is in service."""
        return next((model for model in self.models() if model.version == version), None)

    def _always_champion(self, _vehicle_id: str) -> LiveModel:
        return self.champion

    def _by_vehicle(self, vehicle_id: str) -> LiveModel:
        challenger = self.challenger
        if challenger is not None and self.routing.is_challengers(vehicle_id):
            return challenger
        return self.champion
