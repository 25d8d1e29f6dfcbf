"""Answers of finished jobs: the manifest of an export, the account of an import.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html#response---complete-status
"""

from __future__ import annotations

from typing import Any

from fhir_server.store.bulk import moment


def manifest(state: dict[str, Any], request: dict[str, Any], urls: list[str]) -> dict[str, Any]:
    """Return the manifest of an export.

    Parameters
    ----------
    state, request : of the finished job
    urls : of its files, in the order of the state
    """
    export = request["export"]
    lists: dict[str, list[dict[str, Any]]] = {"output": [], "deleted": [], "error": []}
    for record, url in zip(state["files"], urls, strict=True):
        kind = "Bundle" if record["kind"] == "deleted" else record["type"]
        lists[record["kind"]].append({"type": kind, "url": url, "count": record["count"]})
    at = moment(state["at"]).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    body = {"transactionTime": at, "request": export["url"], "requiresAccessToken": True, **lists}
    if export["project"]:
        body["extension"] = {"pseudonymised": export["project"]}
    return body


def import_manifest(state: dict[str, Any], request: dict[str, Any], urls: list[str]) -> dict[str, Any]:
    """Return what an import wrote by type, and where it tells what it refused."""
    files = [
        {"type": record["type"], "url": url, "count": record["count"]}
        for record, url in zip(state["files"], urls, strict=True)
    ]
    output = []
    for name in sorted({*state["created"], *state["updated"]}):
        new, old = state["created"].get(name, 0), state["updated"].get(name, 0)
        output.append({"type": name, "count": new + old, "created": new, "updated": old})
    return {
        "request": request["url"],
        "requiresAccessToken": True,
        "output": output,
        "error": files,
        "refused": state["refused"],
    }
