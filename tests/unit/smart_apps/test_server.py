"""What a browser gets from the app server: pages, assets, headers, and a clear word when nothing is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from foramen.kernel.settings import Settings
from smart_apps.server import build_app

ORIGIN = "http://127.0.0.1:8000"


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    for folder in ("portal", "result_review", "care_plan"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "index.html").write_text(f"<!doctype html><title>{folder}</title>")
    assets = tmp_path / "assets"
    assets.mkdir()
    (assets / "app-1a2b.js").write_text("plain")
    (assets / "app-1a2b.js.br").write_bytes(b"brotli")
    (assets / "app-1a2b.js.gz").write_bytes(b"gzip")
    (assets / "codec-9.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret.txt").write_text("secret")
    return tmp_path


@pytest.fixture
def browser(dist: Path) -> TestClient:
    return TestClient(build_app(Settings(), dist), base_url=ORIGIN, follow_redirects=False)


@pytest.mark.parametrize(
    ("path", "title"),
    [("/", "portal"), ("/apps/result-review/", "result_review"), ("/apps/care-plan/", "care_plan")],
)
def test_each_app_has_its_page(browser: TestClient, path: str, title: str) -> None:
    response = browser.get(path, params={"iss": f"{ORIGIN}/fhir", "launch": "x"})
    assert response.status_code == 200
    assert title in response.text
    assert response.headers["cache-control"] == "no-cache"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script-src 'self' 'wasm-unsafe-eval';" in policy
    assert response.headers["referrer-policy"] == "no-referrer"


def test_an_unchanged_page_is_not_sent_again(browser: TestClient) -> None:
    tag = browser.get("/").headers["etag"]
    assert browser.get("/", headers={"If-None-Match": tag}).status_code == 304


def test_a_missing_slash_keeps_the_launch_parameters(browser: TestClient) -> None:
    response = browser.get("/apps/result-review?iss=a&launch=b")
    assert (response.status_code, response.headers["location"]) == (308, "/apps/result-review/?iss=a&launch=b")


@pytest.mark.parametrize("path", ["/nothing", "/apps/nothing/", "/apps/nothing", "/apps/assets/nothing.js"])
def test_what_does_not_exist_is_404(browser: TestClient, path: str) -> None:
    response = browser.get(path)
    assert response.status_code == 404
    assert "content-security-policy" in response.headers
    assert 'href="/"' in response.text, "the way back"


@pytest.mark.parametrize(
    ("accept", "encoding", "body"),
    [("gzip, br", "br", b"brotli"), ("gzip", "gzip", b"gzip"), ("br;q=0", None, b"plain"), ("", None, b"plain")],
)
def test_assets_come_in_the_best_encoding(browser: TestClient, accept: str, encoding: str | None, body: bytes) -> None:
    with browser.stream("GET", "/apps/assets/app-1a2b.js", headers={"Accept-Encoding": accept}) as response:
        assert b"".join(response.iter_raw()) == body
    assert response.headers.get("content-encoding") == encoding
    assert response.headers["content-type"].startswith("text/javascript")
    assert response.headers["vary"] == "Accept-Encoding"
    assert "immutable" in response.headers["cache-control"]


def test_webassembly_has_its_own_type(browser: TestClient) -> None:
    assert browser.get("/apps/assets/codec-9.wasm").headers["content-type"] == "application/wasm"


@pytest.mark.parametrize(
    "path", ["/apps/assets/..%2Fsecret.txt", "/apps/assets/%2e%2e/secret.txt", "/apps/assets/app-1a2b.js.br"]
)
def test_nothing_outside_the_build_is_served(browser: TestClient, path: str) -> None:
    response = browser.get(path)
    assert response.status_code == 404
    assert "secret" not in response.text


def test_another_name_of_this_machine_leads_to_the_registered_origin(dist: Path) -> None:
    browser = TestClient(build_app(Settings(), dist), base_url="http://localhost:8000", follow_redirects=False)
    response = browser.get("/apps/care-plan/?launch=x")
    assert (response.status_code, response.headers["location"]) == (307, f"{ORIGIN}/apps/care-plan/?launch=x")


def test_behind_a_proxy_no_redirect_is_made(dist: Path) -> None:
    settings = Settings(public_url="https://spine.hospital.example")
    browser = TestClient(build_app(settings, dist), base_url="http://127.0.0.1:8000", follow_redirects=False)
    assert browser.get("/").status_code == 200


def test_without_a_build_the_page_says_what_to_do(tmp_path: Path) -> None:
    response = TestClient(build_app(Settings(), tmp_path), base_url=ORIGIN).get("/")
    assert response.status_code == 503
    assert "make setup" in response.text
