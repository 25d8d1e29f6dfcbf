"""The models as Device: name, version and the hash of their weights (stage 5).

https://hl7.org/fhir/R4/device.html; clinical model §6.4.
"""

from __future__ import annotations

from ai_services.prediction import ModelIdentity
from ai_services.results.context import MANUFACTURER, Resource
from terminology import systems


def build_device(model: ModelIdentity) -> Resource:
    """Build the Device of one model; the same weights are the same Device for every study."""
    return {
        "resourceType": "Device",
        "identifier": [{"system": systems.IDENTIFIER_MODEL, "value": model.sha256}],
        "status": "active",
        "manufacturer": MANUFACTURER,
        "deviceName": [{"name": model.name, "type": "model-name"}],
        "type": {"text": "software"},
        "version": [{"value": model.version}],
        "note": [{"text": "未注册为医疗器械 not a registered medical device"}],
    }
