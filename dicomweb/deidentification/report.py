"""The verification report of a run: report.json, and a page in Chinese and in English. Nothing in it identifies."""

from __future__ import annotations

import json
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dicomweb.deidentification.profile import rules, table_editions
from dicomweb.deidentification.report_text import TEXTS
from dicomweb.deidentification.run import Project, RunReport, write_whole

_FILES = {"zh-CN": "report.html", "en": "report.en.html"}


def report_content(report: RunReport, project: Project, made_at: datetime) -> dict[str, Any]:
    """Return the report as JSON has it. Pure."""
    return {
        "project": project.name,
        "rules_version": rules()["version"],
        "table_editions": table_editions(),
        "options": project.profile.options.names(),
        "made_at": made_at.isoformat(timespec="seconds"),
        "read": report.read,
        "written": report.written,
        "bytes_written": report.bytes_written,
        "no_dicom": report.no_dicom,
        "held_back_total": sum(report.held_back.values()),
        "held_back": dict(sorted(report.held_back.items())),
        "survivors": [
            {"attribute": one.attribute, "where": one.where, "count": count} for one, count in report.survivors.items()
        ],
        "series": [
            {
                **{"patient": patient, "study": study, "series": series, "modality": row.modality},
                **{"description": row.description, "written": row.written, "held_back": sum(row.held_back.values())},
                **{"frames_searched": row.frames_searched, "text_regions": row.text_regions},
                "blackened": row.blackened,
            }
            for (patient, study, series), row in report.series.items()
        ],
        "actions": [
            {"attribute": attribute, "action": action, "count": count}
            for (attribute, action), count in sorted(report.actions.items())
        ],
    }


@lru_cache(maxsize=1)
def _environment() -> Environment:
    loader = PackageLoader("dicomweb.deidentification", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def report_page(content: dict[str, Any], lang: str) -> str:
    """Draw the page in a language."""
    other = next(name for name in _FILES if name != lang)
    template = _environment().get_template("report.html")
    return template.render(report=content, t=TEXTS[lang], lang=lang, other_lang=other, other_file=_FILES[other])


def write_report(folder: Path, content: dict[str, Any]) -> None:
    """Write report.json, report.html and report.en.html into a folder."""
    write_whole(folder / "report.json", (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode())
    for lang, name in _FILES.items():
        write_whole(folder / name, report_page(content, lang).encode())
