"""Pseudonymised resources: the rules of `pseudonymisation.yaml` carried out with a project's key. Pure.

Ids, references and UIDs become HMAC-SHA256 values under the key: the same in all exports of a project, unlinkable to
those of another. `uid` and `shift_days` are for the images of a study too, so that both sides stay together.
HL7 FHIR Security labels: https://terminology.hl7.org/CodeSystem-v3-ObservationValue.html (PSEUDED)
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import orjson

from fhir_server.model.references import parse_reference
from fhir_server.search.index import extractor
from fhir_server.search.parameters import resource_types

_FILE = Path(__file__).with_name("pseudonymisation.yaml")
_MOST_DAYS = 365
_OLDEST = 90
_POSTAL = 2
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(T.*)?)?)?")
_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_LABEL = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "PSEUDED"}

Action = Callable[[Any, int | None], Any]
Rules = dict[str, Any]


@lru_cache(maxsize=1)
def rules() -> Rules:
    """Return the reviewed rules."""
    import yaml

    found: Rules = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return found


def covered_types() -> frozenset[str]:
    """Return the resource types that can be exported under pseudonyms."""
    return frozenset(rules()["resources"])


class Pseudonymiser:
    """Writes resources under the pseudonyms of one project.

    Parameters
    ----------
    key : secret of the project
    own_url : base URL of this server: absolute references to it are ours
    year : of the export, from which ages are counted
    """

    def __init__(self, key: bytes, own_url: str, year: int) -> None:
        self._key = key
        self._own_url = own_url
        self._eldest = year - _OLDEST
        systems = rules()["code_systems"]
        self._systems = frozenset(systems)
        self._families = tuple(system for system in systems if system.endswith("/"))
        self._types: dict[str, Action] = {}
        self._actions: dict[str, Action] = {
            "keep": _keep,
            "shift": self._shift,
            "birth-year": self._birth_year,
            "postal-prefix": _postal_prefix,
            "age": _age,
            "uid": lambda value, _: self.uid(value) if isinstance(value, str) else None,
            "reference": self._reference,
        }
        self._resources = {name: self._compile(rule) for name, rule in rules()["resources"].items()}

    def pseudonym(self, resource_type: str, logical_id: str) -> str:
        """Id of a resource under this project: 26 letters and digits (130 bits)."""
        digest = self._digest("id", f"{resource_type}/{logical_id}")
        return base64.b32encode(digest).decode().lower()[:26]

    def uid(self, uid: str) -> str:
        """DICOM UID under this project (PS3.5 B.2: 2.25 and a number of at most 128 bits)."""
        return f"2.25.{int.from_bytes(self._digest('uid', uid)[:16], 'big')}"

    def shift_days(self, patient_id: str) -> int:
        """Days by which all dates of a patient move: 1 to 365, forward or back."""
        number = int.from_bytes(self._digest("shift", patient_id)[:8], "big")
        days = number // 2 % _MOST_DAYS + 1
        return days if number % 2 else -days

    def _digest(self, use: str, text: str) -> bytes:
        return hmac.new(self._key, f"{use}\x00{text}".encode(), sha256).digest()

    def __call__(self, line: bytes) -> bytes | None:
        """Return one resource under pseudonyms; None when its type has no rules."""
        data = _DECODER.decode(line)
        resource_type = data["resourceType"]
        rule = self._resources.get(resource_type)
        if rule is None:
            return None
        logical_id = data["id"]
        patients = extractor(resource_type, self._own_url).extract(orjson.loads(line), logical_id).patients
        # Dates of a resource about several patients cannot be moved with all of them: they go.
        days = self.shift_days(next(iter(patients)).partition("/")[2]) if len(patients) == 1 else None
        kept = rule(data, days) or {}
        tags = self._coding_list((data.get("meta") or {}).get("tag"), days)
        meta = {"security": [_LABEL], **({"tag": tags} if tags else {})}
        own = {"resourceType": resource_type, "id": self.pseudonym(resource_type, logical_id), "meta": meta}
        return _ENCODER.encode({**own, **kept})

    def _compile(self, rule: Any) -> Action:
        if isinstance(rule, dict):
            return _elements({name: self._compile(item) for name, item in rule.items()})
        found = self._actions.get(rule) or self._types.get(rule)
        if found is None:
            compiled = self._compile(rules()["data_types"][rule])
            found = self._types[rule] = self._allowed(compiled) if rule == "Coding" else compiled
        return found

    def _allowed(self, compiled: Action) -> Action:
        """Only codings of systems that are known to hold no names or numbers of persons."""

        def coding(value: Any, days: int | None) -> Any:
            system = value.get("system") if isinstance(value, dict) else None
            if not isinstance(system, str) or not (system in self._systems or system.startswith(self._families)):
                return None
            return compiled(value, days)

        return coding

    def _coding_list(self, value: Any, days: int | None) -> list[Any]:
        coding = self._compile("Coding")
        return [found for item in value or () if (found := coding(item, days)) is not None]

    def _reference(self, value: Any, _: int | None) -> str | None:
        parsed = parse_reference(value, self._own_url) if isinstance(value, str) else None
        if parsed is None or parsed[0] not in resource_types():
            return None
        return f"{parsed[0]}/{self.pseudonym(*parsed)}"

    def _shift(self, value: Any, days: int | None) -> str | None:
        """Move a date of any precision, its time of day and zone left as they are."""
        match = _DATE.fullmatch(value) if isinstance(value, str) else None
        if match is None or days is None:
            return None
        year, month, day, time = match.groups()
        try:
            # A month or year is moved from its middle: it stays one of its neighbours at most.
            moved = date(int(year), int(month or 7), int(day or (15 if month else 1))) + timedelta(days=days)
        except (ValueError, OverflowError):
            return None
        text = moved.isoformat()
        return text + (time or "") if day else text[:7] if month else text[:4]

    def _birth_year(self, value: Any, days: int | None) -> str | None:
        moved = self._shift(value, days)
        return None if moved is None else f"{max(int(moved[:4]), self._eldest):04d}"


def _elements(rules_of: dict[str, Action]) -> Action:
    """Keep the named elements of an object, those of every item of a list."""

    def apply(value: Any, days: int | None) -> Any:
        if not isinstance(value, dict):
            return None
        kept: dict[str, Any] = {}
        for name, item in value.items():
            rule = rules_of.get(name)
            if rule is None:
                continue
            found: Any
            if isinstance(item, list):
                found = [part for entry in item if (part := rule(entry, days)) is not None]
                if not found:
                    continue
            else:
                found = rule(item, days)
                if found is None:
                    continue
            kept[name] = found
        return kept or None

    return apply


def _keep(value: Any, _: int | None) -> Any:
    return value if isinstance(value, str | bool | int | Decimal) else None


def _postal_prefix(value: Any, _: int | None) -> str | None:
    return value[:_POSTAL] if isinstance(value, str) and len(value) > _POSTAL else None


def _age(value: Any, _: int | None) -> Any:
    if not isinstance(value, dict) or not isinstance(value.get("value"), int | Decimal):
        return None
    kept = {name: value[name] for name in ("value", "comparator", "system", "code") if name in value}
    if kept.get("code", "a") != "a" or kept["value"] >= _OLDEST:
        # Months and days are kept for the young only; a number of other units is less than 90 years in no safe way.
        young = {"mo": 1000, "wk": 4000, "d": 30_000}.get(str(kept.get("code")))
        if young is None or kept["value"] > young:
            kept |= {"value": _OLDEST, "code": "a", "system": "http://unitsofmeasure.org"}
    return kept
