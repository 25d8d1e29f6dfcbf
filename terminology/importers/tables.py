"""Tables of codes and names as CSV or XLSX: Chinese national editions, and any table with a header.

The columns are found by their header: 编码 or 代码 with 名称, or ``code`` with ``display``. Several such pairs side by
side are levels of a hierarchy (类目, 亚目, 诊断). Without levels the hierarchy follows the beginnings of the codes
(M51.202 below M51.2).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from terminology import systems
from terminology.importers.files import Files
from terminology.importers.release import (
    BadReleaseError,
    ConceptRow,
    DesignationRow,
    ParentRow,
    Problems,
    PropertyRow,
    ValueSetRow,
)

_CODE_WORDS = ("编码", "代码", "编号", "code")
_NAME_WORDS = ("名称", "诊断", "display", "name", "term", "title")
_BESIDE = ("附加", "对照", "映射", "原", "旧", "章", "节", "parent", "拼音", "五笔")
"""Words of columns that are no level of their own: additional codes, mappings, chapter ranges."""
_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+*†/_:-]{0,63}")
_FALSE = {"0", "false", "no", "n", "inactive", "retired", "停用", "否", "作废"}


@dataclass(frozen=True, slots=True)
class _Columns:
    """Places of the columns: pairs of code and name from the general to the special, and the others by name."""

    width: int
    levels: tuple[tuple[int, int], ...]
    others: tuple[tuple[int, str], ...]
    parent: int | None = None
    definition: int | None = None
    active: int | None = None
    chinese: int | None = None


def plain(text: str) -> str:
    """Turn fullwidth signs of a code into plain ones and drop blanks and invisible signs."""
    folded = unicodedata.normalize("NFKC", text)
    return "".join(sign for sign in folded if not sign.isspace() and unicodedata.category(sign) != "Cf")


def _find_columns(row: list[str]) -> _Columns | None:
    names = [plain(item).lower() for item in row]
    special: dict[str, int] = {}
    for place, name in enumerate(names):
        for kind, words in (
            ("parent", ("parent", "parentcode", "上级编码", "上级代码", "父编码", "父级编码")),
            ("definition", ("definition", "定义", "说明")),
            ("active", ("active", "status", "状态", "是否启用", "有效")),
            ("chinese", ("zh", "zh-cn", "display_zh", "中文名称", "chinese")),
        ):
            if name in words:
                special.setdefault(kind, place)
    taken = set(special.values())
    codes = [
        place
        for place, name in enumerate(names)
        if place not in taken
        and any(word in name for word in _CODE_WORDS)
        and not any(word in name for word in _BESIDE)
        and "范围" not in name
    ]
    levels = []
    for index, place in enumerate(codes):
        end = codes[index + 1] if index + 1 < len(codes) else len(names)
        candidates = [
            other
            for other in range(place + 1, end)
            if other not in taken
            and any(word in names[other] for word in _NAME_WORDS)
            and not any(word in names[other] for word in _BESIDE if word not in ("章", "节"))
        ]
        if candidates:
            levels.append((place, candidates[0]))
    if not levels:
        return None
    used = {place for level in levels for place in level} | taken
    others = tuple((place, row[place].strip()) for place in range(len(row)) if place not in used and row[place].strip())
    return _Columns(
        len(row),
        tuple(levels),
        others,
        special.get("parent"),
        special.get("definition"),
        special.get("active"),
        special.get("chinese"),
    )


def _is_data(row: list[str], columns: _Columns) -> bool:
    """Whether a row below a header is no header itself: its code has a digit."""
    place = columns.levels[-1][0]
    return place < len(row) and any(sign.isdigit() for sign in plain(row[place]))


class TableRelease:
    """A code system in one table."""

    def __init__(
        self,
        path: Path,
        problems: Problems,
        *,
        kind: str,
        url: str,
        version: str | None,
        name: str,
        language: str,
        by_prefix: bool,
    ) -> None:
        if not version:
            raise BadReleaseError("A table does not say its version: name it with --version", issue_code="required")
        self.kind, self.url, self.version, self.name, self.language = kind, url, version, name, language
        self._files = Files(path)
        self._problems = problems
        self._by_prefix = by_prefix
        self._tables = self._files.matching(r".*\.(csv|txt|tsv|xlsx|xlsm|xls)")
        if not self._tables:
            raise BadReleaseError("No table: CSV or XLSX is needed")

    def _rows(self) -> Iterator[tuple[str, int, list[str], _Columns]]:
        """Rows below a header; a later header (next sheet) replaces the earlier one."""
        found = False
        for name in self._tables:
            columns: _Columns | None = None
            for line, row in self._files.table(name):
                if not any(row):
                    continue
                header = None if columns is not None and _is_data(row, columns) else _find_columns(row)
                if header is not None:
                    columns, found = header, True
                elif columns is not None:
                    yield name, line, row + [""] * (columns.width - len(row)), columns
        if not found:
            raise BadReleaseError(
                "No header with a column for codes (编码, 代码, code) and one for names (名称, display)"
            )

    def _entries(self) -> Iterator[tuple[str, int, list[str], _Columns, list[tuple[str, str]]]]:
        """Rows with their usable (code, name) of each level."""
        above: list[str] = []
        last: _Columns | None = None
        for name, line, row, columns in self._rows():
            if columns is not last:
                above, last = [""] * len(columns.levels), columns
            levels: list[tuple[str, str]] = []
            for depth, (code_place, name_place) in enumerate(columns.levels):
                code, text = plain(row[code_place]), " ".join(row[name_place].split())
                is_last = depth == len(columns.levels) - 1
                if not code and not is_last:
                    # Merged cells: the row above says the level.
                    levels.append((above[depth], ""))
                    continue
                if not code and not text and any(level[1] for level in levels):
                    continue  # A row of a higher level alone.
                if not code or not text:
                    self._problems.add(name, line, "the code is missing" if not code else "the name is missing")
                    continue
                if not _CODE.fullmatch(code):
                    self._problems.add(name, line, "not a code")
                    continue
                if code != above[depth]:
                    above[depth:] = [code, *[""] * (len(above) - depth - 1)]
                levels.append((code, text))
            if levels:
                yield name, line, row, columns, levels

    def concepts(self) -> Iterator[ConceptRow]:
        """All codes with their names; a code of a higher level that stands in every row counts once."""
        higher: set[str] = set()
        for _, line, row, columns, levels in self._entries():
            for depth, (code, text) in enumerate(levels):
                if not text:
                    continue
                if depth < len(columns.levels) - 1:
                    if code in higher:
                        continue
                    higher.add(code)
                elif code in higher:
                    continue  # Some tables repeat a category without subdivision as its own code.
                status = row[columns.active].lower() if columns.active is not None else ""
                definition = row[columns.definition] if columns.definition is not None else ""
                yield ConceptRow(code, text, status not in _FALSE, definition, line)

    def parents(self) -> Iterator[ParentRow]:
        """Columns `parent`, levels side by side, or the beginnings of the codes."""
        codes: dict[str, int] = {}
        given: set[str] = set()
        for _, line, row, columns, levels in self._entries():
            for (upper, _), (code, text) in pairwise(level for level in levels if level[0]):
                if text and upper != code and code not in given:
                    given.add(code)
                    yield ParentRow(code, upper, line)
            for code, _ in levels:
                codes.setdefault(code, line)
            parent = plain(row[columns.parent]) if columns.parent is not None else ""
            if parent and levels:
                for item in parent.split("|"):
                    given.add(levels[-1][0])
                    yield ParentRow(levels[-1][0], item, line)
        if self._by_prefix:
            for code, line in codes.items():
                upper = "" if code in given else _shorter(code, codes)
                if upper:
                    yield ParentRow(code, upper, line)

    def designations(self) -> Iterator[DesignationRow]:
        """Names in the table's language, so that `displayLanguage` finds them, and those of a column for Chinese."""
        for _, _, row, columns, levels in self._entries():
            for code, text in levels:
                if text and self.language != "en":
                    yield DesignationRow(code, self.language, "display", text)
            if columns.chinese is not None and row[columns.chinese]:
                yield DesignationRow(levels[-1][0], "zh-CN", "display", row[columns.chinese])

    def properties(self) -> Iterator[PropertyRow]:
        """All other columns, by their header."""
        for _, _, row, columns, levels in self._entries():
            for place, name in columns.others:
                if row[place]:
                    yield PropertyRow(levels[-1][0], name, row[place])

    def value_sets(self) -> Iterator[ValueSetRow]:
        """None."""
        yield from ()


def _shorter(code: str, known: dict[str, int]) -> str:
    for end in range(len(code) - 1, 1, -1):
        candidate = code[:end].rstrip(".xX+*")
        if candidate != code and candidate in known:
            return candidate
    return ""


_EDITIONS = {
    "icd10-clinical": (systems.ICD10_CN_CLINICAL, "ICD-10 国家临床版"),
    "icd10-insurance": (systems.ICD10_CN_INSURANCE, "ICD-10 医保版"),
    "icd9cm3-clinical": (systems.ICD9CM3_CN_CLINICAL, "ICD-9-CM-3 国家临床版"),
    "icd9cm3-insurance": (systems.ICD9CM3_CN_INSURANCE, "ICD-9-CM-3 医保版"),
}
CHINESE_EDITIONS = tuple(_EDITIONS)


def chinese_edition(
    kind: str, path: Path, problems: Problems, version: str | None = None, url: str | None = None
) -> TableRelease:
    """Return a Chinese national clinical edition."""
    own, name = _EDITIONS[kind]
    return TableRelease(
        path, problems, kind=kind, url=url or own, version=version, name=name, language="zh-CN", by_prefix=True
    )


def generic_table(path: Path, problems: Problems, version: str | None = None, url: str | None = None) -> TableRelease:
    """Return any code system in a table with a header.

    Raises
    ------
    BadReleaseError
        Without URL or version.
    """
    if not url:
        raise BadReleaseError("Name the code system with --url", issue_code="required")
    return TableRelease(
        path, problems, kind="csv", url=url, version=version, name=path.stem, language="en", by_prefix=False
    )
