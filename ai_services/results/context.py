"""What every builder of one run shares: whose study it is, and ids that a replay repeats (stage 5).

UIDs: DICOM PS3.5 §B.2. The key is the study, its input hash, the pipeline and the version of its models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ai_services.prediction import Finding, ModelIdentity, Prediction
from foramen.kernel.identifiers import derived_uid, derived_uuid
from terminology import systems
from terminology.codes import AI_GENERATED, SYNTHETIC

MANUFACTURER = "Foramen"
NOT_A_DEVICE_ZH = "本软件未注册为医疗器械，不得用于临床"
NOT_A_DEVICE_EN = "not a registered medical device, not for clinical use"

Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunContext:
    """One run of one pipeline on one study.

    Parameters
    ----------
    study_instance_uid : the study
    input_hash : hash of the study's own series (from the Task's identifier)
    pipeline, pipeline_version : which pipeline; the version covers its models, so that a new model is a new result
    imaging_study, patient : references ``ImagingStudy/x``, ``Patient/x``
    trace_id : follows the study through every room
    recorded_at : aware time that is stored with the run, so that a replay writes the same time
    synthetic : whether the study is labelled SYNTHETIC
    study_started : FHIR dateTime of the examination, None where the images do not say
    """

    study_instance_uid: str
    input_hash: str
    pipeline: str
    pipeline_version: str
    imaging_study: str
    patient: str
    trace_id: str
    recorded_at: datetime
    synthetic: bool
    study_started: str | None = None

    def uid(self, kind: str) -> str:
        """DICOM UID of one object of this run."""
        return derived_uid(*self._key, kind)

    def urn(self, kind: str) -> str:
        """`urn:uuid:` of one resource of this run, the same on every replay."""
        return f"urn:uuid:{derived_uuid(*self._key, kind)}"

    def identifier(self, kind: str) -> dict[str, str]:
        """Business identifier that makes the creation of a resource conditional."""
        return {"system": systems.IDENTIFIER_RESULT, "value": self.urn(kind)}

    @property
    def _key(self) -> tuple[str, ...]:
        return (self.study_instance_uid, self.input_hash, self.pipeline, self.pipeline_version)

    @property
    def instant(self) -> str:
        """`recorded_at` as a FHIR instant."""
        return fhir_instant(self.recorded_at)

    @property
    def effective(self) -> str:
        """When what was found was true: the time of the examination, else that of the run."""
        return self.study_started or self.instant

    @property
    def meta(self) -> dict[str, Any]:
        """Tags that every resource of a run carries."""
        return ai_meta(synthetic=self.synthetic)


def ai_meta(*, synthetic: bool) -> dict[str, Any]:
    """`meta` with the AI tag, and the SYNTHETIC one where the study is."""
    return {"tag": [AI_GENERATED.coding(), *([SYNTHETIC.coding()] if synthetic else [])]}


def is_synthetic(resource: Resource) -> bool:
    """Whether a resource carries the SYNTHETIC tag."""
    return SYNTHETIC.coding()["code"] in {tag.get("code") for tag in resource.get("meta", {}).get("tag", [])}


def fhir_instant(at: datetime) -> str:
    """FHIR instant in UTC with milliseconds."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def models_version(models: Sequence[ModelIdentity]) -> str:
    """One version of a set of models: names, versions and weights."""
    return ";".join(f"{model.name} {model.version} {model.sha256[:12]}" for model in models)


def model_of(finding: Finding, prediction: Prediction) -> ModelIdentity:
    """The model that a finding comes from: models are listed by stage, the mask's first and the grading one last."""
    return prediction.models[0 if finding.method == "derived" else -1]
