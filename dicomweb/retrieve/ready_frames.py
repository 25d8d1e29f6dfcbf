"""A frame about which nothing is left to decide: a viewer's next one is answered at once, without waiting for anything.

The same token, plan of the series (access, at most a second old), audit event (durable before) and bytes as by the
endpoint; only what would have to be asked of the database, the archive, a thread or a codec goes there instead, and so
does every refusal. DICOM PS3.18 §10.4.1.1.6; ADR 0043
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from dicomweb.audit_windows import AuditWindows
from dicomweb.multipart import closing, new_boundary, part_head
from dicomweb.retrieve import answers
from dicomweb.retrieve.cross_origin import MARKS
from dicomweb.retrieve.frames import chosen, frame_head, frame_spans_in, multipart_media
from dicomweb.retrieve.pieces import is_small, read_spans_now
from dicomweb.retrieve.series_plans import SeriesPlans
from dicomweb.retrieve.stored_files import StoredFiles
from dicomweb.retrieve.transfer_syntaxes import EXPLICIT_LITTLE
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError
from foramen.kernel.tokens import bearer_token

_PATH = re.compile(r"/studies/([0-9.]+)/series/([0-9.]+)/instances/([0-9.]+)/frames/([1-9][0-9]{0,8})", re.ASCII)
_ASKS_MORE = frozenset((b"traceparent", b"if-none-match", b"if-range", b"range"))
_TOLD = [(name.lower().encode(), value.encode()) for name, value in answers.CACHE.items()] + MARKS
INTERACTION = "retrieve-frames"


class ReadyFrames:
    """ASGI middleware before all others of the gateway; `ready_by` gives it the parts, once they are built."""

    def __init__(self, app: ASGIApp, verify: Callable[[str], AccessContext], base: str) -> None:
        self._app, self._verify, self._base = app, verify, base
        self._parts: tuple[SeriesPlans, StoredFiles, AuditWindows] | None = None

    def ready_by(self, plans: SeriesPlans, files: StoredFiles, windows: AuditWindows) -> None:
        """Answer from these from now on."""
        self._parts = plans, files, windows

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] == "http" and scope["method"] == "GET" and not scope["query_string"]:
            match = _PATH.fullmatch(scope["path"].removeprefix(scope.get("root_path", "")))
            found = self._answer(scope, *match.groups()) if match is not None else None
            if found is not None:
                headers, body = found
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": body})
                return
        await self._app(scope, receive, send)

    def _answer(
        self, scope: Scope, study: str, series: str, instance: str, number: str
    ) -> tuple[list[tuple[bytes, bytes]], bytearray] | None:
        """Return headers and body; None: the endpoint has to look."""
        asked = _token_and_accept(scope)
        if asked is None or self._parts is None:
            return None
        plans, files, windows = self._parts
        try:
            context = self._verify(bearer_token(asked[0]))
            one = plans.ready(context, study, series, instance)
            known = files.ready(one.orthanc_id) if one is not None else None
            if one is None or known is None or int(number) > one.frames:
                return None
            offer = chosen(asked[1], one.transfer_syntax_uid, True)
        except InteropError:
            return None
        path, layout = known
        syntax = offer.transfer_syntax or EXPLICIT_LITTLE
        spans = frame_spans_in(layout, int(number), syntax)
        if spans is None:
            return None
        told = answers.etag_of("frames", str(offer), one.orthanc_id, number)
        head = tail = b""
        if offer.multipart:
            boundary = new_boundary()
            head, tail = part_head(boundary, frame_head(self._base, one, int(number), offer)), closing(boundary)
            kind, tag = f"multipart/related; {multipart_media(offer)}; boundary={boundary}", f'W/"{told}"'
        else:
            kind, tag = f"{offer.media_type}; transfer-syntax={syntax}", f'"{told}"'
        length = len(head) + sum(size for _, size in spans) + len(tail)
        body = read_spans_now(path, spans, head, tail) if is_small(length) else None
        # Last of all: what is counted is sent.
        if body is None or not windows.join(context, f"urn:oid:{study}", INTERACTION, instance, time.monotonic()):
            return None
        headers = [(b"content-type", kind.encode()), (b"etag", tag.encode()), (b"content-length", b"%d" % length)]
        return [*headers, *_TOLD, *([] if offer.multipart else [(b"accept-ranges", b"bytes")])], body


def _token_and_accept(scope: Scope) -> tuple[str, str] | None:
    """Return what the two headers say that a plain request for a frame has; None: it asks for more, or is unclear."""
    authorization = accept = None
    for name, value in scope["headers"]:
        if name == b"authorization":
            authorization = str(value, "latin-1")
        elif name == b"accept":
            if accept is not None:
                return None
            accept = str(value, "latin-1")
        elif name in _ASKS_MORE:
            return None
    return None if authorization is None else (authorization, accept or "*/*")
