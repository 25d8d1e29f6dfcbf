"""Every model that took part, as an item of the Contributing Equipment Sequence of each result (stage 5).

IHE RAD TF Supplement AI Results (AIR) Rev. 1.1, 6.5.3.1: manufacturer, model name, version and a Device UID that
changes with the weights. DICOM PS3.3 C.12.1.1.5; AIR's own purpose code is provisional, so the purpose is DCM 109102.
"""

from __future__ import annotations

from collections.abc import Sequence

from highdicom.base_content import ContributingEquipment
from pydicom.sr.codedict import codes

from ai_services.prediction import ModelIdentity
from ai_services.results.context import MANUFACTURER
from foramen.kernel.identifiers import derived_uid


def algorithm_equipment(models: Sequence[ModelIdentity]) -> list[ContributingEquipment]:
    """Build one item a model; the same weights have the same Device UID in every study."""
    items = []
    for model in models:
        item = ContributingEquipment(
            manufacturer=MANUFACTURER,
            purpose_of_reference=codes.DCM.ProcessingEquipment,
            manufacturer_model_name=model.name[:64],
            software_versions=model.version[:64],
            device_serial_number=model.sha256[:16],
            contribution_description="AI algorithm",
        )
        item.DeviceUID = derived_uid("model", model.sha256)
        items.append(item)
    return items
