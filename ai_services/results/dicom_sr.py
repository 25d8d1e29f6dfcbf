"""Prediction → Comprehensive 3D SR, TID 1500, one measurement group a disc: the root of a run's results (stage 5).

DICOM PS3.16 TID 1500, 1411, 1501, 1600; unverified by definition: nobody has checked it (PS3.3 C.17.2). As IHE AI
Results asks, it names everything else of the run: the segmentation by its groups, the key images with their
presentation states by its image library.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    Comprehensive3DSR,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    LanguageOfContentItemAndDescendants,
    Measurement,
    MeasurementProperties,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    ReferencedSegment,
    SourceImageForMeasurementGroup,
    SourceSeriesForSegmentation,
    TrackingIdentifier,
    VolumetricROIMeasurementsAndQualitativeEvaluations,
)
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ai_services.prediction import Finding, ModelIdentity, Prediction
from ai_services.results.algorithm_equipment import algorithm_equipment
from ai_services.results.context import MANUFACTURER, RunContext, model_of
from ai_services.results.dicom_codes import (
    PROCEDURES,
    absent_concept,
    finding_concept,
    site_code,
    unit_code,
    value_concept,
)
from ai_services.results.dicom_seg import software_versions
from ai_services.results.dicom_source import copy_issuer, source_headers
from ai_services.results.dicom_times import fix_times
from ai_services.results.image_library import image_library, states_by_image
from ai_services.results.tracking import level_tracking, segment_tracking

REPORT_SERIES_NUMBER = 9002
SERIES_DESCRIPTION = "AI measurements (unverified)"


def build_structured_report(
    prediction: Prediction,
    datasets: Sequence[Dataset],
    segmentation: Dataset,
    context: RunContext,
    states: Sequence[Dataset] = (),
) -> Dataset:
    """Build the SR object of a prediction.

    Parameters
    ----------
    prediction : findings per level
    datasets : the source instances, any order
    segmentation : the SEG object of the same run, which the groups refer to
    context : of the run
    states : presentation states of the key images
    """
    sources = source_headers(prediction, datasets)
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=device_observer(prediction, context)),
        procedure_reported=PROCEDURES[prediction.modality],
        imaging_measurements=[
            _group(level, findings, prediction, sources, segmentation, context)
            for level, findings in _by_level(prediction.findings).items()
        ],
        title=codes.DCM.ImagingMeasurementReport,
        language_of_content_item_and_descendants=LanguageOfContentItemAndDescendants(
            CodedConcept("en", "RFC5646", "English")
        ),
    )
    if states:
        images = {str(source.SOPInstanceUID): source for source in sources}
        _add_before_measurements(report[0], image_library(states_by_image(states), images))
    dataset = Comprehensive3DSR(
        evidence=[*sources, segmentation, *states],
        content=report[0],
        series_instance_uid=context.uid("sr-series"),
        series_number=REPORT_SERIES_NUMBER,
        sop_instance_uid=context.uid("sr"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=True,
        is_final=False,
        is_verified=False,
        contributing_equipment=algorithm_equipment(prediction.models),
        series_description=SERIES_DESCRIPTION,
        manufacturer_model_name=context.pipeline,
        software_versions=context.pipeline,
        device_serial_number=prediction.models[0].sha256[:16],
    )
    dataset.SoftwareVersions = software_versions(prediction.models)
    copy_issuer(sources[0], dataset)
    fix_times(dataset, context.recorded_at)
    return dataset


def _by_level(findings: Sequence[Finding]) -> dict[str | None, list[Finding]]:
    levels: dict[str | None, list[Finding]] = {}
    for finding in findings:
        levels.setdefault(finding.level, []).append(finding)
    return levels


def device_observer(prediction: Prediction, context: RunContext) -> ObserverContext:
    """Say that a device observed, and which (PS3.16 TID 1002, 1004)."""
    return ObserverContext(
        observer_type=codes.DCM.Device,
        observer_identifying_attributes=DeviceObserverIdentifyingAttributes(
            uid=context.uid("device"),
            name=f"{MANUFACTURER} {context.pipeline}",
            manufacturer_name=MANUFACTURER,
            model_name=", ".join(f"{model.name} {model.version}" for model in prediction.models)[:64],
        ),
    )


def _add_before_measurements(root: Any, library: Any) -> None:
    """TID 1500 asks for the order: image library (row 6), then imaging measurements (row 7)."""
    items = list(root.ContentSequence)
    root.ContentSequence = type(root.ContentSequence)([*items[:-1], library, items[-1]])


def _group(
    level: str | None,
    findings: Sequence[Finding],
    prediction: Prediction,
    sources: Sequence[Dataset],
    segmentation: Dataset,
    context: RunContext,
) -> Any:  # one of highdicom's two group templates, which have no typed base
    grading = prediction.models[-1]
    algorithm = AlgorithmIdentification(name=grading.name, version=grading.version)
    measurements = [
        _measurement(item, float(item.value), model_of(item, prediction))
        for item in findings
        if isinstance(item.value, int | float)
    ]
    evaluations = [_evaluation(item) for item in findings if not isinstance(item.value, int | float)]
    sites = [FindingSite(site_code(level))] if level is not None else None
    number = next((item.segment_number for item in findings if item.segment_number is not None), None)
    segment = next((item for item in prediction.segments if item.number == number), None)
    identifier, uid = level_tracking(level, context) if segment is None else segment_tracking(segment, context)
    tracking = TrackingIdentifier(uid=uid, identifier=identifier)
    if number is None:
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracking,
            algorithm_id=algorithm,
            finding_sites=sites,
            measurements=measurements or None,
            qualitative_evaluations=evaluations or None,
            source_images=[SourceImageForMeasurementGroup.from_source_image(sources[len(sources) // 2])],
        )
    return VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        referenced_segment=ReferencedSegment(
            sop_class_uid=segmentation.SOPClassUID,
            sop_instance_uid=segmentation.SOPInstanceUID,
            segment_number=number,
            source_series=SourceSeriesForSegmentation(prediction.series_instance_uid),
        ),
        algorithm_id=algorithm,
        finding_sites=sites,
        measurements=measurements or None,
        qualitative_evaluations=evaluations or None,
    )


def _measurement(finding: Finding, value: float, model: ModelIdentity) -> Measurement:
    properties = None
    if finding.uncertainty is not None:
        half_width = round(float(finding.uncertainty), 4)
        properties = MeasurementProperties(
            upper_measurement_uncertainty=half_width, lower_measurement_uncertainty=half_width
        )
        for item in properties:
            # highdicom writes "no units" here; the uncertainty has the unit of its measurement (PS3.16 TID 310).
            item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence = [
                CodedConcept.from_code(unit_code(finding.unit))
            ]
    return Measurement(
        name=finding_concept(finding.code),
        value=round(value, 4),
        unit=unit_code(finding.unit),
        algorithm_id=AlgorithmIdentification(name=model.name, version=model.version),
        properties=properties,
    )


def _evaluation(finding: Finding) -> QualitativeEvaluation:
    if finding.value is None:
        value = absent_concept(finding.absent_reason or "unknown", finding.absent_text_en or "")
    else:
        value = value_concept(finding.code, str(finding.value))
    evaluation = QualitativeEvaluation(name=finding_concept(finding.code), value=value)
    if finding.confidence is not None:
        percent = round(100 * finding.confidence, 1)
        certainty = NumContentItem(
            codes.DCM.CertaintyOfFinding, percent, unit_code("%"), relationship_type="HAS PROPERTIES"
        )
        evaluation[0].ContentSequence = ContentSequence([certainty])
    return evaluation
