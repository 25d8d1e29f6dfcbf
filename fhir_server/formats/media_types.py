"""The media types of FHIR, their short names, and the parameters they may carry.

https://hl7.org/fhir/R4/http.html#mime-type, #version-parameter; RFC 9110 §12.5.1
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

FHIR_JSON = "application/fhir+json"
FHIR_XML = "application/fhir+xml"
JSON_NAMES = frozenset({FHIR_JSON, "application/json", "text/json", "json"})
XML_NAMES = frozenset({FHIR_XML, "application/xml", "text/xml", "xml"})
_VERSIONS = {"4.0", "4.0.0", "4.0.1"}
_CHARSETS = {"utf-8", "utf8", "us-ascii"}


@dataclass(frozen=True, slots=True)
class MediaType:
    """One media type or media range with its parameters."""

    name: str
    quality: float = 1.0
    version: str = ""
    charset: str = ""

    @property
    def is_our_version(self) -> bool:
        """Whether its `fhirVersion` is R4, or not given."""
        return not self.version or self.version in _VERSIONS

    @property
    def is_utf8(self) -> bool:
        """Whether its `charset` is UTF-8 (or a part of it), or not given."""
        return not self.charset or self.charset in _CHARSETS


@lru_cache(maxsize=256)
def parse_media_type(text: str) -> MediaType:
    """Parse one media type: ``application/fhir+json; fhirVersion=4.0; charset=utf-8; q=0.5``."""
    name, *parameters = text.split(";")
    found: dict[str, str] = {}
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        found[key.strip().lower()] = value.strip().strip('"')
    return MediaType(
        name.strip().lower(),
        _quality(found.get("q", "1")),
        found.get("fhirversion", ""),
        found.get("charset", "").lower(),
    )


def _quality(text: str) -> float:
    try:
        quality = float(text)
    except ValueError:
        return 0.0
    return quality if 0.0 <= quality <= 1.0 else 0.0
