"""A service that asks the same again and again and finds nothing: one AuditEvent a minute tells of it.

A worker that looks twice a second for new Tasks would leave 170,000 events a day and question, more than all people of
a hospital, and each says that nothing was shown. ADR 0060
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
        """Whether an event of the last minute says what one of this search would; else it counts as told now.

        Parameters
        ----------
        call : answered, with success
        """
        context = call.access.context
        is_service = context.fhir_user is None and context.subject == context.client_id
        if not is_service or call.audit_code != "search-type" or call.request.method != "GET":
            return False
        query: bytes = call.request.scope["query_string"]
        if any(not item.endswith("?") for item in call.shown):
            return False
        if any(name in _COUNTING for name, _ in parse_qsl(query, keep_blank_values=True)):
            return False
        asked, now = (context.client_id, call.resource_type, query), time.monotonic()
        if now - self._told.get(asked, -WINDOW_S) < WINDOW_S:
            return True
        self._told[asked] = now
        self._told.move_to_end(asked)
        while len(self._told) > _MOST:
            self._told.popitem(last=False)
        return False
