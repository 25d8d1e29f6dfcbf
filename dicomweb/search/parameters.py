"""What a search asks: the query parameters of PS3.18 §8.3.4, checked. Pure; no SQL.

https://dicom.nema.org/medical/dicom/current/output/chtml/part18/sect_8.3.4.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicomweb.index.levels import LEVELS, Level, level_of
from foramen.kernel.errors import InvalidRequestError

LARGEST_PAGE = 1000
STUDY_UID, SERIES_UID, INSTANCE_UID = "0020000D", "0020000E", "00080018"
MODALITIES_IN_STUDY, CLASSES_IN_STUDY = "00080061", "00080062"
COUNTED: dict[str, Level] = {
    MODALITIES_IN_STUDY: "study",
    CLASSES_IN_STUDY: "study",
    "00201206": "study",  # Number of Study Related Series
    "00201208": "study",  # Number of Study Related Instances
    "00201209": "series",  # Number of Series Related Instances
}
"""Attributes that no file holds: the index knows them."""
_NEVER_MATCHED = frozenset(("00080005", "00080056", "00081190"))
"""Character set, availability, URL: named in a query they are returned, and never matched (PS3.4 §C.2.2.2)."""
LABEL_CREATOR = "FORAMEN"
"""Private Creator of the attribute that holds labels (`dicomweb.search.labels`)."""
_BINARY = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
_HEX = re.compile(r"[0-9A-Fa-f]{8}")


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute, perhaps inside sequences.

    Parameters
    ----------
    path : tags from the outermost sequence inwards; of a private one the element is given without its block
    vr : of the last tag, as the dictionary has it; "" when it has none
    creator : private creator of the first tag; its block differs from file to file (PS3.5 §7.8.1)
    name : as the client wrote it
    """

    path: tuple[str, ...]
    vr: str
    name: str
    creator: str | None = None

    @property
    def level(self) -> Level:
        """To which level it belongs."""
        return COUNTED.get(self.path[0]) or level_of(self.path[0])


@dataclass(slots=True)
class SearchRequest:
    """A checked search."""

    level: Level
    matches: list[tuple[Attribute, str]] = field(default_factory=list)
    fields: list[Attribute] = field(default_factory=list)
    all_fields: bool = False
    fuzzy: bool = False
    empty: bool = False
    multiple: bool = False
    limit: int = LARGEST_PAGE
    offset: int = 0
    within: frozenset[str] = frozenset()
    """Names of the parents that the URL names: "study", "series"."""

    def asked(self) -> Iterable[Attribute]:
        """Return all attributes that the answer has to hold beyond the required ones."""
        return (*(attribute for attribute, _ in self.matches), *self.fields)


def parse(level: Level, pairs: Iterable[tuple[str, str]], path: Mapping[str, str]) -> SearchRequest:
    """Check the parameters of a search.

    Parameters
    ----------
    pairs : decoded names and values, in order
    path : UIDs that the URL names, by ``study`` and ``series``

    Raises
    ------
    InvalidRequestError
        An attribute that is unknown, named twice, or not matched on at this level (to ignore it would return what was
        not asked for), or a malformed value: 400, as Table 10.6.3-1 has it.
    """
    request = SearchRequest(level, within=frozenset(path) & {"study", "series"})
    for name, keyword in (("study", "StudyInstanceUID"), ("series", "SeriesInstanceUID")):
        if name in path:
            request.matches.append((attribute_of(keyword, {}), path[name]))
    pairs = [(name, value) for name, value in pairs if name != "accept"]
    creators = _creators(pairs)
    named: set[tuple[tuple[str, ...], str | None]] = set()
    for name, value in pairs:
        if "\0" in value:
            raise InvalidRequestError(
                f"{name[:64]} holds a character that no attribute can hold", expression=[name[:64]]
            )
        if _option(request, name, value, creators) or name.upper() in creators:
            continue
        attribute = attribute_of(name, creators)
        if (attribute.path, attribute.creator) in named:
            raise InvalidRequestError("An attribute may be matched on once", expression=[name[:64]])
        named.add((attribute.path, attribute.creator))
        if attribute.creator == LABEL_CREATOR and value.strip(" "):
            request.matches.append((attribute, value.strip(" ")))  # Of the study, whatever the level of the search.
        elif attribute.path[0] in _NEVER_MATCHED or value.strip(" ") in ("", "*"):
            request.fields.append(attribute)  # Universal matching (PS3.4 §C.2.2.2.3): asked for, and nothing excluded.
        else:
            request.matches.append((_matchable(attribute, level), value.strip(" ")))
    return request


def _option(request: SearchRequest, name: str, value: str, creators: Mapping[str, str]) -> bool:
    match name:
        case "limit":
            request.limit = min(_whole_number(name, value), LARGEST_PAGE)
        case "offset":
            request.offset = _whole_number(name, value)
        case "fuzzymatching":
            request.fuzzy = _truth(name, value)
        case "emptyvaluematching":
            request.empty = _truth(name, value)
        case "multiplevaluematching":
            request.multiple = _truth(name, value)
        case "includefield":
            for part in value.split(","):
                if part == "all":
                    request.all_fields = True
                else:
                    request.fields.append(attribute_of(part, creators, "includefield"))
        case _:
            return False
    return True


def _creators(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Private Creator elements (gggg,0010 to gggg,00FF, gggg odd) that the query names: they say whose a block is."""
    found = {}
    for name, value in pairs:
        if _HEX.fullmatch(name) and int(name[3], 16) % 2 and name[4:6] == "00" and int(name[6:], 16) >= 0x10:
            found[name.upper()] = value.strip()
    return found


def attribute_of(name: str, creators: Mapping[str, str], expression: str = "") -> Attribute:
    """Return the attribute of ``Keyword``, ``GGGGEEEE`` or ``Sequence.Attribute``.

    Raises
    ------
    InvalidRequestError
        Unknown; or private without its Private Creator among the parameters.
    """
    shown = expression or name[:64]
    path = []
    for part in name.split("."):
        tag = part.upper() if _HEX.fullmatch(part) else f"{tag_for_keyword(part) or 0:08X}"
        if tag == "00000000":
            raise InvalidRequestError("Unknown attribute", expression=[shown])
        path.append(tag)
    first, creator = path[0], None
    if int(first[3], 16) % 2:
        creator = creators.get(f"{first[:4]}00{first[4:6]}")
        if not creator:
            text = "A private attribute needs its Private Creator as a further parameter (PS3.18 §8.3.4.3)"
            raise InvalidRequestError(text, expression=[shown])
        path[0] = f"{first[:4]}00{first[6:]}"
    return Attribute(tuple(path), _vr(path[-1]), shown, creator)


def _matchable(attribute: Attribute, level: Level) -> Attribute:
    if LEVELS.index(attribute.level) > LEVELS.index(level):
        raise InvalidRequestError(f"It cannot be matched on at {level} level", expression=[attribute.name])
    if attribute.vr == "SQ":
        raise InvalidRequestError(
            "A sequence is matched by its attributes: Sequence.Attribute", expression=[attribute.name]
        )
    if attribute.vr in _BINARY and attribute.creator is None:
        raise InvalidRequestError("Binary values are not matched", expression=[attribute.name])
    return attribute


def _vr(tag: str) -> str:
    try:
        return str(dictionary_VR(int(tag, 16)))[:2]
    except KeyError:
        return ""


def _whole_number(name: str, value: str) -> int:
    if not re.fullmatch(r"\d{1,9}", value, re.ASCII):
        raise InvalidRequestError(f"{name} must be a whole number", expression=[name])
    return int(value)


def _truth(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise InvalidRequestError(f"{name} must be true or false", expression=[name])
    return value == "true"
