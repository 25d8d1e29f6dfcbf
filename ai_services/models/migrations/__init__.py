"""Tables of the model registry (schema `ai`), by numbered files."""

from __future__ import annotations

from pathlib import Path

from foramen.kernel.numbered_migrations import apply_numbered

FOLDER = Path(__file__).parent
_LOCK = 0x666F72616D656E05  # advisory lock of this schema's migrations


def migrate(database_url: str) -> None:
    """Bring the schema `ai` up to date; does nothing when it is."""
    apply_numbered(database_url, "ai", FOLDER, _LOCK)
