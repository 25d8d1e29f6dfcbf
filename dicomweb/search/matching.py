"""Attribute matching as SQL on the study index (PS3.4 §C.2.2.2). Whatever a client sent becomes a parameter.

Tags, the only other thing that reaches the text of a statement, are eight hexadecimal digits (`parameters`).
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

from dicomweb.index.folding import fold, gram_of_pattern, words
from dicomweb.index.rows import tsvector
from dicomweb.search import ranges
from dicomweb.search.parameters import CLASSES_IN_STUDY, COUNTED, MODALITIES_IN_STUDY, Attribute, SearchRequest
from dicomweb.visibility import Visible
from foramen.kernel.errors import InvalidRequestError

ALIAS = {"study": "s", "series": "e", "instance": "i"}
_COLUMNS = {
    "00100020": "s.patient_id",
    "00100021": "s.patient_id_issuer",
    "00080050": "s.accession_number",
    "00080020": "s.study_date",
    "00200010": "s.study_id",
    "00081030": "s.description",
    "00080060": "e.modality",
    "00080016": "i.sop_class_uid",
    "0020000D": "s.study_instance_uid",
    "0020000E": "e.series_instance_uid",
    "00080018": "i.sop_instance_uid",
}
_PATIENT_NAME = "00100010"
_NAME_COLUMNS = ("s.name_alphabetic", "s.name_ideographic", "s.name_phonetic")
_WILD_VRS = frozenset(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT", ""))
_NUMBER_VRS = frozenset(("DS", "IS", "FL", "FD", "SL", "SS", "SV", "UL", "US", "UV"))
_RANGE_VRS = frozenset(("DA", "TM", "DT"))


def series_of_study(visible: Visible) -> str:
    """Return FROM and WHERE of the series of a study (`s`) that a caller sees, as `e`."""
    shown = f"e.study_instance_uid = s.study_instance_uid AND e.instance_count > 0 AND {visible.series_sql}"
    return f"FROM {visible.shelf.series} e WHERE {shown}"


def counted(tag: str, visible: Visible) -> str:
    """Return the SQL of an attribute that the index counts, as the caller may see it."""
    of_study = series_of_study(visible)
    if tag == "00201209":
        return "e.instance_count"
    if tag == CLASSES_IN_STUDY:
        return f"""ARRAY(SELECT DISTINCT c.sop_class_uid FROM {visible.shelf.instance} c
            JOIN {visible.shelf.series} e USING (study_instance_uid, series_instance_uid)
            WHERE c.study_instance_uid = s.study_instance_uid AND {visible.series_sql} ORDER BY 1)"""  # noqa: S608
    kept, made = {
        "00201206": ("s.series_count", f"(SELECT count(*)::integer {of_study})"),
        "00201208": ("s.instance_count", f"(SELECT coalesce(sum(e.instance_count), 0)::integer {of_study})"),
        MODALITIES_IN_STUDY: (
            "s.modalities",
            f"ARRAY(SELECT DISTINCT e.modality {of_study} AND e.modality <> '' ORDER BY 1)",
        ),
    }[tag]
    return kept if visible.all_series else made


class Matcher:
    """Collects conditions and their values; `bind` numbers the placeholders after those of `visible`."""

    def __init__(self, request: SearchRequest, visible: Visible) -> None:
        self._request, self._visible = request, visible
        self.values: list[Any] = list(visible.values)
        self._items = 0

    def bind(self, value: Any) -> str:
        """Keep a value; returns its placeholder."""
        self.values.append(value)
        return f"${len(self.values)}"

    def where(self) -> str:
        """Return the whole condition: what the caller may see, and all that was asked."""
        parts = [self._visible.study_sql if self._request.level == "study" else self._visible.sql]
        if self._request.level == "study":
            parts.append("s.instance_count > 0")
        elif self._request.level == "series":
            parts.append("e.instance_count > 0")
        simple: list[tuple[Attribute, str]] = []
        nested: list[tuple[Attribute, str]] = []
        for attribute, value in self._request.matches:
            (nested if len(attribute.path) > 1 else simple).append((attribute, value))
        parts += self._combined(simple)
        parts += [self._one(attribute, value) for attribute, value in simple]
        for key in dict.fromkeys((attribute.path[0], attribute.creator) for attribute, _ in nested):
            group = [(a, v) for a, v in nested if (a.path[0], a.creator) == key]
            where = f"{ALIAS[group[0][0].level]}.attributes"
            inner = [(a.path, a, v) for a, v in group]
            creator = key[1]
            if creator is None:
                parts.append(self._items_match(where, inner))
            else:
                parts.append(
                    self._in_block(where, group[0][0], lambda tag, i=inner, w=where: self._items_match(w, i, tag))
                )
        return " AND ".join(parts)

    def _combined(self, simple: list[tuple[Attribute, str]]) -> list[str]:
        """Match a date and its time that are both asked for as one point in time; takes them out of the list."""
        found = {attribute.path[0]: (attribute, value) for attribute, value in simple}
        parts = []
        for date_tag, time_tag in ranges.DATE_TIME_PAIRS.items():
            if date_tag not in found or time_tag not in found:
                continue
            (date, date_value), (time, time_value) = found[date_tag], found[time_tag]
            if not (ranges.is_range(date_value, "DA") and ranges.is_range(time_value, "TM")):
                continue
            (low, high), (early, late) = (
                ranges.bounds(date_value, "DA", date.name),
                ranges.bounds(time_value, "TM", time.name),
            )
            day, clock = (self._first_text(attribute) for attribute in (date, time))
            point = f"({day}, coalesce({clock}, ''))"
            parts.append(f"{point} >= ({self.bind(low)}::text, {self.bind(early)}::text)")
            # A day without what fills it up, so that on the last day the time decides.
            parts.append(f"{point} <= ({self.bind(high[:8])}::text, {self.bind(late)}::text)")
            simple[:] = [item for item in simple if item[0].path[0] not in (date_tag, time_tag)]
        return parts

    def _first_text(self, attribute: Attribute) -> str:
        column = {"00080020": "s.study_date", "00080030": "s.study_time"}.get(attribute.path[0])
        return column or f"""({ALIAS[attribute.level]}.attributes->'{attribute.path[0]}'->'Value'->>0) COLLATE "C\""""

    def _one(self, attribute: Attribute, value: str) -> str:
        tag = attribute.path[0]
        where = f"{ALIAS[attribute.level]}.attributes"
        if tag in COUNTED:
            return self._of_counted(tag, attribute, value)
        if attribute.creator is not None:
            return self._in_block(where, attribute, lambda actual: self._any_value(where, actual, attribute, value))
        if self._request.empty and value == '""':
            return f"""NOT jsonb_path_exists({where}, '$."{tag}".Value[*] ? (@ != null && @ != "")')"""
        if attribute.vr == "PN" and attribute.level != "instance":
            return self._name(attribute, value)
        if tag in _COLUMNS:
            return self._column(_COLUMNS[tag], attribute, value)
        texts = self._texts(attribute, value)
        exact = attribute.vr in _WILD_VRS and not _is_wild(value)
        if exact and attribute.level != "instance":
            keys = f"{ALIAS[attribute.level]}.keys"
            return "(" + " OR ".join(f"{keys} @> {self.bind({tag: [text]})}::jsonb" for text in texts) + ")"
        return self._any_value(where, tag, attribute, value)

    def _of_counted(self, tag: str, attribute: Attribute, value: str) -> str:
        sql = counted(tag, self._visible)
        if tag not in (MODALITIES_IN_STUDY, CLASSES_IN_STUDY):
            return f"{sql} = {self.bind(_number(attribute, value))}::numeric"
        if _is_wild(value):
            return _exists(f"unnest({sql}) AS m(v)", f"m.v LIKE {self.bind(_pattern(value))}")
        return f"{sql} && {self.bind(_listed(value))}::text[]"

    def _column(self, column: str, attribute: Attribute, value: str) -> str:
        if attribute.vr in _RANGE_VRS:
            low, high = ranges.bounds(value, attribute.vr, attribute.name)
            return f"{column} >= {self.bind(low)} AND {column} <= {self.bind(high)}"
        if _is_wild(value) and attribute.vr in _WILD_VRS:
            text = f"{column} LIKE {self.bind(_pattern(value))}"
            piece = gram_of_pattern(value) if column == "s.description" and value[0] in "*?" else None
            return text if piece is None else f"({text} AND s.grams @> {self.bind([f'd{piece}'])})"
        texts = self._texts(attribute, value)
        if len(texts) == 1:
            return f"{column} = {self.bind(texts[0])}"
        return f"{column} = ANY({self.bind(texts)}::text[])"

    def _name(self, attribute: Attribute, value: str) -> str:
        """Person names: without case and accents; each component group that is named has to match one that is there."""
        if self._request.fuzzy:
            return self._fuzzy_name(attribute, value)
        groups = [group for group in (fold(part).rstrip("^ ") for part in value.split("=")) if group]
        keys = f"{ALIAS[attribute.level]}.keys->'{attribute.path[0]}'"
        parts = []
        for group in groups:
            operator, text = ("LIKE", _pattern(group)) if _is_wild(group) else ("=", group)
            place = self.bind(text)
            if attribute.path[0] != _PATIENT_NAME:
                parts.append(_exists(f"jsonb_array_elements_text({keys}) AS k(v)", f"k.v {operator} {place}"))
                continue
            parts.append("(" + " OR ".join(f"{column} {operator} {place}" for column in _NAME_COLUMNS) + ")")
            if group[0] in "*?" and (piece := gram_of_pattern(group)):
                parts.append(f"s.grams @> {self.bind([f'n{piece}'])}")
        return " AND ".join(parts) or "true"

    def _fuzzy_name(self, attribute: Attribute, value: str) -> str:
        """Every word asked for begins a component of the name, in any order and group."""
        asked = words(value)
        if not asked:
            return "true"
        if attribute.path[0] == _PATIENT_NAME:
            query = " & ".join(f"{tsvector([word])}:*" for word in asked)
            begin = f"s.name_words @@ {self.bind(query)}::text::tsquery"
            pieces = sorted({f"n{piece}" for word in asked if (piece := gram_of_pattern(word))})
            # Pieces find the candidates: of each word's beginning the index would gather everybody who has it.
            return f"(s.grams @> {self.bind(pieces)} AND coalesce({begin}, false))" if pieces else begin
        keys = f"{ALIAS[attribute.level]}.keys->'{attribute.path[0]}'"
        begins = [self.bind(rf"(^|[\s^,.]){re.escape(word)}") for word in asked]
        return " AND ".join(_exists(f"jsonb_array_elements_text({keys}) AS k(v)", f"k.v ~ {place}") for place in begins)

    def _items_match(self, where: str, group: list[tuple[tuple[str, ...], Attribute, str]], tag: str = "") -> str:
        """Sequence matching: one item fulfils all that is asked of the sequence (PS3.4 §C.2.2.2.6)."""
        self._items += 1
        name = f"q{self._items}"
        rest = [(path[1:], attribute, value) for path, attribute, value in group]
        parts = [
            self._any_value(f"{name}.item", path[0], attribute, value)
            for path, attribute, value in rest
            if len(path) == 1
        ]
        for deeper in dict.fromkeys(path[0] for path, _, _ in rest if len(path) > 1):
            below = [entry for entry in rest if len(entry[0]) > 1 and entry[0][0] == deeper]
            parts.append(self._items_match(f"{name}.item", below))
        elements = f"jsonb_array_elements({where}->{tag or _quoted(group[0][0][0])}->'Value') AS {name}(item)"
        return _exists(elements, " AND ".join(parts))

    def _in_block(self, where: str, attribute: Attribute, condition: Any) -> str:
        """Ask of a private element in whichever block its creator reserved in that file (PS3.5 §7.8.1)."""
        group, element = attribute.path[0][:4], attribute.path[0][6:]
        actual = f"('{group}' || substr(b.key, 7, 2) || '{element}')"
        creator = self.bind(attribute.creator)
        block = f"b.key ~ '^{group}00[1-9A-F][0-9A-F]$' AND b.value->'Value'->>0 = {creator}"
        return _exists(f"jsonb_each({where}) AS b(key, value)", f"{block} AND {condition(actual)}")

    def _any_value(self, where: str, tag: str, attribute: Attribute, value: str) -> str:
        """Return that one of the values in the DICOM JSON matches; `tag` is digits or, quoted, an SQL expression."""
        key = tag if tag[0] in "('" else _quoted(tag)
        if self._request.empty and value == '""':
            return f"coalesce({where}->{key}->'Value' IN ('[]', '[null]', '[\"\"]'), true)"
        test = self._value_test(attribute, value)
        return _exists(f"jsonb_array_elements({where}->{key}->'Value') AS w(v)", test)

    def _value_test(self, attribute: Attribute, value: str) -> str:
        text = "(w.v #>> '{}')"
        if attribute.vr in _RANGE_VRS:
            low, high = ranges.bounds(value, attribute.vr, attribute.name)
            point = f'{text} COLLATE "C"'
            if attribute.vr == "DT":
                point = f"regexp_replace({text}, '[+-][0-9]{{4}}$', '') COLLATE \"C\""
            return f"{point} >= {self.bind(low)}::text AND {point} <= {self.bind(high)}::text"
        if attribute.vr in _NUMBER_VRS:
            numbers = [_number(attribute, part) for part in self._texts(attribute, value)]
            return _exists(f"unnest({self.bind(numbers)}::numeric[]) AS n(n)", "to_jsonb(n.n) = w.v")
        if attribute.vr == "PN":
            groups = "jsonb_each_text(CASE jsonb_typeof(w.v) WHEN 'object' THEN w.v ELSE '{}' END) AS g(k, t)"
            return _exists(groups, f"g.t ILIKE {self.bind(_pattern(value))}")
        if _is_wild(value) and attribute.vr in _WILD_VRS:
            return f"{text} LIKE {self.bind(_pattern(value))}"
        return f"{text} = ANY({self.bind(self._texts(attribute, value))}::text[])"

    def _texts(self, attribute: Attribute, value: str) -> list[str]:
        """Return the values one of which has to be there: a list of UIDs, or with multiplevaluematching of any kind."""
        if attribute.vr == "UI":
            return _listed(value)
        return [part.strip() for part in value.split("\\")] if self._request.multiple else [value]


def _exists(source: str, condition: str) -> str:
    return f"EXISTS (SELECT 1 FROM {source} WHERE {condition})"  # noqa: S608  our own texts, placeholders and hex digits


def _listed(value: str) -> list[str]:
    return [part.strip() for part in re.split(r"[,\\]", value)]


def _is_wild(value: str) -> bool:
    return "*" in value or "?" in value


def _pattern(value: str) -> str:
    """Wildcards as LIKE writes them."""
    return re.sub(r"([\\%_])", r"\\\1", value).replace("*", "%").replace("?", "_")


def _quoted(tag: str) -> str:
    return f"'{tag}'"


def _number(attribute: Attribute, value: str) -> Decimal:
    try:
        number = Decimal(value)
    except InvalidOperation as exc:
        raise InvalidRequestError("A number is expected", expression=[attribute.name]) from exc
    if not number.is_finite() or abs(number.adjusted()) > 400:
        raise InvalidRequestError("A number is expected", expression=[attribute.name])
    return number
