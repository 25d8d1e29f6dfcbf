"""Event reports of workitems. Pure functions (DICOM PS3.4 §CC.2.4, Table CC.2.4-1; PS3.18 §11.13, §8.10.5)."""

from __future__ import annotations

from dicomweb.workitems.workitem import (
    CANCELED,
    PROGRESS,
    READINESS,
    STATE,
    UPS_PUSH,
    Model,
    attribute,
    value_of,
)

STATE_REPORT, CANCEL_REQUESTED, PROGRESS_REPORT = 1, 2, 3


def report(model: Model, kind: int, message_id: int, **more: Model) -> Model:
    """Write one event report.

    Parameters
    ----------
    model : the workitem as it is now
    kind : Event Type ID
    more : further attributes, their tags prefixed by ``t``
    """
    uid = str(value_of(model, "00080018") or "")
    found: Model = {
        "00000002": attribute("UI", UPS_PUSH),
        "00000110": attribute("US", message_id % 65_535 + 1),
        "00001000": attribute("UI", uid),
        "00001002": attribute("US", kind),
    }
    if kind == STATE_REPORT:
        found |= {tag: model[tag] for tag in (READINESS, STATE)}
        if value_of(model, STATE) == CANCELED:
            found |= _why(model)
    elif kind == PROGRESS_REPORT:
        found[PROGRESS] = model.get(PROGRESS, attribute("SQ"))
    return found | {tag.removeprefix("t"): item for tag, item in more.items()}


def _why(model: Model) -> Model:
    said = value_of(model, PROGRESS) or {}
    return {tag: said[tag] for tag in ("00741238", "0074100E") if tag in said}


def kinds(before: Model | None, after: Model) -> list[int]:
    """Event types that a change is reported by; a new workitem is reported by its state."""
    if before is None:
        return [STATE_REPORT]
    found = [STATE_REPORT] if any(before.get(tag) != after.get(tag) for tag in (STATE, READINESS)) else []
    if before.get(PROGRESS) != after.get(PROGRESS) and STATE_REPORT not in found:
        found.append(PROGRESS_REPORT)
    return found
