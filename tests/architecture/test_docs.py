"""What the docs show is what the code takes; links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

from foramen.ingest.sidecar import Sidecar

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_the_sidecar_example_is_valid() -> None:
    page = (ROOT / "docs" / "how-to" / "send_images.md").read_text(encoding="utf-8")
    example = re.search(r"```json\n(.*?)```", page, re.DOTALL)
    assert example is not None
    assert Sidecar.model_validate_json(example.group(1)).patient_id == "SYN-0001"


def test_every_relative_link_leads_somewhere() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken


def test_every_place_on_the_readme_map_exists() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").split("## I want to change")[1].split("## Status")[0]
    places = re.findall(r"`((?:[a-z_]+/)+[a-z_.]*)`", table)
    assert len(places) > 20
    assert not [place for place in places if not (ROOT / place).exists()]
