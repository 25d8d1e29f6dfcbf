"""Parameters that R4 defines without an expression: age, birth order, and those over extensions of ValueSet."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from tests.contract.fhir.api import Api, refused


def born(years: int, days: int = 0) -> str:
    today = datetime.now(UTC).date()
    year = today.year - years
    day = date(year, 3, 1) if (today.month, today.day) == (2, 29) else today.replace(year=year)
    return date.fromordinal(day.toordinal() + days).isoformat()


async def test_age(api: Api) -> None:
    people = {
        "today40": {"birthDate": born(40)},
        "tomorrow40": {"birthDate": born(40, 1)},
        "almost41": {"birthDate": born(41, 1)},
        "just41": {"birthDate": born(41)},
        "dead40": {"birthDate": born(40), "deceasedBoolean": True},
        "unknown": {},
    }
    for name, more in people.items():
        await api.put_ok({"resourceType": "Patient", "id": name, **more})

    async def found(value: str) -> set[str]:
        return set(await api.ids(f"Patient?age={value}"))

    assert await found("40") == {"today40", "almost41"}
    assert await found("gt40") == {"just41"}
    assert await found("ge40") == {"today40", "almost41", "just41"}
    assert await found("lt40") == {"tomorrow40"}
    assert await found("le40") == {"tomorrow40", "today40", "almost41"}
    assert await found("ne40") == {"tomorrow40", "just41"}
    assert await found("39,41") == {"tomorrow40", "just41"}


@pytest.mark.parametrize("value", ["x", "-1", "4.5", "201", "sa40", "ap40", "gt", "²"])
async def test_bad_ages(module_api: Api, value: str) -> None:
    refused(await module_api.get(f"/fhir/Patient?age={value}"), 400, "value")


async def test_birth_order_and_extensions(module_api: Api) -> None:
    await module_api.put_ok({"resourceType": "Patient", "id": "second", "multipleBirthInteger": 2})
    await module_api.put_ok({"resourceType": "Patient", "id": "single", "multipleBirthBoolean": False})
    assert await module_api.ids("Patient?birthOrderBoolean=true") == ["second"]
    assert await module_api.ids("Patient?birthOrderBoolean=false") == ["single"]
    url = "http://hl7.org/fhir/StructureDefinition/valueset-"
    extensions = [
        {"url": f"{url}author", "valueContactDetail": {"name": "Synthia"}},
        {"url": f"{url}keyWord", "valueString": "spine"},
        {"url": f"{url}workflowStatus", "valueString": "drafting"},
        {"url": f"{url}effectiveDate", "valueDateTime": "2026-01-01"},
        {"url": f"{url}expirationDate", "valueDate": "2027-01-01"},
    ]
    await module_api.put_ok({"resourceType": "ValueSet", "id": "v", "status": "draft", "extension": extensions})
    for query in ("author=synth", "keyword=spine", "workflow=drafting", "effective=2026", "end=gt2026-12-31"):
        assert await module_api.ids(f"ValueSet?{query}") == ["v"], query
    assert await module_api.ids("ValueSet?workflow=other") == []
