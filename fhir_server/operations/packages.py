"""`$install-package`: an implementation guide, installed while the server serves. Ours; R4 has no such operation.

https://hl7.org/fhir/R4/packages.html. The body is the npm-format tarball.
"""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from fhir_server.operations.parameters import parameters_response
from fhir_server.packages.archive import PackageLimits
from fhir_server.packages.install import prepare
from fhir_server.route import Route
from fhir_server.server import Call
from fhir_server.store import packages
from foramen.kernel.errors import UnsupportedMediaTypeError
from foramen.kernel.http_edge import read_body
from terminology.systems import BASE

_TYPES = {"application/gzip", "application/x-gzip", "application/octet-stream", "application/tar+gzip"}


async def install_package(call: Call) -> Response:
    """Install a package, or replace the same version of it."""
    sent = call.request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if sent not in _TYPES:
        raise UnsupportedMediaTypeError("The body must be the package: application/gzip")
    limits = call.server.limits
    body = await read_body(call.request, limits.max_package_bytes)
    bounds = PackageLimits(limits.max_package_entries, limits.max_package_unpacked_bytes)
    package = await run_in_threadpool(prepare, body, bounds)
    async with call.server.connections.lend() as connection:
        await packages.install(connection, package.name, package.version, package.canonical, package.resources)
    await call.server.packages.refresh(now=True)
    return parameters_response(
        [
            {"name": "name", "valueString": package.name},
            {"name": "version", "valueString": package.version},
            {"name": "resources", "valueInteger": len(package.resources)},
        ]
    )


ROUTES: tuple[Route, ...] = (
    Route(
        "POST",
        "$install-package",
        install_package,
        "",
        "operation",
        definition=f"{BASE}/OperationDefinition/install-package",
        administrator=True,
    ),
)
