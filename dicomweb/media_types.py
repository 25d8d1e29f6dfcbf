"""What a client accepts: Accept header (or `accept` parameter) → media ranges, and the best of what can be offered.

RFC 9110 §12.5.1 (the most specific range decides); DICOM PS3.18 §8.3.3.1, §8.7 (media types and transfer syntaxes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request

from foramen.kernel.errors import NotAcceptableError

_PARAMETER = re.compile(r';\s*([\w.-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,]*)')
_SPLIT = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')
_LONGEST = 4096
_NAMED_IN_A_REFUSAL = 12


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


@dataclass(frozen=True, slots=True)
class Offer:
    """One representation that can be made.

    Parameters
    ----------
    default : it is meant by a range that names its media type and no transfer syntax (PS3.18 §8.7.3.5.2)
    """

    media_type: str
    transfer_syntax: str | None = None
    multipart: bool = False
    default: bool = True

    def __str__(self) -> str:
        syntax = f"; transfer-syntax={self.transfer_syntax}" if self.transfer_syntax else ""
        return f'multipart/related; type="{self.media_type}"{syntax}' if self.multipart else self.media_type + syntax


def accepted(request: Request) -> list[MediaRange]:
    """Acceptable media ranges, best first; no header means everything."""
    return [item for item in ranges(request) if item.quality > 0]


def ranges(request: Request) -> list[MediaRange]:
    """Return every range named, best first, those with q=0 (never this) too."""
    return ranges_of(accept_of(request))


def accept_of(request: Request) -> str:
    """Return what the client accepts as one text: the `accept` parameter, else the header; neither means everything."""
    asked = request.query_params.get("accept") if request.scope["query_string"] else None
    return asked or ", ".join(request.headers.getlist("accept")) or "*/*"


def ranges_of(text: str) -> list[MediaRange]:
    """Return the ranges of an Accept header, best first."""
    if len(text) > _LONGEST:
        raise NotAcceptableError("The list of accepted media types is too long")
    return sorted((_parse(part.strip()) for part in _SPLIT.split(text) if part.strip()), key=lambda item: -item.quality)


def _parse(text: str) -> MediaRange:
    media_type = text.partition(";")[0].strip().lower()
    parameters = {name.lower(): value.strip().strip('"') for name, value in _PARAMETER.findall(text)}
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        quality = 0.0
    if not 0 <= quality <= 1:  # NaN too
        quality = 0.0
    if media_type in ("multipart/related", "multipart/*"):
        return MediaRange(parameters.get("type", "*/*").lower(), True, parameters.get("transfer-syntax"), quality)
    return MediaRange(media_type, False, parameters.get("transfer-syntax"), quality)


def negotiate(request: Request, offers: Iterable[Offer]) -> Offer:
    """Return the offer the client likes best; among equals the one of the range it named first, then our first.

    Raises
    ------
    NotAcceptableError
        It accepts none of them (406); says what there is (PS3.18 §8.7.8.1).
    """
    return choose(accept_of(request), offers)


def choose(accept: str, offers: Iterable[Offer]) -> Offer:
    """Return what `negotiate` returns, for the text of an Accept header.

    Raises
    ------
    NotAcceptableError
        It names none of them (406).
    """
    named, available = ranges_of(accept), list(offers)
    best: tuple[tuple[float, int, int], Offer] | None = None
    for place, offer in enumerate(available):
        matches = [(_fit(item, offer), -number, item) for number, item in enumerate(named) if _fit(item, offer)]
        if not matches:
            continue
        _, order, item = max(matches, key=lambda match: match[:2])
        rank = (item.quality, order, -place)
        if item.quality > 0 and (best is None or rank > best[0]):
            best = (rank, offer)
    if best is not None:
        return best[1]
    text = ", ".join(map(str, available[:_NAMED_IN_A_REFUSAL]))
    raise NotAcceptableError(f"Available: {text}" if text else "There is no representation of this resource")


def _fit(item: MediaRange, offer: Offer) -> int:
    """How specifically a range names an offer; 0: not at all."""
    if item.multipart != offer.multipart and item.media_type != "*/*":
        return 0
    if item.multipart and not offer.multipart:
        return 0
    if not item.admits(offer.media_type):
        return 0
    wildcard = item.media_type.endswith("/*")
    if item.transfer_syntax is None:
        if not offer.default:
            return 0
        return 1 if item.media_type == "*/*" else 3 if wildcard else 5
    if item.transfer_syntax not in ("*", offer.transfer_syntax):
        return 0
    base = 1 if item.media_type == "*/*" else 3 if wildcard else 5
    return base + (1 if item.transfer_syntax != "*" else 0)


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
