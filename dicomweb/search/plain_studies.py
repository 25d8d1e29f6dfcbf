"""Studies as text: what most searches return is put together by the database, and parsed and written nowhere else.

PS3.18 Table 10.6.3-3 and §F.2 (tags in order). A hundred studies were taken apart and put together again for more than
their search cost. What is only returned lies beside its row and compressed: it is fetched once a row, after the paging.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

_PATH = "00081190"
_UID = "0020000D"


class PlainStudies:
    """The shape of an answer of studies without private attributes and parts of sequences.

    Parameters
    ----------
    picked : tags of attributes of the study to return
    counts : tag → (VR, SQL on alias s) of what the index counts; a number (IS), or an array
    fixed : tag → the same element in every result
    base : of the API, for Retrieve URL
    """

    def __init__(
        self, picked: Iterable[str], counts: Mapping[str, tuple[str, str]], fixed: Mapping[str, Any], base: str
    ) -> None:
        self._counts = counts
        members = {tag: f"""'"{tag}":' || (o.a->'{tag}')::text""" for tag in picked}
        members |= {tag: _quoted(f'"{tag}":{orjson.dumps(value).decode()}') for tag, value in fixed.items()}
        members |= {tag: _element(tag, vr, _values(vr, f'o."{tag}"')) for tag, (vr, _) in counts.items()}
        members[_UID] = _element(_UID, "UI", "'[' || to_json(o.study_uid)::text || ']'")
        path = f"to_json({_quoted(f'{base}/studies/')} || o.study_uid)::text"
        members[_PATH] = _element(_PATH, "UR", f"'[' || {path} || ']'")
        # What a study does not have is NULL, which concat_ws leaves out with its comma.
        self._text = f"'{{' || concat_ws(',', {', '.join(members[tag] for tag in sorted(members))}) || '}}'"

    def select(self, tables: str, where: str, order: str, limit: str, offset: str) -> str:
        """Return the statement of one page: paged first, then each row's attributes fetched once, then picked from."""
        counts = [f', {sql} AS "{tag}"' for tag, (_, sql) in self._counts.items()]
        page = f"""SELECT s.study_instance_uid AS study_uid, s.attributes AS kept{"".join(counts)} FROM {tables}
            WHERE {where} ORDER BY {order} LIMIT {limit} OFFSET {offset}"""  # noqa: S608  our own texts
        # Joined with nothing, what was compressed and lies elsewhere becomes a value at hand; OFFSET keeps it one.
        fetched = f"SELECT p.*, p.kept || '{{}}'::jsonb AS a FROM ({page}) p OFFSET 0"  # noqa: S608
        return f"SELECT {self._text} AS text FROM ({fetched}) o"  # noqa: S608

    def json(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """Return the results as DICOM JSON."""
        return f"[{','.join([row['text'] for row in rows])}]".encode()


def _element(tag: str, vr: str, values: str) -> str:
    return f"""'"{tag}":{{"vr":"{vr}","Value":' || {values} || '}}'"""


def _values(vr: str, column: str) -> str:
    return f"'[' || {column} || ']'" if vr == "IS" else f"to_json({column})::text"


def _quoted(text: str) -> str:
    """Return an SQL string of it."""
    return "'" + text.replace("'", "''") + "'"
