"""Runs the pipeline on a large SYNTHETIC series in a process without the memory for it; prints the refusal."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import numpy as np

from ai_services.pipelines.lumbar_mr.outline import networks_for
from ai_services.pipelines.lumbar_mr.pipeline import run
from ai_services.prediction import PipelineError
from tests.builders.mr_series import mr_series

SHORT_BYTES = 100_000_000
AFFINE = np.array([[-1.0, 0, 0, 0], [0, 0, 0.2, -100], [0, -0.2, 0, 150], [0, 0, 0, 1]])


def main() -> None:
    """Load everything that a worker has loaded, take memory away, run."""
    pixels = np.zeros((20, 1200, 1200), np.uint16)
    pixels[:, 100:1100:3, 100:1100] = 900
    series = mr_series(pixels, AFFINE)
    networks_for(None)
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SHORT_BYTES, used + SHORT_BYTES))
    try:
        run(series)
    except PipelineError as refused:
        sys.stdout.write(f"{refused.reason_code} {refused.retryable}\n")


if __name__ == "__main__":
    main()
