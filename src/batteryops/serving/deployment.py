"""What is to be served: a document that the watcher of the registry writes and workers follow."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from batteryops.errors import PackageError
from batteryops.files import replacing
from batteryops.models.package import ModelPackage, load_package
from batteryops.serving.lineup import Lineup, Mode, Routing
from batteryops.serving.live_model import LiveModel, ServedModel
from batteryops.settings import CacheSettings

DOCUMENT: Final = "deployment.json"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Slot(_Part):
    """A model that is to be served.

    Args:
        version: in the registry, or `unregistered`.
        role: what it stands for.
        folder: of its package.
        fingerprint: of its package.
    """

    version: str
    role: str
    folder: Path
    fingerprint: str


class RegistryState(_Part):
    """Whether the registry answered when it was asked last.

    Args:
        followed: False where one model was named, and no registry is watched.
        reachable: it answered.
        problem: what it said otherwise.
        since: when it first did not answer, or when it first did again.
    """

    followed: bool
    reachable: bool
    problem: str | None
    since: datetime


class RoutingRule(_Part):
    """As `lineup.Routing`."""

    mode: Mode
    share: float
    salt: str


class Deployment(_Part):
    """What is to be served.

    Args:
        generation: grows with every change of models or routing.
        checked_at: when the registry was asked for the document; it may have been asked since.
        champion: answers.
        challenger: stands beside it, or None.
        routing: who gets which vehicle.
        registry: where this is known from.
    """

    generation: int
    checked_at: datetime
    champion: Slot
    challenger: Slot | None
    routing: RoutingRule
    registry: RegistryState

    def same_service(self, other: Self) -> bool:
        """Whether both say to serve the same models in the same way."""
        return (
            self.champion == other.champion
            and self.challenger == other.challenger
            and self.routing == other.routing
        )


def write_deployment(deployment: Deployment, folder: Path) -> None:
    """Put the document in a folder, whole; those who read see the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / DOCUMENT) as beside:
        beside.write_text(deployment.model_dump_json(indent=2), encoding="utf-8")


def read_deployment(folder: Path) -> Deployment | None:
    """The document of a folder; None where there is none.

    Raises:
        PackageError: when it is not such a document.
    """
    path = folder / DOCUMENT
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        return Deployment.model_validate_json(content)
    except ValidationError as error:
        raise PackageError(
            f"{path} does not say what is to be served: {error.error_count()} faults; remove it, "
            "the next start makes another"
        ) from error


def deploy_package(package: ModelPackage, version: str, role: str) -> Deployment:
    """A deployment of one package, whatever the registry says later."""
    return Deployment(
        generation=1,
        checked_at=datetime.now(UTC),
        champion=Slot(
            version=version, role=role, folder=package.folder, fingerprint=package.fingerprint
        ),
        challenger=None,
        routing=RoutingRule(mode="off", share=0.0, salt=""),
        registry=RegistryState(
            followed=False, reachable=True, problem=None, since=datetime.now(UTC)
        ),
    )


def load_lineup(
    deployment: Deployment, cache: CacheSettings, known: Lineup | None = None
) -> Lineup:
    """Load what a deployment names; models in service already are taken over, caches included.

    Args:
        deployment: what is to be served.
        cache: of each model.
        known: who answers now.

    Raises:
        PackageError: a package is gone, was changed, or does not answer as it did when new.
    """

    def load(slot: Slot) -> LiveModel:
        for model in known.models() if known else []:
            same = model.version == slot.version and model.role == slot.role
            if same and model.fingerprint == slot.fingerprint:
                return model
        package = load_package(slot.folder)
        if package.fingerprint != slot.fingerprint:
            raise PackageError(
                f"package {slot.folder} has fingerprint {package.fingerprint}, expected "
                f"{slot.fingerprint}: it is another one than was to be served"
            )
        live = LiveModel(ServedModel(package, slot.version, slot.role), cache)
        wrong = live.self_test()
        if wrong is not None:
            raise PackageError(f"version {slot.version}: {wrong}")
        return live

    routing = Routing(**deployment.routing.model_dump())
    return Lineup(
        load(deployment.champion),
        None if deployment.challenger is None else load(deployment.challenger),
        routing,
        deployment.generation,
    )
