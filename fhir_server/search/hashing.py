"""64-bit hashes that stand for values in the index, the same in every process and on every machine."""

from __future__ import annotations

from hashlib import blake2b

_CACHE: dict[str, int] = {}
_CACHE_SIZE = 20_000


def hash64(text: str) -> int:
    """Signed 64-bit hash of a text (BLAKE2b); frequent values come from a cache."""
    found = _CACHE.get(text)
    if found is None:
        digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        found = int.from_bytes(digest, "big", signed=True)
        if len(_CACHE) >= _CACHE_SIZE:
            _CACHE.clear()
        _CACHE[text] = found
    return found


def resource_key(resource_type: str, logical_id: str) -> int:
    """Key of a resource; a reference hashes to its target's key, which is what lets SQL follow chains."""
    return hash64(f"{resource_type}/{logical_id}")
