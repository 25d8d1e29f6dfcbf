"""Without the database the answers are 503 in the form each caller expects, and all recovers by itself."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from foramen.identity.app import IdentityService, bootstrap, migrate
from foramen.kernel.embedded_postgres import start_postgres, stop_postgres
from foramen.kernel.fhir_client import BackendServiceAuth
from foramen.kernel.secret_files import read_or_create_key
from foramen.kernel.settings import Settings

ORIGIN = "http://127.0.0.1:18998"


@pytest.fixture
def own_postgres() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="foramen-test-pg-"))
    folder.chmod(0o755)
    yield folder / "data"
    stop_postgres(folder / "data")
    shutil.rmtree(folder, ignore_errors=True)


async def test_503_while_down_and_200_after(own_postgres: Path, tmp_path: Path):
    url = start_postgres(own_postgres)
    settings = Settings(home=tmp_path, public_url=ORIGIN)
    migrate(url)
    bootstrap(settings, url)
    service = IdentityService(settings, url)
    endpoint = f"{ORIGIN}/auth/token"
    key = read_or_create_key(tmp_path, "foramen-worker", "P-384")
    auth = BackendServiceAuth("foramen-worker", key, "system/Task.rus", endpoint, endpoint)
    app = Starlette(routes=[Mount("/auth", service.app)])
    await service.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=ORIGIN) as http:
        assert (await http.send(auth._token_request())).status_code == 200
        assert await service.ready()
        stop_postgres(own_postgres)
        answer = await http.send(auth._token_request())
        assert (answer.status_code, answer.json()["error"]) == (503, "temporarily_unavailable")
        assert answer.headers["retry-after"]
        assert "postgres" not in answer.text.lower()
        page = await http.get("/auth/login?request=x")
        assert page.status_code == 503
        assert "服务暂时不可用" in page.text
        assert not await service.ready()
        assert (await http.get("/auth/jwks")).status_code == 200
        assert start_postgres(own_postgres) == url
        assert (await http.send(auth._token_request())).status_code == 200
        assert await service.ready()
    await service.stop()


async def test_not_ready_before_migration(empty_database_url: str, tmp_path: Path):
    service = IdentityService(Settings(home=tmp_path), empty_database_url)
    assert not await service.ready()
    migrate(empty_database_url)
    assert await service.ready()
    await service.stop()
