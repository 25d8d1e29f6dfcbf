"""Read an npm-format FHIR package (a gzipped tarball) within limits. Nothing is written to a disk.

https://hl7.org/fhir/R4/packages.html, https://confluence.hl7.org/display/FHIR/NPM+Package+Specification
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import orjson

from fhir_server.store.packages import PackageResource
from foramen.kernel.errors import InvalidRequestError, InvalidResourceError

_FOLDER = "package"
_MANIFEST = "package.json"
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class PackageLimits:
    """How large a package may be, unpacked."""

    max_entries: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Package:
    """A package that was read."""

    name: str
    version: str
    canonical: str
    resources: list[PackageResource]


class _Bounded(io.RawIOBase):
    """Reads on until a limit, then refuses: a small archive may hold a huge one."""

    def __init__(self, inner: gzip.GzipFile, limit: int) -> None:
        self._inner = inner
        self._left = limit

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._inner.read(min(size, self._left + 1) if size >= 0 else self._left + 1)
        self._left -= len(data)
        if self._left < 0:
            raise InvalidRequestError("The package is too large when unpacked", issue_code="too-costly")
        return data


def read_package(data: bytes, limits: PackageLimits) -> Package:
    """Read a package.

    Raises
    ------
    InvalidRequestError
        400: not a gzipped tarball, too large or with too many entries, or paths that leave the package.
    InvalidResourceError
        422: no package manifest, or not for FHIR R4.
    """
    files: dict[str, bytes] = {}
    try:
        stream = _Bounded(gzip.GzipFile(fileobj=io.BytesIO(data)), limits.max_bytes)
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for count, member in enumerate(archive, start=1):
                if count > limits.max_entries:
                    raise InvalidRequestError("The package has too many entries", issue_code="too-costly")
                name = _name(member)
                if name is not None:
                    content = archive.extractfile(member)
                    files[name] = content.read() if content is not None else b""
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as exc:
        raise InvalidRequestError("The body is not a gzipped tarball", issue_code="structure") from exc
    manifest = _manifest(files)
    resources = [resource for name, content in files.items() if (resource := _resource(name, content)) is not None]
    if not resources:
        raise InvalidResourceError("The package holds no conformance resources", issue_code="required")
    return Package(manifest["name"], manifest["version"], str(manifest.get("canonical", "")), resources)


def _name(member: tarfile.TarInfo) -> str | None:
    """Name of a file in the package folder that is wanted; None for others.

    Raises
    ------
    InvalidRequestError
        The path leaves the archive, or it is a link or device.
    """
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or len(member.name) > 4096:
        raise InvalidRequestError("A path in the package leaves it", issue_code="security")
    if not (member.isfile() or member.isdir()):
        raise InvalidRequestError("The package may hold files and folders only", issue_code="security")
    parts = [part for part in path.parts if part != "."]
    if not member.isfile() or len(parts) != 2 or parts[0] != _FOLDER or not parts[1].endswith(".json"):
        return None
    return parts[1]


def _manifest(files: dict[str, bytes]) -> dict[str, Any]:
    manifest = _json(files.get(_MANIFEST, b""))
    for name in ("name", "version"):
        value = manifest.get(name) if manifest is not None else None
        if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME or not value.isprintable():
            raise InvalidResourceError("package/package.json needs name and version", issue_code="required")
    assert manifest is not None  # noqa: S101
    versions = manifest.get("fhirVersions", manifest.get("fhir-version-list", []))
    if versions and not any(str(version).startswith("4.0") for version in versions):
        raise InvalidResourceError("The package is not for FHIR R4 (4.0)", issue_code="not-supported")
    return manifest


def _json(content: bytes) -> dict[str, Any] | None:
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _resource(name: str, content: bytes) -> PackageResource | None:
    if name == _MANIFEST or name.startswith("."):
        return None
    data = _json(content)
    if data is None:
        raise InvalidResourceError("A file of the package is not JSON", issue_code="structure")
    kind, url, version = data.get("resourceType"), data.get("url"), data.get("version", "")
    if not isinstance(kind, str) or not isinstance(url, str) or not isinstance(version, str):
        return None  # An example: it has no canonical.
    return PackageResource(kind, url, version, content)
