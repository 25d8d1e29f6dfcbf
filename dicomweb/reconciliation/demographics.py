"""The record's patient data laid over what the files say, with the Original Attributes Sequence that tells. Pure.

IHE RAD TF-2 §4.12 (Patient Update): queries answer with the corrected data. DICOM PS3.3 §C.12.1.1.9 (Original
Attributes Sequence), PS3.5 §6.2.1 (person names); https://hl7.org/fhir/R4/patient.html. Files are never rewritten.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from dicomweb.index.folding import fold
from dicomweb.instance_header import tag_of, text_values
from dicomweb.patient_match import identifier_system

SYSTEM = "FORAMEN RECONCILIATION"
"""Modifying System (0400,0563) of our items; no file has one, as none is ever written by this."""
_ORIGINALS, _MODIFIED = "04000561", "04000550"
_NAME, _ID, _ISSUER = (tag_of(keyword) for keyword in ("PatientName", "PatientID", "IssuerOfPatientID"))
_BIRTH, _SEX = tag_of("PatientBirthDate"), tag_of("PatientSex")
_SEXES = {"male": "M", "female": "F", "other": "O"}
_GROUPS = {"ABC": "Alphabetic", "IDE": "Ideographic", "SYL": "Phonetic"}
_REPRESENTATION = "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation"
_HAN = re.compile(r"[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_BEST = ("official", "usual", None)
Attributes = dict[str, Any]


def corrections(patient: Mapping[str, Any], stored: Mapping[str, Any], default_issuer: str | None) -> Attributes:
    """Return the attributes in which the record's Patient contradicts the files.

    Parameters
    ----------
    patient : the Patient that the study belongs to (of merged ones the survivor)
    stored : study level as the files have it, DICOM JSON model

    Returns
    -------
    DICOM JSON of what has to be shown instead. What the record does not know stays; a birth date that is not a whole
    day, and a gender that DICOM has no code for, correct nothing.
    """
    found: Attributes = {}
    for tag, attribute in (
        (_ID, _identifier(patient, stored, default_issuer)),
        (_BIRTH, _birth_date(patient)),
        (_SEX, _sex(patient)),
    ):
        if attribute is not None and attribute.get("Value") != stored.get(tag, {}).get("Value"):
            found[tag] = attribute
    name = _name(_groups(patient), stored.get(_NAME, {}), doubtful=bool(found))
    return found if name is None else found | {_NAME: name}


def hash_of(corrected: Attributes) -> str | None:
    """Name a set of corrections; None: there is none."""
    return hashlib.sha256(orjson.dumps(corrected, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16] if corrected else None


def as_stored(model: Attributes) -> Attributes:
    """Return an instance's DICOM JSON as its file has it: without what we laid over it."""
    items = model.get(_ORIGINALS, {}).get("Value", [])
    ours = [item for item in items if _is_ours(item)]
    if not ours:
        return model
    restored = dict(model)
    for tag, attribute in (ours[0].get(_MODIFIED, {}).get("Value") or [{}])[0].items():
        if "vr" in attribute and attribute != {"vr": attribute["vr"]}:
            restored[tag] = attribute
        else:
            restored.pop(tag, None)
            if tag in (_NAME, _ID, _BIRTH, _SEX):
                restored[tag] = {"vr": attribute["vr"]}
    others = [item for item in items if not _is_ours(item)]
    if others:
        restored[_ORIGINALS] = {"vr": "SQ", "Value": others}
    else:
        restored.pop(_ORIGINALS)
    return restored


def laid_over(model: Attributes, corrected: Attributes, at: datetime) -> Attributes:
    """Return an instance's DICOM JSON with the record's data, and what stood there before (type 2 values may be empty).

    Parameters
    ----------
    model : as stored, or with earlier corrections of ours
    at : aware time of the change
    """
    stored = as_stored(model)
    changed = {tag: one for tag, one in corrected.items() if one.get("Value") != stored.get(tag, {}).get("Value")}
    if not changed:
        return stored
    before = {tag: stored.get(tag, {"vr": one["vr"]}) for tag, one in changed.items()}
    item = {
        _MODIFIED: {"vr": "SQ", "Value": [before]},
        "04000562": {"vr": "DT", "Value": [at.astimezone(UTC).strftime("%Y%m%d%H%M%S.%f+0000")]},
        "04000563": {"vr": "LO", "Value": [SYSTEM]},
        "04000564": {"vr": "LO"},
        "04000565": {"vr": "CS", "Value": ["COERCE"]},
    }
    earlier = stored.get(_ORIGINALS, {}).get("Value", [])
    return stored | changed | {_ORIGINALS: {"vr": "SQ", "Value": [*earlier, item]}}


def _is_ours(item: Mapping[str, Any]) -> bool:
    return bool(text_values(item.get("04000563", {})) == [SYSTEM])


def _identifier(patient: Mapping[str, Any], stored: Mapping[str, Any], default_issuer: str | None) -> Attributes | None:
    """Return the Patient ID of the same issuer, unless the files name one that the record still has for the patient."""
    issuer = _first(stored, _ISSUER) or default_issuer
    if not issuer:
        return None
    system = identifier_system(issuer)
    valid = [
        str(item["value"])
        for item in patient.get("identifier", ())
        if item.get("system") == system and item.get("value") and item.get("use") != "old"
    ]
    if not valid or _first(stored, _ID) in valid:
        return None
    return {"vr": "LO", "Value": [valid[0]]}


def _name(record: Mapping[str, str], stored: Mapping[str, Any], *, doubtful: bool) -> Attributes | None:
    """Return the record's name where it contradicts the file's; None: it does not, or cannot be compared.

    Parameters
    ----------
    record : component groups of the record's name
    doubtful : something else contradicts already: then a file's name in another script is no evidence of the same name
    """
    value = (stored.get("Value") or [{}])[0]
    file = {group: text for group, text in value.items() if text} if isinstance(value, dict) else {}
    if not record:
        return None
    if not file:
        return {"vr": "PN", "Value": [_ordered(record)]}
    # Many devices write a Chinese name into the first group.
    pairs = [(text, file[group]) for group, text in record.items() if group in file]
    if not pairs and any(_same_name(text, other) for text in record.values() for other in file.values()):
        return None
    if all(_same_name(text, other) for text, other in pairs) and (pairs or not doubtful):
        return None
    return {"vr": "PN", "Value": [_ordered(record)]}


def _ordered(groups: Mapping[str, str]) -> dict[str, str]:
    return {group: groups[group] for group in _GROUPS.values() if groups.get(group)}


def _same_name(one: str, other: str) -> bool:
    def plain(text: str) -> str:
        return fold(text).rstrip("^ ")

    # A Chinese name is often written in one component: the caret says no more than a space would.
    return plain(one) == plain(other) or (
        bool(_HAN.search(one)) and re.sub(r"[\^ ]", "", plain(one)) == re.sub(r"[\^ ]", "", plain(other))
    )


def _groups(patient: Mapping[str, Any]) -> dict[str, str]:
    """Return the component groups of the patient's present name."""
    names = [name for name in patient.get("name", ()) if name.get("use") in _BEST]
    groups: dict[str, str] = {}
    for name in sorted(names, key=lambda item: _BEST.index(item.get("use"))):
        text = _person_name(name)
        if text:
            groups.setdefault(_group(name, text), text)
    return groups


def _group(name: Mapping[str, Any], text: str) -> str:
    for extension in name.get("extension", ()):
        if extension.get("url") == _REPRESENTATION and extension.get("valueCode") in _GROUPS:
            return _GROUPS[extension["valueCode"]]
    return "Ideographic" if _HAN.search(text) else "Alphabetic"


def _person_name(name: Mapping[str, Any]) -> str:
    """Return ``family^given^middle^prefix^suffix``; a name that is text alone is one component."""
    given = [str(part) for part in name.get("given", ())]
    parts = [
        *(str(name.get("family") or ""), given[0] if given else "", " ".join(given[1:])),
        *(" ".join(map(str, name.get(kind, ()))) for kind in ("prefix", "suffix")),
    ]
    joined = "^".join(re.sub(r"[\^=\\]", " ", part).strip() for part in parts).rstrip("^")
    return (joined or re.sub(r"[\^=\\]", " ", str(name.get("text") or "")).strip())[:64]


def _birth_date(patient: Mapping[str, Any]) -> Attributes | None:
    match = re.fullmatch(r"(\d{4})-(\d{2})-(\d{2})", str(patient.get("birthDate") or ""))
    return {"vr": "DA", "Value": ["".join(match.groups())]} if match else None


def _sex(patient: Mapping[str, Any]) -> Attributes | None:
    code = _SEXES.get(str(patient.get("gender") or ""))
    return {"vr": "CS", "Value": [code]} if code else None


def _first(attributes: Mapping[str, Any], tag: str) -> str:
    texts = text_values(attributes.get(tag, {}))
    return texts[0].strip() if texts else ""
