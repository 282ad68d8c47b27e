"""What all tests share: the real measurements, when they are there."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real measurements; without it a test is skipped, in CI it fails."""
    given = os.environ.get("BATTERYOPS_DATA")
    if given and Path(given).is_dir():
        return Path(given)
    message = f"BATTERYOPS_DATA is {given!r}: expected the folder of real measurements"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)
