"""Write docs/conformance/dicom.md: one row for each clause of DICOM that a test proves, with its tests.

The clauses are the texts of ``@pytest.mark.requirement("PS3.18 10.5.3: what")`` in tests/, read without running them.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "conformance" / "dicom.md"
_CLAUSE = re.compile(r"(PS3\.\d+)\s+(?:Annex\s+)?([A-Z]{1,3}(?:\.[\dA-Z]+)*|\d+(?:\.\d+)*)\s*:?\s*(.*)", re.DOTALL)
HEAD = """---
audience: integrators, assessors
type: reference
---
# DICOM conformance, clause by clause

Written by `python scripts/write_conformance_page.py` from the tests that carry `@pytest.mark.requirement`; a test
compares the page with them.
A row stands here because a test proves it: real Orthanc, real PostgreSQL, real HTTP. What the server offers is in
`GET /dicom-web/` and on `/dicom-web/conformance`.
"""
_PARTS = {
    "PS3.3": "Information objects",
    "PS3.4": "Service classes",
    "PS3.5": "Data structures and encoding",
    "PS3.6": "Data dictionary",
    "PS3.7": "Message exchange",
    "PS3.8": "Network communication",
    "PS3.10": "Media storage and file format",
    "PS3.15": "Security",
    "PS3.16": "Content mapping",
    "PS3.18": "Web services",
    "PS3.19": "Application hosting: the native model",
}


@dataclass(frozen=True, order=True)
class Proof:
    """One clause that one test proves."""

    part: str
    section: str
    clause: str
    test: str


def proofs(folder: Path = ROOT / "tests") -> list[Proof]:
    """Return every DICOM clause with a test of it.

    Raises
    ------
    ValueError
        A text that begins like a clause of DICOM names no section: it would vanish from the page.
    """
    found = []
    for path in sorted(folder.rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inherited = _module_texts(tree)
        for name, texts in _tests(tree, inherited):
            for text in texts:
                if not text.startswith("PS3."):
                    continue
                match = _CLAUSE.fullmatch(text)
                if match is None:
                    raise ValueError(f"{path.name}: {text!r} names no section of the standard")
                part, section, clause = match.groups()
                found.append(Proof(part, section, clause.strip(), f"{path.relative_to(folder.parent)}::{name}"))
    return sorted(set(found))


def _tests(body: ast.Module | ast.ClassDef, inherited: list[str]) -> Iterator[tuple[str, list[str]]]:
    for node in body.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test"):
            yield node.name, inherited + _texts(node.decorator_list)
        elif isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            yield from _tests(node, inherited + _texts(node.decorator_list))


def _module_texts(tree: ast.Module) -> list[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(one) for one in node.targets] == ["pytestmark"]:
            return _texts(node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value])
    return []


def _texts(marks: list[ast.expr]) -> list[str]:
    return [
        str(argument.value)
        for mark in marks
        if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith("mark.requirement")
        for argument in mark.args
        if isinstance(argument, ast.Constant)
    ]


def page(found: list[Proof]) -> str:
    """Write the page: a table for each part of the standard, in the order of its sections."""
    rows: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for proof in found:
        rows[proof.part, proof.section, proof.clause].append(proof.test)
    text = [HEAD]
    for part in sorted({key[0] for key in rows}, key=_natural):
        text.append(
            f"\n## {part} {_PARTS.get(part, '')}".rstrip() + "\n\n| section | what is proved | tests |\n|---|---|---|\n"
        )
        for key in sorted((key for key in rows if key[0] == part), key=lambda one: (_natural(one[1]), one[2])):
            tests = "<br>".join(f"`{test.removeprefix('tests/')}`" for test in sorted(rows[key]))
            text.append(f"| {key[1]} | {key[2].replace('|', '/') or 'the transaction'} | {tests} |\n")
    return "".join(text)


def _natural(section: str) -> list[tuple[int, str]]:
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in re.split(r"(\d+)", section) if piece]


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(proofs()), encoding="utf-8")


if __name__ == "__main__":
    main()
