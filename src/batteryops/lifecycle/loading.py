"""From what a person names (a folder, a version, an alias) to a verified model package."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from batteryops.errors import DataError, PackageError
from batteryops.models.package import ModelPackage, load_package
from batteryops.registry.mlflow_tracking import ModelRegistry
from batteryops.settings import Settings


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A package, and where it stands.

    Args:
        package: verified against its manifest.
        version: the registry's version number as text, or `unregistered`.
        role: `champion`, `challenger`, `candidate` or `archived`.
    """

    package: ModelPackage
    version: str
    role: str


def open_registry(settings: Settings) -> ModelRegistry:
    """The registry that the settings name."""
    return ModelRegistry(
        tracking_uri=settings.tracking_uri,
        artifact_root=settings.artifact_root,
        experiment=settings.registry.experiment,
        model_name=settings.registry.model_name,
    )


def load_model(named: str, settings: Settings) -> LoadedModel:
    """Load a model by folder, version number or alias (`champion`, `@champion`).

    Raises:
        RegistryError: no such version or alias.
        PackageError: no such folder, or a package that is incomplete, changed, or cannot be
            computed here.
    """
    folder = Path(named)
    if folder.is_dir():
        return LoadedModel(load_package(folder), "unregistered", "candidate")
    if os.sep in named:
        raise PackageError(f"model package {named} does not exist; expected a folder")
    registry = open_registry(settings)
    version = (
        registry.version(int(named)) if named.isdigit() else registry.version_at(named.lstrip("@"))
    )
    package = load_package(registry.package_of(version.version, settings.packages))
    return LoadedModel(package, str(version.version), version.status)


def refuse_other_levels(assets: Iterable[str], package: ModelPackage, settings: Settings) -> None:
    """Raise where an asset is a pack and the model was trained on cells, or the reverse.

    Raises:
        DataError: naming the first such asset.
        UnknownAssetError: an asset without a profile.
    """
    level = package.manifest.level
    for asset in assets:
        profile = settings.profile_of(asset)
        if profile.level != level:
            raise DataError(
                f"asset {asset!r} is a {profile.level} (profile {profile.name}); "
                f"the model was trained on {level}s"
            )
