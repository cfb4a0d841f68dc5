"""Fixtures for the tests of the API: a server for all tests of a module, whose backend is as new for each of them.

Test modules load this file as a plugin and do not import it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from live_api import LiveApi, live


@pytest.fixture(scope="module")
def api_server() -> Iterator[LiveApi]:
    """The API, open to everybody; for tests of many examples as it is.

    A module that wants another one has its own fixture of this name.
    """
    with live() as api:
        yield api


@pytest.fixture
def api(api_server: LiveApi) -> LiveApi:
    """The API, its backend as new."""
    api_server.backend.reset()
    return api_server
