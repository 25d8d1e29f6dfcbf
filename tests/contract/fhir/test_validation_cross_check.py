"""A second opinion: fhir.resources (R4B models) on valid and on broken resources; where the two disagree is listed."""
# ruff: noqa: T201 - the disagreements are printed on purpose

from __future__ import annotations

import collections
import random
import warnings
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from fhir_server.model.resource import parse_resource
from fhir_server.model.validation import issues_of
from tests.contract.fhir.mutations import MUTATIONS
from tests.contract.fhir.test_official_examples import FAULTY, examples

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from fhir.resources.R4B import get_fhir_model_class

pytestmark = pytest.mark.fhir_definitions
TYPES = (
    *("Patient", "Observation", "Condition", "DiagnosticReport", "CarePlan", "Procedure", "Encounter", "Practitioner"),
    *(
        "Questionnaire",
        "QuestionnaireResponse",
        "Task",
        "ServiceRequest",
        "MedicationRequest",
        "Device",
        "Organization",
    ),
)
EXAMPLES = 250
EACH = 4


def second_opinion(data: dict[str, Any]) -> str:
    """Empty when fhir.resources accepts it, else the kinds of its errors."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            get_fhir_model_class(data["resourceType"]).model_validate(data)
    except ValidationError as exc:
        return ", ".join(sorted({error["type"] for error in exc.errors()}))
    except (KeyError, LookupError, ValueError, TypeError) as exc:
        return type(exc).__name__
    return ""


def of_our_types() -> list[tuple[str, dict[str, Any]]]:
    found = [(name, orjson.loads(body)) for name, body in examples() if name not in FAULTY and len(body) < 50_000]
    found = [(name, data) for name, data in found if data["resourceType"] in TYPES]
    random.Random(3).shuffle(found)
    return found


def test_valid_examples(capsys: pytest.CaptureFixture[str]) -> None:
    sample = of_our_types()[:EXAMPLES]
    disagree = {name: opinion for name, data in sample if (opinion := second_opinion(data))}
    with capsys.disabled():
        print(f"\nfhir.resources refuses {len(disagree)} of {len(sample)} examples that R4 and we accept:")
        for name, opinion in sorted(disagree.items()):
            print(f"  {name}: {opinion}")
    for _, data in sample:
        assert issues_of(parse_resource(orjson.dumps(data), 64)) == []
    assert len(disagree) <= len(sample) // 20


def test_what_it_refuses_we_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    """Of broken resources, each one that fhir.resources refuses is refused here; what only we refuse is counted."""
    sample = [(name, data) for name, data in of_our_types() if not second_opinion(data)][:EXAMPLES]
    only_we: collections.Counter[str] = collections.Counter()
    both: collections.Counter[str] = collections.Counter()
    only_it: list[str] = []
    for kind, mutate in MUTATIONS.items():
        rng = random.Random(kind)
        applied = 0
        for name, original in sample:
            data = orjson.loads(orjson.dumps(original))
            if applied == EACH:
                break
            if mutate(rng, data) is None:
                continue
            applied += 1
            ours = issues_of(parse_resource(orjson.dumps(data), 64))
            theirs = second_opinion(data)
            if theirs and not ours:
                only_it.append(f"{kind}: {name}: {theirs}")
            (both if theirs else only_we)[kind] += 1
    with capsys.disabled():
        print(f"\nmutations: {both.total()} refused by both, {only_we.total()} by us alone, {len(only_it)} by it alone")
        print("  by us alone: " + ", ".join(f"{kind} {count}" for kind, count in sorted(only_we.items())))
    assert only_it == []
