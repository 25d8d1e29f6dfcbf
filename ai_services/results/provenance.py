"""Who said it and from what: Provenance of AI results (stage 5).

https://hl7.org/fhir/R4/provenance.html: agent author = Device, entity source = ImagingStudy and SOP instances.
"""

from __future__ import annotations

from collections.abc import Sequence

from ai_services.results.context import Resource, ai_meta
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
    """
    entities = [{"role": "source", "what": {"reference": reference}} for reference in sources]
    entities += [
        {"role": "source", "what": {"identifier": {"system": systems.DICOM_UID, "value": f"urn:oid:{uid}"}}}
        for uid in sop_instance_uids
    ]
    return {
        "resourceType": "Provenance",
        "meta": ai_meta(synthetic=synthetic),
        "target": [{"reference": reference} for reference in targets],
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
