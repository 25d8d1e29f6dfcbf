"""The frames resource without the walk through the routes: of one study a thousand are asked for in a second.

DICOM PS3.18 §10.4.1.1.6. Only the way there is shorter: token, access, audit and answer are those of the route.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

_PATH = re.compile(
    r"/studies/(?P<study>[^/]+)/series/(?P<series>[^/]+)/instances/(?P<instance>[^/]+)/frames/(?P<frames>[^/]+)"
)
"""As Starlette reads `FRAMES_PATH`."""
FRAMES_PATH = "/studies/{study}/series/{series}/instances/{instance}/frames/{frames}"


class FramesFirst:
    """ASGI middleware before the router: GET of frames goes to its endpoint, all else on."""

    def __init__(self, app: ASGIApp, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        self._app, self._endpoint = app, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        match = None
        if scope["type"] == "http" and scope["method"] == "GET":
            match = _PATH.fullmatch(scope["path"].removeprefix(scope.get("root_path", "")))
        if match is None:
            await self._app(scope, receive, send)
            return
        request = Request({**scope, "path_params": match.groupdict()}, receive, send)
        response = await self._endpoint(request)
        await response(request.scope, receive, send)
