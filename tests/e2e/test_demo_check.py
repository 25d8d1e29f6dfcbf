"""`foramen demo --check` does the whole main job without a person and exits 0."""

from __future__ import annotations

import subprocess
import sys

import pytest

from foramen.kernel.embedded_postgres import stop_postgres
from tests.conftest import TEST_DATA
from tests.e2e.conftest import new_system

pytestmark = pytest.mark.system


@pytest.mark.timeout(420)
def test_the_check_goes_through() -> None:
    check = new_system(FORAMEN_TEST_DATA=str(TEST_DATA), COLUMNS="200")
    try:
        result = subprocess.run(
            [sys.executable, "-m", "foramen", "demo", "--check"],
            env=check.environment,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
    finally:
        stop_postgres(check.home / "postgres")
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:] + check.logs()
    assert "FAILED" not in result.stdout
    for stage in ("1 receive", "2-3 notify", "4 run", "5-6 encode", "7 launch", "8 verify", "8 decide"):
        assert stage in result.stdout
