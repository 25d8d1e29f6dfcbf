"""The TypeScript units (vitest) run with the same Node as the build."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

APPS = Path(__file__).parents[3] / "smart_apps"


def test_the_typescript_units_pass() -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "CI": "true"}
    result = subprocess.run(
        ["npm", "test", "--silent"], cwd=APPS, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
