"""Whether grey values are pictures at all (stage 4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ai_services.imaging.refusal import refusal


def require_pictures(stack: NDArray[np.float32]) -> None:
    """Refuse blank images: all of them, most of them, or one between others.

    Parameters
    ----------
    stack : shape (slice, row, column), original grey values
    """
    blank = np.ptp(stack, axis=(1, 2)) == 0
    used = np.flatnonzero(~blank)
    if not len(used) or blank.mean() > 0.5 or blank[used[0] : used[-1]].any():
        raise refusal(
            "blank-image", f"{int(blank.sum())} of {len(stack)}", f"{len(stack)} 层中有 {int(blank.sum())} 层"
        )
