"""What a client accepts: Accept header (or `accept` parameter) → media ranges in order of preference.

RFC 9110 §12.5.1; DICOM PS3.18 §8.7 (media types and transfer syntaxes).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.requests import Request

from foramen.kernel.errors import NotAcceptableError

_PARAMETER = re.compile(r';\s*([\w.-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,]*)')
_SPLIT = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One acceptable media range; `multipart` when it was asked for inside multipart/related."""

    media_type: str
    multipart: bool
    transfer_syntax: str | None
    quality: float

    def admits(self, media_type: str) -> bool:
        """Whether a media type lies in the range."""
        kind, _, subtype = self.media_type.partition("/")
        return (
            self.media_type == "*/*"
            or (subtype == "*" and media_type.startswith(f"{kind}/"))
            or self.media_type == media_type
        )


def accepted(request: Request) -> list[MediaRange]:
    """Acceptable media ranges, best first; no header means everything."""
    text = request.query_params.get("accept") or request.headers.get("accept") or "*/*"
    ranges = [_parse(part.strip()) for part in _SPLIT.split(text) if part.strip()]
    return sorted((item for item in ranges if item.quality > 0), key=lambda item: -item.quality)


def _parse(text: str) -> MediaRange:
    media_type = text.partition(";")[0].strip().lower()
    parameters = {name.lower(): value.strip().strip('"') for name, value in _PARAMETER.findall(text)}
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        quality = 0.0
    if media_type in ("multipart/related", "multipart/*"):
        return MediaRange(parameters.get("type", "*/*").lower(), True, parameters.get("transfer-syntax"), quality)
    return MediaRange(media_type, False, parameters.get("transfer-syntax"), quality)


def require(request: Request, media_types: tuple[str, ...]) -> str:
    """Return the best of our media types the client accepts.

    Raises
    ------
    NotAcceptableError
        It accepts none of them (406).
    """
    for item in accepted(request):
        if not item.multipart:
            for media_type in media_types:
                if item.admits(media_type):
                    return media_type
    raise NotAcceptableError(f"Available: {', '.join(media_types)}")
