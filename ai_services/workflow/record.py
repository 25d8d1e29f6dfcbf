"""What a run reads from the record beside its Task: answers, earlier results, findings of a report (stages 4 and 5).

https://hl7.org/fhir/R4/search.html; searches stay within the Task's patient.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ai_services.results.diagnostic_report import REPORT_CODINGS
from ai_services.results.supersede import is_ai_generated
from foramen.kernel.fhir_client import FhirClient
from terminology import systems

Resource = dict[str, Any]
_CODES_OF_REPORTS = ",".join(f"{coding['system']}|{coding['code']}" for coding in REPORT_CODINGS)
_IDS_A_PAGE = 40


async def questionnaire_responses(fhir: FhirClient, patient: str) -> list[Resource]:
    """Answers of the patient to the intake questionnaire."""
    found = await fhir.search("QuestionnaireResponse", [("subject", patient)])
    return [item for item in found if str(item.get("questionnaire", "")).split("|")[0] == systems.INTAKE_QUESTIONNAIRE]


async def earlier_results(fhir: FhirClient, patient: str, imaging_study: str) -> list[Resource]:
    """AI reports of a study that nobody has verified, with their findings and options."""
    reports = [
        report
        for report in await fhir.search(
            "DiagnosticReport", [("subject", patient), ("code", _CODES_OF_REPORTS), ("status", "partial")]
        )
        if is_ai_generated(report)
        and imaging_study in {item.get("reference") for item in report.get("imagingStudy", [])}
    ]
    results: list[Resource] = list(reports)
    for report in reports:
        results += await observations_of(fhir, report)
    names = {f"DiagnosticReport/{report['id']}" for report in reports}
    return results + await draft_options(fhir, patient, names)


async def observations_of(fhir: FhirClient, report: Resource) -> list[Resource]:
    """The Observations that a report lists, as they are now."""
    references = [str(item.get("reference", "")) for item in report.get("result", [])]
    ids = [reference.split("/")[-1] for reference in references if reference.startswith("Observation/")]
    found: list[Resource] = []
    for start in range(0, len(ids), _IDS_A_PAGE):
        page = ids[start : start + _IDS_A_PAGE]
        found += await fhir.search("Observation", [("_id", ",".join(page)), ("_count", str(_IDS_A_PAGE))])
    order = {logical_id: index for index, logical_id in enumerate(ids)}
    return sorted(found, key=lambda item: order[item["id"]])


async def draft_options(fhir: FhirClient, patient: str, reports: Iterable[str]) -> list[Resource]:
    """Draft options (CarePlans and the RequestGroups that list them) that rest on one of the reports."""
    wanted = set(reports)
    if not wanted:
        return []
    plans = await fhir.search("CarePlan", [("subject", patient), ("status", "draft"), ("intent", "option")])
    groups = await fhir.search("RequestGroup", [("subject", patient), ("status", "draft")])
    return [item for item in plans if wanted & _references(item.get("supportingInfo"))] + [
        item for item in groups if wanted & _references(item.get("reasonReference"))
    ]


def _references(items: list[Resource] | None) -> set[str]:
    return {str(item.get("reference")) for item in items or []}
