"""The words of the pages: each that a template or handler names is there in both languages, and none twice."""

from __future__ import annotations

import ast
import re
from importlib import import_module, resources
from pathlib import Path

import foramen
from foramen.admin import text
from foramen.admin.routes import PAGES
from foramen.identity.policy import sources
from foramen.identity.rights.roles import ROLES

ROOT = Path(foramen.__file__).parent
TEMPLATES = [
    re.sub(r"\{#.*?#\}", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    for file in (ROOT / "admin" / "templates").iterdir()
]
HANDLERS = [file.read_text(encoding="utf-8") for file in (ROOT / "admin").rglob("*.py")]


def test_both_languages_have_the_same_words():
    assert set(text.WORDS["zh"]) == set(text.WORDS["en"])
    for language, words in text.WORDS.items():
        assert not [name for name, said in words.items() if not said.strip()], language
        for name, said in words.items():
            holes = {other: re.findall(r"\{\w+\}", text.WORDS[other][name]) for other in text.WORDS}
            assert sorted(holes["zh"]) == sorted(holes["en"]), (name, said)


def test_every_word_that_is_named_is_there():
    named = {name for source in TEMPLATES for name in re.findall(r"\bt\.([a-z_]+)\b(?!\()", source)}
    named |= {name for source in HANDLERS for name in re.findall(r'call\.t\["([\w-]+)"\]', source)}
    named |= {page.menu for page in PAGES if page.menu} | {f"role_{role}" for role in ROLES}
    named |= {f"done_{word}" for source in HANDLERS for word in re.findall(r'done\(f?"[^"]+", "(\w+)"', source)}
    asked = (ROOT / "admin" / "endpoints" / "account_actions.py").read_text(encoding="utf-8")
    named |= {f"{word}_question" for word in re.findall(r'_ask\(call, "(\w+)"', asked)}
    assert len(named) > 100
    missing = named - set(text.WORDS["zh"])
    assert not missing


def test_every_policy_file_is_told_about_in_words():
    for name in sources():
        if not name.endswith("_test.rego"):
            assert f"policy_about_{name.removesuffix('.rego')}" in text.WORDS["zh"]


def test_no_word_hides_behind_a_method_of_dict():
    """`t.clear` in a template is the method, not the word."""
    assert not set(text.WORDS["zh"]) & set(dir(dict))


def test_no_word_is_said_twice():
    parts = resources.files("foramen.admin.words")
    names: list[str] = []
    for file in parts.iterdir():
        if file.name.endswith(".py") and file.name != "__init__.py":
            module = import_module(f"foramen.admin.words.{file.name[:-3]}")
            assert module.WORDS in text._PARTS, file.name
            names += module.WORDS["zh"]
    assert sorted(names) == sorted(set(names))


def _said(tree: ast.AST) -> set[str]:
    """Every text of a module as a pattern; a hole of an f-string may be anything."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(re.escape(node.value))
        elif isinstance(node, ast.JoinedStr):
            parts = [re.escape(part.value) if isinstance(part, ast.Constant) else ".+" for part in node.values]
            if any(len(part) > 8 for part in parts):
                found.add("".join(parts))
    return found


def test_every_translated_message_is_one_of_the_code():
    said: set[str] = set()
    for room in ("identity", "admin", "kernel"):
        for file in (ROOT / room).rglob("*.py"):
            if file.parent.name != "words":
                said |= _said(ast.parse(file.read_text(encoding="utf-8")))
    one = re.compile("|".join(f"(?:{pattern})" for pattern in said))
    assert not [message for message in text.MESSAGES["zh"] if not one.fullmatch(message)]
