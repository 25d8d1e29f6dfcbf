"""64-bit hashes that stand for values in the index, the same in every process and on every machine."""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b


def _digest(text: str) -> int:
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


@lru_cache(maxsize=32_768)
def hash64(text: str) -> int:
    """Signed 64-bit hash of a text (BLAKE2b); frequent values come from a cache."""
    return _digest(text)


def resource_key(resource_type: str, logical_id: str) -> int:
    """Key of a resource; a reference hashes to its target's key, which is what lets SQL follow chains."""
    return _digest(f"{resource_type}/{logical_id}")  # Each is asked for once or twice: it would only fill the cache.
