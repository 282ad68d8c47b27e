"""Each test of records on both kinds of database."""

from collections.abc import Callable

import pytest


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    """The URL of a fresh, empty database."""
    return new_url()
