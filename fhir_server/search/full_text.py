"""Words of a text, for `_text` and `_content`: letters and digits between spaces; Chinese in pairs of characters.

Chinese is written without spaces and PostgreSQL's own parsers take a sentence for one word. Every two neighbouring
characters are a word here (腰椎间盘 → 腰椎 椎间 间盘), and so is the last one alone: then one character is found as the
beginning of a word, and longer terms as the pairs they hold. https://hl7.org/fhir/R4/search.html#text
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from foramen.kernel.errors import InvalidRequestError

_CJK = "\u2e80-\u2fdf\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_RUN = re.compile(rf"[{_CJK}]+|[^\W_{_CJK}]+")
_TAG = re.compile(r"<[^>]*>")
_MAX_WORD = 40
MAX_WORDS = 20_000
"""Most distinct words of one resource that are indexed."""
_UNREAD = {"div", "data", "resourceType", "fullUrl", "url", "system", "reference", "id", "contentType", "language"}
"""Elements whose text is markup, binary or a technical name."""
_SHORTEST_PREFIX = 3
_MAX_TERMS = 50


def _folded(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text) if not text.isascii() else text
    return "".join(c for c in decomposed if not unicodedata.combining(c)).casefold()


def words(text: str) -> Iterator[str]:
    """Yield the words of a text, folded as in string search."""
    for run in _RUN.findall(_folded(text)):
        if run[0] < "\u2e80":
            yield run[:_MAX_WORD]
            continue
        for place in range(len(run) - 1):
            yield run[place : place + 2]
        yield run[-1]


def narrative_words(data: dict[str, Any]) -> set[str]:
    """Words of the resource's narrative (`_text`)."""
    narrative = data.get("text")
    div = narrative.get("div", "") if isinstance(narrative, dict) else ""
    return _limited(words(html.unescape(_TAG.sub(" ", div))))


def content_words(data: dict[str, Any]) -> set[str]:
    """Words of the whole resource (`_content`): the narrative and every text value."""
    found = narrative_words(data)
    return _limited(word for text in _texts(data) for word in words(text)) | found


def _texts(item: Any, name: str = "") -> Iterator[str]:
    if isinstance(item, dict):
        for key, value in item.items():
            yield from _texts(value, key)
    elif isinstance(item, list):
        for value in item:
            yield from _texts(value, name)
    elif isinstance(item, str) and name not in _UNREAD:
        yield item


def _limited(found: Iterator[str]) -> set[str]:
    kept: set[str] = set()
    for word in found:
        kept.add(word)
        if len(kept) >= MAX_WORDS:
            break
    return kept


def text_query(parameter: str, value: str) -> str:
    """Return the tsquery of a value: all words; ``OR`` between alternatives; ``-word`` for none of it; ``word*``.

    Raises
    ------
    InvalidRequestError
        No word in it, or too many.
    """
    alternatives = []
    count = 0
    for part in re.split(r"\s+OR\s+", value):
        terms: list[str] = []
        for term in part.split():
            negated, text = term.startswith("-"), term.lstrip("-")
            found = _lexemes(text.rstrip("*"), is_prefix=text.endswith("*"))
            count += len(found)
            if found:
                joined = " & ".join(found)
                terms.append(f"!({joined})" if negated else joined)
        if terms:
            alternatives.append("(" + " & ".join(terms) + ")")
    if not alternatives or count > _MAX_TERMS:
        raise InvalidRequestError(f"{parameter} needs between 1 and {_MAX_TERMS} words", issue_code="value")
    return " | ".join(alternatives)


def _lexemes(text: str, *, is_prefix: bool) -> list[str]:
    found = []
    for run in _RUN.findall(_folded(text)):
        if run[0] < "\u2e80":
            mark = ":*" if is_prefix and len(run) >= _SHORTEST_PREFIX else ""
            found.append(f"'{run[:_MAX_WORD]}'{mark}")
        elif len(run) == 1:
            found.append(f"'{run}':*")
        else:
            found += [f"'{run[place : place + 2]}'" for place in range(len(run) - 1)]
    return found
