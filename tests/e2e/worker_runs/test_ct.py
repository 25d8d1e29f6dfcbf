"""A SYNTHETIC lumbar CT: refused until a person releases the candidate, then through the worker to its results."""

from __future__ import annotations

import pytest

from ai_services.imaging.ct_phantom import CtSetting, ct_phantom
from ai_services.models.stages import CHECKLIST, Stage
from ai_services.models.versions import ModelRegistry
from foramen.kernel.identifiers import derived_uid, new_trace_id
from terminology.analysis_reasons import ANALYSIS_REASONS
from tests.builders.ct_series import ct_series
from tests.builders.installation import ISSUER, Installation
from tests.builders.worker_runs import StartWorker, report_of

pytestmark = pytest.mark.system


def test_ct_is_read_only_where_somebody_released_its_model(system: Installation, start_worker: StartWorker) -> None:
    registry = ModelRegistry(system.database_url, system.settings.home)
    registry.take_in_what_came_with_the_software()
    (candidate,) = registry.versions("lumbar_ct")
    assert candidate.stage is Stage.CANDIDATE
    assert registry.current("lumbar_ct") is None
    phantom = ct_phantom(4, CtSetting(spacing_mm=(2.0, 1.3, 1.3)))
    studies = [derived_uid("test", new_trace_id()) for _ in range(2)]

    def send(study: str) -> None:
        system.store(
            ct_series(
                phantom,
                StudyInstanceUID=study,
                SeriesInstanceUID=f"{study}.1",
                FrameOfReferenceUID=f"{study}.9",
                PatientID=system.new_patient(),
                IssuerOfPatientID=ISSUER,
                StudyDescription="CT L-spine SYNTHETIC",
            )
        )

    send(studies[0])
    start_worker(PIPELINE="real")
    refused = system.ended_task(studies[0], 120)
    known = ANALYSIS_REASONS["ct-not-released"]
    assert refused["status"] == "rejected"
    assert refused["statusReason"] == {"coding": [known.coding()], "text": known.display_zh}

    registry.move("lumbar_ct", candidate.version, Stage.SHADOW, "dr-li", "to try")
    registry.move("lumbar_ct", candidate.version, Stage.RELEASED, "dr-li", "on SYNTHETIC images only", CHECKLIST)
    send(studies[1])
    task = system.ended_task(studies[1], 180)
    assert task["status"] == "completed", task.get("statusReason")
    report = report_of(system, task)
    assert report["status"] == "partial"
    assert report["code"]["text"] == "腰椎 CT AI 分析"
    assert "SYNTHETIC-trained and UNVERIFIED" in report["conclusion"]
    found = system.results(studies[1])
    assert found["Observation"] > 40
    assert {
        kind: found[kind] for kind in ("SEG", "SR", "PR", "KO", "CarePlan", "RequestGroup", "DiagnosticReport")
    } == {
        "SEG": 1,
        "SR": 1,
        "PR": 0,
        "KO": 0,
        "CarePlan": 0,
        "RequestGroup": 0,
        "DiagnosticReport": 1,
    }
