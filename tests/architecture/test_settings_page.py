"""docs/environment-variables.md lists exactly the settings there are, with their defaults."""

from __future__ import annotations

import re
from pathlib import Path

from fhir_server.settings import FhirSettings
from foramen.kernel.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "environment-variables.md"
ROW = re.compile(r"^\| `(FORAMEN_[A-Z0-9_]+)` \| `([^`]*)` \| (.+) \|$", re.MULTILINE)


def test_the_page_lists_every_setting() -> None:
    listed = {name: (default, text) for name, default, text in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    expected = {
        f"{group.model_config['env_prefix']}{name.upper()}": (
            "" if field.default is None else str(field.default),
            field.description,
        )
        for group in (Settings, FhirSettings)
        for name, field in group.model_fields.items()
    }
    assert listed == expected


def test_no_secret_is_a_setting() -> None:
    assert not [name for name in Settings.model_fields if re.search(r"secret|password|private", name)]
