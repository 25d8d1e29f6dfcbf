"""What a resource is found by: the values one data type contributes to the index, for each kind of parameter.

https://hl7.org/fhir/R4/search.html §3.1.1.4 (search parameter types)
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from fhir_server.model.references import normalise_reference
from fhir_server.search.blind import BlindIndex
from fhir_server.search.dates import BEGINNING, END, MISSING, date_range, period_range
from fhir_server.search.hashing import hash64
from fhir_server.search.parameters import registry
from terminology import ucum

MAX_STRING = 400
"""Longest normalised string that is indexed; what lies behind is not searched."""
INFINITY = float("inf")


@dataclass(slots=True)
class IndexValues:
    """All index values of one resource."""

    postings: set[int] = field(default_factory=set)
    dates: set[tuple[int, int, int]] = field(default_factory=set)
    strings: set[tuple[int, str]] = field(default_factory=set)
    numbers: set[tuple[int, float, float]] = field(default_factory=set)
    patients: set[str] = field(default_factory=set)
    codes: set[int] = field(default_factory=set)
    present: int = 0
    low: int = MISSING
    high: int = MISSING
    blind: list[tuple[str, set[int], set[int]]] | None = None
    """(value, entries without a key, entries with it) of each national identifier; `postings` has those with it."""


Leaf = Callable[[Any, IndexValues], None]


def normalise(text: str) -> str:
    """Fold case and accents and collapse white space, as string search ignores them (§3.1.1.4.7)."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        text = "".join(character for character in decomposed if not unicodedata.combining(character))
    return " ".join(text.replace("\x00", " ").casefold().split())[:MAX_STRING]


def token_hashes(system: str | None, code: str | None, *, exact: bool = False) -> list[int]:
    """Hashes a system and code are found by: code alone, system|code, |code, system|.

    Codes are compared without case ("when in doubt, servers SHOULD treat tokens in a case-insensitive manner"),
    identifiers with it: two patients' numbers may differ in case alone.
    """
    hashes = []
    if code is not None:
        folded = code if exact else code.casefold()
        hashes.append(hash64("\x00" + folded))
        hashes.append(hash64(f"{system}|{folded}" if system else "|" + folded))
    if system:
        hashes.append(hash64(system + "|"))
    return hashes


def blind_token_hashes(system: str, value: str, blind: BlindIndex) -> list[int]:
    """Hashes a national identifier is found by: value alone, system|value."""
    return [blind.hash("\x00" + value), blind.hash(f"{system}|{value}")]


def blind_of_type_hash(system: str, code: str, value: str, blind: BlindIndex) -> int:
    """Hash of a national identifier for `:of-type`."""
    return blind.hash(f"\x02{system}|{code}|{value}")


def _hides(item: dict[str, Any]) -> BlindIndex | None:
    """Return what hides the value of an identifier, None when it is not to be hidden."""
    blind = registry().blind
    if blind is None or not blind.knows(item.get("system")) or type(item.get("value")) is not str:
        return None
    return blind


def _add_hidden(out: IndexValues, value: str, plain: Iterable[int], keyed: Iterable[int]) -> None:
    entries = value, set(plain), set(keyed)
    out.postings |= entries[2]
    out.blind = [*(out.blind or ()), entries]


def exact_hash(text: str) -> int:
    """Hash of a string for `:exact`."""
    return hash64("\x01" + text)


def of_type_hash(system: str, code: str, value: str) -> int:
    """Hash of an identifier for `:of-type`."""
    return hash64(f"\x02{system}|{code}|{value}")


def identifier_hash(hash_of_token: int) -> int:
    """Hash of a logical reference's identifier, apart from the hashes of literal references."""
    return hash_of_token ^ _IDENTIFIER


_IDENTIFIER = hash64("\x03identifier")


def _add_text(out: IndexValues, base: int, item: Any, name: str) -> None:
    """Index what `:text` looks at; equal texts of one element cost one entry."""
    text = item.get(name)
    if text:
        out.strings.add((base, normalise(text)))


def _token_leaf(base: int, data_type: str, is_code: bool) -> Leaf:
    def add(out: IndexValues, hashes: list[int]) -> None:
        for value in hashes:
            out.postings.add(base ^ value)
        if is_code:
            out.codes.update(hashes[:2])

    def coding(item: Any, out: IndexValues) -> None:
        add(out, token_hashes(item.get("system"), item.get("code")))
        _add_text(out, base, item, "display")

    def concept(item: Any, out: IndexValues) -> None:
        for part in item.get("coding", ()):
            coding(part, out)
        _add_text(out, base, item, "text")

    def hidden(item: Any, out: IndexValues, blind: BlindIndex) -> None:
        system, value = item["system"], item["value"]
        plain, keyed = token_hashes(system, value, exact=True)[:2], blind_token_hashes(system, value, blind)
        for part in item.get("type", {}).get("coding", ()):
            kind = part.get("system", ""), part.get("code", "")
            plain.append(of_type_hash(*kind, value))
            keyed.append(blind_of_type_hash(*kind, value, blind))
        _add_hidden(out, value, [base ^ found for found in plain], [base ^ found for found in keyed])
        out.postings.add(base ^ token_hashes(system, None)[0])

    def identifier(item: Any, out: IndexValues) -> None:
        value, blind = item.get("value"), _hides(item)
        if blind is not None:
            hidden(item, out, blind)
            if "type" in item:
                _add_text(out, base, item["type"], "text")
            return
        add(out, token_hashes(item.get("system"), value, exact=True))
        for part in item.get("type", {}).get("coding", ()) if value else ():
            out.postings.add(base ^ of_type_hash(part.get("system", ""), part.get("code", ""), value))
        if "type" in item:
            _add_text(out, base, item["type"], "text")

    def contact(item: Any, out: IndexValues) -> None:
        if "value" in item:
            add(out, token_hashes(item.get("system"), item["value"])[:2])

    def plain(item: Any, out: IndexValues) -> None:
        text = ("true" if item else "false") if isinstance(item, bool) else str(item)
        out.postings.add(base ^ token_hashes(None, text)[0])

    return {"Coding": coding, "CodeableConcept": concept, "Identifier": identifier, "ContactPoint": contact}.get(
        data_type, plain
    )


def _true_leaf(base: int) -> Leaf:
    yes = base ^ token_hashes(None, "true")[0]

    def leaf(item: Any, out: IndexValues) -> None:
        if item is not False:
            out.postings.add(yes)

    return leaf


def _reference_leaf(base: int, data_type: str, own_url: str, in_compartment: bool) -> Leaf:
    def reference(item: Any, out: IndexValues) -> None:
        text = item.get("reference")
        if text and text[0] != "#":
            normal = normalise_reference(text, own_url)
            out.postings.add(base ^ hash64(normal))
            if in_compartment and normal.startswith("Patient/"):
                out.patients.add(normal)
        identifier = item.get("identifier")
        if identifier and (blind := _hides(identifier)) is not None:
            system, value = identifier["system"], identifier["value"]
            found = token_hashes(system, value, exact=True)[:2], blind_token_hashes(system, value, blind)
            _add_hidden(out, value, *([base ^ identifier_hash(one) for one in entries] for entries in found))
            out.postings.add(base ^ identifier_hash(token_hashes(system, None)[0]))
        elif identifier:
            for value in token_hashes(identifier.get("system"), identifier.get("value"), exact=True):
                out.postings.add(base ^ identifier_hash(value))

    def uri(item: Any, out: IndexValues) -> None:
        out.postings.add(base ^ hash64(normalise_reference(item, own_url)))
        if "|" in item:
            out.postings.add(base ^ hash64(item.partition("|")[0]))
        out.strings.add((base, item[:MAX_STRING]))

    def resource(item: Any, out: IndexValues) -> None:
        if "id" in item:
            out.postings.add(base ^ hash64(f"{item['resourceType']}/{item['id']}"))

    return {"Reference": reference, "Resource": resource}.get(data_type, uri)


def _uri_leaf(base: int) -> Leaf:
    def leaf(item: Any, out: IndexValues) -> None:
        out.postings.add(base ^ hash64(item))
        out.strings.add((base, item[:MAX_STRING]))  # For `:below`; `:above` asks for the postings of all prefixes.
        if "|" in item:
            out.postings.add(base ^ hash64(item.partition("|")[0]))

    return leaf


def date_of(item: Any, data_type: str) -> tuple[int, int] | None:
    """Range of a date, dateTime, instant, Period or Timing."""
    if data_type == "Period":
        return period_range(item)
    if data_type != "Timing":
        return date_range(item)
    ranges = [found for event in item.get("event", ()) if event and (found := date_range(event))]
    bounds = item.get("repeat", {}).get("boundsPeriod")
    if bounds and (found := period_range(bounds)):
        ranges.append(found)
    return (min(low for low, _ in ranges), max(high for _, high in ranges)) if ranges else None


def _date_leaf(base: int, data_type: str, is_main: bool) -> Leaf:
    def leaf(item: Any, out: IndexValues) -> None:
        found = date_of(item, data_type)
        if found is None:
            return
        if is_main:
            out.low = found[0] if out.low == MISSING else min(out.low, found[0])
            out.high = max(out.high, found[1])
        else:
            out.dates.add((base, *found))

    return leaf


_NAME = ("text", "family", "given", "prefix", "suffix")
_ADDRESS = ("text", "line", "city", "district", "state", "postalCode", "country")


def texts_of(item: Any, data_type: str) -> list[str]:
    """Strings a string parameter looks at in a HumanName, an Address or a plain string."""
    if data_type not in ("HumanName", "Address"):
        return [str(item)]
    found: list[str] = []
    for name in _NAME if data_type == "HumanName" else _ADDRESS:
        value = item.get(name)
        found += [part for part in value if part] if isinstance(value, list) else [value] if value else []
    return found


def _string_leaf(base: int, data_type: str) -> Leaf:
    def leaf(item: Any, out: IndexValues) -> None:
        for text in texts_of(item, data_type):
            out.strings.add((base, normalise(text)))
            out.postings.add(base ^ exact_hash(text))

    return leaf


UCUM = "http://unitsofmeasure.org"


@lru_cache(maxsize=1024)
def _scale(code: str) -> tuple[int, float | None] | None:
    """Hash of the base unit and the factor to it (None for a unit that is no multiple, such as Cel)."""
    one, two, none = ucum.canonical(1.0, code), ucum.canonical(2.0, code), ucum.canonical(0.0, code)
    if one is None or two is None or none is None:
        return None
    is_multiple = none[0] == 0 and math.isclose(two[0], 2 * one[0], rel_tol=1e-15)
    return hash64("\x05" + one[1]), one[0] if is_multiple else None


def _in_base_unit(value: float, factor: float | None, code: str) -> float | None:
    if abs(value) == INFINITY:
        return value
    found = ucum.canonical(value, code) if factor is None else (value * factor, "")
    return None if found is None else float(f"{found[0]:.12g}")


def canonical_range(low: float, high: float, code: str) -> tuple[int, float, float] | None:
    """Return (unit hash, low, high) in UCUM base units, or None when the code is no UCUM unit.

    Rounded to 12 digits, so that 5 mm and 0.5 cm are the same number whichever way they were computed.
    """
    scale = _scale(code)
    if scale is None:
        return None
    unit, factor = scale
    first, second = _in_base_unit(low, factor, code), _in_base_unit(high, factor, code)
    if first is None or second is None:
        return None
    return (unit, first, second) if first <= second else (unit, second, first)


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


def _sampled_bounds(item: dict[str, Any]) -> tuple[float, float] | None:
    """Range of the values of a SampledData: origin + factor × data; E, U and L are no numbers."""
    numbers = [float(part) for part in item.get("data", "").split() if _DECIMAL.fullmatch(part)]
    if not numbers:
        return None
    zero, factor = _number(item.get("origin", {}).get("value"), 0.0), _number(item.get("factor"), 1.0)
    ends = sorted((zero + factor * min(numbers), zero + factor * max(numbers)))
    return ends[0], ends[1]


_DECIMAL = re.compile(r"-?\d{1,30}(?:\.\d{1,30})?")


def _bounds(item: dict[str, Any], data_type: str) -> tuple[dict[str, Any], tuple[float, float] | None]:
    """Return where the unit stands and the range of a quantity."""
    if data_type == "Range":
        low, high = item.get("low", {}), item.get("high", {})
        if "value" not in low and "value" not in high:
            return low, None
        return low or high, (_number(low.get("value"), -INFINITY), _number(high.get("value"), INFINITY))
    if data_type == "SampledData":
        return item.get("origin", {}), _sampled_bounds(item)
    if "value" not in item:
        return item, None
    value, comparator = float(item["value"]), item.get("comparator", "")
    bounds = (-INFINITY if comparator[:1] == "<" else value, INFINITY if comparator[:1] == ">" else value)
    unit = {"code": item["currency"], "system": "urn:iso:std:iso:4217"} if "currency" in item else item
    return unit, bounds


def quantity_values(item: Any, data_type: str) -> list[tuple[int, float, float]]:
    """Return (unit hash, low, high) of a number or quantity.

    Without unit; by code or unit as written; by system and code, which for UCUM is the value in base units.
    """
    if not isinstance(item, dict):
        return [(0, float(item), float(item))]
    unit, bounds = _bounds(item, data_type)
    if bounds is None:
        return []
    return _quantity_entries(*bounds, unit.get("system"), unit.get("code"), unit.get("unit"))


@lru_cache(maxsize=1024)  # One quantity is found by several parameters and composites.
def _quantity_entries(
    low: float, high: float, system: str | None, code: str | None, name: str | None
) -> list[tuple[int, float, float]]:
    found = {(0, low, high)}
    if name:
        found.add((hash64("|" + name), low, high))
    if code:
        found.add((hash64("|" + code), low, high))
        base = canonical_range(low, high, code) if system == UCUM else None
        if base is not None:
            found.add(base)
        elif system:
            found.add((hash64(f"{system}|{code}"), low, high))
    return list(found)


def _number_leaf(base: int, data_type: str) -> Leaf:
    def leaf(item: Any, out: IndexValues) -> None:
        for key, low, high in quantity_values(item, data_type):
            out.numbers.add((base ^ key, low, high))

    return leaf


def leaf_for(
    kind: str,
    data_type: str,
    base: int,
    *,
    own_url: str,
    is_main_date: bool,
    is_code: bool,
    in_compartment: bool,
    is_existence: bool,
) -> Leaf:
    """Return the function that adds one element's values to the index."""
    if is_existence:
        return _true_leaf(base)
    if kind == "token":
        return _token_leaf(base, data_type, is_code)
    if kind == "reference":
        return _reference_leaf(base, data_type, own_url, in_compartment)
    if kind == "date":
        return _date_leaf(base, data_type, is_main_date)
    if kind == "string":
        return _string_leaf(base, data_type)
    if kind == "uri":
        return _uri_leaf(base)
    return _number_leaf(base, data_type)


__all__ = ["BEGINNING", "END", "MISSING", "IndexValues", "Leaf", "leaf_for", "normalise", "token_hashes"]
