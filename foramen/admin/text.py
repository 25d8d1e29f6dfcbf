"""All words of the administration app, joined from `words/`, and the messages of `foramen.identity` in Chinese.

Names: a menu place and a title are plain words; `done_…` says what was done, `error_…` why something cannot be shown.
"""

from __future__ import annotations

from foramen.admin.words import (
    accounts,
    audit,
    audit_events,
    break_glass,
    clients,
    frame,
    grants,
    health,
    model_watch,
    policies,
    sessions,
)
from foramen.identity.account_text import ACCOUNT_WORDS
from foramen.identity.text import LANGUAGES

_PARTS = (
    frame.WORDS,
    accounts.WORDS,
    grants.WORDS,
    sessions.WORDS,
    clients.WORDS,
    policies.WORDS,
    audit.WORDS,
    audit_events.WORDS,
    break_glass.WORDS,
    health.WORDS,
    model_watch.WORDS,
)

_ROLES_AND_FACTORS = ("role_", "factor_")

WORDS: dict[str, dict[str, str]] = {language: {} for language in LANGUAGES}
for _language in LANGUAGES:
    WORDS[_language] |= {
        name: said for name, said in ACCOUNT_WORDS[_language].items() if name.startswith(_ROLES_AND_FACTORS)
    }
    for _part in _PARTS:
        WORDS[_language] |= _part[_language]

MESSAGES: dict[str, dict[str, str]] = {"zh": dict(frame.MESSAGES_ZH), "en": {}}
for _words in (clients, policies, audit, break_glass):
    MESSAGES["zh"] |= _words.MESSAGES_ZH
"""Messages of errors by their English text; a test finds each of them in the code."""
