"""Draws the labels of the record into a folder and makes an immutable dataset version of them (stage 11; ADR 0053).

Nothing is written before the whole draw was read, its Consents asked for, and the text searched for the persons.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from ai_services.monitoring.judged import JudgedReport
from ai_services.monitoring.observed import Resource
from ai_services.monitoring.record import RecordReader
from ai_services.training.dataset_version import DatasetError, DatasetVersion, make_version, save
from ai_services.training.labels.check import identifying_values, leaks
from ai_services.training.labels.consent import RESEARCH_SCOPE, ConsentRule, may_use
from ai_services.training.labels.rows import LabelRow, ModelName, rows_of
from foramen.kernel.crypto.pseudonyms import ProjectPseudonyms
from foramen.kernel.fhir_client import FhirClient
from terminology import systems

SCOPES = " ".join(
    f"system/{kind}.rs"
    for kind in ("DiagnosticReport", "Observation", "Provenance", "Device", "Patient", "ImagingStudy", "Consent")
)
"""What a draw reads, and no more."""
DECIDED = ("final", "amended", "corrected", "entered-in-error")
ABOUT = "about.json"
LABELS = "labels.jsonl"
_AT_ONCE = 50
_MEANING = {
    "agreed": "signed without a change; in an amended report that means: seen and left as it was, not measured anew",
    "corrected": "a person set another value",
    "rejected": "a person took the report back without saying what is right: no value to train on",
}


@dataclass(slots=True)
class Drawn:
    """What was read.

    Parameters
    ----------
    rows : labels, in no order
    reports : how many decided reports they are from
    left_out : why others are not among them, with their number
    forbidden : values that may not occur in what is written
    """

    rows: list[LabelRow] = field(default_factory=list)
    reports: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    forbidden: set[str] = field(default_factory=set, repr=False)


async def draw(
    fhir: FhirClient, pseudonyms: ProjectPseudonyms, rule: ConsentRule, on: date, until: str | None = None
) -> Drawn:
    """Read every decided report that the token reaches and whose patient takes part.

    Parameters
    ----------
    fhir : the record, with the token of who draws: it needs `SCOPES`
    pseudonyms : of the project
    rule : whose labels are used
    on : day on which Consents have to be in force
    until : FHIR instant; later decisions do not count

    Raises
    ------
    InteropError
        The record refuses or does not answer. Consents that cannot be read are not Consents that permit.
    """
    drawn, reader = Drawn(), RecordReader(fhir, until)
    models: dict[str, ModelName] = {}
    batch: list[JudgedReport] = []
    async for report in reader.all(DECIDED):
        batch.append(report)
        if len(batch) == _AT_ONCE:
            await _take(reader, batch, models, drawn, (pseudonyms, rule, on))
            batch = []
    await _take(reader, batch, models, drawn, (pseudonyms, rule, on))
    drawn.left_out += reader.left_out
    return drawn


async def _take(
    reader: RecordReader,
    reports: Sequence[JudgedReport],
    models: dict[str, ModelName],
    drawn: Drawn,
    how: tuple[ProjectPseudonyms, ConsentRule, date],
) -> None:
    pseudonyms, rule, on = how
    decided = [report for report in reports if report.is_decided]
    drawn.left_out["no-signature"] += len(reports) - len(decided)
    consents = await consents_of(reader, {report.patient for report in decided})
    taking_part = [report for report in decided if may_use(consents[report.patient], on, rule)]
    drawn.left_out["no-research-consent"] += len(decided) - len(taking_part)
    studies = await reader.resources("ImagingStudy", (report.imaging_study or "" for report in taking_part))
    patients = await reader.resources("Patient", (report.patient for report in taking_part))
    found = {finding.device for report in taking_part for finding in report.findings if finding.device} - set(models)
    models |= {name: _model(item) for name, item in (await reader.resources("Device", found)).items()}
    for report in taking_part:
        uid = study_uid(studies.get(report.imaging_study or ""))
        if uid is None or report.patient not in patients:
            drawn.left_out["study-or-patient-hidden"] += 1
            continue
        drawn.rows += rows_of(report, uid, models, pseudonyms)
        drawn.reports += 1
        drawn.left_out["findings-without-a-known-value"] += sum(item.said is None for item in report.findings)
        drawn.forbidden |= _forbidden(report, patients[report.patient], studies[report.imaging_study or ""])


def write(
    folder: Path,
    drawn: Drawn,
    *,
    name: str,
    licence: str,
    by: str,
    project: str,
    rule: ConsentRule,
    basis: str,
    seed: int = 1,
    shares: Mapping[str, float] | None = None,
) -> tuple[Path, DatasetVersion]:
    """Write the labels and the manifest of their version; returns the manifest's path and the version.

    Parameters
    ----------
    folder : new or empty
    name, licence, by, seed, shares : of the version
    project, rule, basis : how it was drawn

    Raises
    ------
    DatasetError
        Nothing was drawn, the folder holds something, or the check found a person in the text: nothing is written.
    """
    if not drawn.rows:
        raise DatasetError("no decision could be drawn; what was left out is counted by its reason")
    texts = {patient: _lines(rows) for patient, rows in sorted(_by_patient(drawn.rows).items())}
    about = _about(drawn, project, rule, basis)
    if found := sum(leaks(text, drawn.forbidden) for text in (*texts.values(), about)):
        raise DatasetError(f"the check found {found} identifying values in the labels; nothing was written")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise DatasetError("the folder is not empty: a version is made once")
    for patient, text in texts.items():
        place = folder / "patients" / patient
        place.mkdir(parents=True)
        (place / LABELS).write_text(text, encoding="utf-8")
    (folder / ABOUT).write_text(about, encoding="utf-8")
    version = make_version(
        folder,
        name=name,
        licence=licence,
        source=f"decisions of physicians in the record, project {project}; consent: {rule.value}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        created_by=by,
        deidentification=folder / ABOUT,
        seed=seed,
        shares=shares,
    )
    return save(folder, version), version


def read(folder: Path) -> list[dict[str, Any]]:
    """Rows of a folder that `write` made, in order of patient and place.

    Raises
    ------
    DatasetError
        It holds no labels, or a line is none.
    """
    rows = []
    for path in sorted((folder / "patients").glob(f"*/{LABELS}")):
        try:
            rows += [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError) as exc:
            raise DatasetError("a file of labels cannot be read") from exc
    if not rows:
        raise DatasetError("the folder holds no labels")
    return rows


def study_uid(study: Resource | None) -> str | None:
    """Study Instance UID of an ImagingStudy."""
    for identifier in (study or {}).get("identifier", []):
        if identifier.get("system") == systems.DICOM_UID:
            return str(identifier["value"]).removeprefix("urn:oid:")
    return None


async def consents_of(reader: RecordReader, patients: Iterable[str]) -> dict[str, list[Resource]]:
    """Consents about research by patient (`Patient/id`); InteropError where they cannot be read."""
    found: dict[str, list[Resource]] = defaultdict(list)
    wanted = sorted(patients)
    for start in range(0, len(wanted), _AT_ONCE):
        some = ",".join(wanted[start : start + _AT_ONCE])
        async for page in reader.pages("Consent", [("patient", some), ("scope", RESEARCH_SCOPE)]):
            for item in page:
                found[item["patient"]["reference"]].append(item)
    return found


def _model(device: Resource) -> ModelName:
    name = next((item.get("name", "") for item in device.get("deviceName", [])), "")
    version = next((item.get("value", "") for item in device.get("version", [])), "")
    sha256 = next(
        (item["value"] for item in device.get("identifier", []) if item.get("system") == systems.IDENTIFIER_MODEL), ""
    )
    return ModelName(name, version, sha256)


def _forbidden(report: JudgedReport, patient: Resource, study: Resource) -> set[str]:
    people = {item.decision.who.partition("/")[2] for item in report.findings if item.decision is not None}
    own = {report.reference.partition("/")[2], report.patient.partition("/")[2]}
    own |= {item.reference.partition("/")[2] for item in report.findings}
    return people | own | identifying_values(patient) | identifying_values(study)


def _by_patient(rows: Iterable[LabelRow]) -> dict[str, list[LabelRow]]:
    found: dict[str, list[LabelRow]] = defaultdict(list)
    for row in rows:
        found[row.patient].append(row)
    return found


def _lines(rows: Iterable[LabelRow]) -> str:
    """NDJSON in an order that tells nothing of who came when: the same labels are the same bytes."""
    lines = [json.dumps(row.as_json(), sort_keys=True, ensure_ascii=False) for row in rows]
    return "".join(f"{line}\n" for line in sorted(lines))


def _about(drawn: Drawn, project: str, rule: ConsentRule, basis: str) -> str:
    document = {
        "what": "labels that physicians gave to results of models, under pseudonyms",
        "project": project,
        "consent": rule.value,
        "basis": basis,
        "reports": drawn.reports,
        "patients": len({row.patient for row in drawn.rows}),
        "verdicts": dict(sorted(Counter(row.verdict for row in drawn.rows).items())),
        "meaning": _MEANING,
        "left_out": {name: count for name, count in sorted(drawn.left_out.items()) if count},
        "synthetic": sorted({row.synthetic for row in drawn.rows}) == [True],
        "check": {"values_looked_for": len(drawn.forbidden), "found": 0},
    }
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
