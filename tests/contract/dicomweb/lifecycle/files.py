"""Files of the second folder, and what the tests of it share."""

from __future__ import annotations

from pathlib import Path

from dicomweb.lifecycle.rules import TierRules
from foramen.kernel.access_context import AccessContext

WHO = AccessContext("archivist", "foramen-cli", ())
RULES = TierRules(365, unused_days=90, pack_after_days=730)
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def changed(content: bytes, bit: int = 1) -> bytes:
    """The same length, another last byte."""
    return content[:-1] + bytes([content[-1] ^ bit])


def kept(tmp_path: Path, name: str) -> Path:
    return tmp_path / "nearline" / name[:2] / name[2:4] / name


def plain_files(tmp_path: Path, names: list[str]) -> list[str]:
    return [name for name in names if kept(tmp_path, name).exists()]


def files_in(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "nearline").rglob("*") if path.is_file()]
