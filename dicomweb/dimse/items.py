"""Which instances of a study a context may read, with what is needed to send them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from dicomweb.dimse.parts import Parts
from dicomweb.dimse.search import search_all, value_of
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import NotFoundError

_CLASS, _INSTANCE = "00080016", "00080018"
_LISTED = 100


@dataclass(frozen=True, slots=True)
class Item:
    """One instance to be sent."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    orthanc_id: str
    transfer_syntax_uid: str


async def readable(
    parts: Parts,
    context: AccessContext,
    study: str,
    series: Collection[str] | None = None,
    instances: Collection[str] | None = None,
) -> list[Item]:
    """Return instances of a study, as far as the context may read them; not there and not permitted are both nothing.

    Parameters
    ----------
    series, instances : UIDs to which it is restricted; None: all
    """
    try:
        indexed = await parts.index.instances(context, study)
    except NotFoundError:
        return []
    wanted = [
        item
        for item in indexed
        if (series is None or item.series_instance_uid in series)
        and (instances is None or item.sop_instance_uid in instances)
    ]
    if not wanted:
        return []
    parameters = [("StudyInstanceUID", study)]
    if len(wanted) <= _LISTED:
        parameters.append(("SOPInstanceUID", ",".join(item.sop_instance_uid for item in wanted)))
    models = search_all(parts.qido, context, "IMAGE", parameters)
    classes = {value_of(model, _INSTANCE): value_of(model, _CLASS) async for model in models}
    return [
        Item(
            study,
            item.series_instance_uid,
            item.sop_instance_uid,
            classes[item.sop_instance_uid],
            item.orthanc_id,
            item.transfer_syntax_uid,
        )
        for item in wanted
        if item.sop_instance_uid in classes
    ]
