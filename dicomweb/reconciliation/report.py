"""What was found out of line and what became of it: as data, as text and as a page for administrators (zh-CN, en)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dicomweb.reconciliation.kinds import KINDS

FILES = {"zh-CN": "drift.html", "en": "drift.en.html"}
_MOST_ROWS = 200
_COUNTS = """SELECT kind, state, count(*), sum(instances)::bigint, max(coalesce(ended_at, seen_at))
    FROM dicomweb.drift GROUP BY 1, 2"""
_ROWS = """SELECT id, study_instance_uid, kind, state, instances, detail, found_at, seen_at, ended_at, decided_by
    FROM dicomweb.drift WHERE (state = 'open') = $1 ORDER BY coalesce(ended_at, found_at) DESC, id DESC LIMIT $2"""
_RUN = "SELECT studies, found, started_at, ended_at FROM dicomweb.comparison ORDER BY id DESC LIMIT 1"
_TEXTS: dict[str, dict[str, str]] = {
    "zh-CN": {
        "title": "影像归档核对报告",
        "other": "English",
        "intro": "归档（Orthanc）、检索索引与病历（ImagingStudy）三方核对的结果。本页只含 UID 与数量，不含患者信息。",
        "made": "生成于",
        "waiting": "待人工处理",
        "none_waiting": "没有待处理的差异。",
        "kinds": "按类别统计",
        "recent": "最近已处理",
        "none_recent": "还没有处理过差异。",
        "none_found": "还没有发现过差异。",
        "kind": "类别",
        "study": "检查 UID",
        "instances": "影像数",
        "found": "发现于",
        "ended": "处理于",
        "state": "结果",
        "by": "决定人",
        "number": "编号",
        "open": "待处理",
        "mended": "已修复",
        "confirmed": "已确认",
        "resolved": "已消失",
        "last": "最近一次",
        "run": "最近一次全量核对",
        "run_none": "尚未做过全量核对（foramen reconcile）。",
        "run_open": "未完成，下次从中断处继续",
        "studies": "项检查",
        "confirm": "确认：",
        "number_word": "编号",
        "account": "账号",
        "cause": "原因消除后自动消失",
        "more": "只列出最近 200 条。",
    },
    "en": {
        "title": "Reconciliation of the image archive",
        "other": "中文",
        "intro": "Archive (Orthanc), index and record (ImagingStudy) compared. UIDs and numbers, no patient data.",
        "made": "Made",
        "waiting": "Waiting for a person",
        "none_waiting": "Nothing is waiting.",
        "kinds": "By kind",
        "recent": "Ended lately",
        "none_recent": "Nothing ended yet.",
        "none_found": "Nothing was out of line yet.",
        "kind": "Kind",
        "study": "Study Instance UID",
        "instances": "Instances",
        "found": "Found",
        "ended": "Ended",
        "state": "Outcome",
        "by": "Decided by",
        "number": "No.",
        "open": "Open",
        "mended": "Mended",
        "confirmed": "Confirmed",
        "resolved": "Gone",
        "last": "Latest",
        "run": "Last comparison of everything",
        "run_none": "Everything was never compared yet (foramen reconcile).",
        "run_open": "not finished; the next one goes on from there",
        "studies": "studies",
        "confirm": "Confirm:",
        "number_word": "NO",
        "account": "ACCOUNT",
        "cause": "Ends with its cause",
        "more": "The latest 200 are listed.",
    },
}


async def report_data(connection: Any, now: datetime | None = None) -> dict[str, Any]:
    """Return the report as JSON-ready data: the last comparison, counts by kind, what waits, what ended lately."""
    counts: dict[str, dict[str, Any]] = {}
    for row in await connection.fetch(_COUNTS):
        one = counts.setdefault(row[0], {"instances": 0, "last": None})
        one[row[1]] = row[2]
        one["instances"] += row[3]
        one["last"] = max(filter(None, (one["last"], _text(row[4]))))
    run = await connection.fetchrow(_RUN)
    return {
        "made": _text(now or datetime.now(UTC)),
        "run": None
        if run is None
        else {"studies": run[0], "found": run[1], "started": _text(run[2]), "ended": _text(run[3])},
        "kinds": [_kind(code, counts[code]) for code in KINDS if code in counts],
        "waiting": [_row(row) for row in await connection.fetch(_ROWS, True, _MOST_ROWS)],
        "ended": [_row(row) for row in await connection.fetch(_ROWS, False, _MOST_ROWS)],
    }


def _kind(code: str, counted: dict[str, Any]) -> dict[str, Any]:
    kind = KINDS[code]
    states = {state: counted.get(state, 0) for state in ("open", "mended", "confirmed", "resolved")}
    words = {"zh-CN": kind.zh, "en": kind.en}
    return {"kind": code, "words": words, **states, "instances": counted["instances"], "last": counted["last"]}


def _row(row: Any) -> dict[str, Any]:
    kind = KINDS[row["kind"]]
    return {
        "id": row["id"],
        "study": row["study_instance_uid"],
        "kind": kind.code,
        "words": {"zh-CN": kind.zh, "en": kind.en},
        "canConfirm": kind.can_confirm,
        "state": row["state"],
        "instances": row["instances"],
        "found": _text(row["found_at"]),
        "seen": _text(row["seen_at"]),
        "ended": _text(row["ended_at"]),
        "decidedBy": row["decided_by"],
        **row["detail"],
    }


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def report_text(data: dict[str, Any]) -> str:
    """Return the report as lines of text."""
    lines = [f"{'kind':<20} {'open':>6} {'mended':>7} {'confirmed':>10} {'gone':>6}  latest"]
    for one in data["kinds"]:
        numbers = f"{one['open']:>6} {one['mended']:>7} {one['confirmed']:>10} {one['resolved']:>6}"
        lines.append(f"{one['kind']:<20} {numbers}  {one['last']}")
    for one in data["waiting"]:
        how = f"--confirm {one['id']}" if one["canConfirm"] else "ends with its cause"
        lines.append(f"waits: {one['kind']} {one['study']} ({one['instances']} instances, {how})")
    return "\n".join(lines)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    loader = PackageLoader("dicomweb.reconciliation", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def report_page(lang: str, data: dict[str, Any], places: Mapping[str, str] = FILES) -> str:
    """Draw the page in a language.

    Parameters
    ----------
    places : where the page in each language is, as a link says it
    """
    other = next(name for name in FILES if name != lang)
    values = {"lang": lang, "t": _TEXTS[lang], "other_lang": other, "other_file": places[other]}
    return _environment().get_template("drift.html").render(values | data)
