"""The accounts of `foramen demo`; pages name them in the demonstration only, and they sign in like everybody else.

Their password is public: it opens the demonstration, and nothing else has it. The launcher acts as nobody – its form
for a demonstration account is the sign-in form, filled in.
"""

from __future__ import annotations

from dataclasses import dataclass

from foramen.identity.rights.roles import ENGINEER, PHYSICIAN

PASSWORD = "lumbar-demo-2026"  # noqa: S105  printed on the screen by `foramen demo`; no other mode has a default


@dataclass(frozen=True, slots=True)
class DemoAccount:
    """One account of the demonstration; `shows`: what it is good for, a key of the launcher's words."""

    name: str
    role: str
    shows: str


SURGEON = DemoAccount("surgeon", PHYSICIAN, "demo_surgeon")
INTEGRATOR = DemoAccount("integrator", ENGINEER, "demo_integrator")
ACCOUNTS = (SURGEON, INTEGRATOR)
