"""`/apps/admin/`: what needs attention, and how many of what there are."""

from __future__ import annotations

from starlette.responses import Response

from foramen.admin.layout import render
from foramen.admin.page import Call
from foramen.identity.people.second_factor import second_factor_roles
from foramen.identity.rights.attention import attention


async def overview(call: Call) -> Response:
    """Show the overview."""
    settings = call.env.settings
    found = await call.run(
        lambda connection, administrator: attention(
            connection,
            administrator,
            idle_s=settings.session_idle_s,
            two_factor_roles=second_factor_roles(settings),
        )
    )
    return render(call, "overview.html", found=found, places={entry.word for entry in call.menu})
