"""The OHIF viewer as its makers built it, served on loopback with the configuration that the documentation gives."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
CONFIGURATION = REPOSITORY / "deploy" / "ohif" / "app-config.js"
PLACEHOLDER = "https://foramen.example"


def built_viewer() -> Path:
    """Folder of the built viewer; fetched once, checked by its hash."""
    script = ["bash", str(REPOSITORY / "scripts" / "fetch_ohif.sh")]
    return Path(subprocess.run(script, check=True, capture_output=True, text=True, timeout=240).stdout.strip())


@contextmanager
def ohif_for(origin: str) -> Iterator[str]:
    """Serve OHIF against an installation for a while; gives OHIF's own origin, which is another one."""
    folder, told = built_viewer(), CONFIGURATION.read_text(encoding="utf-8")
    assert told.count(PLACEHOLDER) == 1, "one line of the configuration names the server"
    configuration = told.replace(PLACEHOLDER, origin).encode()

    class Handler(SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/app-config.js":
                self.send_response(200)
                self.send_header("Content-Type", "text/javascript")
                self.send_header("Content-Length", str(len(configuration)))
                self.end_headers()
                self.wfile.write(configuration)
                return
            if not (folder / path.lstrip("/")).is_file():
                self.path = "/index.html"  # The viewer's own routes, as docs/how-to/view_with_ohif.md has nginx do it.
            super().do_GET()

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://localhost:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
