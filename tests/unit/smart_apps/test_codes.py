"""The apps' copy of codes and clinical facts equals terminology/ and the rule base: one meaning, one source."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import smart_apps
from terminology import codes, systems

APPS = Path(smart_apps.__file__).parent
ROOT = APPS.parent


def _typescript(path: str) -> str:
    return (APPS / path).read_text(encoding="utf-8")


def _table(source: str, name: str) -> dict[str, tuple[str, str]]:
    """Entries `code: { display: "…", zh: "…" }` of one exported table."""
    body = source.split(f"export const {name}:", 1)[1].split("\n};", 1)[0]
    entry = r'^\s*"?([\w-]+)"?: \{ display: "([^"]*)", zh: "([^"]*)" \}'
    return {key: (display, zh) for key, display, zh in re.findall(entry, body, re.MULTILINE)}


def test_canonical_uris_are_those_of_terminology() -> None:
    body = _typescript("smart_client/codes.ts").split("export const SYSTEM = {", 1)[1].split("} as const", 1)[0]
    pairs = re.findall(r"^\s*(\w+): [`\"]([^`\"]+)[`\"],", body, re.MULTILINE)
    found = {name: value.replace("${BASE}", systems.BASE) for name, value in pairs}
    assert len(found) > 15
    assert found == {name: getattr(systems, name) for name in found}


@pytest.mark.parametrize("name", ["MORPHOLOGY", "PFIRRMANN", "OPTIONS", "FINDINGS"])
def test_displays_are_those_of_terminology(name: str) -> None:
    wanted = {key: (code.display, code.display_zh) for key, code in getattr(codes, name).items()}
    assert _table(_typescript("smart_client/codes.ts"), name) == wanted


def test_levels_and_tags_are_those_of_terminology() -> None:
    source = _typescript("smart_client/codes.ts")
    levels = re.search(r"export const LEVELS = \[([^\]]+)\]", source)
    assert levels is not None
    assert re.findall(r'"([^"]+)"', levels.group(1)) == list(reversed(codes.LEVELS))
    for name in ("SYNTHETIC", "AI_GENERATED", "MODEL_RECALLED", "ANALYSE_STUDY", "RECOMMEND_OPTIONS"):
        assert f'export const {name} = "{getattr(codes, name).code}";' in source


def test_the_form_asks_exactly_the_clinical_facts_of_the_rule_base() -> None:
    facts = yaml.safe_load((ROOT / "ai_services/recommendation/facts.yaml").read_text(encoding="utf-8"))
    clinical = {name: fact for name, fact in facts.items() if fact.get("kind") == "clinical"}
    source = _typescript("care_plan/clinical_input.ts")
    asked = re.findall(r'(yesNo|code|whole|decimal)\(\s*"([\w.]+)"', source)
    kinds = {"yesNo": "boolean", "code": "code", "whole": "integer", "decimal": "decimal"}
    found = {name: kinds[kind] for kind, name in asked}
    assert found.pop("index_level") == "code"  # which level the answers are about; the rule base calls it `level`
    assert found == {name: fact["type"] for name, fact in clinical.items()}
    for name, fact in clinical.items():
        assert f'"{fact["zh"]}"' in source, name
        for value in fact.get("values", ()):
            assert re.search(rf"\b{value}: \{{", source), (name, value)
