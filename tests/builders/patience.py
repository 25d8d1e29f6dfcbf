"""How long a test waits before it says that something did not happen."""

from __future__ import annotations

import os


def patience(seconds: float) -> float:
    """Return the seconds to wait: three times as many where test processes share the machine (pytest-xdist).

    A deadline only tells "never" from "late"; nothing that passes becomes slower by it.
    """
    return seconds * 3 if "PYTEST_XDIST_WORKER" in os.environ else seconds
