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
    counts : tag → (VR, SQL on alias s) of what the index counts
    fixed : tag → the same element in every result
    base : of the API, for Retrieve URL
    """

    def __init__(
        self, picked: Iterable[str], counts: Mapping[str, tuple[str, str]], fixed: Mapping[str, Any], base: str
    ) -> None:
        self._counts, self._base = counts, base
        self._fixed = {tag: f'"{tag}":{orjson.dumps(value).decode()}' for tag, value in fixed.items()}
        own = {_PATH, _UID, *counts, *fixed}
        self._runs: list[list[str]] = []
        self._layout: list[str] = []
        """Tags of our own, and numbers of runs of attributes between them, in order of the tags."""
        for tag in sorted({*picked, *own}):
            if tag in own:
                self._layout.append(tag)
            elif self._layout and self._layout[-1].startswith("run"):
                self._runs[-1].append(tag)
            else:
                self._layout.append(f"run{len(self._runs)}")
                self._runs.append([tag])

    def select(self, tables: str, where: str, order: str, limit: str, offset: str) -> str:
        """Return the statement of one page: paged first, then each row's attributes fetched once, then picked from."""
        counts = [f', {sql} AS "{tag}"' for tag, (_, sql) in self._counts.items()]
        page = f"""SELECT s.study_instance_uid AS study_uid, s.attributes AS kept{"".join(counts)} FROM {tables}
            WHERE {where} ORDER BY {order} LIMIT {limit} OFFSET {offset}"""  # noqa: S608  our own texts
        named = "".join(f', o."{tag}"' for tag in self._counts)
        runs = "".join(f", {_run(tags)} AS run{number}" for number, tags in enumerate(self._runs))
        # Joined with nothing, what was compressed and lies elsewhere becomes a value at hand; OFFSET keeps it one.
        fetched = f"SELECT p.*, p.kept || '{{}}'::jsonb AS a FROM ({page}) p OFFSET 0"  # noqa: S608
        return f"SELECT o.study_uid{named}{runs} FROM ({fetched}) o"  # noqa: S608

    def json(self, rows: Sequence[Mapping[str, Any]]) -> bytes:
        """Return the results as DICOM JSON."""
        return f"[{','.join(map(self._text, rows))}]".encode()

    def _text(self, row: Mapping[str, Any]) -> str:
        parts = []
        for name in self._layout:
            if name.startswith("run"):
                if row[name]:
                    parts.append(row[name])
            elif name in self._fixed:
                parts.append(self._fixed[name])
            elif name == _PATH:
                parts.append(_element(name, "UR", f"{self._base}/studies/{row['study_uid']}"))
            elif name == _UID:
                parts.append(_element(name, "UI", row["study_uid"]))
            else:
                parts.append(_element(name, self._counts[name][0], row[name]))
        return f"{{{','.join(parts)}}}"


def _run(tags: Sequence[str]) -> str:
    members = ", ".join(f"""'"{tag}":' || (o.a->'{tag}')::text""" for tag in tags)
    return f"concat_ws(',', {members})"


def _element(tag: str, vr: str, value: Any) -> str:
    values = orjson.dumps(value if isinstance(value, list) else [value]).decode()
    return f'"{tag}":{{"vr":"{vr}","Value":{values}}}'
