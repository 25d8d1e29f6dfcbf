"""Date and token search agree with a brute-force reading of the specification, on data nobody chose by hand."""
# ruff: noqa: E501 - tables

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from tests.contract.fhir.api import Api, entry
from tests.contract.fhir.brute_force import agrees

DATES = st.sampled_from(
    ["2019", "2020", "2020-01", "2020-02", "2020-12", "2019-12-31", "2020-01-01", "2020-02-29", "2020-03-01",
     "2020-02-29T23:59:59Z", "2020-03-01T00:00:00Z", "2020-03-01T00:30:00+01:00", "2020-03-01T00:00:00.500Z"]
)  # fmt: skip


def is_period(value: dict[str, str]) -> bool:
    """Something in it, and no start behind the end (per-1, which looks no further than the coarser of the two)."""
    if len(value) < 2:
        return bool(value)
    if "T" in value["start"] and "T" in value["end"]:  # The zone may turn the days round.
        return interval(value["start"])[0] <= interval(value["end"])[0]
    least = min(len(value["start"].partition("T")[0]), len(value["end"].partition("T")[0]))
    return value["start"][:least] < value["end"][:least]


PERIODS = st.fixed_dictionaries({}, optional={"start": DATES, "end": DATES}).filter(is_period)
CODES = st.sampled_from(["a", "A", "b", "c d"])
SYSTEMS = st.sampled_from([None, "urn:one", "urn:two"])
CODINGS = st.lists(st.tuples(SYSTEMS, CODES), min_size=1, max_size=3)
PREFIXES = st.sampled_from(["", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"])
EVER, NEVER = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)


def interval(text: str) -> tuple[datetime, datetime]:
    """The moments a date covers, found by trying the next value of its last part (nothing shared with the server)."""
    if "T" in text:
        low = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return low, low + (timedelta(milliseconds=1) if "." in text else timedelta(seconds=1))
    parts = [int(part) for part in text.split("-")]
    low = datetime(*[*parts, 1, 1][:3], tzinfo=UTC)
    high = low
    while all(getattr(high, name) == getattr(low, name) for name in ("year", "month", "day")[: len(parts)]):
        high += timedelta(days=1)
    return low, high


def extent(value: dict[str, Any]) -> tuple[datetime, datetime]:
    if "effectiveDateTime" in value:
        return interval(value["effectiveDateTime"])
    period = value["effectivePeriod"]
    return (
        interval(period["start"])[0] if "start" in period else NEVER,
        interval(period["end"])[1] if "end" in period else EVER,
    )


def matches_date(prefix: str, target: tuple[datetime, datetime], asked: tuple[datetime, datetime]) -> bool:
    """search.html#prefix, word by word: contains, overlaps above, overlaps below."""
    inside = asked[0] <= target[0] and target[1] <= asked[1]
    above, below = target[1] > asked[1], target[0] < asked[0]
    return {"": inside, "eq": inside, "ne": not inside, "gt": above, "lt": below, "ge": above or inside,
            "le": below or inside, "sa": target[0] >= asked[1], "eb": target[1] <= asked[0]}[prefix]  # fmt: skip


def matches_token(codings: list[tuple[str | None, str]], system: str | None, code: str, bar: bool) -> bool:
    return any(found.lower() == code.lower() and (not bar or where == system) for where, found in codings)


OBSERVATIONS = st.lists(
    st.tuples(CODINGS, st.one_of(DATES.map(lambda d: {"effectiveDateTime": d}), PERIODS.map(lambda p: {"effectivePeriod": p}))),
    min_size=1,
    max_size=8,
)  # fmt: skip
QUERIES = st.lists(st.tuples(PREFIXES, DATES, SYSTEMS, CODES, st.booleans(), st.booleans()), min_size=1, max_size=12)


def test_search_agrees_with_brute_force(module_database_url: str) -> None:
    agrees(module_database_url, OBSERVATIONS, QUERIES, _check)


async def _check(api: Api, number: int, drawn: list[Any], queries: list[Any]) -> None:
    subject = f"Patient/round{number}"
    entries, table = [], {}
    for place, (codings, when) in enumerate(drawn):
        coding = [{"code": code, **({"system": system} if system else {})} for system, code in codings]
        body = {"resourceType": "Observation", "id": f"r{number}-{place}", "status": "final",
                "code": {"coding": coding}, "subject": {"reference": subject}, **when}  # fmt: skip
        table[body["id"]] = (codings, extent(when))
        entries.append(entry("PUT", f"Observation/{body['id']}", body))
    assert (await api.transaction(*entries)).status_code == 200
    for prefix, date, system, code, bar, negated in queries:
        asked = interval(date)
        pairs = [("subject", subject), ("date", prefix + date)]
        pairs.append(("code:not" if negated else "code", f"{system or ''}|{code}" if bar else code))
        response = await api.http.get("/fhir/Observation", params=pairs, headers=api.headers)
        got = {e["resource"]["id"] for e in response.json().get("entry", [])}
        expected = {
            name
            for name, (codings, target) in table.items()
            if matches_date(prefix, target, asked) and matches_token(codings, system, code, bar) != negated
        }
        assert got == expected, pairs
