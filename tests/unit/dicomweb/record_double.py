"""A thin in-memory FHIR record for unit tests of the intake alone; the contract tests use the real one."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import parse_qsl, unquote

import httpx
import orjson

from foramen.kernel.fhir_client import FhirClient


class RecordDouble:
    """Keeps resources in memory; `down` refuses connections, `faults` answers the next requests with these statuses."""

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Any]] = {}
        self.transactions = 0
        self.down = False
        self.faults: list[int] = []

    def client(self) -> FhirClient:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        return FhirClient("http://record/fhir", http)

    def add(self, resource: dict[str, Any]) -> dict[str, Any]:
        stored = resource | {"id": resource.get("id", uuid.uuid4().hex)}
        stored["meta"] = stored.get("meta", {}) | {
            "versionId": str(int(stored.get("meta", {}).get("versionId", 0)) + 1)
        }
        self.resources[f"{stored['resourceType']}/{stored['id']}"] = stored
        return stored

    def all(self, resource_type: str) -> list[dict[str, Any]]:
        return [item for item in self.resources.values() if item["resourceType"] == resource_type]

    def patient(self, value: str = "SYN-1", issuer: str = "DEMO", **more: Any) -> dict[str, Any]:
        system = f"https://foramen.example/fhir/identifier/patient/{issuer}"
        return self.add({"resourceType": "Patient", "identifier": [{"system": system, "value": value}], **more})

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("refused", request=request)
        if self.faults:
            return httpx.Response(
                self.faults.pop(0), json={"resourceType": "OperationOutcome", "issue": [{"code": "conflict"}]}
            )
        parts = request.url.path.removeprefix("/fhir").strip("/").split("/")
        if request.method == "GET":
            found = self._search(parts[0], parse_qsl(request.url.query.decode()))
            entries = [{"resource": item} for item in found]
            return httpx.Response(200, json={"resourceType": "Bundle", "type": "searchset", "entry": entries})
        bundle = orjson.loads(request.content)
        if bundle["type"] == "transaction":
            return self._transaction(bundle)
        answers = []
        for entry in bundle["entry"]:
            self.add(entry["resource"])
            answers.append({"response": {"status": "201 Created"}})
        return httpx.Response(200, json={"resourceType": "Bundle", "type": "batch-response", "entry": answers})

    def _search(self, kind: str, parameters: list[tuple[str, str]]) -> list[dict[str, Any]]:
        found = self.all(kind)
        for name, value in parameters:
            if name == "_count":
                continue
            system, _, code = value.replace("\\|", "\x00").partition("|")
            wanted = (system, code.replace("\x00", "|"))
            found = [item for item in found if wanted in _tokens(item, name)]
        return found

    def _transaction(self, bundle: dict[str, Any]) -> httpx.Response:
        self.transactions += 1
        names: dict[str, str] = {}
        writes = []
        for entry in bundle["entry"]:
            resource, request = entry["resource"], entry["request"]
            if request["method"] == "PUT":
                current = self.resources[request["url"]]
                if request["ifMatch"] != f'W/"{current["meta"]["versionId"]}"':
                    return httpx.Response(
                        412, json={"resourceType": "OperationOutcome", "issue": [{"code": "conflict"}]}
                    )
                writes.append(resource | {"meta": current["meta"] | resource.get("meta", {})})
                continue
            name, _, value = request["ifNoneExist"].partition("=")
            existing = self._search(request["url"], [(name, unquote(value))])
            identity = existing[0]["id"] if existing else uuid.uuid4().hex
            names[entry["fullUrl"]] = f"{request['url']}/{identity}"
            if not existing:
                writes.append(resource | {"id": identity})
        for resource in writes:
            text = orjson.dumps(resource).decode()
            for urn, reference in names.items():
                text = text.replace(urn, reference)
            self.add(orjson.loads(text))
        return httpx.Response(200, json={"resourceType": "Bundle", "type": "transaction-response", "entry": []})


def _tokens(resource: dict[str, Any], name: str) -> set[tuple[str, str]]:
    if name == "code":
        return {(item["system"], item["code"]) for item in resource["code"]["coding"]}
    identifiers = [resource["groupIdentifier"]] if name == "group-identifier" else resource.get("identifier", [])
    return {(item.get("system", ""), item["value"]) for item in identifiers}
