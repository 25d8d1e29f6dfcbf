"""Watches a version on the record: reads, compares, writes the MeasureReport; the same watch twice changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ai_services.monitoring.judged import JudgedReport
from ai_services.monitoring.measure import MEASURE_VERSION, key, measure, measure_report, same
from ai_services.monitoring.record import RecordReader
from ai_services.monitoring.reference import Reference
from ai_services.monitoring.scanner import ScannerLookup
from ai_services.monitoring.strata import strata_of
from ai_services.monitoring.thresholds import Thresholds
from ai_services.monitoring.watch import Watch, watch
from foramen.kernel.fhir_client import FhirClient
from terminology import systems

SCOPES = " ".join(
    [
        *(f"system/{kind}.rs" for kind in ("DiagnosticReport", "Observation", "Provenance", "Device", "Patient")),
        "system/ImagingStudy.rs",
        "system/Measure.crus",
        "system/MeasureReport.crus",
    ]
)


async def results_of(
    fhir: FhirClient, weights: Sequence[str], period: tuple[str, str]
) -> tuple[list[JudgedReport], Mapping[str, int]]:
    """Results of a version in a period, decisions of the period with them, and what could not be read.

    Parameters
    ----------
    fhir : the record
    weights : SHA-256 of all weights files of the version
    period : FHIR instants, the end not included
    """
    reader = RecordReader(fhir, until=period[1])
    return [report async for report in reader.of_models(weights, period[0])], reader.left_out


async def observe(
    fhir: FhirClient,
    scanners: ScannerLookup | None,
    model: tuple[str, str, Sequence[str]],
    period: tuple[str, str],
    reference: Reference | None,
    thresholds: Thresholds,
    reach: str | None = None,
) -> Watch:
    """Watch a version over a period.

    Parameters
    ----------
    fhir, scanners : record and archive, with the caller's token
    model : name, version and SHA-256 of the weights files
    period : FHIR instants, the end not included
    reference, thresholds : to compare with
    reach : Organization (id) that bounds the token; None: nothing does

    Raises
    ------
    InteropError
        Record or archive refuse or do not answer: nothing is told then.
    """
    name, version, weights = model
    reports, left_out = await results_of(fhir, weights, period)
    reader = RecordReader(fhir)
    patients = await reader.resources("Patient", (report.patient for report in reports))
    studies = await reader.resources("ImagingStudy", (report.imaging_study or "" for report in reports))
    groups = {}
    for report in reports:
        study, series = studies.get(report.imaging_study or ""), report.source_series_uid
        uid = next(
            (item["value"] for item in (study or {}).get("identifier", []) if item.get("system") == systems.DICOM_UID),
            "",
        ).removeprefix("urn:oid:")
        scanner = await scanners.of(uid, series) if scanners and uid and series else None
        groups[report.reference] = strata_of(patients.get(report.patient, {}), scanner, report.effective)
    return watch(name, version, period, reports, groups, reference, thresholds, left_out, reach)


async def publish(fhir: FhirClient, watched: Watch, now: str) -> tuple[str, bool]:
    """Write the MeasureReport; returns its reference and whether anything was written.

    Raises
    ------
    PreconditionError
        Somebody wrote the same watch meanwhile: run it again.
    """
    await fhir.create(measure(), if_none_exist=f"url={systems.MODEL_WATCH}&version={MEASURE_VERSION}")
    made = measure_report(watched, now)
    token = f"{systems.IDENTIFIER_MODEL_WATCH}|{key(watched)}"
    found = await fhir.search("MeasureReport", [("identifier", token)])
    if not found:
        stored = await fhir.create(made, if_none_exist=f"identifier={token}")
        return f"MeasureReport/{stored['id']}", True
    before = found[0]
    reference = f"MeasureReport/{before['id']}"
    if same(before, made):
        return reference, False
    await fhir.update({**made, "id": before["id"]}, if_match=before["meta"]["versionId"])
    return reference, True
