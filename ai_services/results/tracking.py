"""One tracking id and UID a structure, the same in SEG, SR and presentation state of a run (stage 5).

DICOM PS3.3 C.8.20.4 (segment), C.10.5 (graphic annotation): the values of (112039, DCM) and (112040, DCM) in the SR.
"""

from __future__ import annotations

from ai_services.prediction import Segment
from ai_services.results.context import RunContext

_LIMIT = 64  # VR LO and, of the SR, what other readers show


def segment_tracking(segment: Segment, context: RunContext) -> tuple[str, str]:
    """Tracking id and UID of a segmented structure; of one run: no identity over time is claimed."""
    return segment.name[:_LIMIT], context.uid(f"tracking-{segment.number}")


def level_tracking(level: str | None, context: RunContext) -> tuple[str, str]:
    """Tracking id and UID of findings that belong to no segment."""
    return level or "study", context.uid(f"group-{level}")
