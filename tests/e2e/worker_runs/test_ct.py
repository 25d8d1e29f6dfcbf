"""A SYNTHETIC lumbar CT through its whole life here: refused, in the shadow, released, watched, recalled."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset

from ai_services.imaging.ct_phantom import CtPhantom, CtSetting, ct_phantom
from ai_services.models.registry import load_manifest
from ai_services.models.stages import CHECKLIST, Stage
from ai_services.models.versions import ModelRegistry
from foramen.kernel.identifiers import derived_uid, new_trace_id
from terminology import systems
from terminology.analysis_reasons import ANALYSIS_REASONS
from terminology.codes import MODEL_RECALLED
from tests.builders.ct_series import ct_series
from tests.builders.installation import ISSUER, Installation, wait_for
from tests.builders.worker_runs import StartWorker, report_of

pytestmark = pytest.mark.system
CT = "lumbar_ct"
VERSION = load_manifest(CT).version


@pytest.fixture(scope="module")
def phantom() -> CtPhantom:
    """Four whole vertebrae and the upper sacrum: an analysis needs no more, and takes half the time of a whole one."""
    return ct_phantom(4, CtSetting(spacing_mm=(2.5, 1.6, 1.6), z_range_mm=(-110.0, 60.0), width_mm=120.0))


@pytest.fixture
def command(foramen: Any) -> Any:
    return partial(foramen, "model")


def images(phantom: CtPhantom, study: str, patient_id: str) -> list[Dataset]:
    return ct_series(
        phantom,
        StudyInstanceUID=study,
        SeriesInstanceUID=f"{study}.1",
        FrameOfReferenceUID=f"{study}.9",
        PatientID=patient_id,
        IssuerOfPatientID=ISSUER,
        StudyDescription="CT L-spine SYNTHETIC",
    )


def send(system: Installation, phantom: CtPhantom) -> str:
    """A study of a new patient that lacks its last image, see `again`."""
    study = derived_uid("test", new_trace_id())
    system.store(images(phantom, study, system.new_patient())[:-1])
    return study


def is_not_released(task: dict[str, Any]) -> bool:
    known = ANALYSIS_REASONS["ct-not-released"]
    assert task["status"] == "rejected"
    return bool(task["statusReason"] == {"coding": [known.coding()], "text": known.display_zh})


@pytest.mark.timeout(900)  # many analyses of seconds each, on cores that other tests share
def test_ct_speaks_only_while_it_is_released_and_a_recall_finds_all_it_wrote(
    system: Installation, start_worker: StartWorker, phantom: CtPhantom, command: Any, tmp_path: Path
) -> None:
    registry = ModelRegistry(system.database_url, system.settings.home)
    registry.take_in_what_came_with_the_software()
    assert registry.version(CT, VERSION).stage is Stage.CANDIDATE
    assert registry.current(CT) is None
    studies = [send(system, phantom)]
    start_worker(PIPELINE="real", FORAMEN_WORKER_WARM_UP="true")
    assert is_not_released(system.ended_task(studies[0], 120))
    assert registry.shadow_runs(CT, VERSION) == []

    # In the shadow it looks, nobody hears it, and what it found is counted.
    step = ("--name", CT, "--by", "dr-li", "--reason", "on SYNTHETIC images only")
    command("promote", VERSION, *step, "--to", "shadow")
    studies.append(send(system, phantom))
    assert is_not_released(system.ended_task(studies[1], 180))
    wait_for(lambda: registry.shadow_runs(CT, VERSION), 10, "the shadow's answer")
    summary = json.loads(command("shadow", VERSION, "--name", CT))
    assert (summary["studies"], summary["alone"], summary["declined"]) == (1, 1, 0)
    assert summary["alone_numbering_confident"] == 1.0
    assert system.results(studies[1])["Observation"] == system.results(studies[1])["SEG"] == 0

    command("promote", VERSION, *step, *(word for item in CHECKLIST for word in ("--confirm", item)))
    log = system.settings.home / "worker.log"
    wait_for(
        lambda: any(
            '"model warmed up"' in line and CT in line for line in log.read_text(encoding="utf-8").splitlines()
        ),
        30,
        "CT warmed up",
    )
    rules = tmp_path / "rules.yaml"
    rules.write_text(f'- when: {{modality: CT, body_part: ""}}\n  version: "{VERSION}"\n- version: "{VERSION}"\n')
    with pytest.raises(AssertionError, match="word or a list of words"):
        command("route", str(rules), "--name", CT, "--by", "dr-li")
    rules.write_text(f'- when: {{modality: CT}}\n  version: "{VERSION}"\n')
    assert VERSION in command("route", str(rules), "--name", CT, "--by", "dr-li")

    # A cohort: the CT studies of its patients, those that were refused with `--again`.
    patients = [system.task(study)["for"]["reference"] for study in studies]
    group = {
        "resourceType": "Group",
        "type": "person",
        "actual": True,
        "member": [{"entity": {"reference": patient}} for patient in patients],
    }
    made = system.http.post("/fhir/Group", json=group, headers={"Content-Type": "application/fhir+json"})
    cohort = ("run", "--cohort", f"Group/{made.json()['id']}")
    assert "No study to analyse" in command(*cohort, status=1)
    assert "2 completed" in command(*cohort, "--pipeline", CT, "--again")
    reports = [report_of(system, system.task(study)) for study in studies]
    assert reports[0]["status"] == "partial"
    assert reports[0]["code"]["text"] == "腰椎 CT AI 分析"
    assert "SYNTHETIC-trained and UNVERIFIED" in reports[0]["conclusion"]
    found = system.results(studies[0])
    assert found["Observation"] > 40
    kinds = ("SEG", "SR", "PR", "KO", "CarePlan", "RequestGroup", "DiagnosticReport")
    assert {kind: found[kind] for kind in kinds} == dict(zip(kinds, (1, 1, 0, 0, 0, 0, 1), strict=True))

    again(system, studies[1], phantom)
    watch = json_of_watch(system, command)
    assert {"facet-angle", "canal-ap-bone"} <= watch
    assert not {"grade", "morphology"} & watch
    provenance = system.search(f"Provenance?target=DiagnosticReport/{reports[0]['id']}")[0]["id"]
    assert "same: version" in command("reproduce", provenance)

    # The only release is recalled: what it wrote is marked, and CT is refused again.
    listed = tmp_path / "recall.json"
    command("recall", VERSION, *step, "--out", str(listed))
    assert registry.current(CT) is None
    told = json.loads(listed.read_text(encoding="utf-8"))
    assert {f"DiagnosticReport/{item['id']}" for item in reports} <= {
        reference.split("/_history/")[0] for run in told["runs"] for reference in run["wrote"]
    }
    marked = system.http.get(f"/fhir/DiagnosticReport/{reports[0]['id']}").json()
    assert marked["status"] == "cancelled"
    assert MODEL_RECALLED.coding() in marked["meta"]["tag"]
    assert is_not_released(system.ended_task(send(system, phantom), 120))


def again(system: Installation, study: str, phantom: CtPhantom) -> None:
    """One more image makes the study new: its answer takes the place of the earlier one, which nobody had verified."""
    before = system.search(f"DiagnosticReport?subject={system.task(study)['for']['reference']}")
    system.store(images(phantom, study, patient_id_of(system, study))[-1:])

    def open_and_closed() -> bool:
        found = system.search(f"DiagnosticReport?subject={system.task(study)['for']['reference']}")
        return len(found) == 2 and sorted(item["status"] for item in found) == ["cancelled", "partial"]

    wait_for(open_and_closed, 180, "the new answer in the place of the old one")
    assert len(before) == 1


def patient_id_of(system: Installation, study: str) -> str:
    patient = system.http.get(f"/fhir/{system.task(study)['for']['reference']}").json()
    return next(
        str(item["value"])
        for item in patient["identifier"]
        if item["system"] == f"{systems.IDENTIFIER_PATIENT}/{ISSUER}"
    )


def json_of_watch(system: Installation, command: Any) -> set[str]:
    """Scores of the MeasureReport that a watch of the version writes; two patients are too few to tell."""
    command("watch", VERSION, "--name", CT, "--since", "2020-01-01", "--until", "2100-01-01", status=3)
    (report,) = [
        item for item in system.search("MeasureReport") if item["identifier"][0]["value"].startswith(f"{CT}-{VERSION}-")
    ]
    return {coding["code"] for group in report["group"] for coding in group["code"]["coding"]}
