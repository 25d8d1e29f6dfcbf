"""Word to the imaging side: which studies belonged to somebody whose record was erased. Pure.

The record cannot remove pixels (they are the gateway's, reached by HTTP, which has no deletion): it leaves a Task that
names the Study Instance UIDs, for whoever runs the archive. https://hl7.org/fhir/R4/task.html
"""

from __future__ import annotations

from datetime import UTC, datetime

import orjson

from fhir_server.store.changes import Change, save
from terminology.systems import BASE

CODE_SYSTEM = f"{BASE}/CodeSystem/subject-rights"
ERASE_PIXELS = "erase-pixels"


def imaging_task(logical_id: str, studies: list[str], own_url: str) -> Change:
    """Return the Task that asks for the removal of some studies.

    Parameters
    ----------
    studies : Study Instance UIDs
    """
    now = datetime.now(UTC)
    text = "Remove these studies from the archive and its copies"
    data = {
        "resourceType": "Task",
        "id": logical_id,
        "status": "requested",
        "intent": "order",
        "priority": "urgent",
        "code": {"coding": [{"system": CODE_SYSTEM, "code": ERASE_PIXELS, "display": "Erase pixels"}], "text": text},
        "authoredOn": now.isoformat(timespec="seconds"),
        "input": [{"type": {"text": "Study Instance UID"}, "valueUri": f"urn:oid:{uid}"} for uid in studies],
    }
    return save(orjson.dumps(data), data, logical_id, updated=now, own_url=own_url)
