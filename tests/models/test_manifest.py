"""The manifest: strict, canonical, and honest about the code that computed the model."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from batteryops.errors import PackageError
from batteryops.models import manifest as module
from batteryops.models.manifest import MANIFEST, Manifest, code_version, read_manifest

HASH = "0" * 64


def facts() -> dict[str, Any]:
    return {
        "format_version": 3,
        "model_name": "ev-soh-predictor",
        "view": "discharge_summary",
        "view_version": 1,
        "schema_hash": HASH,
        "feature_names": ["voltage_V_mean", "current_A_mean"],
        "level": "cell",
        "nominal_capacities_ah": {"nasa_18650": 2.0, "another": None},
        "algorithm": {"name": "xgboost", "shares": {}, "values": {"xgboost": {"max_depth": 4}}},
        "booster": True,
        "parameters": {"n_estimators": 300, "learning_rate": 0.1, "tree_method": "hist"},
        "seed": 42,
        "created_at": "2026-01-02T03:04:05Z",
        "training_rows": 10,
        "training_assets": ["B0005"],
        "data_fingerprint": HASH,
        "code": {"git_commit": None, "package_version": "0.1.0", "libraries": {"xgboost": "3.2"}},
        "recorded": {"rows": [[3.5, None]], "outputs_ah": [1.8]},
        "files": dict.fromkeys(("model.ubj", "model.onnx", "domain.json", "intervals.json"), HASH),
    }


def written(folder: Path, content: object) -> Path:
    (folder / MANIFEST).write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_manifest_survives_its_own_text(tmp_path: Path) -> None:
    manifest = Manifest.model_validate(facts())

    again = read_manifest(written(tmp_path, manifest.to_text()))

    assert again == manifest
    assert again.fingerprint == manifest.fingerprint
    assert again.profiles == ("another", "nasa_18650")


def test_numbers_keep_their_kind() -> None:
    parameters = Manifest.model_validate(facts()).parameters

    assert [type(value) for value in parameters.values()] == [int, float, str]


def test_the_fingerprint_ignores_the_order_of_keys_and_nothing_else() -> None:
    original = Manifest.model_validate(facts()).fingerprint
    reordered = dict(reversed(facts().items()))

    assert Manifest.model_validate(reordered).fingerprint == original
    for change in ({"seed": 43}, {"feature_names": ["current_A_mean", "voltage_V_mean"]}):
        assert Manifest.model_validate(facts() | change).fingerprint != original


def test_a_manifest_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        setattr(Manifest.model_validate(facts()), "seed", 1)  # noqa: B010 - mypy refuses it


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format version 2, expected 3; load it with the batteryops that"),
        ({"algorithm": {"name": ""}}, "algorithm.name: String should have at least 1 character"),
        ({"algorithm": {"name": "stack", "shares": {"ridge": 1.5}}}, "shares.ridge: Input should"),
        (
            {"algorithm": {"name": "ridge"}, "booster": False},
            "model.ubj, which ridge does not have",
        ),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
        ({"schema_hash": "abc"}, "schema_hash: String should match pattern"),
        ({"level": "module"}, "level: Input should be 'cell' or 'pack'"),
        ({"created_at": "2026-01-02T03:04:05"}, "created_at: Input should have timezone info"),
        ({"files": {"model.ubj": HASH}}, "not list domain.json, intervals.json, model.onnx"),
        ({"files": facts()["files"] | {"../secrets": HASH}}, "files.../secrets.*pattern"),
        ({"files": facts()["files"] | {MANIFEST: HASH}}, "cannot hold its own SHA-256"),
        ({"recorded": {"rows": [[1.0]], "outputs_ah": [1.0]}}, "one value per feature"),
        ({"recorded": {"rows": [[1.0, 2.0]], "outputs_ah": []}}, "differ in number"),
        ({"recorded": {"rows": [], "outputs_ah": []}}, "one value per feature"),
        ({"recorded": {"rows": [[1, 2]], "outputs_ah": [float("nan")]}}, "finite number"),
    ],
)
def test_a_manifest_that_states_something_else_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(PackageError, match=message):
        read_manifest(written(tmp_path, facts() | change))


@pytest.mark.parametrize("absent", [name for name in facts() if name != "format_version"])
def test_every_fact_is_required(tmp_path: Path, absent: str) -> None:
    content = facts()
    del content[absent]

    with pytest.raises(PackageError, match=f"{absent}: Field required"):
        read_manifest(written(tmp_path, content))


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"text"'])
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(PackageError, match=r"cannot be read as JSON|format version None"):
        read_manifest(written(tmp_path, content))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(b"\xff\xfe\x00")

    with pytest.raises(PackageError, match="cannot be read as JSON"):
        read_manifest(tmp_path)


def test_a_folder_that_is_no_package_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"has no manifest\.json, so it is not a model package"):
        read_manifest(tmp_path)
    with pytest.raises(PackageError, match="is not a folder; expected a model package"):
        read_manifest(tmp_path / "absent")


def commit_in(folder: Path) -> str:
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *arguments], check=True)  # noqa: S603 - fixed commands
    found = subprocess.run(  # noqa: S603 - a fixed command
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    )
    return found.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the one this package's source lies in."""
    source = tmp_path / "src" / "batteryops" / "models" / "manifest.py"
    source.parent.mkdir(parents=True)
    source.touch()
    monkeypatch.setattr(module, "__file__", str(source))
    return tmp_path


def test_the_commit_is_that_of_the_checkout_and_says_when_files_differ(checkout: Path) -> None:
    commit = commit_in(checkout)
    assert code_version("3.2.0").git_commit == commit

    (checkout / "src" / "batteryops" / "models" / "manifest.py").write_text("changed")
    assert code_version("3.2.0").git_commit == f"{commit}-dirty"


def test_without_a_checkout_there_is_no_commit(checkout: Path) -> None:
    assert code_version("3.2.0").git_commit is None
    (checkout / ".git").mkdir()  # not one that git can read
    assert code_version("3.2.0").git_commit is None


def test_versions_of_what_computes_are_stated() -> None:
    code = code_version("3.2.0")

    assert code.libraries["xgboost"] == "3.2.0"
    assert {"numpy", "onnxruntime", "python"} <= code.libraries.keys()
