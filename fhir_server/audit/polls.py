"""A service that asks the same again and again and finds nothing: one AuditEvent a minute tells of it.

A worker that looks twice a second for new Tasks would leave 170,000 events a day and question, of which each says that
nothing was shown. ADR 0060
"""

from __future__ import annotations

import time
from collections import OrderedDict
from urllib.parse import parse_qsl

from fhir_server.server import Call

WINDOW_S = 60.0
_MOST = 1000
_COUNTING = frozenset((b"_total", b"_summary"))
"""Parameters whose answer may tell of something without showing it."""


class Polls:
    """Remembers which question of which service was told of last, and when."""

    def __init__(self) -> None:
        self._told: OrderedDict[tuple[str, str, bytes], float] = OrderedDict()

    def is_told(self, call: Call) -> bool:
        """Whether an event of the last minute says what one of this search would.

        Parameters
        ----------
        call : answered, with success
        """
        asked = _question(call)
        return asked is not None and time.monotonic() - self._told.get(asked, -WINDOW_S) < WINDOW_S

    def told(self, call: Call) -> None:
        """Take note that the event of a search is durable: before that, none stands for those that follow."""
        if (asked := _question(call)) is None:
            return
        self._told[asked] = time.monotonic()
        self._told.move_to_end(asked)
        while len(self._told) > _MOST:
            self._told.popitem(last=False)


def _question(call: Call) -> tuple[str, str, bytes] | None:
    """What a service asked and found nothing by; None: it is of another kind."""
    context = call.access.context
    is_service = context.fhir_user is None and context.subject == context.client_id
    if not is_service or call.audit_code != "search-type" or call.request.method != "GET":
        return None
    query: bytes = call.request.scope["query_string"]
    if any(not item.endswith("?") for item in call.shown):
        return None
    if any(name in _COUNTING for name, _ in parse_qsl(query, keep_blank_values=True)):
        return None
    return context.client_id, call.resource_type, query
