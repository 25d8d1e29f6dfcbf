"""Codes of systems that nobody can list, checked by their form: media types, languages, currencies, units.

https://www.rfc-editor.org/info/bcp13, https://www.rfc-editor.org/info/bcp47, ISO 4217, https://ucum.org
"""

from __future__ import annotations

import re
from collections.abc import Callable

_TOKEN = r"[A-Za-z0-9!#$&^_.+*%'`|~-]+"  # noqa: S105  RFC 7230 §3.2.6, not a password
_MIME = re.compile(rf"{_TOKEN}/{_TOKEN}(\s*;\s*{_TOKEN}=({_TOKEN}[^;]*|\"[^\"]*\"))*\s*;?")
# CapabilityStatement.format: "xml, json and ttl are allowed, which describe the simple encodings".
_SIMPLE_ENCODINGS = frozenset({"xml", "json", "ttl"})
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")
UCUM = "http://unitsofmeasure.org"

# ISO 4217, active codes, with funds and precious metals.
CURRENCIES = frozenset(
    """AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF
    CHE CHF CHW CLF CLP CNY COP COU CRC CUC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GGP GHS GIP GMD
    GNF GTQ GYD HKD HNL HRK HTG HUF IDR ILS IMP INR IQD IRR ISK JEP JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK
    LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN
    PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SVC SYP SZL THB TJS TMT
    TND TOP TRY TTD TVD TWD TZS UAH UGX USD USN UYI UYU UYW UZS VED VEF VES VND VUV WST XAF XAG XAU XBA XBB XBC XBD XCD
    XDR XOF XPD XPF XPT XSU XTS XUA XXX YER ZAR ZMW ZWL ZWG""".split()  # noqa: SIM905
)


def is_media_type(code: str) -> bool:
    """Whether it is a media type (BCP 13), or one of the three short names R4 allows for formats."""
    return _MIME.fullmatch(code) is not None or code in _SIMPLE_ENCODINGS


def is_language(code: str) -> bool:
    """Whether it has the form of a language tag (BCP 47)."""
    return _LANGUAGE.fullmatch(code) is not None


def is_currency(code: str) -> bool:
    """Whether it is a currency of ISO 4217."""
    return code in CURRENCIES


def is_unit(code: str) -> bool:
    """Whether it is a unit of UCUM."""
    from terminology.ucum import canonical

    return canonical(1.0, code) is not None


FORMS: dict[str, Callable[[str], bool]] = {
    "mime": is_media_type,
    "language": is_language,
    "currency": is_currency,
    "ucum": is_unit,
}
"""Name of a form in `r4_elements.json` → its check."""

NOT_OF_FORM = {
    "mime": "This is not a media type (BCP 13)",
    "language": "This is not a language tag (BCP 47)",
    "currency": "This is not a currency code (ISO 4217)",
    "ucum": "This is not a unit of UCUM",
}
