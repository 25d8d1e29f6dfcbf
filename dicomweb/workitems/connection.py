"""A notification connection: one WebSocket over which event reports go to one subscriber (DICOM PS3.18 §8.10.4).

RFC 6455. The token is checked before the handshake is accepted, and again every second while the connection is open:
when it ends or is revoked, so does the connection.
"""

from __future__ import annotations

import asyncio

from starlette.responses import Response
from starlette.websockets import WebSocket, WebSocketDisconnect

from dicomweb.workitems.channels import Channel, Channels
from dicomweb.workitems.service import Worklist
from dicomweb.workitems.subscriptions import Subscriber
from foramen.kernel.access_context import AccessContext
from foramen.kernel.errors import InteropError
from foramen.kernel.outcome import outcome_response
from foramen.kernel.tokens import TokenVerifier, bearer_token

POLICY, TOO_SLOW = 1008, 1013
_CHECK_S = 1.0


async def refuse(socket: WebSocket, error: InteropError) -> None:
    """Answer the handshake with the error's status; where the server cannot say which, with 403."""
    response: Response = outcome_response(error)
    if "websocket.http.response" in socket.scope.get("extensions", {}):
        await socket.send_denial_response(response)
    else:
        await socket.close(POLICY)


async def serve(
    socket: WebSocket,
    context: AccessContext,
    trace_id: str,
    verifier: TokenVerifier,
    worklist: Worklist,
    channels: Channels,
) -> None:
    """Accept the handshake and send reports until the client leaves or its token ends."""
    token = bearer_token(socket.headers.get("authorization"))
    subscriber = Subscriber.of(context, str(socket.path_params["aetitle"]))
    channel = Channel(subscriber, worklist.record(token, trace_id, context))
    await socket.accept()
    channels.add(channel)
    leaving = asyncio.create_task(_until_left(socket))
    farewell: tuple[int, str] | None = None
    try:
        while not leaving.done() and farewell is None:
            if _has_ended(verifier, token):
                farewell = (POLICY, "The token has ended")
            elif channel.is_full:
                farewell = (TOO_SLOW, "Reports are not read")
            else:
                await _send_next(socket, channel, leaving)
    except (WebSocketDisconnect, RuntimeError):
        return  # it left while something was sent
    finally:
        channels.remove(channel)
        leaving.cancel()
        await asyncio.wait([leaving])  # while it waits for the client, the server cannot close
    if farewell is not None:
        await socket.close(*farewell)


def _has_ended(verifier: TokenVerifier, token: str) -> bool:
    try:
        verifier.verify(token)
    except InteropError:
        return True
    return False


async def _send_next(socket: WebSocket, channel: Channel, leaving: asyncio.Task[None]) -> None:
    """Send a report if one comes soon."""
    waiting = asyncio.create_task(channel.waiting.get())
    done, _ = await asyncio.wait({waiting, leaving}, timeout=_CHECK_S, return_when=asyncio.FIRST_COMPLETED)
    if waiting in done:
        await socket.send_text(waiting.result().decode())
    else:
        waiting.cancel()


async def _until_left(socket: WebSocket) -> None:
    while (await socket.receive())["type"] != "websocket.disconnect":
        pass  # a client has nothing to say here (§8.10.5.3)
