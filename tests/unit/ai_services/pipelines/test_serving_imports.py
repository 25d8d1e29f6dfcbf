"""Serving needs ONNX Runtime, NumPy, SciPy and scikit-image only: torch and MONAI stay in training/."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]


def test_running_the_pipeline_loads_no_training_package():
    code = (
        "import sys, ai_services.pipelines.lumbar_mr.pipeline, ai_services.imaging.series_selection,"
        " ai_services.imaging.phantom, ai_services.models.registry;"
        "bad = {'torch', 'monai', 'sklearn', 'onnx'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_serving_module_names_a_training_package():
    for path in (ROOT / "ai_services").rglob("*.py"):
        if "training" in path.relative_to(ROOT).parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in {"torch", "monai", "sklearn", "onnx"}, path
                assert not name.startswith("ai_services.training"), path
