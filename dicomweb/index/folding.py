"""Texts as they are compared where case and accents do not count, and the small pieces by which they are found.

PS3.4 §C.2.2.2.1.1 leaves the matching of person names to the server: here they are compared without case, accents and
width (NFKD). Han characters stay what they are: no pinyin is guessed.
"""

from __future__ import annotations

import re
import unicodedata

_WORD = re.compile(r"[^\s^=,.;\\*?]+")
_GRAMS = (2, 3)
_BY_FREQUENCY = "etaoinshrdlcumwfgypbvkjxqz"
"""Letters of Latin texts, the most frequent first; what is no such letter is rarer still."""


def fold(text: str) -> str:
    """Return a text without case, accents and width."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFC", "".join(char for char in plain if not unicodedata.combining(char)))


def words(text: str) -> list[str]:
    """Return the folded components of a name, each once."""
    return list(dict.fromkeys(_WORD.findall(fold(text))))


def grams(text: str) -> set[str]:
    """Return the pieces of two and three characters of a text, and each character beyond ASCII by itself.

    Whatever contains a text holds its pieces too: so `*LEI*` finds its few candidates in an index. Names are folded
    before, descriptions are not: their matching heeds case.
    """
    pieces = {text[start : start + size] for size in _GRAMS for start in range(len(text) - size + 1)}
    return pieces | {char for char in text if not char.isascii()}


def gram_of_pattern(pattern: str) -> str | None:
    """Return one piece that whatever matches a pattern with `*` and `?` must hold; None: no part is long enough.

    One, and one of rare letters: of several that come together the planner would think their chances independent, and
    read ten thousand candidates where it could stop after a hundred matches.
    """
    pieces = sorted(set().union(*(grams(part) for part in re.split(r"[*?]+", pattern))))
    return max(pieces, key=_rarity, default=None)


def _rarity(piece: str) -> tuple[bool, float]:
    """A Latin piece of two is held by many; it serves where there is no other."""
    ranks = [_BY_FREQUENCY.find(char.lower()) for char in piece]
    rarity = sum(rank if rank >= 0 else len(_BY_FREQUENCY) for rank in ranks) / len(piece)
    return len(piece) > min(_GRAMS) or not piece.isascii(), rarity
