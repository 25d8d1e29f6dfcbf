"""Installed packages and their conformance resources. A counter tells every web process that something changed.

https://hl7.org/fhir/R4/packages.html
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

_COUNTER = "packages"
_FIND = """
SELECT package_version, version, content FROM fhir.package_resource WHERE url = $1 AND type = $2
"""
_INSTALL = """
INSERT INTO fhir.package_resource (package, package_version, type, url, version, content)
SELECT $1, $2, t, u, v, c FROM unnest($3::text[], $4::text[], $5::text[], $6::bytea[]) AS n(t, u, v, c)
ON CONFLICT DO NOTHING
"""
_COUNT = """
INSERT INTO fhir.setting (name, value) VALUES ($1, '1')
ON CONFLICT (name) DO UPDATE SET value = (setting.value::bigint + 1)::text
"""


@dataclass(frozen=True, slots=True)
class PackageResource:
    """One conformance resource of a package; `version` is empty when it has none."""

    resource_type: str
    url: str
    version: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Installed:
    """One installed package."""

    name: str
    version: str
    canonical: str
    installed_at: datetime
    resources: int


async def counter(connection: Any) -> int:
    """Return a number that grows with every change of the installed packages."""
    return int(await connection.fetchval("SELECT value FROM fhir.setting WHERE name = $1", _COUNTER) or 0)


async def find(connection: Any, resource_type: str, url: str) -> list[tuple[str, str, bytes]]:
    """Return (package version, resource version, content) of every resource with this canonical URL."""
    records = await connection.fetch(_FIND, url, resource_type)
    return [(record["package_version"], record["version"], record["content"]) for record in records]


async def urls(connection: Any, resource_type: str) -> list[str]:
    """Return the canonical URLs of all resources of one type in installed packages."""
    records = await connection.fetch(
        "SELECT DISTINCT url FROM fhir.package_resource WHERE type = $1 ORDER BY url", resource_type
    )
    return [record["url"] for record in records]


async def install(connection: Any, name: str, version: str, canonical: str, resources: list[PackageResource]) -> None:
    """Store a package; the same version of it is replaced. All or nothing."""
    async with connection.transaction():
        await _delete(connection, name, version)
        await connection.execute(
            "INSERT INTO fhir.package (name, version, canonical) VALUES ($1, $2, $3)", name, version, canonical
        )
        await connection.execute(
            _INSTALL,
            name,
            version,
            [resource.resource_type for resource in resources],
            [resource.url for resource in resources],
            [resource.version for resource in resources],
            [resource.content for resource in resources],
        )
        await connection.execute(_COUNT, _COUNTER)


async def remove(connection: Any, name: str, version: str | None = None) -> int:
    """Remove a package, or one version of it; returns how many were removed."""
    async with connection.transaction():
        removed = await _delete(connection, name, version)
        if removed:
            await connection.execute(_COUNT, _COUNTER)
    return removed


async def _delete(connection: Any, name: str, version: str | None) -> int:
    await connection.execute(
        "DELETE FROM fhir.package_resource WHERE package = $1 AND ($2::text IS NULL OR package_version = $2)",
        name,
        version,
    )
    done: str = await connection.execute(
        "DELETE FROM fhir.package WHERE name = $1 AND ($2::text IS NULL OR version = $2)", name, version
    )
    return int(done.rpartition(" ")[2])


async def installed(connection: Any) -> list[Installed]:
    """Return the installed packages, by name and version."""
    records = await connection.fetch(
        """SELECT p.name, p.version, p.canonical, p.installed,
           (SELECT count(*) FROM fhir.package_resource r WHERE r.package = p.name AND r.package_version = p.version) n
           FROM fhir.package p ORDER BY p.name, p.version"""
    )
    return [Installed(r["name"], r["version"], r["canonical"], r["installed"], r["n"]) for r in records]
