"""Modifiers, units, filters and orders agree with a brute-force reading of the specification, on data nobody chose."""

from __future__ import annotations

import unicodedata
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from tests.contract.fhir.api import Api, entry
from tests.contract.fhir.brute_force import agrees

UCUM = "http://unitsofmeasure.org"
IN_METRES = {"mm": Fraction(1, 1000), "cm": Fraction(1, 100), "m": Fraction(1), "[in_i]": Fraction(254, 10000)}
UNITS = st.sampled_from([*IN_METRES, "kg", "no unit"])
NUMBERS = st.sampled_from(["5", "5.0", "0.5", "50", "0.05", "5.05", "4.95", "5.5", "4.5", "-5", "0", "0.1968", "500"])
TEXTS = st.sampled_from(["Disc", "disc bulge", "Dísc", "Höhe L5", "hohe", "椎间盘", "l5", "a_b", "a%b", "A\\B", "x, y"])
ASKED = st.sampled_from(
    ["d", "disc", "DISC", "disc b", "h", "HÖHE", "l5", "椎", "间", "a_", "a%", "a\\", "x,", "bulge"]
)
URIS = st.sampled_from(
    ["http://e.org", "http://e.org/a", "http://e.org/a/", "http://e.org/a/b", "http://e.org/ab", "http://e.org/a/b/c"]
)
PREFIXES = st.sampled_from(["", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb", "ap"])
RESOURCES = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "quantity": st.tuples(NUMBERS, UNITS),
            "string": TEXTS,
            "texts": st.lists(TEXTS, min_size=1, max_size=3),
            "profiles": st.lists(URIS, min_size=1, max_size=2, unique=True),
            "source": URIS,
        },
    ),
    min_size=1,
    max_size=7,
)
QUERIES = st.lists(
    st.one_of(
        st.tuples(st.just("quantity"), PREFIXES, NUMBERS, st.sampled_from(sorted(IN_METRES))),
        st.tuples(st.just("string"), st.sampled_from(["", ":exact", ":contains", ":missing"]), ASKED),
        st.tuples(st.just("text"), st.just(""), ASKED),
        st.tuples(st.just("uri"), st.sampled_from(["", ":below", ":above", ":missing"]), URIS),
        st.tuples(st.just("filter"), st.sampled_from(["eq", "sw", "ew", "co", "ne"]), ASKED),
        st.tuples(
            st.just("sort"), st.sampled_from(["value-string", "-value-string", "_profile", "-_profile", "_source"])
        ),
    ),
    min_size=1,
    max_size=14,
)
Row = dict[str, Any]


def folded(text: str) -> str:
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return " ".join(plain.casefold().split())


def half_step(number: str) -> Fraction:
    """Half a unit of the last digit written."""
    return Fraction(1, 2) / 10 ** len(number.partition(".")[2])


def matches_quantity(row: Row, prefix: str, number: str, unit: str) -> bool:
    if "quantity" not in row or row["quantity"][1] not in IN_METRES:
        return False
    target = Fraction(row["quantity"][0]) * IN_METRES[row["quantity"][1]]
    value, scale = Fraction(number), IN_METRES[unit]
    asked = value * scale
    low, high = (value - half_step(number)) * scale, (value + half_step(number)) * scale
    near = max(half_step(number), abs(value) / 10) * scale
    return {
        "": low <= target < high,
        "eq": low <= target < high,
        "ne": not low <= target < high,
        "gt": target > asked,
        "sa": target > asked,
        "lt": target < asked,
        "eb": target < asked,
        "ge": target >= asked,
        "le": target <= asked,
        "ap": asked - near <= target < asked + near,
    }[prefix]


def matches_string(row: Row, modifier: str, asked: str) -> bool:
    values = [row["string"]] if "string" in row else []
    if modifier == ":missing":
        return not values
    if modifier == ":exact":
        return asked in values
    if modifier == ":contains":
        return any(folded(asked) in folded(value) for value in values)
    return any(folded(value).startswith(folded(asked)) for value in values)


def matches_uri(row: Row, modifier: str, asked: str) -> bool:
    values = row.get("profiles", [])
    if modifier == ":missing":
        return not values
    if modifier == ":below":
        stem = asked if asked.endswith("/") else asked + "/"
        return any(value == asked or value.startswith(stem) for value in values)
    if modifier == ":above":
        levels = asked.rstrip("/").split("/")
        above = {"/".join(levels[:count]) for count in range(3, len(levels) + 1)}
        return any(value == asked or (value.rstrip("/") in above and len(value) <= len(asked)) for value in values)
    return asked in values


def matches_filter(row: Row, operator: str, asked: str) -> bool:
    if "string" not in row:
        return False
    value, text = folded(row["string"]), folded(asked)
    return {
        "eq": value == text,
        "ne": value != text,
        "sw": value.startswith(text),
        "ew": value.endswith(text),
        "co": text in value,
    }[operator]


def sort_value(row: Row, key: str) -> str:
    """The value that counts: nothing sorts below everything."""
    if key.endswith("string"):
        return folded(row["string"]) if "string" in row else ""
    values = row.get("profiles", []) if key.endswith("_profile") else [row["source"]] if "source" in row else []
    return (max if key.startswith("-") else min)(values, default="")


def body(name: str, subject: str, row: Row) -> dict[str, Any]:
    built: dict[str, Any] = {
        "resourceType": "Observation",
        "id": name,
        "status": "final",
        "subject": {"reference": subject},
        "code": {"coding": [{"system": "urn:s", "code": "x"}]},
    }
    for place, text in enumerate(row.get("texts", [])):
        if place == 0:
            built["code"]["text"] = text
        else:
            built["code"]["coding"].append({"system": "urn:s", "code": f"y{place}", "display": text})
    if "string" in row:
        built["valueString"] = row["string"]
    if "quantity" in row:
        number, unit = row["quantity"]
        quantity: dict[str, Any] = {"value": float(number), "unit": unit}
        if unit != "no unit":
            quantity |= {"system": UCUM, "code": unit}
        built["component"] = [{"code": {"text": "part"}, "valueQuantity": quantity}]
    if "profiles" in row or "source" in row:
        built["meta"] = {"profile": row["profiles"]} if "profiles" in row else {}
        built["meta"] |= {"source": row["source"]} if "source" in row else {}
    return built


def question(query: tuple[str, ...]) -> tuple[tuple[str, str], Any]:
    """Return the parameter and the oracle of one query."""
    kind, modifier, *rest = query
    asked = rest[0] if rest else ""
    escaped = asked.replace("\\", "\\\\").replace(",", "\\,")
    match kind:
        case "quantity":
            name = "component-value-quantity", f"{modifier}{asked}|{UCUM}|{rest[1]}"
            return name, lambda row: matches_quantity(row, modifier, asked, rest[1])
        case "string":
            value = "true" if modifier == ":missing" else escaped
            return (f"value-string{modifier}", value), lambda row: matches_string(row, modifier, asked)
        case "text":
            found = ("code:text", escaped)
            return found, lambda row: any(folded(t).startswith(folded(asked)) for t in row.get("texts", []))
        case "uri":
            value = "true" if modifier == ":missing" else escaped
            return (f"_profile{modifier}", value), lambda row: matches_uri(row, modifier, asked)
    written = asked.replace("\\", "\\\\")
    return ("_filter", f'value-string {modifier} "{written}"'), lambda row: matches_filter(row, modifier, asked)


def test_search_agrees_with_brute_force(module_database_url: str) -> None:
    agrees(module_database_url, RESOURCES, QUERIES, _check)


async def _check(api: Api, number: int, drawn: list[Row], queries: list[Any]) -> None:
    subject = f"Patient/round{number}"
    table = {f"r{number}-{place}": row for place, row in enumerate(drawn)}
    entries = [entry("PUT", f"Observation/{name}", body(name, subject, row)) for name, row in table.items()]
    response = await api.transaction(*entries)
    assert response.status_code == 200, response.text
    for query in queries:
        if query[0] == "sort":
            pairs = [("subject", subject), ("_sort", f"{query[1]},_id")]
        else:
            asked, is_match = question(query)
            pairs = [("subject", subject), asked]
        response = await api.http.get("/fhir/Observation", params=pairs, headers=api.headers)
        assert response.status_code == 200, (pairs, response.text)
        got = [e["resource"]["id"] for e in response.json().get("entry", [])]
        if query[0] == "sort":
            by_id = sorted(table)
            expected = sorted(by_id, key=lambda n: sort_value(table[n], query[1]), reverse=query[1].startswith("-"))
            assert got == expected, pairs
        else:
            assert set(got) == {name for name, row in table.items() if is_match(row)}, (pairs, table)
