"""What a route of the FHIR API is: method, path, handler, required SMART action, audit code.

https://hl7.org/fhir/R4/http.html, https://hl7.org/fhir/R4/operations.html
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.responses import Response

from fhir_server.server import Call

Handler = Callable[[Call], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """One route.

    `path` has literal parts and the placeholders ``{type}``, ``{id}`` and ``{version}``; a literal type goes before
    ``{type}``. `action` is the SMART action the token needs on the type (c r u d s; empty: the handler decides).
    `capability` is the code of the CapabilityStatement's interaction; an operation has `definition` instead, the
    canonical URL of its OperationDefinition. `shows_audit`: an operation's answer may hold AuditEvents.
    """

    method: str
    path: str
    handler: Handler
    action: str
    audit: str
    capability: str = ""
    anonymous: bool = False
    definition: str = ""
    administrator: bool = False
    shows_audit: bool = True

    @property
    def level(self) -> str:
        """Whether it speaks of a type or of the whole system."""
        return "system" if not self.path or self.path[0] in "_$" or self.path[0].islower() else "type"

    @property
    def operation(self) -> str:
        """Name of the operation without the dollar sign; empty for an interaction."""
        return next((part[1:] for part in self.path.split("/") if part.startswith("$")), "")
