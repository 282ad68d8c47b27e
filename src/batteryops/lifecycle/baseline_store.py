"""Where baselines of assets are kept: one file per version, one folder per asset."""

import errno
import fcntl
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

from batteryops.errors import DataError, PackageError
from batteryops.files import replacing
from batteryops.models.asset_baseline import AssetBaseline
from batteryops.records.ledger import BASELINE_FITTED, Ledger

_MODEL_DIGITS: Final = 12  # of a package's fingerprint, in a version's name
_NAMED: Final = 5  # assets that a message names


@dataclass(frozen=True, slots=True)
class KeptBaseline:
    """A baseline in the store.

    Args:
        version: start of the package's fingerprint, and a number that rises with each baseline of
            the asset, whatever the package: `3f2a91c0d4e5-v2`.
        baseline: the artifact.
    """

    version: str
    baseline: AssetBaseline

    @property
    def file_sha256(self) -> str:
        """SHA-256 of the file that holds it, as the ledger has it."""
        return hashlib.sha256(self.baseline.to_text().encode()).hexdigest()

    @property
    def summary(self) -> dict[str, str | int | float]:
        """What a list of baselines says of it."""
        return {
            "asset_id": self.baseline.asset_id,
            "version": self.version,
            "model": self.baseline.model,
            "measurements": len(self.baseline.op_index),
            "mean_offset_ah": self.baseline.mean_offset_ah,
        }

    def to_json(self) -> dict[str, Any]:
        """The summary, and every measurement."""
        return self.summary | {
            "cycles": [
                {"op_index": at, "measured_ah": measured, "predicted_ah": predicted}
                for at, measured, predicted in self.baseline.cycles()
            ]
        }


class BaselineStore:
    """Baselines by asset and version, in one folder per asset, its name percent-quoted.

    Args:
        root: the folder; made when the first baseline is kept.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def asset_ids(self) -> list[str]:
        """Assets that have a baseline, sorted."""
        found = (path.parent.name for path in self._root.glob("*/[!.]*.json"))
        return sorted({unquote(name) for name in found})

    def versions(self, asset_id: str, model: str | None = None) -> list[str]:
        """Versions of an asset's baselines, oldest first; of one package's fingerprint if given.

        Raises:
            DataError: when the store cannot be looked at.
        """
        try:
            names = [path.stem for path in self._folder(asset_id).iterdir() if _number(path)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # no asset of such a name can have been kept
                return []
            raise DataError(
                f"the baselines in {self._root} cannot be read ({error.strerror}); "
                "look at who may read the folder"
            ) from error
        start = "" if model is None else f"{model[:_MODEL_DIGITS]}-"
        return sorted(
            (name for name in names if name.startswith(start)),
            key=lambda name: int(name.rpartition("-v")[2]),
        )

    def read(self, asset_id: str, version: str, model: str | None = None) -> KeptBaseline:
        """One baseline.

        Args:
            asset_id: whose.
            version: one of `versions`.
            model: fingerprint of the package that it must belong to.

        Raises:
            PackageError: when the file is damaged, or is of another asset or model than its place
                says.
        """
        path = self._path(asset_id, version)
        found = AssetBaseline.load(path)
        if found.asset_id != asset_id:
            raise PackageError(
                f"baseline {path} is of asset {found.asset_id!r}, its place says {asset_id!r}; "
                "delete it and make it again"
            )
        belongs = found.model.startswith(version.rpartition("-v")[0])
        if not belongs or model not in (None, found.model):
            raise PackageError(
                f"baseline {path} belongs to model {found.model[:_MODEL_DIGITS]}, expected "
                f"{(model or version)[:_MODEL_DIGITS]}; delete it and make it again"
            )
        return KeptBaseline(version, found)

    def newest(self, asset_id: str, model: str | None = None) -> KeptBaseline | None:
        """The newest baseline of an asset, of one package's fingerprint if given; None without.

        Raises:
            DataError, PackageError: when it cannot be read.
        """
        versions = self.versions(asset_id, model)
        return self.read(asset_id, versions[-1], model) if versions else None

    def every(self, asset_id: str | None = None) -> list[KeptBaseline]:
        """All versions of one asset, or of all.

        Raises:
            DataError: the asset has none.
            PackageError: one is damaged.
        """
        if asset_id is not None:
            self.find(asset_id)
        assets = self.asset_ids() if asset_id is None else [asset_id]
        return [self.read(asset, name) for asset in assets for name in self.versions(asset)]

    def find(self, asset_id: str, version: str | None = None) -> KeptBaseline:
        """One version of an asset's baseline, the newest if none is named.

        Raises:
            DataError: there is none.
            PackageError: it is damaged.
        """
        versions = self.versions(asset_id)
        if not versions:
            there = self.asset_ids()
            raise DataError(
                f"asset {asset_id!r} has no baseline; "
                + (f"there are some of {some_of(there)}" if there else "there is none yet")
                + ": `batteryops baseline fit` makes one"
            )
        if version is not None and version not in versions:
            raise DataError(
                f"asset {asset_id!r} has no baseline {version!r}; it has {', '.join(versions)}"
            )
        return self.read(asset_id, version or versions[-1])

    def keep(self, baseline: AssetBaseline, ledger: Ledger) -> tuple[KeptBaseline, bool]:
        """Keep a baseline, with a line in the ledger that is written before the file shows.

        Returns:
            The baseline, and whether this is a new version: where the newest of the same model has
            the same content, that one stands.

        Raises:
            DataError: the file cannot be written.
            RecordsError: the ledger refuses. In both cases there is no new version.
        """
        asset_id, text = baseline.asset_id, baseline.to_text()
        with self._one_at_a_time():
            of_model = self.versions(asset_id, baseline.model)
            if of_model and self._holds(asset_id, of_model[-1], text):
                return KeptBaseline(of_model[-1], baseline), False
            every = self.versions(asset_id)
            number = int(every[-1].rpartition("-v")[2]) + 1 if every else 1
            version = f"{baseline.model[:_MODEL_DIGITS]}-v{number}"
            kept = KeptBaseline(version, baseline)
            with replacing(self._path(asset_id, version)) as beside:
                beside.write_text(text, encoding="utf-8")
                ledger.append(
                    BASELINE_FITTED,
                    asset_id,
                    {
                        "version": version,
                        "file_sha256": kept.file_sha256,
                        "measurements": len(baseline.op_index),
                        "package_fingerprint": baseline.model,
                    },
                )
        return kept, True

    def _holds(self, asset_id: str, version: str, text: str) -> bool:
        try:
            return self._path(asset_id, version).read_bytes() == text.encode()
        except OSError:
            return False  # a file that cannot be read gets a successor

    def _path(self, asset_id: str, version: str) -> Path:
        return self._folder(asset_id) / f"{version}.json"

    def _folder(self, asset_id: str) -> Path:
        quoted = quote(asset_id, safe="")
        if quoted.startswith("."):  # would be hidden, or another folder
            quoted = "%2E" + quoted[1:]
        return self._root / quoted

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        """Hold the store's lock: two writers must not take the same number."""
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            lock = (self._root / ".lock").open("wb")
        except OSError as error:
            raise DataError(
                f"{self._root} cannot be written to ({error.strerror}); name another home"
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def refuse_unrecorded(baselines: Iterable[KeptBaseline], ledger: Ledger) -> None:
    """Raise unless the ledger has a line for each of these, with this very content.

    Raises:
        PackageError: naming the first that has none, or another content.
        RecordsError: the ledger is out of reach.
    """
    recorded: dict[tuple[str, object], set[object]] = {}  # several: homes may share a ledger
    for entry in ledger.entries(BASELINE_FITTED):
        of_version = recorded.setdefault((entry.subject, entry.details.get("version")), set())
        of_version.add(entry.details.get("file_sha256"))
    for kept in baselines:
        asset_id, lines = (
            kept.baseline.asset_id,
            recorded.get((kept.baseline.asset_id, kept.version)),
        )
        if lines is None or kept.file_sha256 not in lines:
            found = "has no line for it" if lines is None else "has it with another content"
            raise PackageError(
                f"baseline {kept.version} of asset {asset_id!r}: the ledger {found}, so that it is "
                "not what was measured; delete its file and make it again with `batteryops "
                "baseline fit`, or answer without: --no-baseline"
            )


def _number(path: Path) -> int:
    """The number in a version's file name; 0 for what is no version."""
    _, found, number = path.stem.rpartition("-v")
    named = found and path.suffix == ".json" and not path.name.startswith(".")
    return int(number) if named and number.isdecimal() else 0


def some_of(assets: Sequence[str]) -> str:
    """The first few assets by name, and how many more there are."""
    return ", ".join(assets[:_NAMED]) + (
        f" and {len(assets) - _NAMED} more" if len(assets) > _NAMED else ""
    )
