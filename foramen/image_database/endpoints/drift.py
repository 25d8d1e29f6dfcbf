"""What is out of line between archive, index and record, for system administrators; the gateway reports and audits.

docs/how-to/reconcile_archive.md, ADR 0041
"""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from foramen.image_database.layout import render
from foramen.image_database.page import Call
from foramen.image_database.record import record_of
from foramen.kernel.access_context import ADMINISTRATOR

STATES = ("open", "mended", "confirmed", "resolved")
_NAMES = {"zh": "zh-CN", "en": "en"}
_MOMENTS = ("last", "found", "ended")
_LISTED = 200
"""As many rows of each list as the gateway gives at most."""


async def drift_page(call: Call) -> Response:
    """Show the report."""
    async with record_of(call, ADMINISTRATOR) as record:
        data = await record.drift()
    run = data["run"]
    return render(
        call,
        "drift.html",
        made=_when(data["made"]),
        run=run and {**run, "started": _when(run["started"])},
        kinds=[_line(one, call.language) for one in data["kinds"]],
        waiting=[_line(one, call.language) for one in data["waiting"]],
        ended=[_line(one, call.language) for one in data["ended"]],
        states=STATES,
        listed=_LISTED,
    )


def _line(one: dict[str, Any], language: str) -> dict[str, Any]:
    moments = {name: _when(one[name]) for name in _MOMENTS if name in one}
    return one | moments | {"words": one["words"][_NAMES[language]]}


def _when(moment: str | None) -> str:
    """Spell a moment as the other pages do."""
    return moment[:16].replace("T", " ") + " UTC" if moment else "–"
