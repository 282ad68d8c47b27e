"""Packages that were fetched once: kept in a folder each, whole or not at all."""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from batteryops.errors import PackageError, RegistryError
from batteryops.files import beside
from batteryops.models.manifest import MANIFEST, read_manifest


def folder_of(cache: Path, model_name: str, version: int | str, fingerprint: str) -> Path:
    """Where a cache keeps the package of a version.

    Examples:
        >>> str(folder_of(Path("packages"), "ev-soh-predictor", 3, "0f" * 32))
        'packages/ev-soh-predictor-3-0f0f0f0f0f0f'
    """
    return cache / f"{model_name}-{version}-{fingerprint[:12]}"


def keep(folder: Path, fingerprint: str, fetch: Callable[[Path], Path], *, named: str) -> Path:
    """The package in a folder of the cache; fetched when it is not there or was damaged.

    Args:
        folder: of this package alone.
        fingerprint: that it must have, 64 hex digits.
        fetch: brings the package into a folder that it makes, and returns where it lies.
        named: what is fetched, for messages.

    Raises:
        RegistryError: when what arrives is damaged or another package, or cannot be kept.
    """
    if _damage(folder, fingerprint) is None:
        return folder
    with beside(folder) as partial:
        arrived = fetch(partial)
        damage = _damage(arrived, fingerprint)
        if damage is not None:
            raise RegistryError(
                f"the artifacts of {named} do not hold the package that was registered: {damage}; "
                "restore the artifact folder, or train again"
            )
        _put(arrived, folder, fingerprint, aside=partial / "replaced")
    return folder


def _damage(folder: Path, fingerprint: str) -> str | None:
    """What tells a folder from the package of that fingerprint; None when it is that package."""
    try:
        manifest = read_manifest(folder)
    except PackageError as error:
        return f"{error}; expected fingerprint {fingerprint}"
    if manifest.fingerprint != fingerprint:
        return f"{MANIFEST} has fingerprint {manifest.fingerprint}, registered is {fingerprint}"
    for name, expected in manifest.files.items():
        try:
            given = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        except OSError as error:
            return f"{name} cannot be read ({error.strerror}), expected SHA-256 {expected}"
        if given != expected:
            return f"{name} has SHA-256 {given}, expected {expected}"
    return None


def _put(arrived: Path, folder: Path, fingerprint: str, *, aside: Path) -> None:
    """Move a package into the cache, where another process may be doing the same."""
    try:
        if os.path.lexists(folder) and _damage(folder, fingerprint) is not None:
            folder.rename(aside)
        arrived.rename(folder)
    except OSError as error:
        if _damage(folder, fingerprint) is None:
            return  # another process was faster
        raise RegistryError(
            f"package cannot be kept at {folder}: {error.strerror}; name another cache folder"
        ) from error
