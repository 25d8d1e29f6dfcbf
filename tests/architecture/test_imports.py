"""Imports point one way (ADR 0001)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_imports_point_one_way() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run([program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_serving_needs_no_training_library() -> None:
    code = (
        "import sys; import ai_services.pipelines.lumbar_mr.pipeline, ai_services.worker, foramen.app;"
        "sys.exit(any(name in sys.modules for name in ('torch', 'monai', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
