"""docs/environment-variables.md lists exactly the settings there are, with their defaults, in both languages."""

from __future__ import annotations

import re
from pathlib import Path

from fhir_server.settings import FhirSettings
from fhir_server.settings_zh import MEANINGS_ZH as FHIR_MEANINGS_ZH
from foramen.kernel.settings import Settings
from foramen.kernel.settings_zh import MEANINGS_ZH

PAGE = Path(__file__).parents[2] / "docs" / "environment-variables.md"
ROW = re.compile(r"^\| `(FORAMEN_[A-Z0-9_]+)` \| `([^`]*)` \| (.+) \| (.+) \|$", re.MULTILINE)


GROUPS = ((Settings, MEANINGS_ZH), (FhirSettings, FHIR_MEANINGS_ZH))


def test_every_setting_has_its_meaning_in_chinese() -> None:
    for group, chinese in GROUPS:
        assert set(group.model_fields) == set(chinese), "beside the settings: settings_zh.py"
        assert [name for name, text in chinese.items() if not re.search(r"[\u4e00-\u9fff]", text)] == []


def test_the_page_lists_every_setting() -> None:
    listed = {name: tuple(rest) for name, *rest in ROW.findall(PAGE.read_text(encoding="utf-8"))}
    expected = {
        f"{group.model_config['env_prefix']}{name.upper()}": (
            "" if field.default is None else str(field.default),
            field.description,
            chinese[name],
        )
        for group, chinese in GROUPS
        for name, field in group.model_fields.items()
    }
    assert listed == expected


def test_no_secret_is_a_setting() -> None:
    assert not [name for name in Settings.model_fields if re.search(r"secret|password|private", name)]
