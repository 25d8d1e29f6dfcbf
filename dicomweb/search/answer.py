"""What a search answers: the columns to read, and of each row the attributes required and asked for.

PS3.18 Tables 10.6.3-3 to 10.6.3-5; a search over several studies or series carries the attributes of the parents too.
https://dicom.nema.org/medical/dicom/current/output/chtml/part18/sect_10.6.3.3.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from dicomweb.index.levels import LEVELS, Level
from dicomweb.instance_header import tag_of
from dicomweb.search.matching import ALIAS, counted
from dicomweb.search.parameters import (
    CLASSES_IN_STUDY,
    COUNTED,
    INSTANCE_UID,
    SERIES_UID,
    STUDY_UID,
    Attribute,
    SearchRequest,
)
from dicomweb.search.plain_studies import PlainStudies
from dicomweb.visibility import Visible

_REQUIRED: dict[Level, tuple[str, ...]] = {
    "study": tuple(
        tag_of(keyword)
        for keyword in (
            *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "TimezoneOffsetFromUTC"),
            *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID"),
        )
    ),
    "series": tuple(
        tag_of(keyword)
        for keyword in (
            *("Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "RequestAttributesSequence"),
            *("PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime"),
        )
    ),
    "instance": (),
}
"""Of the instance every required attribute is a column."""
_COUNTS: dict[Level, tuple[str, ...]] = {
    "study": ("00080061", "00201206", "00201208"),
    "series": ("00201209",),
    "instance": (),
}
_COUNT_VRS = {"00080061": "CS", CLASSES_IN_STUDY: "UI"}
_MOST_PICKED = 40
_UIDS = re.compile(r"[0-9.]+", re.ASCII)
_UTF8 = {"vr": "CS", "Value": ["ISO_IR 192"]}
_ONLINE = {"vr": "CS", "Value": ["ONLINE"]}
_FROM = {
    "study": "{0.study} s",
    "series": "{0.series} e JOIN {0.study} s USING (study_instance_uid)",
    "instance": """{0.instance} i JOIN {0.series} e USING (study_instance_uid, series_instance_uid)
        JOIN {0.study} s USING (study_instance_uid)""",
}
_ORDER = {
    "study": "s.study_date DESC NULLS LAST, s.study_instance_uid",
    "series": "e.study_instance_uid, e.series_instance_uid",
    "instance": "i.study_instance_uid, i.series_instance_uid, i.instance_number, i.sop_instance_uid",
}
_INSTANCE_COLUMNS = frozenset(("00080016", "00080018", "00083002", "00200013"))
"""Attributes of every instance that are columns: asked for or matched on, they need nothing else to be read."""
_OWN_COLUMNS = {
    "study": "s.study_instance_uid AS study_uid",
    "series": "e.study_instance_uid AS study_uid, e.series_instance_uid AS series_uid",
    "instance": """i.study_instance_uid AS study_uid, i.series_instance_uid AS series_uid,
        i.sop_instance_uid AS instance_uid, i.sop_class_uid, i.instance_number, i.pixel_rows, i.pixel_columns,
        i.bits_allocated, i.frames, i.transfer_syntax_uid""",
}


class Answer:
    """The shape of one search's answer.

    Parameters
    ----------
    as_text : `json` alone is asked of it, and no `dataset`
    """

    def __init__(self, request: SearchRequest, visible: Visible, base: str, *, as_text: bool = True) -> None:
        self._request, self._visible, self._base = request, visible, base
        self._levels = LEVELS[: LEVELS.index(request.level) + 1]
        asked = [attribute for attribute in request.asked() if attribute.level in self._levels]
        self._asked = [attribute for attribute in asked if attribute.path[0] not in COUNTED]
        self._carried = [level for level in self._levels if level == request.level or level not in request.within]
        wanted = {attribute.path[0] for attribute in asked}
        counts = [tag for level in self._carried for tag in _COUNTS[level]]
        counts += [tag for tag, level in COUNTED.items() if tag in wanted and level in self._levels]
        self._counts = list(dict.fromkeys(counts))
        named = {STUDY_UID, SERIES_UID, INSTANCE_UID, *_INSTANCE_COLUMNS}
        self._plain_instances = (
            self._carried == ["instance"] and not counts and not request.all_fields and wanted <= named
        )
        self._plain_studies = self._studies_as_text() if as_text and request.level == "study" else None

    def _studies_as_text(self) -> PlainStudies | None:
        tags = [*_REQUIRED["study"], *(attribute.path[0] for attribute in self._asked)]
        simple = all(attribute.creator is None and len(attribute.path) == 1 for attribute in self._asked)
        if self._request.all_fields or not simple or len(tags) > _MOST_PICKED:
            return None
        counts = {tag: (_COUNT_VRS.get(tag, "IS"), counted(tag, self._visible)) for tag in self._counts}
        return PlainStudies(tags, counts, {"00080005": _UTF8, "00080056": _ONLINE}, self._base)

    def select(self, where: str, limit: str, offset: str) -> str:
        """Return the statement of one page."""
        if self._plain_studies is not None:
            return self._plain_studies.select(self._tables(), where, _ORDER["study"], limit, offset)
        columns = [_OWN_COLUMNS[self._request.level]]
        columns += [] if self._plain_instances else [f"{self._picked(level)} AS {level}" for level in self._levels]
        columns += [f'{counted(tag, self._visible)} AS "{tag}"' for tag in self._counts]
        return f"""SELECT {", ".join(columns)} FROM {self._tables()} WHERE {where}
            ORDER BY {_ORDER[self._request.level]} LIMIT {limit} OFFSET {offset}"""  # noqa: S608  our own texts

    def total(self, where: str) -> str:
        """Return the statement that counts all that matches."""
        return f"SELECT count(*) FROM {self._tables()} WHERE {where}"  # noqa: S608  our own texts

    def _tables(self) -> str:
        return _FROM[self._request.level].format(self._visible.shelf)

    def _picked(self, level: Level) -> str:
        """Return the SQL of a level's attributes: the few that are needed, or all where they are many or private."""
        column = f"{ALIAS[level]}.attributes"
        if self._request.all_fields:
            return column
        tags = list(dict.fromkeys([*self._required(level), *(a.path[0] for a in self._of(level))]))
        if len(tags) > _MOST_PICKED or any(a.creator for a in self._of(level)):
            return column
        if not tags:
            return "NULL::jsonb"
        pairs = ", ".join(f"'{tag}', {column}->'{tag}'" for tag in tags)
        return f"jsonb_build_object({pairs})"

    def _required(self, level: Level) -> tuple[str, ...]:
        return _REQUIRED[level] if level in self._carried else ()

    def _of(self, level: Level) -> list[Attribute]:
        return [attribute for attribute in self._asked if attribute.level == level]

    def json(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """Return the results as DICOM JSON, tags in order (PS3.18 §F.2)."""
        if self._plain_studies is not None:
            return self._plain_studies.json(rows)
        if self._plain_instances:
            return b"[" + b",".join(self._plain_text(row) for row in rows) + b"]"
        return orjson.dumps([self.dataset(row) for row in rows], option=orjson.OPT_SORT_KEYS)

    def dataset(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return one result in the DICOM JSON model."""
        if self._plain_instances:
            return self._plain_instance(row)
        found: dict[str, Any] = {}
        for level in self._levels:
            found |= self._level(level, row[level] or {})
        path = f"{self._base}/studies/{row['study_uid']}"
        found[STUDY_UID] = _value("UI", row["study_uid"])
        if self._request.level != "study":
            path += f"/series/{row['series_uid']}"
            found[SERIES_UID] = _value("UI", row["series_uid"])
        if self._request.level == "instance":
            path += f"/instances/{row['instance_uid']}"
            found |= _instance(row)
        for tag in self._counts:
            value = row[tag]
            found[tag] = {"vr": _COUNT_VRS.get(tag, "IS"), "Value": value if isinstance(value, list) else [value]}
        found |= {"00080005": _UTF8, "00080056": _ONLINE, "00081190": _value("UR", path)}
        return found

    def _plain_instance(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return an instance with what is required and no more: most searches for instances, a thousand at a time."""
        study, series, uid = row["study_uid"], row["series_uid"], row["instance_uid"]
        found = _instance(row)
        found["00080005"], found["00080056"] = _UTF8, _ONLINE
        found["00081190"] = _value("UR", f"{self._base}/studies/{study}/series/{series}/instances/{uid}")
        found[STUDY_UID], found[SERIES_UID] = _value("UI", study), _value("UI", series)
        return found

    def _plain_text(self, row: Mapping[str, Any]) -> bytes:
        """Return the text of `_plain_instance`, written directly: a dozen objects less for each of a thousand rows."""
        study, series, uid = row["study_uid"], row["series_uid"], row["instance_uid"]
        sop_class, syntax, number, frames = (
            *(row["sop_class_uid"], row["transfer_syntax_uid"]),
            *(row["instance_number"], row["frames"]),
        )
        if number is None or not _UIDS.fullmatch(f"{study}{series}{uid}{sop_class}{syntax}"):
            return orjson.dumps(self._plain_instance(row), option=orjson.OPT_SORT_KEYS)
        pixels = ""
        if frames:
            if None in (row["pixel_rows"], row["pixel_columns"], row["bits_allocated"]):
                return orjson.dumps(self._plain_instance(row), option=orjson.OPT_SORT_KEYS)
            several = f',"00280008":{{"vr":"IS","Value":[{frames}]}}' if frames > 1 else ""
            pixels = (
                f'{several},"00280010":{{"vr":"US","Value":[{row["pixel_rows"]}]}}'
                f',"00280011":{{"vr":"US","Value":[{row["pixel_columns"]}]}}'
                f',"00280100":{{"vr":"US","Value":[{row["bits_allocated"]}]}}'
            )
        return (
            '{"00080005":{"vr":"CS","Value":["ISO_IR 192"]},"00080016":{"vr":"UI","Value":["'
            f'{sop_class}"]}},"00080018":{{"vr":"UI","Value":["{uid}"]}},"00080056":{{"vr":"CS","Value":["ONLINE"]}},'
            f'"00081190":{{"vr":"UR","Value":["{self._base}/studies/{study}/series/{series}/instances/{uid}"]}},'
            f'"00083002":{{"vr":"UI","Value":["{syntax}"]}},"0020000D":{{"vr":"UI","Value":["{study}"]}},'
            f'"0020000E":{{"vr":"UI","Value":["{series}"]}},"00200013":{{"vr":"IS","Value":[{number}]}}{pixels}}}'
        ).encode()

    def _level(self, level: Level, attributes: dict[str, Any]) -> dict[str, Any]:
        if self._request.all_fields:
            return attributes
        found = {tag: value for tag in self._required(level) if (value := attributes.get(tag)) is not None}
        plain = [a for a in self._of(level) if a.creator is None and a.path[0] not in found]
        for tag in dict.fromkeys(a.path[0] for a in plain):
            if (value := attributes.get(tag)) is not None:
                found[tag] = _pruned(value, [a.path[1:] for a in plain if a.path[0] == tag])
        for attribute in self._of(level):
            if attribute.creator is not None:
                found |= _private(attributes, attribute)
        return found


def _private(attributes: dict[str, Any], attribute: Attribute) -> dict[str, Any]:
    """Return a private element with its Private Creator, in the block that this file reserved for it."""
    group, element = attribute.path[0][:4], attribute.path[0][6:]
    for tag, value in attributes.items():
        is_creator = tag.startswith(f"{group}00") and tag[6:] >= "10"
        if is_creator and (value.get("Value") or [None])[0] == attribute.creator:
            actual = f"{group}{tag[6:]}{element}"
            if actual in attributes:
                return {tag: value, actual: _pruned(attributes[actual], [attribute.path[1:]])}
    return {}


def _pruned(value: dict[str, Any], paths: Iterable[tuple[str, ...]]) -> dict[str, Any]:
    """Return a sequence with only what was asked of its items; the whole of it when it was asked for itself."""
    paths = list(paths)
    if not all(paths):
        return value
    items = []
    for item in value.get("Value", ()):
        kept = {}
        for tag in dict.fromkeys(path[0] for path in paths):
            if tag in item:
                kept[tag] = _pruned(item[tag], [path[1:] for path in paths if path[0] == tag])
        items.append(kept)
    return value | ({"Value": items} if items else {})


def _instance(row: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "00080016": _value("UI", row["sop_class_uid"]),
        "00080018": _value("UI", row["instance_uid"]),
        "00200013": _value("IS", row["instance_number"]),
        "00083002": _value("UI", row["transfer_syntax_uid"]),
    }
    if row["frames"]:
        found["00280010"] = _value("US", row["pixel_rows"])
        found["00280011"] = _value("US", row["pixel_columns"])
        found["00280100"] = _value("US", row["bits_allocated"])
    if row["frames"] > 1:
        found["00280008"] = _value("IS", row["frames"])
    return found


def _value(vr: str, value: Any) -> dict[str, Any]:
    return {"vr": vr} if value is None else {"vr": vr, "Value": [value]}
