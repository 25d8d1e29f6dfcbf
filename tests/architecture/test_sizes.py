"""No module grows past 500 lines; generated tables say so in their first lines and are exempt."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("foramen", "fhir_server", "dicomweb", "ai_services", "smart_apps", "terminology", "orthanc")


def _sources() -> list[Path]:
    found = []
    for room in ROOMS:
        for suffix in ("*.py", "*.ts", "*.tsx"):
            found += [
                path
                for path in (ROOT / room).rglob(suffix)
                if not {"node_modules", "dist", "__pycache__"} & set(path.parts)
            ]
    return found


def test_no_module_passes_500_lines() -> None:
    long = {}
    for path in _sources():
        text = path.read_text(encoding="utf-8")
        if "GENERATED" not in text[:400] and (lines := text.count("\n")) > 500:
            long[str(path.relative_to(ROOT))] = lines
    assert not long


def test_no_room_for_leftovers() -> None:
    names = {"utils.py", "common.py", "helpers.py", "misc.py"}
    assert not [path for path in _sources() if path.name in names]
