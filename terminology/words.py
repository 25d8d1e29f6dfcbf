"""Words of a concept's names for `filter`: Latin words whole; Chinese, Japanese, Korean text as signs and pairs.

The same function makes the index and the question, so what is asked can be found. Source: R4 ValueSet/$expand, `filter`
("the server decides how to match"): every word asked must begin a word of a name (CJK: stand anywhere in it).
"""

from __future__ import annotations

import re
import unicodedata

_MAX_WORD = 60
_ASCII = re.compile(r"[a-z0-9]+(?:[.][a-z0-9]+)*")
_RUN = re.compile(r"[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+|[^\W_]+(?:[.][^\W_]+)*")


def _runs(text: str) -> list[str]:
    if text.isascii():
        return _ASCII.findall(text.lower())
    # NFKC turns fullwidth letters and digits, usual in Chinese tables, into the plain ones.
    folded = unicodedata.normalize("NFKC", text).casefold()
    runs = []
    for run in _RUN.findall(folded):
        runs += [part for part in re.split(r"([\u2e80-\U0003ffff]+)", run) if part]
    return runs


def _is_cjk(run: str) -> bool:
    return run[0] >= "\u2e80"


def index_words(text: str) -> set[str]:
    """Return the words under which a name is found."""
    words: set[str] = set()
    for run in _runs(text):
        if _is_cjk(run):
            words.update(run)
            words.update(run[place : place + 2] for place in range(len(run) - 1))
        else:
            words.add(run[:_MAX_WORD])
            if "." in run:
                words.update(part[:_MAX_WORD] for part in run.split("."))
    return words


def query_words(text: str) -> tuple[list[str], list[str]]:
    """Return (beginnings of Latin words, whole CJK words) that must all be found."""
    beginnings, whole = [], []
    for run in _runs(text):
        if not _is_cjk(run):
            beginnings.append(run[:_MAX_WORD])
        elif len(run) == 1:
            whole.append(run)
        else:
            whole += [run[place : place + 2] for place in range(len(run) - 1)]
    return beginnings, whole
