"""Words of the audit trail."""

from __future__ import annotations

WORDS: dict[str, dict[str, str]] = {
    "zh": {
        "audit": "审计记录",
        "audit_lead": "谁在何时对什么做了什么；最新的在前，时间为 UTC。查看本身也会被记录。",
        "audit_since": "起始日期",
        "audit_until": "截止日期",
        "audit_patient": "患者编号",
        "audit_what": "操作代码",
        "audit_people": "仅人员，不含系统服务",
        "audit_emergency": "紧急访问",
        "audit_of_emergency": "仅显示一次紧急访问期间的记录。",
        "audit_newest": "回到最新",
        "audit_older": "更早的记录",
        "audit_csv": "导出 CSV",
        "audit_ndjson": "导出 NDJSON",
        "audit_most": "每次最多导出 {most} 条；更多请缩小日期范围，或用 foramen audit 命令。",
    },
    "en": {
        "audit": "Audit trail",
        "audit_lead": "Who did what to what, and when; the newest first, in UTC. Looking is recorded too.",
        "audit_since": "From day",
        "audit_until": "To day",
        "audit_patient": "Patient id",
        "audit_what": "Code of what was done",
        "audit_people": "people, not our own services",
        "audit_emergency": "emergency access",
        "audit_of_emergency": "Only what was done under one emergency access.",
        "audit_newest": "Back to the newest",
        "audit_older": "Older ones",
        "audit_csv": "Export CSV",
        "audit_ndjson": "Export NDJSON",
        "audit_most": "An export holds {most} events at most; for more, narrow the days or use foramen audit.",
    },
}

MESSAGES_ZH = {
    "A day is written as 2026-01-31": "日期格式为 2026-01-31",
    "An outcome is 0, 4, 8 or 12": "结果为 0、4、8 或 12",
    "Events are those of people, or all": "操作者为人员或全部",
    "An export is csv or ndjson": "导出格式为 csv 或 ndjson",
}
