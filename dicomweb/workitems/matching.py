"""Which workitems match: attribute matching. Pure functions (DICOM PS3.18 §8.3.4, PS3.4 §C.2.2.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomweb.workitems.workitem import INPUTS, STATE, STATUSES, Model
from foramen.kernel.errors import InvalidRequestError
from terminology import systems

Path = tuple[str, ...]
_DATES = frozenset(("DA", "DT", "TM"))
_NO_WILDCARDS = _DATES | {"UI", "IS", "DS", "US", "SS", "UL", "SL", "FL", "FD"}


def path_of(name: str) -> Path:
    """Tags of an attribute given by keyword or tag, dotted into sequences.

    Raises
    ------
    InvalidRequestError
        Not an attribute.
    """
    tags = []
    for part in name.split("."):
        number = int(part, 16) if re.fullmatch(r"[0-9A-Fa-f]{8}", part) else tag_for_keyword(part)
        if number is None:
            raise InvalidRequestError("A query parameter is no attribute", issue_code="invalid")
        tags.append(f"{number:08X}")
    return tuple(tags)


def filter_of(parameters: Iterable[tuple[str, str]]) -> dict[Path, str]:
    """Matching keys of a query; a value that is empty matches everything."""
    return {path_of(name): value for name, value in parameters if value}


def matches(model: Model, wanted: Mapping[Path, str]) -> bool:
    """Whether a workitem matches all keys."""
    return all(any(_match(value, text, path[-1]) for value in _values(model, path)) for path, text in wanted.items())


def _values(model: Any, path: Path) -> Iterable[Any]:
    found = model.get(path[0]) if isinstance(model, dict) else None
    values = found.get("Value", ()) if isinstance(found, dict) else ()
    if len(path) == 1:
        return [text for value in values for text in (value.values() if isinstance(value, dict) else [value])]
    return [text for item in values for text in _values(item, path[1:])]


def _match(value: Any, wanted: str, tag: str) -> bool:
    text = str(value)
    try:
        vr = dictionary_VR(int(tag, 16))
    except KeyError:
        vr = "LO"
    if vr == "UI":
        return text in re.split(r"[,\\]", wanted)
    if vr in _DATES and "-" in wanted[1:] + wanted[:1] and not re.search(r"-\d{4}$", wanted):
        low, _, high = wanted.partition("-")
        # A bound that says less than the value covers all of what it names: 2026 is the whole year.
        return (not low or text[: len(low)] >= low) and (not high or text[: len(high)] <= high)
    if vr in _DATES:
        return text.startswith(wanted)
    if vr in _NO_WILDCARDS or not re.search(r"[*?]", wanted):
        return text.casefold() == wanted.casefold() if vr == "PN" else text == wanted
    pattern = "".join({"*": ".*", "?": "."}.get(one, re.escape(one)) for one in wanted)
    return re.fullmatch(pattern, text, re.DOTALL | (re.IGNORECASE if vr == "PN" else 0)) is not None


def narrowed(wanted: Mapping[Path, str]) -> list[tuple[str, str]]:
    """What of the keys the record can be asked for: it answers fewer Tasks, never other ones."""
    asked = []
    if (state := wanted.get((STATE,))) is not None:
        asked.append(("status", STATUSES.get(state, "entered-in-error")))
    if study := wanted.get((INPUTS, "0020000D")):
        names = (f"{systems.DICOM_UID}|urn:oid:{uid}" for uid in re.split(r"[,\\]", study) if uid)
        asked.append(("group-identifier", ",".join(names)))
    return asked
