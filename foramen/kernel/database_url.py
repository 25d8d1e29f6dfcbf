"""Where the database is: the configured one, or the embedded one under FORAMEN_HOME, started when it is not running."""

from __future__ import annotations

from foramen.kernel.embedded_postgres import start_postgres
from foramen.kernel.settings import Settings


def database_url(settings: Settings) -> str:
    """Return the PostgreSQL URL, starting (or re-attaching to) the embedded server where none is configured."""
    return settings.database_url or start_postgres(settings.home / "postgres")
