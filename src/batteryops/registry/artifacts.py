"""The place where runs keep their artifacts: can it be written to, does it answer?"""

import tempfile
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from batteryops.errors import RegistryError
from batteryops.files import first_line
from batteryops.urls import hidden, masked


def check_place(place: str, tracking_uri: str) -> None:
    """Return when artifacts can be kept there. A folder that does not exist is made.

    Args:
        place: a folder, `file:` URI, or another URI that MLflow knows, which is only listed.
        tracking_uri: of the server that `mlflow-artifacts:` stands for.

    Raises:
        RegistryError: naming the place.
    """
    try:
        parts = urlsplit(place)
        if parts.scheme in {"", "file"}:
            folder = Path(url2pathname(parts.path))
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return
        # heavy, and imported by now: only a client knows where artifacts go
        from mlflow.store.artifact.artifact_repository_registry import (  # noqa: PLC0415
            get_artifact_repository,
        )

        get_artifact_repository(place, tracking_uri=tracking_uri).list_artifacts()
    except Exception as error:  # each kind of place has a library with errors of its own
        reason = hidden(first_line(error), place, tracking_uri)
        raise RegistryError(
            f"artifacts cannot be kept at {masked(place)}: {reason}; make it writable, or set "
            "registry.artifact_root before an experiment's first run"
        ) from error
