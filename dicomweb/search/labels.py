"""Labels of studies in a search: a private attribute that the record knows, as labels are tags of ImagingStudy.

DICOM PS3.18 §8.3.4.3 and PS3.5 §7.8.1 (private attributes): creator FORAMEN, (0021,xx01) LO 1-n. ADR 0045.
https://hl7.org/fhir/R4/resource.html#simple-tags
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from dicomweb.search.parameters import LABEL_CREATOR, Attribute, SearchRequest
from foramen.kernel.errors import InteropError, InvalidRequestError, PayloadTooLargeError, UpstreamError
from foramen.kernel.fhir_client import FhirClient, next_cursor
from terminology import systems

GROUP, ELEMENT = "0021", "01"
_PATH = (f"{GROUP}00{ELEMENT}",)
_MOST_STUDIES = 10_000
_AT_ONCE = 50
_URN = "urn:oid:"

Labelled = dict[str, list[str]]
"""Study Instance UID → labels."""


def is_label(attribute: Attribute) -> bool:
    """Whether an attribute is the labels of a study."""
    return attribute.creator == LABEL_CREATOR and attribute.path == _PATH


class Labels:
    """Labels, asked of the record whenever a search names them: never older than it."""

    def __init__(self, fhir: FhirClient) -> None:
        self._fhir = fhir

    async def asked(self, request: SearchRequest) -> tuple[bool, Labelled | None]:
        """Take the labels out of a search.

        Returns
        -------
        whether the answer has to hold labels; the studies that carry a label matched on, None: none was matched on

        Raises
        ------
        InvalidRequestError
            A wildcard, or no value: a label is matched as a whole.
        PayloadTooLargeError
            More studies carry it than a search can be narrowed to.
        UpstreamError
            The record cannot be asked: "no study has it" would be false.
        """
        if any(attribute.creator == LABEL_CREATOR and not is_label(attribute) for attribute in request.asked()):
            raise InvalidRequestError("FORAMEN has one private attribute: labels, (0021,xx01)")
        wanted = [value for attribute, value in request.matches if is_label(attribute)]
        returned = bool(wanted) or any(map(is_label, request.fields))
        request.matches = [item for item in request.matches if not is_label(item[0])]
        request.fields = [item for item in request.fields if not is_label(item)]
        if not wanted:
            return returned, None
        values = wanted[0].split("\\") if request.multiple else wanted
        if any("*" in value or "?" in value or value.strip() in ("", '""') for value in values):
            raise InvalidRequestError("A label is matched as a whole, without wildcards")
        tokens = ",".join(_token(systems.IMAGE_LABEL, value.strip()) for value in values)
        return returned, await self._search([("_tag", tokens)])

    async def of(self, studies: Iterable[str]) -> Labelled:
        """Return the labels of studies."""
        found: Labelled = {}
        rest = iter(dict.fromkeys(studies))
        while some := list(islice(rest, _AT_ONCE)):
            tokens = ",".join(_token(systems.DICOM_UID, _URN + uid) for uid in some)
            found |= await self._search([("identifier", tokens)])
        return found

    async def _search(self, asked: list[tuple[str, str]]) -> Labelled:
        found: Labelled = defaultdict(list)
        parameters = [*asked, ("_elements", "identifier"), ("_count", "500")]
        cursor: str | None = None
        while True:
            try:
                page = await self._fhir.page("ImagingStudy", [*parameters, *([("_cursor", cursor)] if cursor else [])])
            except InteropError as exc:
                text = "The record cannot be asked for labels now; try again"
                raise UpstreamError(text, headers={"Retry-After": "2"}) from exc
            for entry in page.get("entry", ()):
                resource = entry["resource"]
                for uid in _uids(resource):
                    found[uid] = sorted({*found[uid], *_labels(resource)})
            if len(found) > _MOST_STUDIES:
                raise PayloadTooLargeError("The label is on too many studies", issue_code="too-costly")
            cursor = next_cursor(page)
            if cursor is None:
                return dict(found)


def with_labels(dataset: dict[str, Any], labels: Iterable[str]) -> dict[str, Any]:
    """Return a result with its labels, in a block that nothing else in it has reserved."""
    values = list(labels)
    if not values:
        return dataset
    block = next(f"{number:02X}" for number in range(0x10, 0x100) if not _taken(dataset, f"{number:02X}"))
    return dataset | {
        f"{GROUP}00{block}": {"vr": "LO", "Value": [LABEL_CREATOR]},
        f"{GROUP}{block}{ELEMENT}": {"vr": "LO", "Value": values},
    }


def _taken(dataset: Mapping[str, Any], block: str) -> bool:
    return any(tag == f"{GROUP}00{block}" or tag.startswith(f"{GROUP}{block}") for tag in dataset)


def _labels(resource: dict[str, Any]) -> list[str]:
    tags = resource.get("meta", {}).get("tag", ())
    return [str(tag["code"]) for tag in tags if tag.get("system") == systems.IMAGE_LABEL and tag.get("code")]


def _uids(resource: dict[str, Any]) -> list[str]:
    return [
        str(item["value"]).removeprefix(_URN)
        for item in resource.get("identifier", ())
        if item.get("system") == systems.DICOM_UID and item.get("value")
    ]


def _token(system: str, value: str) -> str:
    """One token of a search, its separators out of effect (https://hl7.org/fhir/R4/search.html#escaping)."""
    return f"{system}|" + re.sub(r"([\\,$|])", r"\\\1", value)
