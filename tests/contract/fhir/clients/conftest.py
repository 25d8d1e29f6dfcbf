"""One real web process that all foreign clients share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.builders.databases import new_database
from tests.contract.fhir.server_process import ServerProcess, serving


@pytest.fixture(scope="package")
def server(postgres_url: str) -> Iterator[ServerProcess]:
    """The web process; each test module uses its own codes and identifiers."""
    with serving(new_database(postgres_url)) as process:
        yield process
