"""Our own parts are never asked through a proxy that the environment names."""

from __future__ import annotations

import http.server
import threading

import pytest

from foramen.supervisor.supervisor import _answers


def test_a_proxy_in_the_environment_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.server_port}")
        assert not _answers("http://127.0.0.1:9/system", "Basic c2VjcmV0")
        assert not seen
        assert _answers(f"http://127.0.0.1:{proxy.server_port}/system")
        assert seen == ["/system"]
    finally:
        proxy.shutdown()
