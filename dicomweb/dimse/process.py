"""The DIMSE process (`foramen serve --only dimse`): one event loop for data, pynetdicom's threads for associations.

DICOM PS3.4, PS3.7, PS3.8. Ends on SIGTERM: no new associations, those under way may finish for a while.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Awaitable, Callable

import uvloop
from pynetdicom import AE, _config

from dicomweb.background import keep_running
from dicomweb.dimse.bridge import Bridge
from dicomweb.dimse.commitment import CommitmentReports
from dicomweb.dimse.contexts import contexts_for
from dicomweb.dimse.forwarding import Forwarding
from dicomweb.dimse.index_questions import IndexQuestions
from dicomweb.dimse.outgoing import MAX_PDU_BYTES
from dicomweb.dimse.parts import Parts, build_parts
from dicomweb.dimse.performed_step import StepRecorder
from dicomweb.dimse.prefetching import Prefetching
from dicomweb.dimse.received_file import receive_into
from dicomweb.dimse.services import Services
from dicomweb.dimse.storing import Storing
from dicomweb.dimse.tls import server_context
from dicomweb.dimse.transport import Handler, Server
from dicomweb.migrations import migrate
from foramen.kernel.heartbeat import beat
from foramen.kernel.log import configure_log, get_log
from foramen.kernel.long_lived import set_apart_what_is_loaded
from foramen.kernel.settings import Settings

_FINISH_S = 15.0
_AGAIN_S = 1.0
_BEAT_S = 0.5


def serve(settings: Settings, database_url: str) -> None:
    """Serve until SIGTERM or SIGINT."""
    configure_log(settings.log_level, "dimse")
    _quiet_library()
    migrate(database_url)
    receive_into(settings.home.resolve() / "dimse" / "incoming")
    uvloop.run(_serve(settings, database_url))


async def _serve(settings: Settings, database_url: str) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    parts, bridge = build_parts(settings, database_url), Bridge(loop)
    questions = IndexQuestions(database_url)
    storing = Storing(parts, bridge, questions)
    server = listen(settings, Services(parts, bridge, storing))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    tasks = [asyncio.create_task(keep_running(name, work)) for name, work in _background(parts, bridge, storing)]
    tasks.append(asyncio.create_task(_beat(settings)))
    tasks.append(asyncio.create_task(set_apart_what_is_loaded()))
    get_log().info("dimse started", port=settings.dimse_port)
    try:
        await stop.wait()
    finally:
        await asyncio.to_thread(_finish, server)
        await storing.flush()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=5.0)
        questions.close()
        await parts.close()


def listen(settings: Settings, services: Services) -> Server:
    """Bind the port; nothing is accepted before `serve_forever`."""
    entity = AE(ae_title=settings.dimse_aet)
    entity.maximum_associations = settings.dimse_max_associations
    entity.maximum_pdu_size = MAX_PDU_BYTES
    entity.acse_timeout = entity.network_timeout = entity.dimse_timeout = settings.dimse_idle_timeout_s
    server = Server(
        entity,
        (settings.dimse_host, settings.dimse_port),
        settings.dimse_aet,
        list(contexts_for(frozenset())),
        evt_handlers=services.handlers,
        request_handler=Handler,
    )
    server.retrieve, server.store, server.begin = services.retrieve, services.store, services.begin
    server.tls = server_context(settings)
    server.most_bytes = settings.dimse_max_instance_bytes
    server.most, server.idle_s = settings.dimse_max_associations, settings.dimse_idle_timeout_s
    entity._servers.append(server)
    return server


def _background(parts: Parts, bridge: Bridge, storing: Storing) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
    return [
        ("index", storing.run),
        ("accesses", parts.audit.accesses.run),
        ("commitment", CommitmentReports(parts).run),
        ("performed steps", StepRecorder(parts).run),
        ("forwarding", Forwarding(parts, bridge).run),
        ("prefetching", Prefetching(parts, storing).run),
    ]


def _finish(server: Server) -> None:
    """Accept nothing more; let what is under way finish, then abort it."""
    server.shutdown()
    waited = threading.Event()
    for _ in range(int(_FINISH_S * 10)):
        if not server.active_associations:
            return
        waited.wait(0.1)
    for association in server.active_associations:
        association.abort()


async def _beat(settings: Settings) -> None:
    while True:
        beat(settings.home, "dimse")
        await asyncio.sleep(_BEAT_S)


def _quiet_library() -> None:
    """The library's log quotes identifiers, which name patients; large data sets go to files, not memory."""
    logging.getLogger("pynetdicom").setLevel(logging.CRITICAL + 1)
    logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.STORE_RECV_CHUNKED_DATASET = True
