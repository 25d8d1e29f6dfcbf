"""Which model version speaks for a study: chosen once a run and kept with it; an update changes no running study.

Released versions and routing rules are in `ai_services.models`; the features of a study are read here (stage 4).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from ai_services.workflow import claim
from ai_services.workflow import services as worker_services
from ai_services.workflow.pipelines import MR, pipeline_of_modality

if TYPE_CHECKING:
    from ai_services.models.registry import Manifest
    from ai_services.models.versions import ModelVersion

_SPACE_LIKE = re.compile(r"(?:^|[^a-z])(?:space|vista|cube)(?:[^a-z]|$)", re.IGNORECASE)


def choose_model(task_id: str, run_id: str, study: dict[str, Any], series_uid: str) -> dict[str, str] | None:
    """Choose the version; None where the registry knows none, and the pipeline speaks with what it comes with.

    A choice without ``version`` says that nobody may speak: no version is released, but the registry knows some.

    Raises
    ------
    PipelineError
        ``no-model-released``: MR, where the last release was recalled.
    """
    from ai_services.models.routing import choose

    services = worker_services.current()
    if services.models is None:
        return None
    services.wait(claim.report_progress(services.fhir, task_id, run_id, "choosing-model"))
    pipeline = _pipeline_of_series(study["study_instance_uid"], series_uid)
    current = services.models.current(pipeline)
    rules = services.models.rules(pipeline)
    version = choose(rules, features_of(study, series_uid), study["study_instance_uid"]) if rules else None
    speaking = version or (current.version if current else None)
    return choice_of(pipeline, speaking, is_known=bool(services.models.versions(pipeline)))


def choice_of(pipeline: str, version: str | None, *, is_known: bool) -> dict[str, str] | None:
    """What is kept with the run: the version that speaks, or that nobody may.

    Parameters
    ----------
    pipeline : name
    version : of the rule that fits, else the current release; None where there is neither
    is_known : whether the registry knows any version of the pipeline

    Raises
    ------
    PipelineError
        ``no-model-released``
    """
    from ai_services.imaging.refusal import refusal

    if version is not None:
        return {"version": version} if pipeline == MR else {"version": version, "pipeline": pipeline}
    if pipeline == MR and is_known:
        raise refusal("no-model-released")
    return None if pipeline == MR else {"pipeline": pipeline}


def pipeline_of(choice: dict[str, str] | None) -> str:
    """The pipeline that a choice belongs to."""
    return (choice or {}).get("pipeline", MR)


def speaks(choice: dict[str, str] | None) -> bool:
    """Whether a version of the choice's pipeline may answer; else only its shadows look."""
    return choice is None or "version" in choice


def is_looked_at(pipeline: str) -> bool:
    """Whether studies of a pipeline are looked at here at all: a version is released, or runs in the shadow (ADR 0057).

    What comes with the software for MR always is; for CT it is a candidate.
    """
    from ai_services.models.stages import Stage

    if pipeline == MR:
        return True
    models = worker_services.current().models
    if models is None:
        return False
    return any(item.stage in (Stage.RELEASED, Stage.SHADOW) for item in models.versions(pipeline))


def _pipeline_of_series(study_uid: str, series_uid: str) -> str:
    modalities = dict(worker_services.current().dicom.series_of_study(study_uid))
    return pipeline_of_modality(modalities.get(series_uid, ""))


def features_of(study: dict[str, Any], series_uid: str) -> dict[str, str]:
    """Modality, body part, sequence (``t2`` or ``t2-space``) and institution (id of the Organization) of a study."""
    services = worker_services.current()
    headers = services.dicom.series_metadata(study["study_instance_uid"], series_uid)
    header = headers[0] if headers else None
    patient = services.wait(services.fhir.read(study["patient"]))
    institution = str(patient.get("managingOrganization", {}).get("reference", "")).rpartition("/")[2]
    if header is None:
        return {"institution": institution}
    named = " ".join(str(header.get(keyword, "")) for keyword in ("SeriesDescription", "ProtocolName", "SequenceName"))
    return {
        "modality": str(header.get("Modality", "")),
        "body_part": str(header.get("BodyPartExamined", "")),
        "sequence": "" if header.get("Modality") == "CT" else "t2-space" if _SPACE_LIKE.search(named) else "t2",
        "institution": institution,
    }


def package_of(choice: dict[str, str] | None) -> Manifest | None:
    """The chosen version's package, checked; None for what the pipeline comes with.

    Raises
    ------
    PipelineError
        ``model-integrity``: it is not there, or not what was registered.
    """
    from ai_services.models.runtime import ModelIntegrityError
    from ai_services.prediction import PipelineError

    models = worker_services.current().models
    if choice is None or models is None or not speaks(choice):
        return None
    try:
        return models.open(models.version(pipeline_of(choice), choice["version"]))
    except ModelIntegrityError as exc:
        raise PipelineError("model-integrity", str(exc), "模型权重缺失或与发布版本不符, 已拒绝使用") from exc


def shadows_of(choice: dict[str, str] | None) -> list[ModelVersion]:
    """Versions that run beside the chosen one."""
    from ai_services.models.stages import Stage

    models = worker_services.current().models
    if choice is None or models is None:
        return []
    return [
        item
        for item in models.versions(pipeline_of(choice))
        if item.stage is Stage.SHADOW and item.version != choice.get("version")
    ]
