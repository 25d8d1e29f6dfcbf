"""Keys of the projects that pseudonymised data is made for: one file each under FORAMEN_HOME/secrets.

`foramen project add` makes them. Record and images read the same file, so that both sides fit together.
"""

from __future__ import annotations

import re
from pathlib import Path

from foramen.kernel.errors import InvalidRequestError
from foramen.kernel.secret_files import read_private

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def read_project_key(home: Path, name: str) -> bytes:
    """Return a project's key.

    Raises
    ------
    InvalidRequestError
        Not a name, or there is no such project.
    """
    if not _NAME.fullmatch(name):
        text = "A project's name has 1 to 64 of a-z, 0-9, - and _ and begins with a letter or digit"
        raise InvalidRequestError(text, issue_code="value")
    path = home / "secrets" / f"project-{name}"
    if not path.is_file():
        text = "There is no such project; an operator makes it with foramen project add"
        raise InvalidRequestError(text, issue_code="not-found")
    return read_private(path).strip().encode()
