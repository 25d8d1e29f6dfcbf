"""Key images → Key Object Selection: which images to look at, with which presentation state, and the report (stage 5).

DICOM PS3.3 A.35.4, C.17.6; PS3.16 TID 2010. IHE RAD TF-1 Key Image Note and AI Results: a reader that knows neither our
SR nor the SEG still finds the images that matter.
"""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument
from highdicom.sr import CompositeContentItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from ai_services.prediction import Prediction
from ai_services.results.algorithm_equipment import algorithm_equipment
from ai_services.results.context import MANUFACTURER, RunContext
from ai_services.results.dicom_seg import software_versions
from ai_services.results.dicom_source import copy_issuer, source_headers
from ai_services.results.dicom_sr import device_observer
from ai_services.results.dicom_times import fix_times
from ai_services.results.image_library import SOURCE, shown_image, states_by_image
from ai_services.results.key_image_text import notice_text

KEY_OBJECT_SERIES_NUMBER = 9004
SERIES_DESCRIPTION = "AI key image note (unverified)"


def build_key_objects(
    prediction: Prediction, datasets: Sequence[Dataset], states: list[Dataset], report: Dataset, context: RunContext
) -> Dataset:
    """Build the selection.

    Parameters
    ----------
    prediction : where it comes from
    datasets : the source instances, any order
    states : presentation states of `build_key_images`, at least one
    report : the SR of the run, the root of its results
    context : of the run
    """
    sources = source_headers(prediction, datasets)
    images = {str(source.SOPInstanceUID): source for source in sources}
    shown = states_by_image(states)
    content = KeyObjectSelection(
        document_title=codes.DCM.OfInterest,
        referenced_objects=[images[uid] for uid in shown],
        observer_device_context=device_observer(prediction, context),
        description=notice_text(prediction, context).replace("\n", "; "),
    )
    items = content[0].ContentSequence
    kept = [item for item in items if item.ValueType != "IMAGE"]
    references = [shown_image(images[uid], state) for uid, state in shown.items()]
    root = CompositeContentItem(SOURCE, report.SOPClassUID, report.SOPInstanceUID, relationship_type="CONTAINS")
    content[0].ContentSequence = type(items)([*kept, *references, root])
    dataset = KeyObjectSelectionDocument(
        evidence=[*(images[uid] for uid in shown), *states, report],
        content=content,
        series_instance_uid=context.uid("key-object-series"),
        series_number=KEY_OBJECT_SERIES_NUMBER,
        sop_instance_uid=context.uid("key-objects"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=context.pipeline,
        software_versions=context.pipeline,
        device_serial_number=prediction.models[0].sha256[:16],
        contributing_equipment=algorithm_equipment(prediction.models),
        series_description=SERIES_DESCRIPTION,
    )
    dataset.SoftwareVersions = software_versions(prediction.models)
    copy_issuer(sources[0], dataset)
    fix_times(dataset, context.recorded_at)
    return dataset
