"""What a model package says of itself: the manifest, its canonical form and its fingerprint."""

import hashlib
import json
import platform
import subprocess
from functools import cached_property
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from batteryops.errors import PackageError

FORMAT_VERSION: Final = 3
"""2: a package holds intervals and the training domain; without them it cannot answer.

3: it says which algorithm answers, and holds a booster only where that is one booster.
"""

MANIFEST: Final = "manifest.json"
BOOSTER: Final = "model.ubj"
TWIN: Final = "model.onnx"
DOMAIN: Final = "domain.json"
INTERVALS: Final = "intervals.json"

LIBRARIES: Final = ("numpy", "onnx", "onnxmltools", "onnxruntime", "polars", "scikit-learn")
"""Distributions whose versions a manifest names, besides Python's and XGBoost's."""

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
# a plain name: a manifest must not reach outside of its folder
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CodeVersion(_Part):
    """What computed the model.

    Args:
        git_commit: of the checkout the package ran from, with `-dirty` when it had changes; None
            when it was installed from a wheel.
        package_version: of batteryops.
        libraries: versions by distribution, Python's among them.
    """

    git_commit: str | None
    package_version: str
    libraries: dict[str, str]


class ChosenAlgorithm(_Part):
    """Which algorithm answers.

    Args:
        name: as a tournament's table has it: of `models.algorithms.ALGORITHMS`, `stack`, or with
            values that a search found.
        shares: of a stack's members by name, 0 or more and 1 together; empty for anything else.
        values: that a search found, by algorithm; empty where the defaults answer.

    Examples:
        >>> print(ChosenAlgorithm(name="stack", shares={"ridge": 0.25, "extra_trees": 0.75}))
        stack of 0.25 ridge + 0.75 extra_trees
    """

    name: Annotated[str, Field(min_length=1)]
    shares: dict[str, Annotated[float, Field(ge=0.0, le=1.0)]] = {}
    values: dict[str, dict[str, float | int | str]] = {}

    def __str__(self) -> str:
        """For people, in one line."""
        if not self.shares:
            return self.name
        members = " + ".join(f"{share:.2f} {member}" for member, share in self.shares.items())
        return f"{self.name} of {members}"


class RecordedSample(_Part):
    """A few training rows and what the model answered when it was new.

    Args:
        rows: features in the order of the view; None where missing.
        outputs_ah: the fitted model's predictions in Ah, one per row.
    """

    rows: tuple[tuple[float | None, ...], ...]
    outputs_ah: tuple[float, ...]


class Manifest(_Part):
    """The facts that travel with a model; frozen, and refused when one is missing or unknown.

    Args:
        format_version: of this form; `FORMAT_VERSION` is the one written and read here.
        model_name: the registered model it is meant for.
        view: name of the feature view.
        view_version: of the view.
        schema_hash: of the view; serving refuses a model whose hash it cannot compute.
        feature_names: in the order of the model's inputs.
        level: `cell` or `pack`.
        nominal_capacities_ah: by profile of the training assets; None where not published.
        algorithm: which one answers.
        booster: whether it is one XGBoost booster, which is then in the package, and answers
            batches; ONNX Runtime answers everything else.
        parameters: XGBoost's, as configured; those that a search found stand in `algorithm`.
        seed: of whatever was random in the fit.
        created_at: UTC.
        training_rows: how many rows the model was fitted on.
        training_assets: whose cycles they were, sorted.
        data_fingerprint: `schema.fingerprint` of the training table.
        code: what computed the model.
        recorded: rows and answers that a loaded model must reproduce.
        files: SHA-256 of every other file of the package, by name.
    """

    format_version: Literal[3]
    model_name: str
    view: str
    view_version: int
    schema_hash: Digest
    feature_names: Annotated[tuple[str, ...], Field(min_length=1)]
    level: Literal["cell", "pack"]
    nominal_capacities_ah: Annotated[dict[str, float | None], Field(min_length=1)]
    algorithm: ChosenAlgorithm
    booster: bool
    parameters: dict[str, float | int | str]
    seed: int
    created_at: AwareDatetime
    training_rows: Annotated[int, Field(ge=1)]
    training_assets: Annotated[tuple[str, ...], Field(min_length=1)]
    data_fingerprint: Digest
    code: CodeVersion
    recorded: RecordedSample
    files: dict[FileName, Digest]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        needed = {TWIN, DOMAIN, INTERVALS} | ({BOOSTER} if self.booster else set())
        absent = needed - self.files.keys()
        if absent:
            raise ValueError(f"files does not list {', '.join(sorted(absent))}")
        if not self.booster and BOOSTER in self.files:
            raise ValueError(f"files lists {BOOSTER}, which {self.algorithm.name} does not have")
        if MANIFEST in self.files:
            raise ValueError(f"files lists {MANIFEST}, which cannot hold its own SHA-256")
        widths = {len(row) for row in self.recorded.rows}
        if widths != {len(self.feature_names)}:
            raise ValueError("recorded rows do not have one value per feature")
        if len(self.recorded.rows) != len(self.recorded.outputs_ah):
            raise ValueError("recorded rows and outputs differ in number")
        return self

    @property
    def profiles(self) -> tuple[str, ...]:
        """Profiles of the training assets, sorted."""
        return tuple(sorted(self.nominal_capacities_ah))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the canonical JSON: it names the model and, through `files`, every byte."""
        canonical = json.dumps(
            self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        return hashlib.sha256(canonical.encode()).hexdigest()

    def to_text(self) -> str:
        """As `manifest.json` holds it, for people to read as well."""
        return self.model_dump_json(indent=2) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a package folder; reads nothing else.

    Raises:
        PackageError: when the folder is none, or its manifest is missing, unreadable or of
            another format.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise PackageError(f"{folder} is not a folder; expected a model package")
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise PackageError(
            f"{folder} has no {MANIFEST}, so it is not a model package; name a folder that "
            "`batteryops train` wrote"
        ) from error
    except (OSError, ValueError) as error:
        raise PackageError(
            f"{path} cannot be read as JSON: {error}; fetch the package from the registry again"
        ) from error
    given = content.get("format_version") if isinstance(content, dict) else None
    if given != FORMAT_VERSION:
        raise PackageError(
            f"{path} has format version {given!r}, expected {FORMAT_VERSION}; load it with the "
            "batteryops that wrote it, or train again"
        )
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'manifest'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise PackageError(
            f"{path} is not a manifest: {problems}; fetch the package from the registry again"
        ) from error


def code_version(xgboost_version: str) -> CodeVersion:
    """What runs here: this package's commit and version, and those of the libraries it uses.

    Args:
        xgboost_version: what the imported module says, since its distribution has two names.
    """
    root = Path(__file__).resolve().parents[3]
    libraries = {name: installed_version(name) for name in LIBRARIES}
    return CodeVersion(
        git_commit=_git_commit(root),
        package_version=installed_version("batteryops"),
        libraries={
            **libraries,
            "python": platform.python_version(),
            "xgboost": xgboost_version,
        },
    )


def json_name(name: str) -> str:
    """The file of a JSON document, which may be named without its ending.

    Examples:
        >>> json_name("gates"), json_name("metrics.json")
        ('gates.json', 'metrics.json')
    """
    return name if name.endswith(".json") else f"{name}.json"


def _git_commit(root: Path) -> str | None:
    """The commit of a checkout, `-dirty` when files differ from it; None when it is none."""
    if not (root / ".git").exists():  # installed from a wheel: a commit found above is not ours
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        found = subprocess.run(  # noqa: S603 - a fixed command, no text from outside
            [*command, "--exclude=*"], capture_output=True, text=True, check=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, or not one that may read the folder
    return found.stdout.strip() or None
