"""Numbers of the structures that the segmentation tells apart (stage 4)."""

from __future__ import annotations

BACKGROUND, VERTEBRA, DISC, CANAL = 0, 1, 2, 3
