"""Which method registered: a version and the hash of every constant that decides the result, like a model's weights."""

from __future__ import annotations

import hashlib
import json

from ai_services.prediction import ModelIdentity
from ai_services.registration import pair, quality, register, rigid

NAME, VERSION = "mr-ct-registration", "1.0.0"


def constants() -> dict[str, object]:
    """Constants of search, comparison and refusal, by the name of their module and their own."""
    return {
        f"{module.__name__.rpartition('.')[2]}.{name}": value
        for module in (rigid, register, quality, pair)
        for name, value in sorted(vars(module).items())
        if name.isupper() and isinstance(value, int | float | tuple | str)
    }


def identity() -> ModelIdentity:
    """Name, version and SHA-256 of the constants."""
    document = json.dumps(constants(), sort_keys=True, separators=(",", ":"))
    return ModelIdentity(NAME, VERSION, hashlib.sha256(document.encode()).hexdigest())
