"""Reads judged reports from the record, a page at a time, with whatever token the client has (stage 11).

Access rules, Consents and institutions are the server's: what they hide is not there. A report of which a part cannot
be read is never taken for a report with fewer findings: it is left out whole and counted.
https://hl7.org/fhir/R4/http.html#search, https://hl7.org/fhir/R4/http.html#transaction (batch)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from ai_services.monitoring.judged import (
    Decision,
    JudgedReport,
    before,
    decisions_of,
    judge,
    models_of,
    wanted_versions,
)
from ai_services.monitoring.observed import Resource, plain
from foramen.kernel.errors import UpstreamError
from foramen.kernel.fhir_client import FhirClient, next_cursor
from terminology import systems
from terminology.codes import AI_GENERATED

_PAGE = "40"
_AT_ONCE = 80
"""Ids in one search: a URL of some thousand characters."""
_GONE = frozenset({"404", "410"})


class RecordReader:
    """Judged reports of the record.

    Parameters
    ----------
    fhir : the record, with the caller's token
    until : FHIR instant; decisions and reports from it on do not count

    Attributes
    ----------
    left_out : why reports are not among those read, with their number: ``findings-hidden``, ``no-patient``
    """

    def __init__(self, fhir: FhirClient, until: str | None = None) -> None:
        self._fhir, self._until = fhir, until
        self.left_out: Counter[str] = Counter()

    async def of_models(self, sha256: Sequence[str], since: str) -> AsyncIterator[JudgedReport]:
        """Reports that all these weights wrote, from an instant on.

        Parameters
        ----------
        sha256 : of the version's weights files; versions may share one, so all of them have to be its authors
        since : FHIR instant
        """
        devices = []
        for digest in sha256:
            found = await self._fhir.search("Device", [("identifier", f"{systems.IDENTIFIER_MODEL}|{digest}")])
            if not found:
                return  # these weights never wrote anything
            devices.append(f"Device/{found[0]['id']}")
        async for page in self.pages("Provenance", [("agent", devices[0]), ("recorded", f"ge{since}")]):
            runs = [item for item in page if set(devices) <= models_of([item]) and self._in_time(item)]
            targets = [plain(str(target.get("reference", ""))) for item in runs for target in item["target"]]
            reports = [item for item in targets if item.startswith("DiagnosticReport/")]
            for judged in await self._judged(await self._by_id("DiagnosticReport", reports)):
                yield judged

    async def all(self, statuses: Sequence[str]) -> AsyncIterator[JudgedReport]:
        """Reports of models in these statuses, whichever version wrote them."""
        tag = f"{AI_GENERATED.system}|{AI_GENERATED.code}"
        async for page in self.pages("DiagnosticReport", [("_tag", tag), ("status", ",".join(statuses))]):
            for judged in await self._judged(page):
                yield judged

    async def resources(self, kind: str, references: Iterable[str]) -> dict[str, Resource]:
        """Resources of one type by reference, ``Type/id``; what is hidden or gone is not there."""
        wanted = sorted({plain(item) for item in references if item.startswith(f"{kind}/")})
        return {f"{kind}/{item['id']}": item for item in await self._by_id(kind, wanted)}

    async def _judged(self, reports: Sequence[Resource]) -> list[JudgedReport]:
        observations = await self.resources("Observation", (item for report in reports for item in results_of(report)))
        provenances = await self._provenances(reports)
        whole: list[tuple[Resource, list[Resource], list[Resource]]] = []
        for report in reports:
            if "reference" not in report.get("subject", {}):
                self.left_out["no-patient"] += 1
                continue
            found = [observations[item] for item in results_of(report) if item in observations]
            if len(found) != len(results_of(report)):
                self.left_out["findings-hidden"] += 1
                continue
            whole.append((report, found, provenances[f"DiagnosticReport/{report['id']}"]))
        wanted: list[str] = []
        for _, found, signed in whole:
            wanted += wanted_versions(found, self._counting(decisions_of(signed)))
        versions = await self._versions(wanted)
        return [judge(report, found, versions, signed, self._until) for report, found, signed in whole]

    def _counting(self, decisions: Sequence[Decision]) -> list[Decision]:
        return [item for item in decisions if self._until is None or before(item.recorded, self._until)]

    def _in_time(self, provenance: Resource) -> bool:
        return self._until is None or before(str(provenance["recorded"]), self._until)

    async def _provenances(self, reports: Sequence[Resource]) -> dict[str, list[Resource]]:
        found: dict[str, dict[str, Resource]] = defaultdict(dict)
        references = [f"DiagnosticReport/{report['id']}" for report in reports]
        for some in _chunks(references):
            async for page in self.pages("Provenance", [("target", ",".join(some))]):
                for item in page:
                    for target in {plain(str(target.get("reference"))) for target in item["target"]} & set(some):
                        found[target][item["id"]] = item
        return defaultdict(list, {name: list(items.values()) for name, items in found.items()})

    async def _by_id(self, kind: str, references: Sequence[str]) -> list[Resource]:
        found = []
        for some in _chunks(list(dict.fromkeys(references))):
            ids = ",".join(item.partition("/")[2] for item in some)
            async for page in self.pages(kind, [("_id", ids)]):
                found += page
        return found

    async def _versions(self, references: Sequence[str]) -> dict[str, Resource]:
        """Older versions by reference; one that was erased or is hidden is not there."""
        found = {}
        for some in _chunks(references):
            entries = [{"request": {"method": "GET", "url": reference}} for reference in some]
            answer = await self._fhir.transaction({"resourceType": "Bundle", "type": "batch", "entry": entries})
            for reference, entry in zip(some, answer["entry"], strict=True):
                status = str(entry["response"]["status"])[:3]
                if status == "200":
                    found[reference] = entry["resource"]
                elif status not in _GONE:
                    raise UpstreamError("An earlier version could not be read")
        return found

    async def pages(self, kind: str, parameters: list[tuple[str, str]]) -> AsyncIterator[list[Resource]]:
        """Matches of a search, a page at a time; pages are asked for at our own address, whatever the links say."""
        cursor: str | None = None
        while True:
            paging = [("_count", _PAGE), *([("_cursor", cursor)] if cursor else [])]
            bundle: dict[str, Any] = await self._fhir.page(kind, [*parameters, *paging])
            yield [entry["resource"] for entry in bundle.get("entry", []) if _is_match(entry)]
            cursor = next_cursor(bundle)
            if cursor is None:
                return


def results_of(report: Resource) -> list[str]:
    """References of the Observations of a report, in order."""
    references = [plain(str(item.get("reference", ""))) for item in report.get("result", [])]
    return [item for item in references if item.startswith("Observation/")]


def _is_match(entry: Resource) -> bool:
    return bool(entry.get("search", {}).get("mode", "match") == "match")


def _chunks(items: Sequence[str]) -> list[Sequence[str]]:
    return [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]
