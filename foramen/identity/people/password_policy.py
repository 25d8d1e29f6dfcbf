"""Which passwords are accepted: long enough, not a common or leaked one, hard to guess for who knows the person.

NIST SP 800-63B §3.1.1.2 (https://pages.nist.gov/800-63-4/sp800-63b.html#passwordver): length and a blocklist, no
composition rules, no forced change, no history. The blocklist is the one of zxcvbn (MIT licence): 30,000 passwords that
leaked, and their usual disguises (l33t, reversed, repeated, with years and keyboard walks).
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Iterable

from foramen.kernel.errors import InvalidRequestError

MIN_PASSWORD_LENGTH = 12
MAX_PASSWORD_LENGTH = 256
# 10^8 guesses: at Argon2id's cost (64 MiB, ~50 ms) months for a stolen table, centuries against the throttled page.
_MIN_GUESSES = 1e8
# More than this adds nothing to the estimate but work, which grows with the length and, steeply, with the number of
# signs that may stand for one letter: of those only one is looked at.
_ESTIMATED_LENGTH = 32
_SAME_LETTER = str.maketrans("{[<|+%@$", "(((!7xas")
# Words that everybody who attacks this service would try first (the service's name and its users' world).
_CONTEXT = ("foramen", "hospital", "yiyuan", "yisheng", "mima", "denglu", "woaini", "surgeon", "lumbar")
_MIN_OTHERS = 5  # characters of a password beside such words
_estimating = threading.Lock()  # zxcvbn keeps the words of the context in a table of its module

TOO_SHORT, TOO_LONG, COMMON = "too_short", "too_long", "common"
_MESSAGES = {
    TOO_SHORT: f"A password has at least {MIN_PASSWORD_LENGTH} characters",
    TOO_LONG: f"A password has at most {MAX_PASSWORD_LENGTH} characters",
    COMMON: "The password is common, leaked or easy to guess",
}


def normalised(password: str) -> str:
    """Bring a password into one form (NFKC), however the keyboard composed it (SP 800-63B §3.1.1.2)."""
    return unicodedata.normalize("NFKC", password)


def password_fault(password: str, about: Iterable[str | None] = ()) -> str | None:
    """Return why a password is refused, or None.

    Parameters
    ----------
    password : as typed
    about : words that belong to the person: account name, institution
    """
    password = normalised(password)
    if len(password) < MIN_PASSWORD_LENGTH:
        return TOO_SHORT
    if len(password) > MAX_PASSWORD_LENGTH:
        return TOO_LONG
    personal = [part for word in about if word for part in (word, *re.split(r"[^\w]+", word)) if len(part) > 2]
    if _without(password, [*personal, *_CONTEXT]) < _MIN_OTHERS:
        return COMMON
    from zxcvbn import zxcvbn  # type: ignore[import-untyped]  # Its words are 12 MB: only where passwords are set.

    with _estimating:
        estimate = zxcvbn(password[:_ESTIMATED_LENGTH].translate(_SAME_LETTER), user_inputs=[*personal, *_CONTEXT])
    return COMMON if float(estimate["guesses"]) < _MIN_GUESSES else None


def _without(password: str, words: Iterable[str]) -> int:
    """Length of what is left of a password without the words that everybody would try."""
    rest = password.lower()
    for word in sorted({word.lower() for word in words if len(word) > 3}, key=len, reverse=True):
        rest = rest.replace(word, "")
    return len(rest)


def check_password(password: str, about: Iterable[str | None] = ()) -> None:
    """Refuse a password that the policy does not accept.

    Raises
    ------
    InvalidRequestError
        Too short, too long, common or easy to guess.
    """
    fault = password_fault(password, about)
    if fault is not None:
        raise InvalidRequestError(_MESSAGES[fault])
