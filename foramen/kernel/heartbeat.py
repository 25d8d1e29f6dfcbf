"""A file that a process touches while it does its work: how the supervisor sees that a part without a port is ready."""

from __future__ import annotations

from pathlib import Path


def beat(home: Path, part: str) -> None:
    """Touch the heartbeat file of a part."""
    path = heartbeat_file(home, part)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def heartbeat_file(home: Path, part: str) -> Path:
    """Where the heartbeat of a part is."""
    return home / "run" / part
