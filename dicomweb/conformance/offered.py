"""Media types that each handler takes and gives, asked of the code that negotiates them: nothing is written down here.

DICOM PS3.18 §8.7 (media types). A transfer syntax is a parameter and not listed: the refusal of a request names those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

from dicomweb import metadata, qido
from dicomweb.media_types import Offer
from dicomweb.retrieve import bulk_data, document, frames, instances, rendered, wado_uri
from dicomweb.retrieve.resources import both
from dicomweb.retrieve.transfer_syntaxes import EXPLICIT_LITTLE, FRAME_MEDIA_TYPES, VIDEO_MEDIA_TYPES
from dicomweb.store import receive
from dicomweb.stow import ANSWERS
from dicomweb.workitems import service as workitems

_STORED = (EXPLICIT_LITTLE, *FRAME_MEDIA_TYPES, *VIDEO_MEDIA_TYPES)


def _frames(_: str) -> list[Offer]:
    return [offer for stored in _STORED for offer in frames.frame_offers(stored, single=True)]


def _bulk_data(_: str) -> list[Offer]:
    pixels = (bulk_data.pixel_offers(stored, single=True) for stored in _STORED)
    return [*bulk_data.VALUE_OFFERS, *(offer for offers in pixels for offer in offers)]


def _rendered(path: str) -> list[Offer]:
    if path.endswith("/thumbnail"):
        return list(rendered.PICTURES)
    if "{instance}" not in path:
        return rendered.offers_of_many(alone=True, in_series="{series}" in path)
    if "{frames}" in path:
        return [*rendered.PICTURES, *both(rendered.PICTURES[:2], single=False)]
    readable = [Offer(kind) for kind in (document.REPORT_TYPE, *document.DOCUMENT_TYPES)]
    videos = [Offer(kind) for kind in VIDEO_MEDIA_TYPES.values()]
    return [*rendered.PICTURES, *both(rendered.PICTURES[:2], single=False), *videos, *readable]


def _wado_uri(_: str) -> list[Offer]:
    return [offer for count in (1, 2, 0) for offer in wado_uri.object_offers(count)]


_GIVES: dict[str, Callable[[str], Iterable[Offer]]] = {
    "search": lambda _: qido.OFFERS,
    "metadata": lambda _: metadata.OFFERS,
    "retrieve": lambda path: instances.instance_offers((), single="{instance}" in path),
    "frames": _frames,
    "bulk_data": _bulk_data,
    "all_bulk_data": lambda _: bulk_data.EVERY_OFFERS,
    "rendered": _rendered,
    "wado_uri": _wado_uri,
    "store": lambda _: [Offer(kind) for kind in ANSWERS],
    "search_workitems": lambda _: workitems.SEVERAL_OFFERS,
    "retrieve_workitem": lambda _: workitems.ONE_OFFERS,
}
_TAKES: dict[str, Callable[[], Iterable[Offer]]] = {
    "store": lambda: [Offer(kind, multipart=several) for several in (True, False) for kind in receive.BODIES],
    **dict.fromkeys(
        ("create_workitem", "update_workitem", "change_workitem_state"),
        lambda: [Offer(kind) for kind in workitems.BODIES],
    ),
}


@cache
def gives(handler: str, path: str) -> tuple[str, ...]:
    """Media types of a handler's answers at a path; none: what it answers is not chosen."""
    return _named(_GIVES[handler](path)) if handler in _GIVES else ()


@cache
def takes(handler: str) -> tuple[str, ...]:
    """Media types of the bodies that a handler takes."""
    return _named(_TAKES[handler]()) if handler in _TAKES else ()


def _named(offers: Iterable[Offer]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(Offer(offer.media_type, multipart=offer.multipart)) for offer in offers))
