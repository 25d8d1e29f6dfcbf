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
from dicomweb.retrieve.frames_ahead import AskedFrame, FrameAnswer, FramesAhead
from dicomweb.retrieve.series_plans import SeriesPlans
from dicomweb.retrieve.stored_files import StoredFiles
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError
from foramen.kernel.tokens import bearer_token

_PATH = re.compile(r"/studies/([0-9.]+)/series/([0-9.]+)/instances/([0-9.]+)/frames/([1-9][0-9]{0,8})", re.ASCII)
_ASKS_MORE = frozenset((b"traceparent", b"if-none-match", b"if-range", b"range"))
INTERACTION = "retrieve-frames"


class ReadyFrames:
    """ASGI middleware before all others of the gateway; `ready_by` gives it the parts, once they are built."""

    def __init__(self, app: ASGIApp, verify: Callable[[str], AccessContext], base: str) -> None:
        self._app, self._verify = app, verify
        self._frames = FramesAhead(base)
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
                context, asked, answer = found
                await send({"type": "http.response.start", "status": 200, "headers": answer.headers})
                await send({"type": "http.response.body", "body": answer.body})
                self._look_ahead(context, asked, answer)
                return
        await self._app(scope, receive, send)

    def _answer(
        self, scope: Scope, study: str, series: str, instance: str, number: str
    ) -> tuple[AccessContext, AskedFrame, FrameAnswer] | None:
        """Return who asks, what for, and the answer; None: the endpoint has to look."""
        told = _token_and_accept(scope)
        if told is None or self._parts is None:
            return None
        plans, files, windows = self._parts
        try:
            context = self._verify(bearer_token(told[0]))
        except InteropError:
            return None
        one = plans.ready(context, study, series, instance)
        if one is None or int(number) > one.frames:
            return None
        asked = AskedFrame(one, int(number), told[1], scope.get("client"))
        answer = self._frames.answer(asked, files)
        # Last of all: what is counted is sent.
        if answer is None or not windows.join(context, f"urn:oid:{study}", INTERACTION, instance, time.monotonic()):
            return None
        return context, asked, answer

    def _look_ahead(self, context: AccessContext, asked: AskedFrame, answer: FrameAnswer) -> None:
        """Have the frame ready that follows, in this instance or the next one of its series."""
        if self._parts is None:
            return
        plans, files, _ = self._parts
        following: AskedFrame | None = None
        if asked.number < asked.one.frames:
            following = asked._replace(number=asked.number + 1)
        elif (next_one := plans.after(context, asked.one)) is not None:
            following = asked._replace(one=next_one, number=1)
        self._frames.sent(asked, answer, following, files)


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
