"""Recovery codes: ten look-up secrets, shown once, each good once, for who has lost the second factor.

NIST SP 800-63B §3.1.2: from 112 bits on a plain hash protects them; these have 120.
"""

from __future__ import annotations

import base64
import secrets
import unicodedata
from datetime import datetime

from sqlalchemy import Connection, delete, func, select, update

from foramen.identity import tables
from foramen.identity.opaque_tokens import digest

NUMBER = 10
_BYTES = 15  # 24 characters of base32
_GROUP = 6


def new_codes() -> tuple[str, ...]:
    """Make a set of codes, in groups of six characters to read."""
    texts = (base64.b32encode(secrets.token_bytes(_BYTES)).decode() for _ in range(NUMBER))
    return tuple("-".join(text[at : at + _GROUP] for at in range(0, len(text), _GROUP)) for text in texts)


def canonical(code: str) -> str:
    """Bring a typed code into the form that is hashed: capitals, no spaces, no hyphens, no mistaken digits."""
    plain = unicodedata.normalize("NFKC", code).upper().replace("0", "O").replace("1", "I").replace("8", "B")
    return "".join(character for character in plain if character.isalnum())


def replace_codes(connection: Connection, account: str) -> tuple[str, ...]:
    """Give an account new codes; the old ones end."""
    codes = new_codes()
    connection.execute(delete(tables.recovery_code).where(tables.recovery_code.c.account == account))
    rows = [{"account": account, "code_digest": digest(canonical(code))} for code in codes]
    connection.execute(tables.recovery_code.insert(), rows)
    return codes


def use_code(connection: Connection, account: str, code: str, now: datetime) -> bool:
    """Whether `code` is one of the account's and was not used; it is used up by this."""
    column = tables.recovery_code.c
    used = connection.execute(
        update(tables.recovery_code)
        .where(column.account == account, column.code_digest == digest(canonical(code)), column.used_at.is_(None))
        .values(used_at=now)
    )
    return used.rowcount == 1


def codes_left(connection: Connection, account: str) -> int:
    """Return how many codes can still be used."""
    column = tables.recovery_code.c
    counted = select(func.count()).where(column.account == account, column.used_at.is_(None))
    return int(connection.execute(counted).scalar_one())
