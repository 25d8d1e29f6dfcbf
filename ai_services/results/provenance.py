"""Who said it and from what: Provenance of AI results (stage 5).

https://hl7.org/fhir/R4/provenance.html: agent author = Device, entity source = ImagingStudy and SOP instances.
"""

from __future__ import annotations

from collections.abc import Sequence

from ai_services.results.context import Resource, ai_meta
from ai_services.results.dicom_objects import ResultObject
from ai_services.results.run_record import RunRecord, as_extension, hash_extension
from terminology import systems


def build_provenance(
    *,
    targets: Sequence[str],
    devices: Sequence[str],
    sources: Sequence[str],
    sop_instance_uids: Sequence[str],
    recorded: str,
    activity: str,
    synthetic: bool,
    objects: Sequence[ResultObject] = (),
    run: RunRecord | None = None,
) -> Resource:
    """Build the Provenance of one transaction.

    Parameters
    ----------
    targets : references of what was made
    devices : references of the models, the first one leads
    sources : references of the resources it was made from
    sop_instance_uids : the images it was made from
    recorded : FHIR instant
    activity : for people
    objects : DICOM objects that were made; targets by their UID, as the archive is not part of the record
    run : what it takes to do the run again
    """
    entities = [{"role": "source", "what": {"reference": reference}} for reference in sources]
    entities += [_image(uid, run) for uid in sop_instance_uids]
    made = [{"identifier": _dicom_uid(item.sop_instance_uid), "display": f"DICOM {item.kind}"} for item in objects]
    return {
        "resourceType": "Provenance",
        "meta": ai_meta(synthetic=synthetic),
        **({"extension": [as_extension(run)]} if run else {}),
        "target": [*({"reference": reference} for reference in targets), *made],
        "occurredDateTime": recorded,
        "recorded": recorded,
        "activity": {"text": activity},
        "agent": [
            {
                "type": {"coding": [{"system": systems.PROVENANCE_AGENT, "code": "author", "display": "Author"}]},
                "who": {"reference": device},
            }
            for device in devices
        ],
        "entity": entities,
    }


def _image(uid: str, run: RunRecord | None) -> Resource:
    entity: Resource = {"role": "source", "what": {"identifier": _dicom_uid(uid)}}
    if run is not None and uid in run.inputs:
        entity["extension"] = [hash_extension(run.inputs[uid])]
    return entity


def _dicom_uid(uid: str) -> dict[str, str]:
    return {"system": systems.DICOM_UID, "value": f"urn:oid:{uid}"}
