"""All words of the image database, and what files are refused or mended for in Chinese."""

from __future__ import annotations

import re

from foramen.identity.account_text import ACCOUNT_WORDS
from foramen.identity.text import LANGUAGES
from foramen.image_database.reasons import REASONS_ZH
from foramen.image_database.words import WORDS as _OWN

WORDS: dict[str, dict[str, str]] = {
    language: {name: text for name, text in ACCOUNT_WORDS[language].items() if name.startswith("role_")}
    | _OWN[language]
    for language in LANGUAGES
}
_PATTERNS = [(re.compile(pattern), chinese) for pattern, chinese in REASONS_ZH]


def said(text: str, language: str) -> str:
    """Return a message in a language: English as it is, else its translation, or English where there is none."""
    if language == "en":
        return text
    for pattern, chinese in _PATTERNS:
        found = pattern.fullmatch(text)
        if found:
            return found.expand(chinese)
    return text
