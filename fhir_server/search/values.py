"""What a resource is found by: the values one data type contributes to the index, for each kind of parameter.

https://hl7.org/fhir/R4/search.html §3.1.1.4 (search parameter types)
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fhir_server.model.references import normalise_reference
from fhir_server.search.dates import BEGINNING, END, MISSING, date_range, period_range
from fhir_server.search.hashing import hash64

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


def _token_leaf(base: int, data_type: str, is_code: bool) -> Leaf:
    def add(out: IndexValues, hashes: list[int]) -> None:
        for value in hashes:
            out.postings.add(base ^ value)
        if is_code:
            out.codes.update(hashes[:2])

    def coding(item: Any, out: IndexValues) -> None:
        add(out, token_hashes(item.get("system"), item.get("code")))

    def concept(item: Any, out: IndexValues) -> None:
        for part in item.get("coding", ()):
            add(out, token_hashes(part.get("system"), part.get("code")))

    def identifier(item: Any, out: IndexValues) -> None:
        value = item.get("value")
        add(out, token_hashes(item.get("system"), value, exact=True))
        for part in item.get("type", {}).get("coding", ()) if value else ():
            out.postings.add(base ^ of_type_hash(part.get("system", ""), part.get("code", ""), value))

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
        if identifier:
            for value in token_hashes(identifier.get("system"), identifier.get("value"), exact=True):
                out.postings.add(base ^ identifier_hash(value))

    def uri(item: Any, out: IndexValues) -> None:
        out.postings.add(base ^ hash64(normalise_reference(item, own_url)))
        if "|" in item:
            out.postings.add(base ^ hash64(item.partition("|")[0]))

    def resource(item: Any, out: IndexValues) -> None:
        if "id" in item:
            out.postings.add(base ^ hash64(f"{item['resourceType']}/{item['id']}"))

    return {"Reference": reference, "Resource": resource}.get(data_type, uri)


def _uri_leaf(base: int) -> Leaf:
    def leaf(item: Any, out: IndexValues) -> None:
        out.postings.add(base ^ hash64(item))
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


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


def quantity_values(item: Any, data_type: str) -> list[tuple[int, float, float]]:
    """Return (unit hash, low, high) of a number or quantity: without unit, with code, with system and code."""
    if not isinstance(item, dict):
        return [(0, float(item), float(item))]
    if data_type == "Range":
        low, high = item.get("low", {}), item.get("high", {})
        bounds = (_number(low.get("value"), -INFINITY), _number(high.get("value"), INFINITY))
        unit = low or high
    elif data_type == "SampledData":
        return []
    else:
        if "value" not in item:
            return []
        value, comparator = float(item["value"]), item.get("comparator", "")
        bounds = (-INFINITY if comparator[:1] == "<" else value, INFINITY if comparator[:1] == ">" else value)
        unit = {"code": item["currency"], "system": "urn:iso:std:iso:4217"} if "currency" in item else item
    keys = {0}
    system, code, name = unit.get("system"), unit.get("code"), unit.get("unit")
    if code:
        keys.add(hash64("|" + code))
        if system:
            keys.add(hash64(f"{system}|{code}"))
    if name:
        keys.add(hash64("|" + name))
    return [(key, *bounds) for key in keys]


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
