"""Write docs/environment-variables.md from the settings themselves."""

from __future__ import annotations

from pathlib import Path

from fhir_server.settings import FhirSettings
from fhir_server.settings_zh import MEANINGS_ZH as FHIR_MEANINGS_ZH
from foramen.kernel.settings import Settings
from foramen.kernel.settings_zh import MEANINGS_ZH

HEAD = """# Environment variables

Every setting of Foramen. Written by `python scripts/write_settings_page.py`; a test compares the page with the code.
Secrets are not settings: they are files under `FORAMEN_HOME/secrets`, made on first start, for their owner alone.

| variable | default | meaning | 含义 |
|---|---|---|---|
"""


def main() -> None:
    """Write the page."""
    rows = [
        f"| `{group.model_config['env_prefix']}{name.upper()}` | "
        f"`{'' if field.default is None else field.default}` | {field.description} | {chinese[name]} |"
        for group, chinese in ((Settings, MEANINGS_ZH), (FhirSettings, FHIR_MEANINGS_ZH))
        for name, field in group.model_fields.items()
    ]
    page = Path(__file__).parents[1] / "docs" / "environment-variables.md"
    page.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
