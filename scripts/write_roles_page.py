"""Write docs/roles.md, the role × permission matrix, from the access policy itself."""

from __future__ import annotations

from pathlib import Path

from foramen.identity.policy import table
from foramen.identity.rights.roles import ROLES

PAGE = Path(__file__).parents[1] / "docs" / "roles.md"
HEAD = """# Roles and permissions

What an account of each role may do. Written by `python scripts/write_roles_page.py` from
`foramen/identity/policies/permissions.rego`; a test compares the page with the policy.

**yes**: every account of the role. **single**: not by role; an administrator may grant it to a named account, for a
limited time if wanted (`foramen user grant NAME PERMISSION --until DATE --reason TEXT`). Empty: out of reach of the
role, whoever grants it. Every permission can be withdrawn from a single account (`foramen user withdraw`).
See [how to manage roles](how-to/manage-roles.md).

"""
SCOPES = """
## What each permission means

A token holds at most these SMART scopes (and `patient/` scopes of the same types and actions); the app's registration
and the person's consent narrow it further. A permission without scopes is asked by the administration service.
*Identified*: shows who the patient is. *Lendable*: a physician may lend it to an assistant (账号借用).

| permission | 权限 | meaning | scopes | identified | lendable |
|---|---|---|---|---|---|
"""


def page() -> str:
    """Return the page as Markdown."""
    permissions, roles, grantable = table("permissions"), table("roles"), table("grantable")
    lendable = table("rights_tables")["lendable"]
    lines = [f"| permission | {' | '.join(ROLES)} |", f"|---|{'---|' * len(ROLES)}"]
    for name in permissions:
        cells = ["yes" if name in roles[r] else "single" if name in grantable[r] else "" for r in ROLES]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    meanings = [
        f"| `{name}` | {one['zh']} | {one['en']} | {', '.join(f'`{s}`' for s in one['scopes'])} | "
        f"{'yes' if one['identified'] else ''} | {'yes' if name in lendable else ''} |"
        for name, one in permissions.items()
    ]
    return HEAD + "\n".join(lines) + "\n" + SCOPES + "\n".join(meanings) + "\n"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
