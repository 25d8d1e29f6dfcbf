"""What `foramen export` and `foramen import` share: a client of the running server that follows a bulk job to its end.

https://hl7.org/fhir/uv/bulkdata/STU2/export.html
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foramen.kernel.settings import Settings

if TYPE_CHECKING:
    import httpx

_DAY_S = 86_400
_SHORTEST_S, _LONGEST_S = 0.2, 10.0
_RETRIES = 5


class BulkClient:
    """Speaks with the running server as an operator."""

    def __init__(self, settings: Settings, scopes: str, *, user: str | None = None) -> None:
        import httpx

        from foramen.identity.oauth.operator_token import operator_token
        from foramen.kernel.database_url import database_url

        token = operator_token(settings, database_url(settings), scopes, expires_in_s=_DAY_S, user=user)
        self._public, self._base = settings.fhir_base, f"{settings.internal_origin}/fhir"
        headers = {"Authorization": f"Bearer {token}", "Accept": "application/fhir+json"}
        self.http = httpx.Client(headers=headers, timeout=300)

    def url(self, text: str) -> str:
        """Return the URL at which we reach what the server calls `text` (a path, or a URL as the world sees it)."""
        path = text.removeprefix(self._public) if text.startswith(self._public) else "/" + text.lstrip("/")
        return self._base + path

    def kicked_off(self, response: httpx.Response) -> str:
        """Return the status URL of a job that was just started.

        Raises
        ------
        InteropError
            The server refused.
        """
        from foramen.kernel.fhir_client import error_of

        if response.status_code != 202:
            raise error_of(response)
        return self.url(response.headers["Content-Location"])

    def progress(self, status_url: str) -> Iterator[str | dict[str, Any]]:
        """Yield progress texts while the job runs, then its manifest.

        Raises
        ------
        InteropError
            The job failed, or the server went away for good.
        """
        from foramen.kernel.fhir_client import error_of

        pause, failures = _SHORTEST_S, 0
        while True:
            response = self.http.get(status_url)
            if response.status_code == 200:
                yield response.json()
                return
            if response.status_code == 202:
                failures = 0
                yield response.headers.get("X-Progress", "")
            elif response.status_code in (429, 503) and failures < _RETRIES:
                failures += 1
            else:
                raise error_of(response)
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_S)

    def download(self, url: str, target: Path) -> int:
        """Fetch a file, going on where an earlier attempt ended; returns its bytes.

        Raises
        ------
        InteropError
            The server refused.
        """
        import httpx

        from foramen.kernel.fhir_client import error_of

        part = target.with_name(target.name + ".part")
        for attempt in range(_RETRIES):
            have = part.stat().st_size if part.exists() else 0
            headers = {"Accept": "application/fhir+ndjson", "Accept-Encoding": "identity"}
            if have:
                headers["Range"] = f"bytes={have}-"
            try:
                with self.http.stream("GET", self.url(url), headers=headers) as response:
                    if response.status_code == 416:  # Everything was there already.
                        break
                    if response.status_code not in (200, 206):
                        response.read()
                        raise error_of(response)
                    with part.open("ab" if response.status_code == 206 else "wb") as file:
                        for piece in response.iter_bytes():
                            file.write(piece)
                break
            except httpx.TransportError:
                if attempt == _RETRIES - 1:
                    raise
        part.replace(target)
        return target.stat().st_size
