"""Projects that pseudonymised data is exported for: one key each, a file only this server's account can read.

The key is all that links pseudonyms to patients: who deletes it makes an earlier export anonymous to this server too.
"""

from __future__ import annotations

import re
from pathlib import Path

from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.secret_files import read_or_create_secret

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def _check(name: str) -> None:
    if not _NAME.fullmatch(name):
        text = "A project's name has 1 to 64 of a-z, 0-9, - and _ and begins with a letter or digit"
        raise InvalidRequestError(text, issue_code="value")


def _secret(name: str) -> str:
    return f"project-{name}"


def add_project(home: Path, name: str) -> bool:
    """Make a project's key; False when there is one already, which stays.

    Raises
    ------
    InvalidRequestError
        Not a name.
    """
    _check(name)
    there = (home / "secrets" / _secret(name)).exists()
    read_or_create_secret(home, _secret(name))
    return not there


def project_key(home: Path, name: str) -> bytes:
    """Return a project's key.

    Raises
    ------
    InvalidRequestError
        There is no such project.
    """
    _check(name)
    if not (home / "secrets" / _secret(name)).is_file():
        raise InvalidRequestError(
            "There is no such project; an operator makes it with foramen project add", issue_code="not-found"
        )
    return read_or_create_secret(home, _secret(name)).encode()


def projects(home: Path) -> list[str]:
    """Names of all projects."""
    return sorted(path.name.removeprefix("project-") for path in (home / "secrets").glob("project-*"))
