"""The queue is the record: which Tasks wait, of whom, and which are in work (stage 4).

https://hl7.org/fhir/R4/task.html. While few Tasks wait, one search tells all. Of a flood only the oldest are read,
and then the oldest of each rank and of each institution that is not among them: nobody is hidden behind others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ai_services.workflow.claim import code_of
from ai_services.workflow.fairness import Waiting
from ai_services.workflow.priorities import EXPEDITED, Rank, rank_of, search_of
from foramen.kernel.fhir_client import FhirClient
from terminology import systems
from terminology.codes import ANALYSE_STUDY, RECOMMEND_OPTIONS

Resource = dict[str, Any]
_PAGE = 50
_OF_EACH = 5
_MOST_INSTITUTIONS = 20


async def waiting(fhir: FhirClient, wanted: Mapping[str, Sequence[Rank]]) -> list[Waiting]:
    """Tasks that nobody has taken: all, or of a flood the first of each rank and institution.

    Parameters
    ----------
    wanted : codes of Tasks, and the ranks that are asked for of each
    """
    found: list[Waiting] = []
    for kind, ranks in sorted(wanted.items()):
        only = [("priority", ",".join(rank.name.lower() for rank in ranks))] if set(ranks) <= set(EXPEDITED) else []
        first = await _page(fhir, kind, only, _PAGE)
        of_kind = first if len(first) < _PAGE else await _of_a_flood(fhir, kind, ranks)
        found += [item for item in of_kind if item.rank in ranks]
    return found


async def in_work(fhir: FhirClient) -> list[Waiting]:
    """Tasks in progress of all workers, with their institution."""
    codes = ",".join(f"{code.system}|{code.code}" for code in (ANALYSE_STUDY, RECOMMEND_OPTIONS))
    parameters = [("status", "in-progress"), ("code", codes), ("_include", "Task:patient")]
    return _with_institutions(await fhir.search("Task", parameters))


def by_institution(tasks: Iterable[Waiting]) -> Counter[str]:
    """How many Tasks each institution has among these."""
    return Counter(item.institution for item in tasks)


async def _of_a_flood(fhir: FhirClient, kind: str, ranks: Sequence[Rank]) -> list[Waiting]:
    found: list[Waiting] = []
    for rank in ranks:
        of_rank = await _page(fhir, kind, search_of(rank), _PAGE)
        seen = {item.institution for item in of_rank}
        more = len(of_rank) == _PAGE
        while more and len(seen) < _MOST_INSTITUTIONS:
            others = await _page(fhir, kind, [*search_of(rank), ("_filter", _not_of(seen))], _OF_EACH)
            of_rank += others
            more = bool({item.institution for item in others} - seen)
            seen |= {item.institution for item in others}
        found += of_rank
        if len(found) >= _PAGE:
            break  # whoever comes after these ranks is not taken now
    return found


def _not_of(institutions: Iterable[str]) -> str:
    """Tasks of patients of other institutions, as a filter (https://hl7.org/fhir/R4/search_filter.html)."""
    present = ["patient.organization pr true"] if "" in institutions else []
    return " and ".join([*present, *(f"not (patient.organization eq {name})" for name in sorted(institutions) if name)])


async def _page(fhir: FhirClient, kind: str, parameters: list[tuple[str, str]], count: int) -> list[Waiting]:
    """The oldest waiting Tasks that a search finds, at most `count`."""
    bundle = await fhir.page(
        "Task",
        [
            ("status", "requested"),
            ("code", f"{systems.TASK_CODE}|{kind}"),
            *parameters,
            ("_include", "Task:patient"),
            ("_sort", "authored-on"),
            ("_count", str(count)),
        ],
    )
    return _with_institutions([entry["resource"] for entry in bundle.get("entry", [])])


def _with_institutions(resources: Sequence[Resource]) -> list[Waiting]:
    patients = {
        f"Patient/{item['id']}": str(item.get("managingOrganization", {}).get("reference", ""))
        for item in resources
        if item["resourceType"] == "Patient"
    }
    return [
        Waiting(item, rank_of(item), patients.get(str(item.get("for", {}).get("reference", "")), ""))
        for item in resources
        if item["resourceType"] == "Task" and code_of(item)
    ]
