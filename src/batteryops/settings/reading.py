"""Read and merge: the configuration file < environment BATTERYOPS_* < flags."""

import difflib
import json
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import SettingsError as EnvironmentSyntaxError

from batteryops.errors import SettingsError
from batteryops.settings.configuration import PREFIX, Settings
from batteryops.urls import masked

CONFIG_NAME: Final = "production.yaml"

CONFIG_VARIABLE: Final = f"{PREFIX}CONFIG"

_GIVEN_LENGTH: Final = 100  # what was given is shown up to here


def find_config() -> Path:
    """The configuration file in force when none is named.

    BATTERYOPS_CONFIG, else config/production.yaml under the working folder, else the copy that
    travels with the package.

    Raises:
        SettingsError: when none of them exists.
    """
    here = Path(__file__).resolve()
    named = os.environ.get(CONFIG_VARIABLE)
    candidates = (
        [Path(named)]
        if named
        else [
            Path("config") / CONFIG_NAME,
            here.parents[1] / CONFIG_NAME,  # installed from a wheel
            here.parents[3] / "config" / CONFIG_NAME,  # installed in place from a checkout
        ]
    )
    for path in candidates:
        if path.is_file():
            return path
    raise SettingsError(
        f"no configuration file: looked for {', '.join(map(str, candidates))}; "
        f"name one with --config or {CONFIG_VARIABLE}"
    )


def load_settings(config: Path | None = None, **flags: Any) -> Settings:  # noqa: ANN401 - of any setting's type
    """Read the configuration once.

    Args:
        config: the YAML file; `find_config` when None.
        flags: values that outrank file and environment, by the names of `Settings`; those that
            are None were not given.

    Raises:
        SettingsError: naming each setting that is missing, unknown or out of range.
    """
    _refuse_unknown_variables()
    path = config or find_config()

    class FromFile(Settings):
        file_content = _read_yaml(path)

    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return FromFile(**given)
    except EnvironmentSyntaxError as error:
        broken = ", ".join(variable for variable in _variables() if not _is_readable(variable))
        raise SettingsError(
            f"environment variable {broken}: no valid JSON; a section or a list is given as JSON, "
            f"one key as {PREFIX}SERVING__PORT=9000"
        ) from error
    except ValidationError as error:
        problems = "; ".join(_told(problem) for problem in error.errors())
        raise SettingsError(f"{path}: {problems}") from error


def _told(problem: Mapping[str, Any]) -> str:
    """One problem that pydantic found: where, what, and what was given where that is short."""
    where = ".".join(map(str, problem["loc"])) or "configuration"
    if problem["type"] == "missing":
        return f"{where} is missing"
    given = masked(repr(problem["input"]))  # a URL under a misspelt key, say
    shown = f" (given {given})" if problem["loc"] and len(given) <= _GIVEN_LENGTH else ""
    path = [str(part).lower() for part in problem["loc"]]
    variables = [
        variable
        for variable in _variables()
        if path and all(a == b for a, b in zip(_keys(variable), path, strict=False))
    ]
    source = f", as {' and '.join(variables)} has it" if variables else ""
    return f"{where}: {problem['msg'].removeprefix('Value error, ')}{shown}{source}"


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise SettingsError(f"configuration file {path} does not exist")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506, it is a SafeLoader
    # ValueError: no UTF-8, or a date like 2026-02-30
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        reason = " ".join(str(error).split())
        raise SettingsError(
            f"configuration file {path} cannot be read as YAML: {reason}"
        ) from error
    if content is None:
        return {}
    if isinstance(content, dict) and (odd := [n for n in content if not isinstance(n, str)]):
        raise SettingsError(
            f"configuration file {path}: {odd[0]!r} is no setting's name; expected settings by "
            f"name, as in {CONFIG_NAME}"
        )
    if not isinstance(content, dict):
        raise SettingsError(
            f"configuration file {path} holds a {type(content).__name__}; expected settings by "
            f"name, as in {CONFIG_NAME}"
        )
    return content


class _Loader(yaml.SafeLoader):
    """As YAML's own, but a key given twice is an error: the first would have no effect."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002, declared by PyYAML
        """The mapping of a node."""
        keys = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, times in keys.items():
            if times > 1:
                line = node.start_mark.line + 1
                raise yaml.YAMLError(f"{name} is given {times} times in the part from line {line}")
        return super().construct_mapping(node, deep)


def _variables() -> list[str]:
    """The variables of the environment that are meant as settings."""
    return sorted(
        name
        for name, value in os.environ.items()
        if name.upper().startswith(PREFIX) and name != CONFIG_VARIABLE and value
    )


def _keys(variable: str) -> list[str]:
    return variable.lower().removeprefix(PREFIX.lower()).split("__")


def _is_readable(variable: str) -> bool:
    """Whether a variable's text is JSON where it stands for a section or a list."""
    name, *keys = _keys(variable)
    text = os.environ[variable].strip()
    if _is_plain(Settings.model_fields[name].annotation) or (keys and text[:1] not in {"[", "{"}):
        return True
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _refuse_unknown_variables() -> None:
    """A misspelt variable would have no effect, and nobody would notice."""
    sections: dict[str, Mapping[str, Any] | None] = {}  # None: keys of any name
    for name, field in Settings.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            sections[name] = kind.model_fields
        else:
            sections[name] = {} if _is_plain(kind) else None
    known = [CONFIG_VARIABLE, *(f"{PREFIX}{name}".upper() for name in sections)]
    known += [
        f"{PREFIX}{name}__{key}".upper() for name, keys in sections.items() for key in keys or ()
    ]
    for variable in _variables():
        name, *keys = _keys(variable)
        inner = sections.get(name)
        if name in sections and (not keys or inner is None or keys[0] in inner):
            continue
        near = difflib.get_close_matches(variable.upper(), known, n=1)
        meant = f"; did you mean {near[0]}?" if near else ";"
        names = ", ".join(name.upper() for name in sorted(sections))
        raise SettingsError(
            f"environment variable {variable} is no setting{meant} expected {CONFIG_VARIABLE}, or "
            f"{PREFIX} and one of {names}, with its keys after two underscores each"
        )


def _is_plain(annotation: Any) -> bool:  # noqa: ANN401 - whatever a field is declared as
    """Whether a setting is one value, without keys of its own."""
    return annotation in (str, Path, Path | None)
